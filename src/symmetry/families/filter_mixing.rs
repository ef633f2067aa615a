//! Filter mixing: the `f` filters of a hidden channel are replaced by combinations of them, `GL(f)` for
//! each channel: `GL(2)` in qlnet-50-v0, `GL(1)` in qlnet-10m.
//!
//! ```text
//! (k_1 ... k_f) -> M (k_1 ... k_f)
//!
//! conv2       W -> M W,  b -> M b          of the channel's rows
//! conv3       W -> W M^-1                  of the channel's columns
//! ```

use candle_core::Tensor;
use rand::rngs::ChaCha8Rng;

use super::{Family, Subgroup, per_block};
use crate::error::Result;
use crate::symmetry::element::{Element, Op, Scaled};
use crate::symmetry::matrices;
use crate::symmetry::structure::{BlockAt, blocks};
use crate::weights::Weights;
use crate::weights::config::Config;

pub struct FilterMixing;

/// `log` is `[w, f, f]`, and the `M` of each channel `exp(log)` with its first row times the channel's
/// `sign`, `[w]`.
fn element(block: &BlockAt, log: &Tensor, sign: &Tensor) -> Result<Element> {
    let (matrix, inverse) = matrices::exp_with_sign(log, sign)?;
    Ok(by_matrix(block, matrix, inverse))
}

/// `matrix` has the `M` of each channel, and `inverse` their inverses: `[w, f, f]`.
pub(in crate::symmetry) fn by_matrix(block: &BlockAt, matrix: Tensor, inverse: Tensor) -> Element {
    Element::new(
        vec![Op::Left { conv: block.conv("conv2"), matrix: matrix.clone(), inverse: inverse.clone() }],
        vec![Op::Right { conv: block.conv("conv3"), matrix: inverse, inverse: matrix }],
    )
}

/// The filters by themselves, scaled: `M` diagonal. `m` is `[w f]`, the filters of a channel together.
pub(in crate::symmetry) fn diagonal(block: &BlockAt, m: &Tensor) -> Result<Element> {
    Ok(Element::new(
        vec![Op::ScaleOutputs { conv: block.conv("conv2"), factors: m.clone(), scaled: Scaled::WeightAndBias }],
        vec![Op::ScaleInputs { conv: block.conv("conv3"), factors: m.recip()? }],
    ))
}

fn logarithms(block: &BlockAt, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let (hidden, filters) = (block.config.hidden_channels, block.config.filters);
    Ok((matrices::normal((hidden, filters, filters), rng)? * 0.4)?)
}

fn positive(block: &BlockAt, log: &Tensor) -> Result<Element> {
    element(block, log, &log.narrow(1, 0, 1)?.narrow(2, 0, 1)?.flatten_all()?.ones_like()?)
}

impl Family for FilterMixing {
    fn name(&self) -> &'static str {
        "filter-mixing"
    }

    fn group(&self) -> &'static str {
        "GL(f) per hidden channel"
    }

    fn in_words(&self) -> &'static str {
        "The 3x3 kernels of a channel mix with each other; whatever reads them takes them apart again."
    }

    fn dimensions(&self, config: &Config, layer: Option<usize>) -> usize {
        blocks(config, layer).map(|block| block.config.hidden_channels * block.config.filters.pow(2)).sum()
    }

    fn random(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Element> {
        blocks(weights.config(), layer).try_fold(Element::default(), |sum, block| {
            let log = logarithms(&block, rng)?;
            Ok(sum.and(element(&block, &log, &matrices::signs(block.config.hidden_channels, rng)?)?))
        })
    }

    fn subgroup(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Option<Subgroup>> {
        per_block::subgroup(weights.config(), layer, rng, logarithms, |a| Ok(a.clone()), positive)
    }
}
