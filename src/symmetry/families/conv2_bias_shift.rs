//! conv2 bias shift: a constant moves from the depthwise convolution to the one after it, `R^(f w)` for
//! each block.
//!
//! ```text
//! conv2       b -> b + d
//! conv3       b -> b - W d
//! ```

use candle_core::Tensor;
use rand::rngs::ChaCha8Rng;

use super::{Family, Subgroup, per_block};
use crate::error::Result;
use crate::symmetry::element::{Element, Op, tensor};
use crate::symmetry::matrices;
use crate::symmetry::structure::{BlockAt, blocks};
use crate::weights::Weights;
use crate::weights::config::Config;

pub struct Conv2BiasShift;

/// `d` is `[f w]`.
pub(in crate::symmetry) fn element(block: &BlockAt, d: &Tensor) -> Result<Element> {
    Ok(Element::new(
        vec![Op::AddToBias { conv: block.conv("conv2"), shift: d.clone() }],
        vec![Op::AbsorbShift { conv: block.conv("conv3"), shift: d.clone() }],
    ))
}

/// A shift `[f w]` that is about as large as the biases, or as the weights where all biases are zero.
fn shift(weights: &Weights, block: &BlockAt, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let conv2 = block.conv("conv2");
    let size = |part: &str| -> Result<f64> {
        Ok(tensor(weights, &conv2, part)?.sqr()?.mean_all()?.sqrt()?.to_scalar::<f64>()?)
    };
    let of = match size("bias")? {
        0.0 => size("weight")?,
        of => of,
    };
    Ok((matrices::normal(tensor(weights, &conv2, "bias")?.dims1()?, rng)? * of)?)
}

impl Family for Conv2BiasShift {
    fn name(&self) -> &'static str {
        "conv2-bias-shift"
    }

    fn group(&self) -> &'static str {
        "R per filter"
    }

    fn in_words(&self) -> &'static str {
        "What the 3x3 kernels make is shifted by constants; the next bias takes them out."
    }

    fn dimensions(&self, config: &Config, layer: Option<usize>) -> usize {
        blocks(config, layer).map(|block| block.config.hidden_channels * block.config.filters).sum()
    }

    fn random(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Element> {
        let draw = |block: &BlockAt| shift(weights, block, rng);
        per_block::random(weights.config(), layer, draw, element)
    }

    fn subgroup(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Option<Subgroup>> {
        let draw = |block: &BlockAt, rng: &mut ChaCha8Rng| shift(weights, block, rng);
        per_block::subgroup(weights.config(), layer, rng, draw, |a| Ok(a.clone()), element)
    }
}
