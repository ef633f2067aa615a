//! The families of the symmetry, a file for each, whose doc comment says how the family acts.
//!
//! In comes the configuration of a network (and its weights, for the size of their biases); out go
//! [`Element`]s, drawn at random or along a one-parameter subgroup. May use `element`, `structure` and
//! `matrices`, and nothing of what checks, draws or counts.

pub(super) mod conv2_bias_shift;
mod factor_swap;
pub(super) mod filter_mixing;
mod general_linear;
mod hidden_permutation;
mod per_block;
pub(super) mod product_balance;
pub(super) mod product_scale;
mod skip_bias_shift;
pub(super) mod stage_rotation;
pub(super) mod stem_scaling;
pub(super) mod stream_shift;

use rand::rngs::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::random;
use crate::symmetry::element::Element;
use crate::weights::Weights;
use crate::weights::config::Config;

/// Elements that depend on one real number: `exp(t A)` for a fixed `A`.
pub type Subgroup = Box<dyn Fn(f64) -> Result<Element>>;

/// One family of symmetries. [`draw`] draws elements of it, and [`walk`](super::path::walk) follows a path
/// through it; [`FAMILIES`] has them all, and nothing outside this crate can be one. `layer` restricts a family to what begins in that layer, from 1; the stem belongs to layer 1.
pub trait Family: Sync {
    /// Its name, such as `stage-rotation`; [`find`] takes it.
    fn name(&self) -> &'static str;

    /// Its group in words, such as `R+ per channel`.
    fn group(&self) -> &'static str;

    /// What it does, in a sentence for who has not read the paper.
    fn in_words(&self) -> &'static str;

    /// The dimension of its group; 0 if it is discrete, or moves nothing in this network or layer.
    fn dimensions(&self, config: &Config, layer: Option<usize>) -> usize;

    /// A random element, in any component of the group: also where no path leads to. [`draw`] calls it.
    ///
    /// # Errors
    /// [`Error::Symmetry`] if a tensor is missing in the weights, [`Error::Compute`] if there is no memory.
    #[doc(hidden)]
    fn random(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Element>;

    /// A random one-parameter subgroup, at whose `t` of 1 the weights have gone about as far as by a
    /// random element; `None` if the group is discrete.
    ///
    /// # Errors
    /// As [`Self::random`].
    #[doc(hidden)]
    fn subgroup(&self, weights: &Weights, layer: Option<usize>, rng: &mut ChaCha8Rng) -> Result<Option<Subgroup>>;

    /// Whether its elements keep the architecture. Those of general-linear do not: they make skips explicit.
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

/// The families of those names, each once and in the order of [`FAMILIES`]. There general-linear is the
/// last: elements of the others are drawn for the skips as they are, and would not fit what it makes of
/// them.
///
/// # Errors
/// [`Error::UnknownFamily`] if no family has one of the names.
pub fn find(names: &[impl AsRef<str>]) -> Result<Vec<&'static dyn Family>> {
    let known = |name: &str| FAMILIES.iter().any(|family| family.name() == name);
    if let Some(unknown) = names.iter().find(|name| !known(name.as_ref())) {
        return Err(Error::UnknownFamily(unknown.as_ref().into()));
    }
    Ok(FAMILIES.into_iter().filter(|family| names.iter().any(|name| name.as_ref() == family.name())).collect())
}

/// Random numbers for a family: its own stream of the seed, which does not depend on what else is drawn.
pub(super) fn rng(family: &dyn Family, seed: u64) -> ChaCha8Rng {
    let place = FAMILIES.iter().position(|other| other.name() == family.name());
    random::stream(seed, random::FAMILIES + place.unwrap_or(FAMILIES.len()) as u64)
}

/// Draws an element for these weights; the same seed draws the same one. Without `scale` it comes from any
/// component of the family's group, with it from that far along a one-parameter subgroup: at 1 the weights
/// change by about half, at 0 not at all. A discrete family has no such subgroup, and `scale` does nothing.
///
/// # Errors
/// [`Error::Symmetry`] if a tensor is missing in the weights, or `scale` leads out of the range of float64;
/// [`Error::Compute`] if there is no memory.
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

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    #[test]
    fn an_unknown_family_is_named() {
        assert_eq!(find(&["stem-scaling", "stage-rotation"]).unwrap()[0].name(), "stage-rotation");
        let Err(error) = find(&["stem-scaling", "rotation"]) else { panic!("it is known") };
        assert!(matches!(&error, Error::UnknownFamily(name) if name == "rotation"), "{error:?}");
    }

    /// Exponentials of matrices are computed by squaring, as often as their norm asks for.
    #[test]
    fn a_scale_that_is_not_finite_ends() {
        let weights = Weights::random(&Config::qlnet_digits(), 1).unwrap().to_dtype(DType::F64).unwrap();
        for family in find(&["stage-rotation", "filter-mixing", "general-linear"]).unwrap() {
            for scale in [f64::INFINITY, f64::NAN] {
                let error = draw(family, &weights, None, Some(scale), 1).unwrap_err();
                assert!(matches!(error, Error::Symmetry(_)), "{} {scale}: {error}", family.name());
            }
        }
    }
}
