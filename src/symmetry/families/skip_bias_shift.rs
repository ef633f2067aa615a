//! Skip bias shift: a constant moves between the two that add up at the end of a block whose skip is a
//! convolution, `R^o` for each such block.
//!
//! ```text
//! conv3       b -> b + t
//! skip        b -> b - t
//! ```

use candle_core::Tensor;
use rand::rngs::ChaCha8Rng;

use super::{Family, Subgroup};
use crate::error::Result;
use crate::symmetry::element::{Element, Op};
use crate::symmetry::matrices;
use crate::symmetry::structure::{BlockAt, blocks};
use crate::weights::Weights;
use crate::weights::config::Config;

pub struct SkipBiasShift;

fn skips(config: &Config, layer: Option<usize>) -> impl Iterator<Item = BlockAt<'_>> {
    blocks(config, layer).filter(|block| block.config.skip.is_convolution())
}

/// `t` is `[o]`.
fn element(block: &BlockAt, t: &Tensor) -> Result<Element> {
    Ok(Element::new(
        vec![Op::AddToBias { conv: block.conv("conv3"), shift: t.clone() }],
        vec![Op::AddToBias { conv: block.conv("skip"), shift: t.neg()? }],
    ))
}

impl Family for SkipBiasShift {
    fn name(&self) -> &'static str {
        "skip-bias-shift"
    }

    fn group(&self) -> &'static str {
        "R per channel of a skip"
    }

    fn in_words(&self) -> &'static str {
        "Constants move from one bias to another that is added to the same sum."
    }

    fn dimensions(&self, config: &Config, layer: Option<usize>) -> usize {
        skips(config, layer).map(|block| block.config.out_channels).sum()
    }

    fn random(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Element> {
        skips(weights.config(), layer).try_fold(Element::default(), |sum, block| {
            Ok(sum.and(element(&block, &matrices::shift(block.config.out_channels, rng)?)?))
        })
    }

    fn subgroup(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Option<Subgroup>> {
        let config = weights.config().clone();
        let shifts: Vec<Tensor> = skips(&config, layer)
            .map(|block| matrices::shift(block.config.out_channels, rng))
            .collect::<Result<_>>()?;
        Ok(Some(Box::new(move |t| {
            skips(&config, layer)
                .zip(&shifts)
                .try_fold(Element::default(), |sum, (block, shift)| Ok(sum.and(element(&block, &(shift * t)?)?)))
        })))
    }
}
