//! Moves the weights and looks whether the logits stay; moves them by something that is no symmetry, and
//! looks whether they do not.

use anyhow::{Result, ensure};
use candle_core::{D, DType, Device, Tensor};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use serde::Serialize;

use super::{Element, Family, Side, draw, matrices};
use crate::config::Config;
use crate::fold::Weights;
use crate::model::QLNet;

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
}

/// What an element did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Norm of the difference of all parameters that were changed, by their norm before.
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

/// How far rounding may move the logits, relative to the largest.
///
/// A logit is a sum of products of sums ..., and each addition and multiplication is off by up to `u`,
/// the unit roundoff (2^-24 in float32, 2^-53 in float64). Along one path from the image to a logit there
/// are as many as the convolutions have inputs per output, together `K` (20,963 in qlnet-50-v0). Errors
/// of either sign add up like a random walk, to `sqrt(K) u` (Higham, "Accuracy and Stability of Numerical
/// Algorithms", 2.6). There are three such: two networks, and the rounding of the moved weights. In
/// float64 the elements themselves, which are computed in it, are no better than that either.
pub fn tolerance(config: &Config, dtype: DType) -> f64 {
    let sums: usize = config.convs().iter().map(|conv| conv.shape[1..].iter().product::<usize>()).sum();
    let unit = if dtype == DType::F64 { 2f64.powi(-53) } else { 2f64.powi(-24) };
    (3.0 * sums as f64).sqrt() * unit
}

impl Subject {
    /// `weights` may be float32; `images` are `[n, 3, h, w]`, normalised; `dtype` is float32 or float64.
    ///
    /// # Errors
    /// If the device fails, or the network overflows.
    pub fn new(weights: &Weights, images: &Tensor, dtype: DType, device: &Device) -> Result<Self> {
        let weights = weights.to_dtype(DType::F64)?;
        let images = images.to_device(device)?.to_dtype(dtype)?;
        let device = device.clone();
        let logits = logits(&weights, &images, dtype, &device)?;
        let largest_logit = logits.abs()?.max_all()?.to_scalar::<f64>()?;
        ensure!(largest_logit.is_finite() && largest_logit > 0.0, "the network overflows, or all its logits are zero");
        Ok(Self { weights, images, dtype, device, logits, largest_logit })
    }

    /// As [`tolerance`].
    pub fn tolerance(&self) -> f64 {
        tolerance(&self.weights.config, self.dtype)
    }

    /// What other weights do.
    ///
    /// # Errors
    /// If the device fails.
    pub fn compare(&self, moved: &Weights) -> Result<Change> {
        let logits = logits(moved, &self.images, self.dtype, &self.device)?;
        let absolute = (&logits - &self.logits)?.abs()?.max_all()?.to_scalar::<f64>()?;
        let same = logits.argmax(D::Minus1)?.eq(&self.logits.argmax(D::Minus1)?)?;
        let agreement = same.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>()?;
        Ok(Change {
            weight_change: distance(&self.weights, moved)?,
            // Not a number counts as far.
            logit_change: if absolute.is_nan() { f64::INFINITY } else { absolute / self.largest_logit },
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
        let error = (logits - &self.logits)?.sqr()?.mean_all()?.sqrt()?.to_scalar::<f64>()?;
        Ok(if error.is_nan() { f64::INFINITY } else { error / self.largest_logit })
    }

    /// Applies elements one after the other, and half of each as a control.
    ///
    /// # Errors
    /// If the device fails.
    pub fn apply(&self, elements: &[Element]) -> Result<(Weights, Change, f64)> {
        let moved = |side| -> Result<Weights> {
            let mut weights = self.weights.clone();
            elements.iter().try_for_each(|element| element.apply(&mut weights, side))?;
            Ok(weights)
        };
        let both = moved(Side::Both)?;
        let change = self.compare(&both)?;
        Ok((both, change, self.compare(&moved(Side::Writing)?)?.logit_change))
    }

    /// The verdict on elements.
    ///
    /// # Errors
    /// If the device fails.
    pub fn outcome(&self, family: &str, group: &str, dimensions: usize, elements: &[Element]) -> Result<Outcome> {
        let (_, change, control_logit_change) = self.apply(elements)?;
        let tolerance = self.tolerance();
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
        let dimensions = family.dimensions(&self.weights.config, layer);
        self.outcome(family.name(), family.group(), dimensions, &[element]).map(Some)
    }
}

/// Images of noise `[n, 3, side, side]`, normally distributed as normalised images are; they depend on the
/// seed alone.
///
/// # Errors
/// If there is no memory.
pub fn noise(n: usize, side: usize, seed: u64) -> Result<Tensor> {
    Ok(matrices::normal((n, 3, side, side), &mut ChaCha8Rng::seed_from_u64(seed))?.to_dtype(DType::F32)?)
}

/// Logits `[n, classes]` in float64 on the CPU.
fn logits(weights: &Weights, images: &Tensor, dtype: DType, device: &Device) -> Result<Tensor> {
    let net = QLNet::from_weights(weights, dtype, device)?;
    Ok(net.forward(images)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)
}

/// How far two networks' parameters are apart, relative to the norm of the first, over the tensors that
/// differ and that both have.
pub fn distance(from: &Weights, to: &Weights) -> Result<f64> {
    let norm = |t: &Tensor| -> Result<f64> { Ok(t.sqr()?.sum_all()?.to_scalar::<f64>()?) };
    let (mut moved, mut whole) = (0.0, 0.0);
    for (name, tensor) in &from.tensors {
        // Tensors that no operation touched are shared.
        let Some(other) = to.tensors.get(name).filter(|other| other.id() != tensor.id()) else { continue };
        moved += norm(&(other - tensor)?)?;
        whole += norm(tensor)?;
    }
    Ok(if whole > 0.0 { (moved / whole).sqrt() } else { 0.0 })
}
