//! Evens out the weights: of all networks that are the same by product balance, product scale and
//! scalings of single filters, the one in which the four that belong together have equal norms: the two
//! factors of a hidden channel, its filters, and the columns of conv3 that read them.

use anyhow::Result;
use candle_core::{DType, Tensor};
use serde::Serialize;

use super::check::Subject;
use super::filter_mixing;
use super::structure::{Block, blocks};
use super::{Side, product_balance, product_scale};
use crate::fold::Weights;

/// The balanced weights, in float64. Channels with a factor, filter or column that is zero stay as they
/// are.
///
/// # Errors
/// If the weights are not those of their configuration.
pub fn balance(weights: &Weights) -> Result<Weights> {
    let mut weights = weights.to_dtype(DType::F64)?;
    let config = weights.config.clone();
    for block in blocks(&config, None) {
        let Norms { first, second, filters, columns } = Norms::of(&weights, &block)?;
        // t a = b / t
        let t = or_one(&(&second / &first)?.sqrt()?)?;
        // With the filters' norms `k / s` and the columns' `c`, filters scaled by `m` have `m k / s = c / m`.
        // The mean square over the filters of a channel equals that of the factors: s |a| |b| = mean(k c) / s.
        let s = or_one(&((&filters * &columns)?.mean(1)? / (&first * &second)?)?.sqrt()?)?;
        let m = or_one(&(columns / filters.broadcast_div(&s.unsqueeze(1)?)?)?.sqrt()?)?;
        // The factors share the scale of the product: half of it each.
        let t = (t * s.sqrt()?.recip()?)?;
        product_balance::element(&block, &t)?.apply(&mut weights, Side::Both)?;
        product_scale::element(&block, &s)?.apply(&mut weights, Side::Both)?;
        filter_mixing::diagonal(&block, &m.flatten_all()?)?.apply(&mut weights, Side::Both)?;
    }
    Ok(weights)
}

/// Norms of what belongs to each hidden channel of a block.
struct Norms {
    /// `[w]`, of weight and bias together.
    first: Tensor,
    second: Tensor,
    /// `[w, f]`, of weight and bias together.
    filters: Tensor,
    /// `[w, f]`
    columns: Tensor,
}

impl Norms {
    fn of(weights: &Weights, block: &Block) -> Result<Self> {
        let (w, f) = (block.config.hidden, block.config.filters);
        let tensor = |part: &str, kind: &str| weights.tensors[&format!("{}.{kind}", block.conv(part))].clone();
        let rows = |part: &str| -> Result<Tensor> {
            let (weight, bias) = (tensor(part, "weight"), tensor(part, "bias"));
            let squares = weight.flatten_from(1)?.sqr()?.sum(1)?;
            Ok((squares + bias.sqr()?)?.sqrt()?)
        };
        let factors = rows("conv1")?;
        let columns = tensor("conv3", "weight").flatten_from(1)?.sqr()?.sum(0)?.sqrt()?;
        Ok(Self {
            first: factors.narrow(0, 0, w)?,
            second: factors.narrow(0, w, w)?,
            filters: rows("conv2")?.reshape((w, f))?,
            columns: columns.reshape((w, f))?,
        })
    }
}

/// One in place of what is zero or not finite.
fn or_one(x: &Tensor) -> Result<Tensor> {
    let usable = (x.gt(0.0)? * x.lt(f64::INFINITY)?)?;
    Ok(usable.where_cond(x, &x.ones_like()?)?)
}

/// How far the logits in half precision are from those in full, relative to the largest, in root mean
/// square.
#[derive(Clone, Debug, Serialize)]
pub struct HalfPrecision {
    pub dtype: &'static str,
    /// With the weights as they were, and balanced.
    pub given: f64,
    pub balanced: f64,
}

impl Subject {
    /// What balancing does to the logits in half precision.
    ///
    /// # Errors
    /// If the device does not compute in it.
    pub fn half_precision(&self, balanced: &Weights, dtype: DType) -> Result<HalfPrecision> {
        let error = |weights: &Weights| self.error_in(weights, dtype);
        Ok(HalfPrecision { dtype: dtype.as_str(), given: error(&self.weights)?, balanced: error(balanced)? })
    }
}
