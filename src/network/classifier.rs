//! A network with all that belongs to it: from images to named predictions.

use std::fmt;
use std::fs::File;
use std::path::Path;

use candle_core::{Device, Tensor};
use image::RgbImage;
use serde::Serialize;

use crate::error::{At, Error, Result};
use crate::input::decode::Options;
use crate::input::files::read_bounded;
use crate::input::preprocess::Preprocess;
use crate::network::device;
use crate::network::load::{Preparation, build, load};
use crate::network::model::QLNet;
use crate::network::precision::Precision;
use crate::weights::registry::{self, Label, Model};
use crate::weights::{Event, Source, Weights};

/// A network, its preprocessing and the meaning of its outputs.
///
/// ```
/// use qlnet::Classifier;
///
/// let bytes = std::fs::read("samples/digits/3-45.png")?;
/// let predictions = Classifier::from_model("qlnet-digits")?.classify(&bytes)?;
/// assert_eq!(predictions[0].label, "3");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Classifier {
    net: QLNet,
    /// As many as the network has outputs.
    labels: Vec<Label>,
    preprocess: Preprocess,
    device: Device,
    precision: Precision,
}

impl fmt::Debug for Classifier {
    /// What it is, without its weights.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let classes = self.labels.len();
        let (device, precision) = (device::name(&self.device), self.precision);
        write!(f, "Classifier {{ {classes} classes, {}, {precision} on {device} }}", self.preprocess)
    }
}

/// One of the classes that an image may belong to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Index of the output, from 0.
    pub index: usize,
    /// WordNet id, where the model's classes have one.
    pub wnid: Option<String>,
    /// The name of the class.
    pub label: String,
    /// From 0 to 1, by softmax over all classes.
    pub probability: f64,
    /// The output itself.
    pub logit: f32,
}

impl Classifier {
    /// A registered model with its own preprocessing, on the CPU in float32. Its weights are downloaded if they
    /// are neither built in nor in the cache.
    ///
    /// # Errors
    /// If no model has that name, or its weights cannot be loaded.
    pub fn from_model(name: &str) -> Result<Self> {
        let model = registry::find(name)?;
        Self::from_source(Source::Model(model), model)
    }

    /// A network whose weights are in a checkpoint file, with labels and preprocessing of the registered model
    /// of that name, on the CPU in float32.
    ///
    /// # Errors
    /// If no model has that name, or the file is not there, is no checkpoint, or is one of another network.
    pub fn from_file(path: impl AsRef<Path>, name: &str) -> Result<Self> {
        let model = registry::find(name)?;
        Self::from_source(Source::File(path.as_ref()), model)
    }

    fn from_source(source: Source, model: &Model) -> Result<Self> {
        let (labels, preprocess) = (model.labels(), model.preprocess());
        Ok(Self::load(source, labels, preprocess, Device::Cpu, Precision::F32, None, &mut |_| {})?.0)
    }

    /// A network with the given weights, on any device. [`Label::for_outputs`] replaces labels that do not fit.
    ///
    /// # Errors
    /// [`Error::Preprocess`] if the preprocessing makes no sense; [`Error::UnsupportedDtype`] if the device does
    /// not compute in the element type; [`Error::OutOfMemory`] if it lacks the memory.
    pub fn new(
        weights: &Weights,
        labels: Vec<Label>,
        preprocess: Preprocess,
        device: Device,
        precision: Precision,
    ) -> Result<Self> {
        preprocess.validate()?;
        let net = build(weights, precision, &device)?;
        Ok(Self::with_net(net, labels, preprocess, device, precision))
    }

    /// [`Self::new`] with the weights of a checkpoint, prepared, and the SHA-256 of the checkpoint. On the CPU the network is
    /// kept as it is packed, and weights that are known are not even read.
    ///
    /// # Errors
    /// If the weights cannot be loaded; otherwise as [`Self::new`].
    pub(crate) fn load(
        source: Source,
        labels: Vec<Label>,
        preprocess: Preprocess,
        device: Device,
        precision: Precision,
        preparation: Option<Preparation>,
        report: &mut dyn FnMut(Event),
    ) -> Result<(Self, String)> {
        preprocess.validate()?;
        let (net, sha256) = load(source, precision, &device, preparation, report)?;
        Ok((Self::with_net(net, labels, preprocess, device, precision), sha256))
    }

    fn with_net(net: QLNet, labels: Vec<Label>, preprocess: Preprocess, device: Device, precision: Precision) -> Self {
        let labels = Label::for_outputs(labels, net.config().num_classes);
        Self { net, labels, preprocess, device, precision }
    }

    /// All classes of an image file, the most likely first. A damaged file whose pixels can all be decoded
    /// is classified like any other: [`Preprocess::crop_of`] also returns a warning. TGA, which has no mark, needs
    /// a file name: [`Self::classify_file`]. The image is turned upright, and may have up to
    /// [`MAX_PIXELS`](crate::input::MAX_PIXELS); for other [`Options`], make a crop with [`Preprocess::crop_of`].
    ///
    /// # Errors
    /// If the bytes are no image that can be decoded; otherwise as [`Self::classify_image`].
    pub fn classify(&self, bytes: &[u8]) -> Result<Vec<Prediction>> {
        self.classify_crop(self.crop_of(bytes)?)
    }

    /// [`Self::classify`] for a file. Its name tells that it is a TGA file, which has no mark.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; otherwise as [`Self::classify`].
    pub fn classify_file(&self, path: impl AsRef<Path>) -> Result<Vec<Prediction>> {
        let path = path.as_ref();
        let bytes = File::open(path).and_then(|file| read_bounded(file, 0)).map_err(Error::io("read", path))?;
        self.classify_crop(self.preprocess.crop_of(&bytes, path, Options::default()).at(path.display())?.pixels)
    }

    /// All classes of an image, the most likely first.
    ///
    /// # Errors
    /// [`Error::Overflow`] if the network overflows on it. Also if the image is too elongated, or the device
    /// fails.
    pub fn classify_image(&self, image: &RgbImage) -> Result<Vec<Prediction>> {
        self.classify_crop(self.preprocess.apply(image)?)
    }

    fn classify_crop(&self, crop: RgbImage) -> Result<Vec<Prediction>> {
        self.classify_crops(&[crop], self.labels.len())?.remove(0)
    }

    /// The `top_k` most likely classes of each image, the most likely first, or why an image has
    /// none. The images are crops that [`Preprocess::apply`] or [`Preprocess::crop_of`] made; they run together.
    ///
    /// # Errors
    /// If there is no crop, or they differ in size, or the device fails. The result of one image is
    /// [`Error::Overflow`] if the network overflows on it.
    pub fn classify_crops(&self, crops: &[RgbImage], top_k: usize) -> Result<Vec<Result<Vec<Prediction>>>> {
        self.classify_tensor(&self.batch(crops)?, top_k)
    }

    /// [`Self::classify_crops`] for normalised images `[n, 3, h, w]`, as [`to_tensor`](crate::input::to_tensor) makes
    /// them.
    ///
    /// # Errors
    /// As [`Self::logits`]. The result of one image is [`Error::Overflow`] if the network overflows on it.
    pub fn classify_tensor(&self, images: &Tensor, top_k: usize) -> Result<Vec<Result<Vec<Prediction>>>> {
        let logits = self.logits(images)?.to_vec2::<f32>()?;
        Ok(logits.iter().map(|logits| self.top(logits, top_k)).collect())
    }

    /// Logits `[n, classes]` in float32, on the CPU, of normalised images `[n, 3, h, w]`, or of their bytes
    /// `[n, h, w, 3]`. They may be infinite or no numbers, in half precision above all.
    ///
    /// # Errors
    /// If the images are of another shape, or the device fails.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.on_device(images, QLNet::forward)
    }

    /// Features `[n, num_features]` in float32, on the CPU, of normalised images `[n, 3, h, w]`: each channel's
    /// mean over all pixels of the network's last activation. The logits are an affine function of them.
    ///
    /// # Errors
    /// As [`Self::logits`].
    pub fn features(&self, images: &Tensor) -> Result<Tensor> {
        self.on_device(images, QLNet::features)
    }

    /// The features of an image file.
    ///
    /// # Errors
    /// As [`Self::classify`].
    pub fn features_of(&self, bytes: &[u8]) -> Result<Vec<f32>> {
        self.features_of_crop(self.crop_of(bytes)?)
    }

    /// The features of an image.
    ///
    /// # Errors
    /// As [`Self::classify_image`].
    pub fn features_of_image(&self, image: &RgbImage) -> Result<Vec<f32>> {
        self.features_of_crop(self.preprocess.apply(image)?)
    }

    fn features_of_crop(&self, crop: RgbImage) -> Result<Vec<f32>> {
        let features = self.features(&self.batch(&[crop])?)?.flatten_all()?.to_vec1::<f32>()?;
        self.check_finite(&features)?;
        Ok(features)
    }

    /// What each output means.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// How an image becomes the network's input.
    pub fn preprocess(&self) -> Preprocess {
        self.preprocess
    }

    /// From now on, makes the network's input in this way.
    ///
    /// # Errors
    /// [`Error::Preprocess`] if it makes no sense.
    pub fn set_preprocess(&mut self, preprocess: Preprocess) -> Result<()> {
        self.preprocess = preprocess.validate().map(|()| preprocess)?;
        Ok(())
    }

    /// Where the network runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The element type that it computes in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The network itself.
    pub(crate) fn net(&self) -> &QLNet {
        &self.net
    }

    /// Refuses values that are not finite.
    ///
    /// # Errors
    /// [`Error::Overflow`] if one is not.
    pub(crate) fn check_finite(&self, values: &[f32]) -> Result<()> {
        let finite = values.iter().all(|value| value.is_finite());
        finite.then_some(()).ok_or(Error::Overflow { dtype: self.precision.name() })
    }

    /// What the network sees of an image file whose name is not known.
    pub(super) fn crop_of(&self, bytes: &[u8]) -> Result<RgbImage> {
        Ok(self.preprocess.crop_of(bytes, Path::new(""), Options::default())?.pixels)
    }

    pub(super) fn top(&self, logits: &[f32], k: usize) -> Result<Vec<Prediction>> {
        self.check_finite(logits)?;
        let normaliser = log_sum_exp(logits);
        let prediction = |index: usize| Prediction {
            index,
            wnid: self.labels[index].wnid.clone(),
            label: self.labels[index].text.clone(),
            probability: (f64::from(logits[index]) - normaliser).exp(),
            logit: logits[index],
        };
        Ok(most_likely(logits).into_iter().take(k).map(prediction).collect())
    }
}

/// All classes, the most likely first, and of equal logits that with the lower index.
pub(super) fn most_likely(logits: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    order
}

/// The logarithm of the sum of the exponentials: what softmax takes away from each logit.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    largest + logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::preprocess;
    use crate::random::{normal, tests::test_stream};

    const THREE: &[u8] = include_bytes!("../../samples/digits/3-45.png");

    fn digits(precision: Precision) -> Classifier {
        let model = registry::find("qlnet-digits").unwrap();
        let weights = crate::weights::load_model(model, &mut |_| {}).unwrap().weights;
        Classifier::new(&weights, model.labels(), model.preprocess(), Device::Cpu, precision).unwrap()
    }

    #[test]
    fn bytes_pixels_and_tensors_are_classified_alike() {
        let classifier = Classifier::from_model("qlnet-digits").unwrap();
        let predictions = classifier.classify(THREE).unwrap();
        assert_eq!((predictions.len(), predictions[0].index, predictions[0].label.as_str()), (10, 3, "3"));
        assert!((predictions.iter().map(|p| p.probability).sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(predictions.is_sorted_by(|a, b| a.probability >= b.probability));

        let image = image::load_from_memory(THREE).unwrap().into_rgb8();
        assert_eq!(classifier.classify_image(&image).unwrap(), predictions);
        let crop = classifier.preprocess().apply(&image).unwrap();
        let batch = classifier.classify_crops(&[crop.clone(), crop.clone()], 3).unwrap();
        assert_eq!(batch.len(), 2);
        for top in batch {
            assert_eq!(top.unwrap(), predictions[..3]);
        }
        let logits = classifier.logits(&preprocess::to_tensor(&[crop]).unwrap()).unwrap().to_vec2::<f32>().unwrap();
        assert!(predictions.iter().all(|p| p.logit == logits[0][p.index]));
    }

    #[test]
    fn a_file_of_weights_has_labels_and_preprocessing_of_a_model() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/qlnet-digits.safetensors");
        let classifier = Classifier::from_file(path, "qlnet-digits").unwrap();
        let model = Classifier::from_model("qlnet-digits").unwrap();
        assert_eq!(classifier.classify(THREE).unwrap(), model.classify(THREE).unwrap());
        // A thousand labels do not fit ten outputs.
        let other = Classifier::from_file(path, "qlnet-50-v0").unwrap();
        assert_eq!((other.labels().len(), other.preprocess().crop), (10, 224));
        assert_eq!(other.labels()[3].text, "class 3");
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        assert!(Classifier::from_model("qlnet-letters").is_err());
        assert!(Classifier::from_file("no-such-file", "qlnet-digits").is_err());
        assert!(Classifier::from_model("qlnet-digits").unwrap().classify(b"no image").is_err());
    }

    #[test]
    fn logits_are_an_affine_function_of_features() {
        let model = registry::find("qlnet-digits").unwrap();
        let weights = crate::weights::load_model(model, &mut |_| {}).unwrap().weights;
        let classifier = digits(Precision::F32);
        // More images than run together.
        let images = normal((120, 3, 64, 64), &mut test_stream(1)).unwrap();
        let features = classifier.features(&images).unwrap();
        assert_eq!(features.dims(), [120, 48]);
        let [weight, bias] = ["fc.weight", "fc.bias"].map(|name| &weights.tensors()[name]);
        let expected = features.matmul(&weight.t().unwrap()).unwrap().broadcast_add(bias).unwrap();
        let logits = classifier.logits(&images).unwrap();
        let difference = (logits - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(difference < 1e-4, "{difference}");

        let image = image::load_from_memory(THREE).unwrap().into_rgb8();
        let of_image = classifier.features_of_image(&image).unwrap();
        assert_eq!(of_image.len(), 48);
        assert_eq!(classifier.features_of(THREE).unwrap(), of_image);
    }

    #[test]
    fn overflow_names_the_element_type() {
        let mut classifier = digits(Precision::F16);
        assert_eq!(classifier.classify(THREE).unwrap()[0].label, "3");
        // Large enough that its output leaves the range of float16.
        let model = registry::find("qlnet-digits").unwrap();
        let mut weights = crate::weights::load_model(model, &mut |_| {}).unwrap().weights;
        let bias = (&weights.tensors()["fc.bias"] + 1e6).unwrap();
        weights.replace("fc.bias", bias).unwrap();
        classifier.net = QLNet::from_weights(&weights, Precision::F16, &Device::Cpu).unwrap();
        let error = classifier.classify(THREE).unwrap_err();
        assert!(matches!(error, Error::Overflow { dtype: "f16" }), "{error}");
        assert_eq!(error.to_string(), "the network overflows in f16");
    }

    #[test]
    fn a_prediction_is_written_as_json() {
        let prediction = Prediction { index: 3, wnid: None, label: "3".into(), probability: 0.5, logit: 2.0 };
        let json = serde_json::to_string(&prediction).unwrap();
        assert_eq!(json, r#"{"index":3,"wnid":null,"label":"3","probability":0.5,"logit":2.0}"#);
    }
}
