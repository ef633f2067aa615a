//! Stream shift: what runs past the blocks moves by a constant after one of them, `R^c` for each block
//! that no hardball follows.
//!
//! ```text
//! u -> u + t      from that block on, to the end of the stream
//!
//! conv3           b -> b + t                of that block
//! conv1, skip     b -> b - W t              of every later reader, and where the next stream begins
//! ```
//!
//! Where the stream ends before the head, in the final hardball, the last block's conv3 takes `t` back:
//! `b -> b - t`.

use candle_core::Tensor;
use rand::rngs::ChaCha8Rng;

use super::{Family, Subgroup};
use crate::error::Result;
use crate::symmetry::element::{Element, Op};
use crate::symmetry::matrices;
use crate::symmetry::structure::{BlockAt, Stream, at_open_boundaries, streams};
use crate::weights::Weights;
use crate::weights::config::Config;

pub struct StreamShift;

/// After `block`, which is followed by `stream.blocks[after..]`; `t` is `[c]`.
pub(in crate::symmetry) fn element(stream: &Stream, block: &BlockAt, after: usize, t: &Tensor) -> Result<Element> {
    let forget = |conv| Op::AbsorbShift { conv, shift: t.clone() };
    let mut reading: Vec<Op> = stream.readers_from(after).into_iter().filter(|conv| conv != "fc").map(forget).collect();
    if stream.next.is_none()
        && let Some(last) = stream.blocks.last()
    {
        reading.push(Op::AddToBias { conv: last.conv("conv3"), shift: t.neg()? });
    }
    Ok(Element::new(vec![Op::AddToBias { conv: block.conv("conv3"), shift: t.clone() }], reading))
}

/// Makes an element for each block, by the constants that `shift` gives.
fn elements(config: &Config, layer: Option<usize>, mut shift: impl FnMut(usize) -> Result<Tensor>) -> Result<Element> {
    at_open_boundaries(config, layer, |stream, block, after| element(stream, block, after, &shift(stream.width)?))
}

impl Family for StreamShift {
    fn name(&self) -> &'static str {
        "stream-shift"
    }

    fn group(&self) -> &'static str {
        "R per channel and block"
    }

    fn in_words(&self) -> &'static str {
        "What runs past the blocks is shifted by constants; later biases take them out."
    }

    fn dimensions(&self, config: &Config, layer: Option<usize>) -> usize {
        streams(config, layer).iter().map(|stream| stream.width * stream.open_boundaries().len()).sum()
    }

    fn random(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Element> {
        elements(weights.config(), layer, |width| matrices::shift(width, rng))
    }

    fn subgroup(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Option<Subgroup>> {
        let config = weights.config().clone();
        let mut shifts = Vec::new();
        elements(&config, layer, |width| {
            shifts.push(matrices::shift(width, rng)?);
            Ok(shifts[shifts.len() - 1].clone())
        })?;
        Ok(Some(Box::new(move |t| {
            let mut next = shifts.iter();
            elements(&config, layer, |_| Ok((next.next().expect("one for each block") * t)?))
        })))
    }
}
