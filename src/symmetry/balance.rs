//! Evens out the weights: of all networks that are the same by product balance, product scale and scalings
//! of single filters, the one with the smallest sum of squares of conv1 with its biases, conv2 and conv3.
//!
//! Per hidden channel, with the norms `a` and `b` of the two factors and `k_j` and `c_j` of each filter and
//! of the column that reads it, the sum of squares is least where
//!
//! ```text
//! s^2   = (sum over j of k_j c_j) / (a b)     the product times s, the filters divided by it
//! t^2   = b / (s a)                           the first factor times t s, the second divided by t
//! m_j^2 = c_j s / k_j                         each filter times m, its column divided by it
//! ```
//!
//! Then the two factors have one norm, and so have each filter and its column.

use candle_core::{DType, Tensor};
use serde::Serialize;

use super::check::Subject;
use super::element::{Element, Side, tensor};
use super::families::{filter_mixing, product_balance, product_scale};
use super::structure::{BlockAt, blocks};
use crate::error::Result;
use crate::network::Precision;
use crate::weights::Weights;

/// The balanced weights, in float64: the same network. A factor that would be zero or infinite is left at one.
///
/// # Errors
/// [`Error::Compute`](crate::error::Error::Compute) if there is no memory.
pub fn balance(weights: &Weights) -> Result<Weights> {
    let mut weights = weights.to_dtype(DType::F64)?;
    let config = weights.config().clone();
    for block in blocks(&config, None) {
        for element in elements(&weights, &block)? {
            element.apply(&mut weights, Side::Both)?;
        }
    }
    Ok(weights)
}

/// The part of [`balance`] that is product balance and product scale, as elements for weights in float64.
///
/// # Errors
/// [`Error::Compute`](crate::error::Error::Compute) if there is no memory.
pub fn balance_products(weights: &Weights) -> Result<Vec<Element>> {
    let mut sums = vec![Element::default(); 2];
    for block in blocks(weights.config(), None) {
        let [balance, scale, _] = elements(weights, &block)?;
        sums = sums.into_iter().zip([balance, scale]).map(|(sum, element)| sum.and(element)).collect();
    }
    Ok(sums)
}

/// Of one block: of product balance, product scale and the scalings of single filters.
fn elements(weights: &Weights, block: &BlockAt) -> Result<[Element; 3]> {
    let Norms { first, second, filters, columns } = Norms::of(weights, block)?;
    let s = or_one(&((&filters * &columns)?.sum(1)? / (&first * &second)?)?.sqrt()?)?;
    let t = or_one(&(second / (&first * &s)?)?.sqrt()?)?;
    let m = or_one(&(columns.broadcast_mul(&s.unsqueeze(1)?)? / filters)?.sqrt()?)?;
    Ok([
        product_balance::element(block, &t)?,
        product_scale::element(block, &s)?,
        filter_mixing::diagonal(block, &m.flatten_all()?)?,
    ])
}

/// Norms of what belongs to each of the `w` hidden channels of a block, with `f` filters each.
struct Norms {
    /// Of the rows of the first factor, weight and bias together: `[w]`.
    first: Tensor,
    /// Of those of the second factor, likewise.
    second: Tensor,
    /// Of the filters, without their biases: `[w, f]`.
    filters: Tensor,
    /// Of the columns of conv3 that read the filters: `[w, f]`.
    columns: Tensor,
}

impl Norms {
    fn of(weights: &Weights, block: &BlockAt) -> Result<Self> {
        let (w, f) = (block.config.hidden_channels, block.config.filters);
        let squares = |part: &str, along: usize| -> Result<Tensor> {
            Ok(tensor(weights, &block.conv(part), "weight")?.flatten_from(1)?.sqr()?.sum(along)?)
        };
        let bias = tensor(weights, &block.conv("conv1"), "bias")?;
        let factors = (squares("conv1", 1)? + bias.sqr()?)?.sqrt()?;
        Ok(Self {
            first: factors.narrow(0, 0, w)?,
            second: factors.narrow(0, w, w)?,
            filters: squares("conv2", 1)?.sqrt()?.reshape((w, f))?,
            columns: squares("conv3", 0)?.sqrt()?.reshape((w, f))?,
        })
    }
}

/// One in place of what is zero or not finite.
fn or_one(x: &Tensor) -> Result<Tensor> {
    let usable = (x.gt(0.0)? * x.lt(f64::INFINITY)?)?;
    Ok(usable.where_cond(x, &x.ones_like()?)?)
}

/// How far the logits in half precision are from those of the subject, in root mean square, relative to the
/// largest logit.
#[derive(Clone, Debug, Serialize)]
pub struct HalfPrecision {
    /// `f16`, `bf16` or `int8`.
    pub dtype: &'static str,
    /// With the weights as they were.
    pub given: f64,
    /// With the balanced weights.
    pub balanced: f64,
}

impl Subject {
    /// What balancing does to the logits in half precision. `balanced` are the weights that [`balance`] makes
    /// of those of the subject.
    ///
    /// # Errors
    /// As [`Self::error_in`].
    pub fn half_precision(&self, balanced: &Weights, precision: Precision) -> Result<HalfPrecision> {
        let error = |weights: &Weights| self.error_in(weights, precision);
        Ok(HalfPrecision { dtype: precision.name(), given: error(self.weights())?, balanced: error(balanced)? })
    }
}
