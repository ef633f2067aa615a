//! Stage rotation: the channels of a stream turn, `O(n)` for each stream that begins with a hardball. (The
//! paper calls what lies between two hardballs a stream.)
//!
//! ```text
//! u -> Q u        everywhere in the stream
//!
//! conv3, skip     W -> Q W,  b -> Q b        of the first block; conv3 of the others
//! conv1, skip     W -> W Q^T                 of what reads u; fc at the end of the last stream
//! ```
//!
//! The hardball scales every pixel by a function of its norm, which `Q` keeps, so it commutes with `Q`.
//! The author's notebook shows one of these, in layer 3.

use candle_core::Tensor;
use rand::rngs::ChaCha8Rng;

use super::{Family, Subgroup};
use crate::error::Result;
use crate::symmetry::element::{Element, Op};
use crate::symmetry::matrices::{self, Exponential};
use crate::symmetry::structure::{Stream, streams};
use crate::weights::Weights;
use crate::weights::config::Config;

pub struct StageRotation;

/// The streams that a block begins: all but the stem's.
fn begun_by_blocks(config: &Config, layer: Option<usize>) -> impl Iterator<Item = Stream<'_>> {
    streams(config, layer).into_iter().filter(|stream| stream.first.is_some())
}

/// `q` is `[1, n, n]`, orthogonal.
pub(in crate::symmetry) fn element(stream: &Stream, q: &Tensor) -> Result<Element> {
    let transposed = q.transpose(1, 2)?.contiguous()?;
    let write = |conv| Op::Left { conv, matrix: q.clone(), inverse: transposed.clone() };
    let read = |conv| Op::Right { conv, matrix: transposed.clone(), inverse: q.clone() };
    Ok(Element::new(
        stream.writers().into_iter().map(write).collect(),
        stream.readers().into_iter().map(read).collect(),
    ))
}

impl Family for StageRotation {
    fn name(&self) -> &'static str {
        "stage-rotation"
    }

    fn group(&self) -> &'static str {
        "O(n) per stream"
    }

    fn in_words(&self) -> &'static str {
        "The channels of a stage turn like a ball in many dimensions; whatever reads them turns back."
    }

    fn dimensions(&self, config: &Config, layer: Option<usize>) -> usize {
        begun_by_blocks(config, layer).map(|stream| stream.width * (stream.width - 1) / 2).sum()
    }

    fn random(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Element> {
        begun_by_blocks(weights.config(), layer).try_fold(Element::default(), |sum, stream| {
            Ok(sum.and(element(&stream, &matrices::haar(stream.width, rng)?)?))
        })
    }

    fn subgroup(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Option<Subgroup>> {
        let config = weights.config().clone();
        let turns = begun_by_blocks(&config, layer)
            .map(|stream| Exponential::new(&matrices::skew(stream.width, rng)?))
            .collect::<Result<Vec<_>>>()?;
        Ok(Some(Box::new(move |t| {
            begun_by_blocks(&config, layer)
                .zip(&turns)
                .try_fold(Element::default(), |sum, (stream, turn)| Ok(sum.and(element(&stream, &turn.at(t)?)?)))
        })))
    }
}
