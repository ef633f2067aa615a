//! conv2 bias shift: a constant moves from the depthwise convolution to the one after it, `R^(f w)` for
//! each block.
//!
//! ```text
//! conv2       b -> b + d
//! conv3       b -> b - W d
//! ```

use anyhow::Result;
use candle_core::Tensor;
use rand::rngs::ChaCha8Rng;

use super::{Family, Subgroup, per_block};
use crate::symmetry::element::{Element, Op};
use crate::symmetry::matrices;
use crate::symmetry::structure::{Block, blocks};
use crate::weights::config::Config;
use crate::weights::fold::Weights;

pub struct Conv2BiasShift;

/// `d` is `[f w]`.
fn element(block: &Block, d: &Tensor) -> Result<Element> {
    Ok(Element::new(
        vec![Op::AddToBias { conv: block.conv("conv2"), shift: d.clone() }],
        vec![Op::ForgetShift { conv: block.conv("conv3"), shift: d.clone() }],
    ))
}

impl Family for Conv2BiasShift {
    fn name(&self) -> &'static str {
        "conv2-bias-shift"
    }

    fn group(&self) -> &'static str {
        "R per filter"
    }

    fn dimensions(&self, config: &Config, layer: Option<usize>) -> usize {
        blocks(config, layer).map(|block| block.config.hidden_channels * block.config.filters).sum()
    }

    fn random(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Element> {
        let draw = |block: &Block| matrices::like_bias(weights, &block.conv("conv2"), rng);
        per_block::random(&weights.config, layer, draw, element)
    }

    fn subgroup(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Option<Subgroup>> {
        let draw = |block: &Block, rng: &mut ChaCha8Rng| matrices::like_bias(weights, &block.conv("conv2"), rng);
        per_block::subgroup(&weights.config, layer, rng, draw, |a| Ok(a.clone()), element)
    }
}
