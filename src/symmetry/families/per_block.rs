//! What the families that act on each block by itself have in common.

use candle_core::Tensor;
use rand::rngs::ChaCha8Rng;

use super::Subgroup;
use crate::error::Result;
use crate::symmetry::element::Element;
use crate::symmetry::matrices;
use crate::symmetry::structure::{BlockAt, blocks};
use crate::weights::config::Config;

/// An element for each block, by a tensor that `draw` makes for it.
pub fn random(
    config: &Config,
    layer: Option<usize>,
    mut draw: impl FnMut(&BlockAt) -> Result<Tensor>,
    element: impl Fn(&BlockAt, &Tensor) -> Result<Element>,
) -> Result<Element> {
    blocks(config, layer).try_fold(Element::default(), |sum, block| Ok(sum.and(element(&block, &draw(&block)?)?)))
}

/// Elements `element(block, exp(t A))`, where `draw` makes the `A` of each block, and `exp` is given `t A`.
pub fn subgroup(
    config: &Config,
    layer: Option<usize>,
    rng: &mut ChaCha8Rng,
    draw: impl Fn(&BlockAt, &mut ChaCha8Rng) -> Result<Tensor>,
    exp: impl Fn(&Tensor) -> Result<Tensor> + 'static,
    element: impl Fn(&BlockAt, &Tensor) -> Result<Element> + 'static,
) -> Result<Option<Subgroup>> {
    let generators: Vec<Tensor> = blocks(config, layer).map(|block| draw(&block, rng)).collect::<Result<_>>()?;
    let config = config.clone();
    Ok(Some(Box::new(move |t| {
        blocks(&config, layer)
            .zip(&generators)
            .try_fold(Element::default(), |sum, (block, a)| Ok(sum.and(element(&block, &exp(&(a * t)?)?)?)))
    })))
}

/// An element for each block by factors of its hidden channels, `[w]`: any numbers but zero.
pub fn random_by_factors(
    config: &Config,
    layer: Option<usize>,
    rng: &mut ChaCha8Rng,
    element: impl Fn(&BlockAt, &Tensor) -> Result<Element>,
) -> Result<Element> {
    random(config, layer, |block| matrices::nonzero(block.config.hidden_channels, rng), element)
}

/// Elements by factors `exp(t A)` of the hidden channels.
pub fn subgroup_by_factors(
    config: &Config,
    layer: Option<usize>,
    rng: &mut ChaCha8Rng,
    element: impl Fn(&BlockAt, &Tensor) -> Result<Element> + 'static,
) -> Result<Option<Subgroup>> {
    let draw = |block: &BlockAt, rng: &mut ChaCha8Rng| matrices::logarithms(block.config.hidden_channels, rng);
    subgroup(config, layer, rng, draw, |a| Ok(a.exp()?), element)
}
