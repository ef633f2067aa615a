//! A walk through the group: the weights go away, the logits stay.

use serde::Serialize;

use super::check::{Compared, Subject};
use super::families::{Family, Subgroup, rng};
use super::refused;
use crate::error::{Error, Result};

/// A place on the way.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Step {
    /// How far along: each family's element is `exp(t A)`, and those of several families are applied one
    /// after the other.
    pub t: f64,
    /// Norm of the change of all tensors that were changed, by their norm before.
    pub weight_change: f64,
    /// The largest change of any logit, by the largest logit.
    pub logit_change: f64,
    /// That of the half of the elements that is no symmetry.
    pub control_logit_change: f64,
}

/// Goes `steps` steps from the identity, at `t` of 0, to `t` of `scale`, in every given family along a
/// one-parameter subgroup, and shows each place to `each`, the identity too. Discrete families are passed
/// over: no path leads through them. The same seed goes the same way.
///
/// # Errors
/// [`Error::Symmetry`] if there is no step, the families are all discrete, or one of them moves nothing in
/// the network or the layer; [`Error::Compute`] if the device fails; and what `each` returns, at once.
pub fn walk<E: From<Error>>(
    subject: &Subject,
    families: &[&dyn Family],
    layer: Option<usize>,
    scale: f64,
    steps: usize,
    seed: u64,
    mut each: impl FnMut(&Step) -> Result<(), E>,
) -> Result<Vec<Step>, E> {
    let mut path = Vec::new();
    walk_with_weights(subject, families, layer, scale, steps, seed, |step, _| {
        each(&step)?;
        path.push(step);
        Ok::<(), E>(())
    })?;
    Ok(path)
}

/// [`walk`] that shows to `each` also what the elements make of weights and logits.
///
/// # Errors
/// As [`walk`].
pub(crate) fn walk_with_weights<E: From<Error>>(
    subject: &Subject,
    families: &[&dyn Family],
    layer: Option<usize>,
    scale: f64,
    steps: usize,
    seed: u64,
    mut each: impl FnMut(Step, &Compared) -> Result<(), E>,
) -> Result<(), E> {
    if steps == 0 {
        return Err(refused("a path has at least one step").into());
    }
    let subgroups = subgroups(subject, families, layer, scale, seed)?;
    (0..=steps).try_for_each(|step| {
        let t = scale * step as f64 / steps as f64;
        let elements = subgroups.iter().map(|subgroup| subgroup(t)).collect::<Result<Vec<_>>>()?;
        let compared = subject.compare_with_control(&elements)?;
        let Compared { change, control_logit_change, .. } = compared;
        let (weight_change, logit_change) = (change.weight_change, change.logit_change);
        each(Step { t, weight_change, logit_change, control_logit_change }, &compared)
    })
}

/// A one-parameter subgroup of each family that has one; each moves something.
fn subgroups(
    subject: &Subject,
    families: &[&dyn Family],
    layer: Option<usize>,
    scale: f64,
    seed: u64,
) -> Result<Vec<Subgroup>> {
    let mut subgroups = Vec::new();
    for family in families {
        if let Some(subgroup) = family.subgroup(subject.weights(), layer, &mut rng(*family, seed))? {
            if subgroup(scale)?.is_empty() {
                let message = format!("{} moves nothing in this network or layer", family.name());
                return Err(refused(message));
            }
            subgroups.push(subgroup);
        }
    }
    if subgroups.is_empty() {
        let message = "these families are discrete: there is no path through them";
        return Err(refused(message));
    }
    Ok(subgroups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Precision;
    use crate::symmetry::check::noise;
    use crate::symmetry::families::find;
    use crate::weights::Weights;
    use crate::weights::config::Config;
    use candle_core::Device;

    /// An error of the caller's own.
    #[derive(Debug)]
    enum Stopped {
        ByCaller(f64),
        ByLibrary(Error),
    }

    impl From<Error> for Stopped {
        fn from(error: Error) -> Self {
            Self::ByLibrary(error)
        }
    }

    #[test]
    fn a_path_ends_where_the_caller_stops_it() {
        let weights = Weights::random(&Config::qlnet_digits(), 1).unwrap();
        let subject = Subject::new(&weights, &noise(1, 32, 1).unwrap(), Precision::F32, &Device::Cpu).unwrap();
        let families = find(&["product-scale"]).unwrap();
        let go = |steps| {
            walk(&subject, &families, None, 1.0, steps, 1, |step| match step.t {
                0.5.. => Err(Stopped::ByCaller(step.t)),
                _ => Ok(()),
            })
        };
        let result = go(4);
        assert!(matches!(result, Err(Stopped::ByCaller(0.5))), "{result:?}");
        // Not a path to a `t` that is no number.
        let result = go(0);
        assert!(matches!(result, Err(Stopped::ByLibrary(Error::Symmetry(_)))), "{result:?}");
    }
}
