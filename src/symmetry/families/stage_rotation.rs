//! Stage rotation: the channels of a stage turn, `O(n)` for each stage that begins with a hardball.
//!
//! ```text
//! u -> Q u        everywhere in the stage
//!
//! conv3, skip     W -> Q W,  b -> Q b        of the first block; conv3 of the others
//! conv1, skip     W -> W Q^T                 of what reads u; fc after the last stage
//! ```
//!
//! The hardball scales every pixel by a function of its norm, which `Q` keeps, so it commutes with `Q`.
//! The author's notebook shows one of these, in layer 3.

use anyhow::Result;
use candle_core::Tensor;
use rand::rngs::ChaCha8Rng;

use super::{Family, Subgroup};
use crate::symmetry::element::{Element, Op};
use crate::symmetry::matrices;
use crate::symmetry::structure::{Stream, streams};
use crate::weights::config::Config;
use crate::weights::fold::Weights;

pub struct StageRotation;

fn stages(config: &Config, layer: Option<usize>) -> impl Iterator<Item = Stream<'_>> {
    streams(config, layer).into_iter().filter(|stream| stream.first.is_some())
}

/// `q` is `[1, n, n]`.
fn element(stage: &Stream, q: &Tensor) -> Result<Element> {
    let transposed = q.transpose(1, 2)?.contiguous()?;
    let write = |conv| Op::Left { conv, matrix: q.clone(), inverse: transposed.clone() };
    let read = |conv| Op::Right { conv, matrix: transposed.clone(), inverse: q.clone() };
    Ok(Element::new(stage.writers().into_iter().map(write).collect(), stage.readers().into_iter().map(read).collect()))
}

impl Family for StageRotation {
    fn name(&self) -> &'static str {
        "stage-rotation"
    }

    fn group(&self) -> &'static str {
        "O(n) per stage"
    }

    fn dimensions(&self, config: &Config, layer: Option<usize>) -> usize {
        stages(config, layer).map(|stage| stage.width * (stage.width - 1) / 2).sum()
    }

    fn random(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Element> {
        stages(&weights.config, layer).try_fold(Element::default(), |sum, stage| {
            Ok(sum.and(element(&stage, &matrices::haar(stage.width, rng)?)?))
        })
    }

    fn subgroup(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Option<Subgroup>> {
        let config = weights.config.clone();
        let skew: Vec<_> =
            stages(&config, layer).map(|stage| matrices::skew(stage.width, rng)).collect::<Result<_>>()?;
        Ok(Some(Box::new(move |t| {
            stages(&config, layer).zip(&skew).try_fold(Element::default(), |sum, (stage, skew)| {
                Ok(sum.and(element(&stage, &matrices::exp(&(skew * t)?)?)?))
            })
        })))
    }
}
