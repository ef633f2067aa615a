//! Where the network looked: the logit of a class, place by place.
//!
//! After its last activation the network has nothing but a mean over all places and a linear map. The two may
//! change places: the logit of class `c` is exactly the mean over the places `p` of
//!
//! ```text
//! map(p) = w_c . act(p) + b_c
//! ```
//!
//! This is the class activation map of Zhou et al., "Learning Deep Features for Discriminative Localization"
//! (CVPR 2016, [arXiv 1512.04150](https://arxiv.org/abs/1512.04150)), with the bias. For a network that ends like this
//! one it is no approximation: the numbers add up, and no gradient is needed.

use std::slice::Chunks;

use candle_core::{DType, IndexOp, Result as TensorResult, Tensor};
use image::RgbImage;
use serde::Serialize;

use super::classifier::{Classifier, Prediction, most_likely};
use super::model::{QLNet, sides};
use crate::error::Result;

/// Logits of places that are in memory at a time, 16 MB: a network may have a million classes, and thousands of places.
const AT_ONCE: usize = 1 << 22;

/// A class that an image may belong to, and what each place of the image says of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The class, its probability and its logit.
    #[serde(flatten)]
    pub prediction: Prediction,
    /// What each place adds to the logit, in rows from the top: the logit is the mean of these numbers. Numbers above
    /// zero speak for the class, numbers below against it.
    ///
    /// The places divide what the network sees into equal parts: so each has the same share of the picture as of the
    /// logit. What a place sees is wider than its part, and not in the middle of it. All convolutions with a stride
    /// begin at pixel 0, so the fields of the places are centred on the pixels 0, 32, 64, ... (with
    /// [`Config::stride`](crate::weights::Config::stride) 32), at the upper left of their parts, and training may
    /// move what a place minds most within its field. A map is no sharper than that.
    pub map: Vec<Vec<f32>>,
}

impl QLNet {
    /// What the places say, `[n, classes + h * w * k]`, of normalised images `[n, 3, height, width]`: first the logits,
    /// as [`Self::forward`] gives them, then of each place the numbers whose mean they are, of the `k` most likely classes of
    /// the image. `h` and `w` are the image's sides divided by [`Config::stride`](crate::weights::Config::stride), rounded
    /// up; there are `k` classes, one at least.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub(super) fn place_logits(&self, images: &Tensor, k: usize) -> TensorResult<Tensor> {
        self.in_parts(images, |images| {
            let mut places = None;
            let features = self.features_observed(images, &mut |step, x| {
                if step == "act" {
                    places = Some(x.clone());
                }
            })?;
            let Some(places) = places else { candle_core::bail!("the network has no last activation") };
            let (n, h, w, channels) = places.dims4()?;
            let places = places.reshape((n, h * w, channels))?;
            let logits = self.logits_of(&features)?;
            let of_images = logits.to_dtype(DType::F32)?.to_vec2::<f32>()?.into_iter().enumerate();
            let maps = of_images.map(|(image, logits)| {
                let classes = most_likely(&logits).into_iter().take(k).map(|class| class as u32).collect();
                self.map_of(&places.i(image)?, classes)
            });
            let maps = Tensor::stack(&maps.collect::<TensorResult<Vec<_>>>()?, 0)?;
            Tensor::cat(&[logits, maps], 1)
        })
    }

    /// What places `[places, channels]` say of these classes, one place after the other.
    fn map_of(&self, places: &Tensor, classes: Vec<u32>) -> TensorResult<Tensor> {
        let classes = Tensor::new(classes, places.device())?;
        let (count, at_once) = (places.dim(0)?, (AT_ONCE / self.config().num_classes).max(1));
        let parts = (0..count).step_by(at_once).map(|start| {
            let places = places.narrow(0, start, at_once.min(count - start))?;
            self.logits_of(&places)?.index_select(&classes, 1)
        });
        Tensor::cat(&parts.collect::<TensorResult<Vec<_>>>()?, 0)?.flatten_all()
    }
}

impl Classifier {
    /// All classes of an image file, the most likely first, each with its map.
    ///
    /// ```
    /// let classifier = qlnet::Classifier::from_model("qlnet-digits")?;
    /// let three = &classifier.explain(&std::fs::read("samples/digits/3-45.png")?)?[0];
    /// let places: Vec<f32> = three.map.concat();
    /// let mean = places.iter().sum::<f32>() / places.len() as f32;
    /// assert!((mean - three.prediction.logit).abs() < 1e-4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::classify`].
    pub fn explain(&self, bytes: &[u8]) -> Result<Vec<Explanation>> {
        self.explain_crops(&[self.crop_of(bytes)?], self.labels().len())?.remove(0)
    }

    /// The `top_k` most likely classes of each image, as [`Self::classify_crops`] gives them, each with its map.
    ///
    /// # Errors
    /// As [`Self::classify_crops`].
    pub fn explain_crops(&self, crops: &[RgbImage], top_k: usize) -> Result<Vec<Result<Vec<Explanation>>>> {
        self.explain_tensor(&self.batch(crops)?, top_k)
    }

    /// [`Self::explain_crops`] for normalised images `[n, 3, h, w]`, as [`to_tensor`](crate::input::to_tensor) makes
    /// them.
    ///
    /// # Errors
    /// As [`Self::classify_tensor`].
    pub fn explain_tensor(&self, images: &Tensor, top_k: usize) -> Result<Vec<Result<Vec<Explanation>>>> {
        let columns = sides(images)?.1.div_ceil(self.net().config().stride());
        let classes = self.labels().len();
        let maps = top_k.clamp(1, classes);
        let found = self.on_device(images, |net, images| net.place_logits(images, maps))?.to_vec2::<f32>()?;
        let explained = found.iter().map(|found| {
            let (logits, places) = found.split_at(classes);
            self.explained(self.top(logits, top_k)?, places.chunks(maps), columns)
        });
        Ok(explained.collect())
    }

    /// Each place has a number for each class of `predictions`.
    fn explained(&self, predictions: Vec<Prediction>, places: Chunks<f32>, columns: usize) -> Result<Vec<Explanation>> {
        let explained = predictions.into_iter().enumerate().map(|(rank, prediction)| {
            let values: Vec<f32> = places.clone().map(|place| place[rank]).collect();
            self.check_finite(&values)?;
            Ok(Explanation { prediction, map: values.chunks(columns).map(<[f32]>::to_vec).collect() })
        });
        explained.collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::network::Precision;
    use crate::random::{normal, tests::test_stream};
    use crate::weights::registry::{self, Model};
    use crate::weights::{Config, Weights};

    fn classifier(model: &Model, weights: &Weights, precision: Precision) -> Classifier {
        Classifier::new(weights, model.labels(), model.preprocess(), Device::Cpu, precision).unwrap()
    }

    /// The relative distance of the logit from the mean of its map, computed in float64.
    fn distance(explanation: &Explanation) -> f64 {
        let values: Vec<f64> = explanation.map.iter().flatten().map(|value| f64::from(*value)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        (mean - f64::from(explanation.prediction.logit)).abs() / largest
    }

    #[test]
    fn the_logit_is_the_mean_of_its_map() {
        let digits = registry::find("qlnet-digits").unwrap();
        let full = registry::find("qlnet-50-v0").unwrap();
        let digit_weights = crate::weights::load_model(digits, &mut |_| {}).unwrap().weights;
        let full_weights = Weights::random(&Config::qlnet_50_v0(), 1).unwrap();
        for (model, weights, sizes) in [
            (digits, &digit_weights, &[(64, 64), (224, 224), (97, 130)][..]),
            (full, &full_weights, &[(224, 224), (65, 33)]),
        ] {
            for (precision, tolerance) in [
                (Precision::F32, 1e-5),
                (Precision::F64, 1e-6),
                (Precision::Bf16, 1e-5),
                (Precision::Int8, 1e-5),
                // Logits are rounded to eleven bits themselves.
                (Precision::F16, 4e-3),
            ] {
                if precision == Precision::F16 && model.name != digits.name {
                    // Random weights leave its range.
                    continue;
                }
                let classifier = classifier(model, weights, precision);
                for (h, w) in sizes.iter().copied() {
                    let images = normal((2, 3, h, w), &mut test_stream(1)).unwrap();
                    let predictions = classifier.classify_tensor(&images, 5).unwrap();
                    let explanations = classifier.explain_tensor(&images, 5).unwrap();
                    for (predictions, explanations) in predictions.into_iter().zip(explanations) {
                        let (predictions, explanations) = (predictions.unwrap(), explanations.unwrap());
                        assert_eq!(explanations.len(), 5);
                        for (prediction, explanation) in predictions.iter().zip(&explanations) {
                            assert_eq!(&explanation.prediction, prediction, "what is said is said without maps too");
                            let [rows, columns] = [h, w].map(|side: usize| side.div_ceil(32));
                            assert_eq!((explanation.map.len(), explanation.map[0].len()), (rows, columns));
                            assert!(explanation.map.iter().all(|row| row.len() == columns));
                            let distance = distance(explanation);
                            assert!(distance < tolerance, "{}, {precision}, {h}x{w}: {distance:e}", model.name);
                        }
                    }
                }
            }
        }
    }

    /// With blocks made of single operations, as on a GPU, and of more images than run together.
    #[test]
    fn plain_networks_have_the_same_maps() {
        let model = registry::find("qlnet-digits").unwrap();
        let weights = crate::weights::load_model(model, &mut |_| {}).unwrap().weights;
        let images = normal((120, 3, 64, 64), &mut test_stream(2)).unwrap();
        let fused = QLNet::from_weights(&weights, Precision::F32, &Device::Cpu).unwrap();
        let plain = QLNet::new_plain(weights.config(), weights.var_builder(DType::F32, &Device::Cpu)).unwrap();
        let [fused, plain] = [fused, plain].map(|net| net.place_logits(&images, 3).unwrap());
        assert_eq!(fused.dims(), [120, 10 + 4 * 3]);
        let difference = (fused - plain).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(difference < 1e-4, "{difference:e}");
    }

    /// Of a network with so many classes that four, or 27, of its 40 places are looked at together.
    #[test]
    fn of_many_classes_the_maps_are_the_same() {
        for classes in [1_000_000, 150_000] {
            let config = Config::new(1, &[(1, 1)], 1, 1, classes);
            let weights = Weights::random(&config, 4).unwrap();
            let net = QLNet::from_weights(&weights, Precision::F32, &Device::Cpu).unwrap();
            let found = net.place_logits(&normal((1, 3, 32, 20), &mut test_stream(4)).unwrap(), 2).unwrap();
            let found = found.to_vec2::<f32>().unwrap().remove(0);
            let (logits, places) = found.split_at(classes);
            assert_eq!(places.len(), 8 * 5 * 2);
            for (rank, class) in most_likely(logits).into_iter().take(2).enumerate() {
                let mean = places.chunks(2).map(|place| place[rank]).sum::<f32>() / 40.0;
                assert!((mean - logits[class]).abs() < 1e-4 * logits[class].abs().max(1.0), "{mean} {}", logits[class]);
            }
        }
    }

    /// A place whose values overflow is an error, though the logit may not be one.
    #[test]
    fn overflow_is_an_error() {
        let model = registry::find("qlnet-digits").unwrap();
        let mut weights = crate::weights::load_model(model, &mut |_| {}).unwrap().weights;
        let bias = (&weights.tensors()["fc.bias"] + 1e6).unwrap();
        weights.replace("fc.bias", bias).unwrap();
        let images = normal((1, 3, 64, 64), &mut test_stream(3)).unwrap();
        let explained = classifier(model, &weights, Precision::F16).explain_tensor(&images, 3).unwrap().remove(0);
        assert!(matches!(explained, Err(crate::Error::Overflow { dtype: "f16" })));
    }
}
