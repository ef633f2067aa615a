//! Product scale: a hidden channel gets another unit, `R*` for each channel.
//!
//! ```text
//! a b -> s a b
//!
//! conv1       W -> s W,  b -> s b          of the first factor's rows
//! conv2       W -> W / s                   of the channel's filters, not their biases
//! ```

use candle_core::Tensor;
use rand::rngs::ChaCha8Rng;

use super::{Family, Subgroup, per_block};
use crate::error::Result;
use crate::symmetry::element::{Element, Op, Scaled};
use crate::symmetry::structure::{BlockAt, blocks};
use crate::weights::Weights;
use crate::weights::config::Config;

pub struct ProductScale;

/// `s` is `[w]`.
pub(in crate::symmetry) fn element(block: &BlockAt, s: &Tensor) -> Result<Element> {
    let (hidden, filters) = (block.config.hidden_channels, block.config.filters);
    let factors = Tensor::cat(&[s, &s.ones_like()?], 0)?;
    // The filters of a channel lie side by side.
    let inverse = s.recip()?.unsqueeze(1)?.broadcast_as((hidden, filters))?.flatten_all()?;
    Ok(Element::new(
        vec![Op::ScaleOutputs { conv: block.conv("conv1"), factors, scaled: Scaled::WeightAndBias }],
        vec![Op::ScaleOutputs { conv: block.conv("conv2"), factors: inverse, scaled: Scaled::Weight }],
    ))
}

impl Family for ProductScale {
    fn name(&self) -> &'static str {
        "product-scale"
    }

    fn group(&self) -> &'static str {
        "R* per hidden channel"
    }

    fn in_words(&self) -> &'static str {
        "A product of two factors grows or shrinks, and the 3x3 kernels that read it do the opposite."
    }

    fn dimensions(&self, config: &Config, layer: Option<usize>) -> usize {
        blocks(config, layer).map(|block| block.config.hidden_channels).sum()
    }

    fn random(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Element> {
        per_block::random_by_factors(weights.config(), layer, rng, element)
    }

    fn subgroup(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Option<Subgroup>> {
        per_block::subgroup_by_factors(weights.config(), layer, rng, element)
    }
}
