//! Product balance: of the two factors of a hidden channel, one grows as the other shrinks, `R*` for
//! each channel.
//!
//! ```text
//! a, b -> t a, b / t      so a b stays
//!
//! conv1       W -> t W,  b -> t b          of the first factor's rows
//!             W -> W / t,  b -> b / t      of the second's
//! ```

use candle_core::Tensor;
use rand::rngs::ChaCha8Rng;

use super::{Family, Subgroup, per_block};
use crate::error::Result;
use crate::symmetry::element::{Element, Op, Scaled};
use crate::symmetry::structure::{BlockAt, blocks};
use crate::weights::Weights;
use crate::weights::config::Config;

pub struct ProductBalance;

/// `t` is `[w]`.
pub(in crate::symmetry) fn element(block: &BlockAt, t: &Tensor) -> Result<Element> {
    let ones = t.ones_like()?;
    let scale = |first: &Tensor, second: &Tensor| -> Result<Op> {
        let factors = Tensor::cat(&[first, second], 0)?;
        Ok(Op::ScaleOutputs { conv: block.conv("conv1"), factors, scaled: Scaled::WeightAndBias })
    };
    Ok(Element::new(vec![scale(t, &ones)?], vec![scale(&ones, &t.recip()?)?]))
}

impl Family for ProductBalance {
    fn name(&self) -> &'static str {
        "product-balance"
    }

    fn group(&self) -> &'static str {
        "R* per hidden channel"
    }

    fn in_words(&self) -> &'static str {
        "Of two factors that are multiplied, one grows as the other shrinks."
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
