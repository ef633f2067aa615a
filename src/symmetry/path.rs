//! A walk through the group: the weights go away, the logits stay.

use anyhow::{Result, ensure};
use serde::Serialize;

use super::check::Subject;
use super::families::{Family, Subgroup, rng};

/// A place on the way.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Step {
    /// Each family's element is `exp(t A)`; of several, they are applied one after the other.
    pub t: f64,
    /// As in [`super::check::Change`].
    pub weight_change: f64,
    pub logit_change: f64,
    /// That of the half of the element that is no symmetry.
    pub control_logit_change: f64,
}

/// Goes `steps` steps from the identity, at `t` of 0, to `t` of `scale`, in every given family along a
/// one-parameter subgroup. Discrete families are passed over: no path leads through them.
///
/// # Errors
/// If nothing in the network, or the layer, is moved, or the device fails.
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
        if let Some(subgroup) = family.subgroup(&subject.weights, layer, &mut rng(*family, seed))? {
            ensure!(!subgroup(scale)?.is_empty(), "{} moves nothing in this network or layer", family.name());
            subgroups.push(subgroup);
        }
    }
    ensure!(!subgroups.is_empty(), "these families are discrete: there is no path through them");
    let mut path = Vec::new();
    for step in 0..=steps {
        let t = scale * step as f64 / steps as f64;
        let elements = subgroups.iter().map(|subgroup| subgroup(t)).collect::<Result<Vec<_>>>()?;
        let (change, control_logit_change) = subject.apply(&elements)?;
        let (weight_change, logit_change) = (change.weight_change, change.logit_change);
        let step = Step { t, weight_change, logit_change, control_logit_change };
        each(&step)?;
        path.push(step);
    }
    Ok(path)
}
