//! A network with all that belongs to it: from decoded images to named predictions.

use anyhow::{Result, anyhow, bail};
use candle_core::{DType, Device, Tensor};
use image::RgbImage;
use serde::Serialize;

use crate::input::preprocess::{self, Preprocess};
use crate::network::model::QLNet;
use crate::weights::fold::Weights;
use crate::weights::registry::Label;

/// A network, its preprocessing and the meaning of its outputs.
pub struct Classifier {
    pub net: QLNet,
    labels: Vec<Label>,
    pub preprocess: Preprocess,
    pub device: Device,
    pub dtype: DType,
}

/// One of the classes that an image may belong to.
#[derive(Clone, Debug, Serialize)]
pub struct Prediction<'a> {
    /// Index of the output.
    pub index: usize,
    /// WordNet id, where the model's classes have one.
    pub wnid: Option<&'a str>,
    pub label: &'a str,
    /// By softmax over all classes.
    pub probability: f64,
    pub logit: f32,
}

impl Classifier {
    /// Puts a network on a device. [`Label::for_outputs`] replaces labels that do not fit.
    ///
    /// # Errors
    /// If the device lacks the memory or the element type.
    pub fn new(
        weights: &Weights,
        labels: Vec<Label>,
        preprocess: Preprocess,
        device: Device,
        dtype: DType,
    ) -> Result<Self> {
        preprocess.validate()?;
        let labels = Label::for_outputs(labels, weights.config.num_classes);
        let net = QLNet::from_weights(weights, dtype, &device)?;
        if dtype != DType::F32 {
            // Not every device has every operation in half precision.
            let probe = Tensor::zeros((1, 3, 32, 32), dtype, &device).and_then(|images| net.forward(&images));
            probe.map_err(|error| {
                let (device, dtype) = (crate::network::device::name(&device), dtype.as_str());
                anyhow!("{device} does not compute in {dtype} ({error}); use --dtype f32")
            })?;
        }
        Ok(Self { net, labels, preprocess, device, dtype })
    }

    /// Logits `[n, classes]` in float32, on the CPU, of a normalised batch `[n, 3, h, w]`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let images = images.to_device(&self.device)?.to_dtype(self.dtype)?;
        Ok(self.net.forward(&images)?.to_dtype(DType::F32)?.to_device(&Device::Cpu)?)
    }

    /// The `top_k` most likely classes of each image, the most likely first, or why an image has
    /// none. The images are crops that [`Preprocess::apply`] made.
    ///
    /// # Errors
    /// If the device fails; and for a single image, if the network overflows on it.
    pub fn classify(&self, crops: &[RgbImage], top_k: usize) -> Result<Vec<Result<Vec<Prediction<'_>>>>> {
        let logits = self.logits(&preprocess::to_tensor(crops)?)?.to_vec2::<f32>()?;
        Ok(logits.iter().map(|logits| self.top(logits, top_k)).collect())
    }

    /// What each output means.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// Refuses logits that are not finite.
    ///
    /// # Errors
    /// If the network overflowed.
    pub(crate) fn check_finite(&self, logits: &[f32]) -> Result<()> {
        if logits.iter().any(|logit| !logit.is_finite()) {
            let way_on = if self.dtype == DType::F32 { "the weights may be damaged" } else { "use --dtype f32" };
            bail!("the network overflows in {}; {way_on}", self.dtype.as_str());
        }
        Ok(())
    }

    fn top(&self, logits: &[f32], k: usize) -> Result<Vec<Prediction<'_>>> {
        self.check_finite(logits)?;
        let normaliser = log_sum_exp(logits);
        let mut order: Vec<usize> = (0..logits.len()).collect();
        // Stable: of equal logits the lower index comes first.
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let predictions = order
            .into_iter()
            .take(k)
            .map(|index| Prediction {
                index,
                wnid: self.labels[index].wnid.as_deref(),
                label: &self.labels[index].text,
                probability: (f64::from(logits[index]) - normaliser).exp(),
                logit: logits[index],
            })
            .collect();
        Ok(predictions)
    }
}

/// The logarithm of the sum of the exponentials: what softmax takes away from each logit.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    largest + logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum::<f64>().ln()
}
