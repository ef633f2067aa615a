//! Checks that a symmetry leaves the logits where they are, and that a control, which is no symmetry, moves
//! them.

use candle_core::{D, DType, Device, Tensor};
use serde::Serialize;

use super::distance::distance;
use super::element::{Element, Side};
use super::families::{Family, draw};
use super::{matrices, refused};
use crate::error::{Error, Result};
use crate::network::Precision;
use crate::network::device;
use crate::network::model::QLNet;
use crate::random;
use crate::weights::Weights;
use crate::weights::config::Config;

/// A network whose symmetry is checked: its weights, images to run it on, and the logits that must stay.
///
/// ```
/// use qlnet::candle_core::Device;
/// use qlnet::network::Precision;
/// use qlnet::symmetry::{Subject, noise};
/// use qlnet::symmetry::find;
/// use qlnet::weights::Config;
/// use qlnet::weights::Weights;
///
/// let weights = Weights::random(&Config::qlnet_digits(), 1)?;
/// let subject = Subject::new(&weights, &noise(2, 32, 1)?, Precision::F32, &Device::Cpu)?;
/// for family in find(&["stage-rotation"])? {
///     let outcome = subject.check(family, None, None, 7)?.expect("the network has layers that turn");
///     assert!(outcome.passed && outcome.change.weight_change > 0.1);
/// }
/// # Ok::<(), qlnet::Error>(())
/// ```
pub struct Subject {
    /// In float64.
    weights: Weights,
    /// `[n, 3, h, w]`, normalised, on the device that computes.
    images: Tensor,
    precision: Precision,
    device: Device,
    /// Of the unmoved weights, `[n, classes]` in float64.
    logits: Tensor,
    largest_logit: f64,
    /// Root mean square of the logits.
    typical_logit: f64,
    tolerance: f64,
}

/// What an element did. A number is infinite if the network overflows with the moved weights, and `null` in
/// JSON then.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Norm of the change of all tensors that were changed, by their norm before.
    pub weight_change: f64,
    /// The largest change of any logit, by the largest logit.
    pub logit_change: f64,
    /// The largest change of any logit.
    pub logit_change_absolute: f64,
    /// Share of the images whose most likely class is the same, from 0 to 1.
    pub top1_agreement: f64,
}

/// What elements did, and half of each.
#[derive(Debug)]
pub struct Compared {
    /// The weights, moved by the elements, in float64.
    pub moved: Weights,
    /// The logits that they give, `[n, classes]` in float64.
    pub logits: Tensor,
    /// How far both went.
    pub change: Change,
    /// The logits that half of the elements gives.
    pub control_logits: Tensor,
    /// The largest change of any logit by that half, by the largest logit.
    pub control_logit_change: f64,
}

/// The verdict on elements of one family, or of several at once.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The family's name.
    pub family: String,
    /// Its group in words.
    pub group: String,
    /// The dimension of its group; 0 if it is discrete.
    pub dimensions: usize,
    /// What the elements did.
    #[serde(flatten)]
    pub change: Change,
    /// The largest change of any logit by the half of the elements that is no symmetry, by the largest logit.
    pub control_logit_change: f64,
    /// Whether the logits stayed, and those of the control did not.
    pub passed: bool,
}

/// A control must change the logits by at least this many times what a symmetry may.
pub const FAR: f64 = 100.0;

/// How far rounding moves the logits of a well-behaved network, relative to the largest: a rule of thumb.
///
/// Every addition and multiplication is off by up to `u`, the unit roundoff (2^-24 in float32, 2^-53 in
/// float64). On the way from the image to a logit there are as many, one after the other, as the
/// convolutions have inputs per output, together `K` (20,963 in qlnet-50-v0, skips included). Errors of
/// either sign add up like a random walk, to about `sqrt(K) u` (the rule in Higham, "Accuracy and Stability
/// of Numerical Algorithms"). There are three such: two networks, and the rounding of the moved weights.
/// Elements are computed in float64 by exponentials and factorisations, which lose up to six bits: beside
/// float32 that is nothing, in float64 `u` is 2^-47.
fn rule_of_thumb(config: &Config, precision: Precision) -> f64 {
    let sums: usize = config.convs().iter().map(|conv| conv.shape[1..].iter().product::<usize>()).sum();
    (3.0 * sums as f64).sqrt() * if precision == Precision::F64 { 2f64.powi(-47) } else { 2f64.powi(-24) }
}

/// A symmetry may move the logits this many times as far as changing every parameter by one unit roundoff
/// does, because it changes each by the rounding of several operations.
const SENSITIVITY: f64 = 10.0;

impl Subject {
    /// `weights` are of any element type; `images` are `[n, 3, h, w]`, normalised; `precision`, in which the
    /// network computes on `device`, is float32 or float64.
    ///
    /// # Errors
    /// [`Error::Symmetry`] if `precision` or the shape of the images is another, or all logits are zero;
    /// [`Error::UnsupportedDtype`] if the device does not compute in float64; [`Error::Overflow`] if a logit
    /// is not finite; [`Error::Compute`] if the device fails.
    pub fn new(weights: &Weights, images: &Tensor, precision: Precision, device: &Device) -> Result<Self> {
        if !matches!(precision, Precision::F32 | Precision::F64) {
            return Err(refused("the symmetry is checked in f32 or f64, not in fewer bits"));
        }
        if !matches!(images.dims(), [_, 3, _, _]) || images.elem_count() == 0 {
            return Err(refused("images to check the symmetry with have the shape [n, 3, height, width]"));
        }
        let weights = weights.to_dtype(DType::F64)?;
        let images = images.to_device(device)?;
        let logits = logits_in(&weights, &images, precision, device)?;
        let largest_logit = largest(&logits)?;
        if !largest_logit.is_finite() {
            return Err(Error::Overflow { dtype: precision.name() });
        }
        if largest_logit == 0.0 {
            return Err(refused("all logits are zero"));
        }
        let typical_logit = logits.sqr()?.mean_all()?.sqrt()?.to_scalar::<f64>()?;
        let (images, device) = (images.to_dtype(precision.dtype(device))?, device.clone());
        let tolerance = rule_of_thumb(weights.config(), precision);
        let mut subject = Self { weights, images, precision, device, logits, largest_logit, typical_logit, tolerance };
        let sensitivity = subject.compare(&subject.off_by_rounding()?)?.logit_change;
        subject.tolerance = tolerance.max(SENSITIVITY * sensitivity);
        Ok(subject)
    }

    /// The unmoved weights, in float64.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The largest absolute value among the logits of the unmoved weights.
    pub fn largest_logit(&self) -> f64 {
        self.largest_logit
    }

    /// How far rounding may move the logits, relative to the largest: by the rule of thumb `sqrt(3 K) u`
    /// (`docs/symmetry.md`), or, in a network whose sums cancel, by ten times what it does to them if every
    /// parameter is off by one unit roundoff.
    pub fn tolerance(&self) -> f64 {
        self.tolerance
    }

    /// The weights, each off by up to one unit roundoff.
    fn off_by_rounding(&self) -> Result<Weights> {
        let unit = if self.precision == Precision::F64 { 2f64.powi(-53) } else { 2f64.powi(-24) };
        let mut rng = random::stream(0, random::ROUNDING);
        self.weights.map(|_, tensor| -> Result<Tensor> {
            let signs = matrices::signs(tensor.elem_count(), &mut rng)?.reshape(tensor.shape())?;
            Ok((tensor * signs.affine(unit, 1.0)?)?)
        })
    }

    /// How other weights, which are float64, differ from those of the subject, and the logits with them.
    ///
    /// # Errors
    /// [`Error::Compute`] if the device fails, or the weights are those of another network.
    pub fn compare(&self, moved: &Weights) -> Result<Change> {
        self.change(moved, &self.logits(moved)?)
    }

    /// Logits `[n, classes]` in float64 of other weights, which are float64, on the images of the subject.
    ///
    /// # Errors
    /// As [`Self::compare`].
    pub fn logits(&self, weights: &Weights) -> Result<Tensor> {
        logits(weights, &self.images, self.precision, &self.device)
    }

    /// [`Self::compare`] with weights whose logits are known.
    fn change(&self, moved: &Weights, logits: &Tensor) -> Result<Change> {
        let same = logits.argmax(D::Minus1)?.eq(&self.logits.argmax(D::Minus1)?)?;
        let agreement = same.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>()?;
        let absolute = self.largest_change(logits)?;
        Ok(Change {
            weight_change: distance(&self.weights, moved)?,
            logit_change: absolute / self.largest_logit,
            logit_change_absolute: absolute,
            top1_agreement: agreement,
        })
    }

    /// The largest change of any logit, if they have become these.
    fn largest_change(&self, logits: &Tensor) -> Result<f64> {
        largest(&(logits - &self.logits)?)
    }

    /// How far the logits that weights give in an element type are from those of the subject: root mean
    /// square, relative to the largest logit.
    ///
    /// # Errors
    /// [`Error::UnsupportedDtype`] if the device does not compute in it.
    pub fn error_in(&self, weights: &Weights, precision: Precision) -> Result<f64> {
        let logits = logits_in(weights, &self.images, precision, &self.device)?;
        let difference = (logits - &self.logits)?;
        let error = difference.sqr()?.mean_all()?.sqrt()?.to_scalar::<f64>()?;
        Ok(if largest(&difference)?.is_finite() { error / self.largest_logit } else { f64::INFINITY })
    }

    /// [`Self::error_in`] relative to the root mean square of the logits.
    ///
    /// # Errors
    /// As [`Self::error_in`].
    pub fn relative_error_in(&self, weights: &Weights, precision: Precision) -> Result<f64> {
        Ok(self.error_in(weights, precision)? * self.largest_logit / self.typical_logit)
    }

    /// The weights moved by elements, or half of each, one after the other.
    ///
    /// # Errors
    /// [`Error::Symmetry`] if an element was drawn for other weights.
    pub fn moved(&self, elements: &[Element], side: Side) -> Result<Weights> {
        let mut weights = self.weights.clone();
        elements.iter().try_for_each(|element| element.apply(&mut weights, side))?;
        Ok(weights)
    }

    /// What elements do, and half of each as a control.
    ///
    /// # Errors
    /// As [`Self::moved`] and [`Self::compare`].
    pub fn compare_with_control(&self, elements: &[Element]) -> Result<Compared> {
        let half = self.moved(elements, Side::Writing)?;
        let whole = || -> Result<(Weights, Tensor, Change)> {
            let moved = match elements {
                // The rest of one element makes it whole; after the halves of several, it is too late.
                [element] => {
                    let mut moved = half.clone();
                    element.apply(&mut moved, Side::Reading)?;
                    moved
                }
                _ => self.moved(elements, Side::Both)?,
            };
            let logits = self.logits(&moved)?;
            let change = self.change(&moved, &logits)?;
            Ok((moved, logits, change))
        };
        let control_logits = || self.logits(&half);
        // Two networks on one GPU would only wait for each other.
        let (whole, control_logits) = match self.device.is_cpu() {
            true => rayon::join(whole, control_logits),
            false => (whole(), control_logits()),
        };
        let ((moved, logits, change), control_logits) = (whole?, control_logits?);
        let control_logit_change = self.largest_change(&control_logits)? / self.largest_logit;
        Ok(Compared { moved, logits, change, control_logits, control_logit_change })
    }

    /// The verdict on elements that are applied one after the other. `family`, `group` and `dimensions` are
    /// what the outcome calls them.
    ///
    /// # Errors
    /// As [`Self::compare_with_control`].
    pub fn outcome(&self, family: &str, group: &str, dimensions: usize, elements: &[Element]) -> Result<Outcome> {
        let Compared { change, control_logit_change, .. } = self.compare_with_control(elements)?;
        let tolerance = self.tolerance;
        let passed = change.logit_change <= tolerance && control_logit_change >= FAR * tolerance;
        Ok(Outcome { family: family.into(), group: group.into(), dimensions, change, control_logit_change, passed })
    }

    /// The verdict on a family by one of its elements, as [`draw`] draws it; `None` if nothing in the
    /// network, or the layer, is moved by it.
    ///
    /// # Errors
    /// As [`draw`] and [`Self::compare_with_control`].
    pub fn check(
        &self,
        family: &dyn Family,
        layer: Option<usize>,
        scale: Option<f64>,
        seed: u64,
    ) -> Result<Option<Outcome>> {
        let element = draw(family, &self.weights, layer, scale, seed)?;
        if element.is_empty() {
            return Ok(None);
        }
        self.outcome_of(family, layer, &element).map(Some)
    }

    /// The verdict on a family by an element of it.
    ///
    /// # Errors
    /// As [`Self::compare_with_control`].
    pub fn outcome_of(&self, family: &dyn Family, layer: Option<usize>, element: &Element) -> Result<Outcome> {
        let dimensions = family.dimensions(self.weights.config(), layer);
        self.outcome(family.name(), family.group(), dimensions, std::slice::from_ref(element))
    }
}

/// Images of noise `[n, 3, side, side]` in float32, normally distributed as normalised images are; they
/// depend on the sizes and the seed alone.
///
/// # Errors
/// [`Error::Compute`] if there is no memory.
pub fn noise(n: usize, side: usize, seed: u64) -> Result<Tensor> {
    Ok(matrices::normal((n, 3, side, side), &mut random::stream(seed, random::IMAGES))?.to_dtype(DType::F32)?)
}

/// The largest absolute value; infinite if one is not finite.
fn largest(t: &Tensor) -> Result<f64> {
    let values = t.flatten_all()?.to_vec1::<f64>()?;
    Ok(values.into_iter().fold(0.0, |largest, v| if v.is_finite() { v.abs().max(largest) } else { f64::INFINITY }))
}

/// Logits `[n, classes]` in float64 on the CPU. `images` have the element type that the network takes.
fn logits(weights: &Weights, images: &Tensor, precision: Precision, device: &Device) -> Result<Tensor> {
    let logits =
        QLNet::from_weights(weights, precision, device).and_then(|net| net.forward(images)?.to_dtype(DType::F64));
    logits.map_err(|error| device::failed(error, device, "the network and its images", None))
}

/// [`logits`] in an element type that the device may not know.
fn logits_in(weights: &Weights, images: &Tensor, precision: Precision, device: &Device) -> Result<Tensor> {
    let found = images.to_dtype(precision.dtype(device)).map_err(Error::from);
    found.and_then(|images| logits(weights, &images, precision, device)).map_err(|error| match precision {
        // Every device computes in float32: something else is wrong.
        Precision::F32 => error,
        _ => device::unsupported(error, device, precision),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_logit_that_is_no_number_is_noticed() {
        let values = |values: &[f64]| Tensor::new(values, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        assert_eq!(largest(&values(&[1.0, -3.0, 2.0])).unwrap(), 3.0);
        assert_eq!(largest(&values(&[1.0, f64::NAN, 2.0])).unwrap(), f64::INFINITY);
    }

    /// The verdict on half an element, as if it were one.
    #[test]
    fn what_is_no_symmetry_does_not_pass() {
        let weights = Weights::random(&Config::qlnet_digits(), 1).unwrap();
        let subject = Subject::new(&weights, &noise(2, 64, 1).unwrap(), Precision::F32, &Device::Cpu).unwrap();
        for family in crate::symmetry::families::FAMILIES {
            let whole = draw(family, subject.weights(), None, None, 1).unwrap();
            assert!(subject.outcome("", "", 0, std::slice::from_ref(&whole)).unwrap().passed, "{}", family.name());
            let half = subject.outcome("", "", 0, &[whole.writing_half()]).unwrap();
            assert!(!half.passed && half.change.logit_change > subject.tolerance(), "{}", family.name());
        }
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        let weights = Weights::random(&Config::qlnet_digits(), 1).unwrap();
        let images = noise(1, 32, 1).unwrap();
        let error = |weights: &Weights, images: &Tensor, precision| match Subject::new(
            weights,
            images,
            precision,
            &Device::Cpu,
        ) {
            Ok(_) => panic!("it is checked"),
            Err(error) => error,
        };
        assert!(matches!(error(&weights, &images, Precision::F16), Error::Symmetry(_)));
        assert!(matches!(error(&weights, &images.squeeze(0).unwrap(), Precision::F64), Error::Symmetry(_)));
        assert!(matches!(error(&weights, &images.narrow(1, 0, 1).unwrap(), Precision::F64), Error::Symmetry(_)));
        let scaled = |factor: f64| weights.map(|_, tensor| tensor.affine(factor, 0.0)).unwrap();
        assert!(matches!(error(&scaled(0.0), &images, Precision::F32), Error::Symmetry(_)));
        assert!(matches!(error(&scaled(1e30), &images, Precision::F32), Error::Overflow { dtype: "f32" }));
    }
}
