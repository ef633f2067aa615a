//! Factor swap: the two factors of a hidden channel change places, for any of the channels.
//!
//! ```text
//! a b -> b a
//!
//! conv1       the rows of the two factors change places, in weight and bias
//! ```

use rand::Rng;
use rand::rngs::ChaCha8Rng;

use super::{Family, Subgroup};
use crate::error::Result;
use crate::symmetry::element::{Element, Op};
use crate::symmetry::structure::{BlockAt, blocks};
use crate::weights::Weights;
use crate::weights::config::Config;

pub struct FactorSwap;

/// Where `swapped`, the factors of a channel change places.
///
/// In two halves: the first also moves every second factor one channel on, and the second moves it back.
/// One half alone pairs factors of different channels.
fn element(block: &BlockAt, swapped: &[bool]) -> Element {
    let w = block.config.hidden_channels as u32;
    let row = |channel: u32, second: bool| channel + if second != swapped[channel as usize] { w } else { 0 };
    let firsts = (0..w).map(|channel| row(channel, false));
    let seconds = (0..w).map(|channel| row((channel + 1) % w, true));
    let back = (0..w).chain((0..w).map(|channel| w + (channel + w - 1) % w));
    let permute = |order: Vec<u32>| vec![Op::PermuteOutputs { conv: block.conv("conv1"), order }];
    Element::new(permute(firsts.chain(seconds).collect()), permute(back.collect()))
}

/// With one hidden channel there is no other to pair with, and nothing to show.
fn movable(config: &Config, layer: Option<usize>) -> impl Iterator<Item = BlockAt<'_>> {
    blocks(config, layer).filter(|block| block.config.hidden_channels > 1)
}

impl Family for FactorSwap {
    fn name(&self) -> &'static str {
        "factor-swap"
    }

    fn group(&self) -> &'static str {
        "two elements per hidden channel"
    }

    fn in_words(&self) -> &'static str {
        "The two factors of a product change places."
    }

    fn dimensions(&self, _: &Config, _: Option<usize>) -> usize {
        0
    }

    fn random(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Element> {
        Ok(movable(weights.config(), layer).fold(Element::default(), |sum, block| {
            let swapped: Vec<bool> = (0..block.config.hidden_channels).map(|_| rng.next_u32() & 1 == 1).collect();
            sum.and(element(&block, &swapped))
        }))
    }

    fn subgroup(&self, _: &Weights, _: Option<usize>, _: &mut ChaCha8Rng) -> Result<Option<Subgroup>> {
        Ok(None)
    }
}
