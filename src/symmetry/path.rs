//! A walk along a one-parameter subgroup: the weights go away, the logits stay.

use anyhow::{Result, ensure};
use serde::Serialize;

use super::check::Subject;
use super::{Family, Subgroup, rng};

/// A place on the way.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Step {
    /// The element is `exp(t A)`.
    pub t: f64,
    /// As in [`super::check::Change`].
    pub weight_change: f64,
    pub logit_change: f64,
    /// That of the half of the element that is no symmetry.
    pub control_logit_change: f64,
}

/// Goes `steps` steps from the identity, at `t` of 0, to `t` of `scale`, along all given families at
/// once. Discrete ones are passed over: no path leads through them.
///
/// # Errors
/// If all of them are discrete, or the device fails.
pub fn walk(
    subject: &Subject,
    families: &[&dyn Family],
    layer: Option<usize>,
    scale: f64,
    steps: usize,
    seed: u64,
    mut each: impl FnMut(&Step) -> Result<()>,
) -> Result<Vec<Step>> {
    let mut subgroups: Vec<Subgroup> = Vec::new();
    for family in families {
        subgroups.extend(family.subgroup(&subject.weights, layer, &mut rng(*family, seed))?);
    }
    ensure!(!subgroups.is_empty(), "these families are discrete: there is no path through them");
    let mut path = Vec::new();
    for step in 0..=steps {
        let t = scale * step as f64 / steps as f64;
        let elements = subgroups.iter().map(|subgroup| subgroup(t)).collect::<Result<Vec<_>>>()?;
        let (_, change, control_logit_change) = subject.apply(&elements)?;
        let (weight_change, logit_change) = (change.weight_change, change.logit_change);
        let step = Step { t, weight_change, logit_change, control_logit_change };
        each(&step)?;
        path.push(step);
    }
    Ok(path)
}
