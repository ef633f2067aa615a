//! GL(n) with explicit skips: between two blocks without a hardball between them, the channels change by
//! any invertible matrix, `GL(n)` for each such place (the paper's, section 3).
//!
//! ```text
//! u -> G u        between a block and the next
//!
//! conv3, skip     W -> G W,  b -> G b        of the block before
//! conv1, skip     W -> W G^-1                of the block after
//! ```
//!
//! An identity skip becomes a 1x1 convolution with the weight `G`, or `G^-1`, and no bias: the
//! architecture changes, and with it what file can hold the weights.

use candle_core::{DType, Device, Tensor};
use rand::rngs::ChaCha8Rng;

use super::{Family, Subgroup};
use crate::error::Result;
use crate::symmetry::element::{Element, Op};
use crate::symmetry::matrices::{self, Exponential};
use crate::symmetry::structure::{BlockAt, Stream, at_open_boundaries, streams};
use crate::weights::Weights;
use crate::weights::config::Config;

pub struct GeneralLinear;

/// After `before`, which is followed by `stream.blocks[after..]`; `matrix` is `G`, `[1, n, n]`.
fn element(stream: &Stream, before: &BlockAt, after: usize, (matrix, inverse): (Tensor, Tensor)) -> Result<Element> {
    let explicit = |block: &BlockAt| Op::ExplicitSkip { layer: block.layer, block: block.index };
    let left = |part| Op::Left { conv: before.conv(part), matrix: matrix.clone(), inverse: inverse.clone() };
    let writing = vec![explicit(before), left("conv3"), left("skip")];
    let reading = stream.blocks.get(after).or(stream.next.as_ref()).map(|next| {
        let right = |part| Op::Right { conv: next.conv(part), matrix: inverse.clone(), inverse: matrix.clone() };
        // A skip that is a convolution already stays as it is.
        vec![explicit(next), right("conv1"), right("skip")]
    });
    Ok(Element::new(writing, reading.unwrap_or_default()))
}

/// Makes an element for each place, by the matrix and its inverse that `draw` gives.
fn elements(
    config: &Config,
    layer: Option<usize>,
    mut draw: impl FnMut(usize) -> Result<(Tensor, Tensor)>,
) -> Result<Element> {
    at_open_boundaries(config, layer, |stream, block, after| element(stream, block, after, draw(stream.width)?))
}

fn logarithm(n: usize, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    Ok((matrices::normal((1, n, n), rng)? * (0.4 / (n as f64).sqrt()))?)
}

impl Family for GeneralLinear {
    fn name(&self) -> &'static str {
        "general-linear"
    }

    fn group(&self) -> &'static str {
        "GL(n) per block, with explicit skips"
    }

    fn in_words(&self) -> &'static str {
        "The channels between two blocks change by any invertible matrix; whatever reads them changes them back."
    }

    fn dimensions(&self, config: &Config, layer: Option<usize>) -> usize {
        streams(config, layer).iter().map(|stream| stream.width.pow(2) * stream.open_boundaries().len()).sum()
    }

    fn random(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Element> {
        elements(weights.config(), layer, |n| {
            let log = logarithm(n, rng)?;
            matrices::exp_with_sign(&log, &matrices::signs(1, rng)?)
        })
    }

    fn subgroup(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Option<Subgroup>> {
        let config = weights.config().clone();
        let mut logarithms = Vec::new();
        for stream in streams(&config, layer) {
            for _ in stream.open_boundaries() {
                logarithms.push(Exponential::new(&logarithm(stream.width, rng)?)?);
            }
        }
        Ok(Some(Box::new(move |t| {
            let mut next = logarithms.iter();
            elements(&config, layer, |_| {
                let exponential = next.next().expect("one for each place");
                exponential.with_sign(t, &Tensor::ones(1, DType::F64, &Device::Cpu)?)
            })
        })))
    }

    fn keeps_architecture(&self) -> bool {
        false
    }
}
