//! Stem scaling: every channel of the stem's stream gets a unit of its own, `R+` each.
//!
//! ```text
//! u -> D u        D diagonal and positive, up to the first hardball
//!
//! stem, conv3     W -> D W,  b -> D b
//! conv1, skip     W -> W D^-1                of what reads u
//! ```
//!
//! ReLU and the max pool let a positive factor through, and there is no hardball in these blocks.

use candle_core::Tensor;
use rand::rngs::ChaCha8Rng;

use super::{Family, Subgroup};
use crate::error::Result;
use crate::symmetry::element::{Element, Op, Scaled};
use crate::symmetry::matrices;
use crate::symmetry::structure::{Stream, streams};
use crate::weights::Weights;
use crate::weights::config::Config;

pub struct StemScaling;

/// The stem's stream, unless it runs into the hardball before the head.
pub(in crate::symmetry) fn stem(config: &Config, layer: Option<usize>) -> Option<Stream<'_>> {
    streams(config, layer).into_iter().find(|stream| stream.first.is_none() && stream.next.is_some())
}

/// `d` is `[n]`.
pub(in crate::symmetry) fn element(stem: &Stream, d: &Tensor) -> Result<Element> {
    let inverse = d.recip()?;
    let write = |conv| Op::ScaleOutputs { conv, factors: d.clone(), scaled: Scaled::WeightAndBias };
    let read = |conv| Op::ScaleInputs { conv, factors: inverse.clone() };
    Ok(Element::new(stem.writers().into_iter().map(write).collect(), stem.readers().into_iter().map(read).collect()))
}

impl Family for StemScaling {
    fn name(&self) -> &'static str {
        "stem-scaling"
    }

    fn group(&self) -> &'static str {
        "R+ per channel"
    }

    fn in_words(&self) -> &'static str {
        "The channels of the first layer grow or shrink; whatever reads them makes up for it."
    }

    fn dimensions(&self, config: &Config, layer: Option<usize>) -> usize {
        stem(config, layer).map_or(0, |stem| stem.width)
    }

    fn random(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Element> {
        match self.subgroup(weights, layer, rng)? {
            Some(subgroup) => subgroup(1.0),
            None => Ok(Element::default()),
        }
    }

    fn subgroup(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Option<Subgroup>> {
        let config = weights.config().clone();
        let logarithm = (matrices::normal(config.stem_channels, rng)? * 0.5)?;
        Ok(Some(Box::new(move |t| match stem(&config, layer) {
            Some(stem) => element(&stem, &(&logarithm * t)?.exp()?),
            None => Ok(Element::default()),
        })))
    }
}
