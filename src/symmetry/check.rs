//! Moves the weights and looks whether the logits stay; moves them by something that is no symmetry, and
//! looks whether they do not.

use anyhow::{Context, Result, ensure};
use candle_core::{D, DType, Device, Tensor};
use serde::Serialize;

use super::element::{Element, Side};
use super::families::{Family, draw};
use super::matrices;
use crate::network::model::QLNet;
use crate::random;
use crate::weights::config::Config;
use crate::weights::fold::Weights;

/// A network whose symmetry is checked: float64 weights, and images to run it on.
pub struct Subject {
    pub weights: Weights,
    /// `[n, 3, h, w]`, normalised, on the device that computes.
    images: Tensor,
    dtype: DType,
    device: Device,
    /// Of the unmoved weights, `[n, classes]` in float64.
    logits: Tensor,
    /// The largest absolute value among them.
    pub largest_logit: f64,
    /// How far rounding may move the logits, relative to the largest: by the rule of thumb
    /// `sqrt(3 K) u`, or, in a network whose sums cancel, by ten times what it does to them if every
    /// parameter is off by one unit roundoff.
    pub tolerance: f64,
}

/// What an element did. What is infinite, because the network overflows, is `null` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Norm of the change of all tensors that were changed, by their norm before.
    pub weight_change: f64,
    /// The largest change of any logit, by the largest logit.
    pub logit_change: f64,
    pub logit_change_absolute: f64,
    /// Share of the images whose most likely class is the same.
    pub top1_agreement: f64,
}

/// What came out for a family, or for several at once.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub family: String,
    pub group: String,
    pub dimensions: usize,
    #[serde(flatten)]
    pub change: Change,
    /// The change of a logit, relative, by the half of the element that is no symmetry.
    pub control_logit_change: f64,
    /// Whether the logits stayed, and those of the control did not.
    pub passed: bool,
}

/// A control must change the logits by this many times what a symmetry may.
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
fn rule_of_thumb(config: &Config, dtype: DType) -> f64 {
    let sums: usize = config.convs().iter().map(|conv| conv.shape[1..].iter().product::<usize>()).sum();
    (3.0 * sums as f64).sqrt() * if dtype == DType::F64 { 2f64.powi(-47) } else { 2f64.powi(-24) }
}

/// How many times what a change of every parameter by one unit roundoff does to the logits a symmetry may
/// do: it changes them all, each by the rounding of several operations.
const SENSITIVITY: f64 = 10.0;

impl Subject {
    /// `weights` may be float32; `images` are `[n, 3, h, w]`, normalised; `dtype` is float32 or float64.
    ///
    /// # Errors
    /// If the device fails, or the network overflows.
    pub fn new(weights: &Weights, images: &Tensor, dtype: DType, device: &Device) -> Result<Self> {
        let weights = weights.to_dtype(DType::F64)?;
        let images = images.to_device(device)?.to_dtype(dtype)?;
        let device = device.clone();
        let failed = || format!("{} does not compute in {}", crate::network::device::name(&device), dtype.as_str());
        let logits = logits(&weights, &images, dtype, &device).with_context(failed)?;
        let largest_logit = largest(&logits)?;
        ensure!(largest_logit.is_finite(), "the network overflows; the weights may be damaged");
        ensure!(largest_logit > 0.0, "all logits are zero");
        let tolerance = rule_of_thumb(&weights.config, dtype);
        let mut subject = Self { weights, images, dtype, device, logits, largest_logit, tolerance };
        let sensitivity = subject.compare(&subject.off_by_rounding()?)?.logit_change;
        subject.tolerance = tolerance.max(SENSITIVITY * sensitivity);
        Ok(subject)
    }

    /// The weights, each off by up to one unit roundoff.
    fn off_by_rounding(&self) -> Result<Weights> {
        let unit = if self.dtype == DType::F64 { 2f64.powi(-53) } else { 2f64.powi(-24) };
        let mut rng = random::stream(0, random::ROUNDING);
        let mut weights = self.weights.clone();
        for tensor in weights.tensors.values_mut() {
            let signs = matrices::signs(tensor.elem_count(), &mut rng)?.reshape(tensor.shape())?;
            *tensor = (&*tensor * signs.affine(unit, 1.0)?)?;
        }
        Ok(weights)
    }

    /// What other weights do.
    ///
    /// # Errors
    /// If the device fails.
    pub fn compare(&self, moved: &Weights) -> Result<Change> {
        let logits = logits(moved, &self.images, self.dtype, &self.device)?;
        let absolute = largest(&(&logits - &self.logits)?)?;
        let same = logits.argmax(D::Minus1)?.eq(&self.logits.argmax(D::Minus1)?)?;
        let agreement = same.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>()?;
        Ok(Change {
            weight_change: distance(&self.weights, moved)?,
            logit_change: absolute / self.largest_logit,
            logit_change_absolute: absolute,
            top1_agreement: agreement,
        })
    }

    /// How far the logits of weights in an element type are from those of the subject: root mean square,
    /// relative to the largest.
    ///
    /// # Errors
    /// If the device does not compute in it.
    pub fn error_in(&self, weights: &Weights, dtype: DType) -> Result<f64> {
        let logits = logits(weights, &self.images.to_dtype(dtype)?, dtype, &self.device)?;
        let difference = (logits - &self.logits)?;
        let error = difference.sqr()?.mean_all()?.sqrt()?.to_scalar::<f64>()?;
        Ok(if largest(&difference)?.is_finite() { error / self.largest_logit } else { f64::INFINITY })
    }

    /// The weights moved by elements, or half of each, one after the other.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn moved(&self, elements: &[Element], side: Side) -> Result<Weights> {
        let mut weights = self.weights.clone();
        elements.iter().try_for_each(|element| element.apply(&mut weights, side))?;
        Ok(weights)
    }

    /// What elements do, and as a control the relative change of the logits by half of each.
    ///
    /// # Errors
    /// If the device fails.
    pub fn apply(&self, elements: &[Element]) -> Result<(Change, f64)> {
        let change = self.compare(&self.moved(elements, Side::Both)?)?;
        Ok((change, self.compare(&self.moved(elements, Side::Writing)?)?.logit_change))
    }

    /// The verdict on elements.
    ///
    /// # Errors
    /// If the device fails.
    pub fn outcome(&self, family: &str, group: &str, dimensions: usize, elements: &[Element]) -> Result<Outcome> {
        let (change, control_logit_change) = self.apply(elements)?;
        let tolerance = self.tolerance;
        let passed = change.logit_change <= tolerance && control_logit_change >= FAR * tolerance;
        Ok(Outcome { family: family.into(), group: group.into(), dimensions, change, control_logit_change, passed })
    }

    /// The verdict on a family by one of its elements, as [`draw`] draws it; `None` if nothing in the
    /// network, or the layer, is moved by it.
    ///
    /// # Errors
    /// If the device fails.
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
    /// If the device fails.
    pub fn outcome_of(&self, family: &dyn Family, layer: Option<usize>, element: &Element) -> Result<Outcome> {
        let dimensions = family.dimensions(&self.weights.config, layer);
        self.outcome(family.name(), family.group(), dimensions, std::slice::from_ref(element))
    }
}

/// Images of noise `[n, 3, side, side]`, normally distributed as normalised images are; they depend on the
/// seed alone.
///
/// # Errors
/// If there is no memory.
pub fn noise(n: usize, side: usize, seed: u64) -> Result<Tensor> {
    Ok(matrices::normal((n, 3, side, side), &mut random::stream(seed, random::IMAGES))?.to_dtype(DType::F32)?)
}

/// The largest absolute value; infinite if one is not finite.
fn largest(t: &Tensor) -> Result<f64> {
    let values = t.flatten_all()?.to_vec1::<f64>()?;
    Ok(values.into_iter().fold(0.0, |largest, v| if v.is_finite() { v.abs().max(largest) } else { f64::INFINITY }))
}

/// Logits `[n, classes]` in float64 on the CPU.
fn logits(weights: &Weights, images: &Tensor, dtype: DType, device: &Device) -> Result<Tensor> {
    let net = QLNet::from_weights(weights, dtype, device)?;
    Ok(net.forward(images)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)
}

/// How far two networks' parameters are apart, relative to the norm of the first, over the tensors that
/// differ and that both have. If these were zero, the distance itself.
pub fn distance(from: &Weights, to: &Weights) -> Result<f64> {
    let norm = |t: &Tensor| -> Result<f64> { Ok(t.sqr()?.sum_all()?.to_scalar::<f64>()?) };
    let (mut moved, mut whole) = (0.0, 0.0);
    for (name, tensor) in &from.tensors {
        // Tensors that no operation touched are shared.
        let Some(other) = to.tensors.get(name).filter(|other| other.id() != tensor.id()) else { continue };
        moved += norm(&(other - tensor)?)?;
        whole += norm(tensor)?;
    }
    Ok(if whole > 0.0 { (moved / whole).sqrt() } else { moved.sqrt() })
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
        let subject = Subject::new(&weights, &noise(2, 64, 1).unwrap(), DType::F32, &Device::Cpu).unwrap();
        for family in crate::symmetry::families::FAMILIES {
            let whole = draw(family, &subject.weights, None, None, 1).unwrap();
            assert!(subject.outcome("", "", 0, std::slice::from_ref(&whole)).unwrap().passed, "{}", family.name());
            let half = subject.outcome("", "", 0, &[whole.writing_half()]).unwrap();
            assert!(!half.passed && half.change.logit_change > subject.tolerance, "{}", family.name());
        }
    }
}
