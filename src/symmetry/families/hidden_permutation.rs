//! Hidden permutation: the hidden channels of a block change places, the symmetric group for each block.
//!
//! ```text
//! conv1       rows in the new order, in both factors
//! conv2       rows in the new order, the filters of a channel together
//! conv3       columns likewise
//! ```

use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

use super::{Family, Subgroup};
use crate::error::Result;
use crate::symmetry::element::{Element, Op};
use crate::symmetry::structure::{BlockAt, blocks};
use crate::weights::Weights;
use crate::weights::config::Config;

pub struct HiddenPermutation;

/// `order` has the channel that comes to each place.
fn element(block: &BlockAt, order: &[u32]) -> Element {
    let (w, filters) = (block.config.hidden_channels as u32, block.config.filters as u32);
    let factors = [0, w].into_iter().flat_map(|factor| order.iter().map(move |channel| factor + channel)).collect();
    let filters: Vec<u32> =
        order.iter().flat_map(|channel| (0..filters).map(move |filter| channel * filters + filter)).collect();
    Element::new(
        vec![Op::PermuteOutputs { conv: block.conv("conv1"), order: factors }],
        vec![
            Op::PermuteOutputs { conv: block.conv("conv2"), order: filters.clone() },
            Op::PermuteInputs { conv: block.conv("conv3"), order: filters },
        ],
    )
}

impl Family for HiddenPermutation {
    fn name(&self) -> &'static str {
        "hidden-permutation"
    }

    fn group(&self) -> &'static str {
        "permutations per block"
    }

    fn in_words(&self) -> &'static str {
        "The hidden channels of a block change places."
    }

    fn dimensions(&self, _: &Config, _: Option<usize>) -> usize {
        0
    }

    fn random(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Element> {
        let movable = blocks(weights.config(), layer).filter(|block| block.config.hidden_channels > 1);
        Ok(movable.fold(Element::default(), |sum, block| {
            let mut order: Vec<u32> = (0..block.config.hidden_channels as u32).collect();
            // Not the identity: it would show nothing.
            while order.is_sorted() {
                order.shuffle(rng);
            }
            sum.and(element(&block, &order))
        }))
    }

    fn subgroup(&self, _: &Weights, _: Option<usize>, _: &mut ChaCha8Rng) -> Result<Option<Subgroup>> {
        Ok(None)
    }
}
