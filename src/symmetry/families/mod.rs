//! The families of the symmetry, a file for each, whose doc comment says how the family acts.
//!
//! In comes the configuration of a network (and its weights, for the size of their biases); out go
//! [`Element`]s, drawn at random or along a one-parameter subgroup. May use `element`, `structure` and
//! `matrices`, and nothing of what checks, draws or counts.

mod conv2_bias_shift;
mod factor_swap;
pub(super) mod filter_mixing;
mod general_linear;
mod hidden_permutation;
mod per_block;
pub(super) mod product_balance;
pub(super) mod product_scale;
mod skip_bias_shift;
mod stage_rotation;
mod stem_scaling;
mod stream_shift;

use anyhow::{Result, bail};
use rand::rngs::ChaCha8Rng;

use crate::random;
use crate::symmetry::element::Element;
use crate::weights::config::Config;
use crate::weights::fold::Weights;

/// Elements that depend on one real number: `exp(t A)` for a fixed `A`.
pub type Subgroup = Box<dyn Fn(f64) -> Result<Element>>;

/// One family of symmetries. `layer` restricts it to what begins in that layer, from 1.
pub trait Family: Sync {
    /// As `--family` takes it.
    fn name(&self) -> &'static str;

    /// Its group, for people.
    fn group(&self) -> &'static str;

    /// Dimension of the group; 0 if it is discrete.
    fn dimensions(&self, config: &Config, layer: Option<usize>) -> usize;

    /// A random element, in any component of the group: also where no path leads to.
    ///
    /// # Errors
    /// If the weights are not those of the configuration.
    fn random(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Element>;

    /// A random one-parameter subgroup, at whose `t` of 1 the weights have gone about as far as by a
    /// random element; `None` if the group is discrete.
    ///
    /// # Errors
    /// As [`Self::random`].
    fn subgroup(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Option<Subgroup>>;

    /// Whether its elements keep the architecture.
    fn keeps_architecture(&self) -> bool {
        true
    }
}

/// Every family. The continuous ones that keep the architecture come first: in a network without explicit
/// skips, their dimensions add up to that of the whole group. Of the discrete symmetries, those of the
/// hidden channels are here; the stem's channels may change places too.
pub const FAMILIES: [&dyn Family; 11] = [
    &stage_rotation::StageRotation,
    &stem_scaling::StemScaling,
    &product_balance::ProductBalance,
    &product_scale::ProductScale,
    &filter_mixing::FilterMixing,
    &conv2_bias_shift::Conv2BiasShift,
    &stream_shift::StreamShift,
    &skip_bias_shift::SkipBiasShift,
    &hidden_permutation::HiddenPermutation,
    &factor_swap::FactorSwap,
    &general_linear::GeneralLinear,
];

/// The families of those names, each once and in the order of [`FAMILIES`], in which general-linear is the
/// last: elements of the others are drawn for the skips as they are, and would not fit what it makes of
/// them.
///
/// # Errors
/// If a name is unknown; the message has all that are.
pub fn find(names: &[String]) -> Result<Vec<&'static dyn Family>> {
    let known = FAMILIES.map(|family| family.name());
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("unknown family `{name}`; known are {}", known.join(", "));
    }
    Ok(FAMILIES.into_iter().filter(|family| names.iter().any(|name| name == family.name())).collect())
}

/// Random numbers for a family: a stream of the seed's of its own, whatever else is drawn.
pub fn rng(family: &dyn Family, seed: u64) -> ChaCha8Rng {
    let place = FAMILIES.iter().position(|other| other.name() == family.name());
    random::stream(seed, random::FAMILIES + place.unwrap_or(FAMILIES.len()) as u64)
}

/// Draws an element: in any component of the group, or so far along a one-parameter subgroup. Of a discrete
/// family there is no way to go far or near.
///
/// # Errors
/// As [`Family::random`].
pub fn draw(
    family: &dyn Family,
    weights: &Weights,
    layer: Option<usize>,
    scale: Option<f64>,
    seed: u64,
) -> Result<Element> {
    let mut rng = rng(family, seed);
    if let Some(scale) = scale
        && let Some(subgroup) = family.subgroup(weights, layer, &mut rng)?
    {
        return subgroup(scale);
    }
    family.random(weights, layer, &mut rng)
}
