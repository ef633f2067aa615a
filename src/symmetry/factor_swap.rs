//! Factor swap: the two factors of a hidden channel change places, for any of the channels.
//!
//! ```text
//! a b -> b a
//!
//! conv1       the rows of the two factors change places, in weight and bias
//! ```

use anyhow::Result;
use rand::Rng;
use rand::rngs::ChaCha8Rng;

use super::structure::{Block, blocks};
use super::{Element, Family, Of, Op, Subgroup};
use crate::config::Config;
use crate::fold::Weights;

pub struct FactorSwap;

/// Where `swapped`, the factors of a channel change places. Half of it is the weights alone.
fn element(block: &Block, swapped: &[bool]) -> Element {
    let w = block.config.hidden as u32;
    let rows = |second: bool| {
        (0..w).zip(swapped).map(move |(channel, swapped)| if second != *swapped { w + channel } else { channel })
    };
    let order: Vec<u32> = rows(false).chain(rows(true)).collect();
    let swap = |of| vec![Op::PermuteOutputs { conv: block.conv("conv1"), order: order.clone(), of }];
    Element::new(swap(Of::Weight), swap(Of::Bias))
}

impl Family for FactorSwap {
    fn name(&self) -> &'static str {
        "factor-swap"
    }

    fn group(&self) -> &'static str {
        "two elements per hidden channel"
    }

    fn dimensions(&self, _: &Config, _: Option<usize>) -> usize {
        0
    }

    fn random(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Element> {
        Ok(blocks(&weights.config, layer).fold(Element::default(), |sum, block| {
            let swapped: Vec<bool> = (0..block.config.hidden).map(|_| rng.next_u32() & 1 == 1).collect();
            sum.and(element(&block, &swapped))
        }))
    }

    fn subgroup(&self, _: &Weights, _: Option<usize>, _: &mut ChaCha8Rng) -> Result<Option<Subgroup>> {
        Ok(None)
    }
}
