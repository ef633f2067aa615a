//! What the families that act on each block by itself have in common.

use anyhow::Result;
use candle_core::Tensor;
use rand::rngs::ChaCha8Rng;

use super::structure::{Block, blocks};
use super::{Element, Subgroup};
use crate::config::Config;

/// An element for each block, by a tensor that `draw` makes for it.
pub fn random(
    config: &Config,
    layer: Option<usize>,
    mut draw: impl FnMut(&Block) -> Result<Tensor>,
    element: impl Fn(&Block, &Tensor) -> Result<Element>,
) -> Result<Element> {
    blocks(config, layer).try_fold(Element::default(), |sum, block| Ok(sum.and(element(&block, &draw(&block)?)?)))
}

/// Elements `element(block, exp(t A))`, where `draw` makes the `A` of each block, and `exp` is given `t A`.
pub fn subgroup(
    config: &Config,
    layer: Option<usize>,
    rng: &mut ChaCha8Rng,
    draw: impl Fn(&Block, &mut ChaCha8Rng) -> Result<Tensor>,
    exp: impl Fn(&Tensor) -> Result<Tensor> + 'static,
    element: impl Fn(&Block, &Tensor) -> Result<Element> + 'static,
) -> Result<Option<Subgroup>> {
    let generators: Vec<Tensor> = blocks(config, layer).map(|block| draw(&block, rng)).collect::<Result<_>>()?;
    let config = config.clone();
    Ok(Some(Box::new(move |t| {
        blocks(&config, layer)
            .zip(&generators)
            .try_fold(Element::default(), |sum, (block, a)| Ok(sum.and(element(&block, &exp(&(a * t)?)?)?)))
    })))
}
