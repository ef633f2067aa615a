//! Images to the device that a network runs on, and numbers back.

use candle_core::{DType, Tensor};
use image::RgbImage;

use crate::error::{Error, Result};
use crate::input::preprocess;
use crate::network::classifier::Classifier;
use crate::network::device;
use crate::network::gpu;
use crate::network::model::{QLNet, sides};
use crate::network::ops::planes;
use crate::text::count;

impl Classifier {
    /// What [`Self::logits`] and the like take of crops of one size, in the form that is best for the device: normalised,
    /// or on a GPU bytes `[n, h, w, 3]`, which are normalised there.
    ///
    /// # Errors
    /// If there is no crop, or they differ in size.
    pub(crate) fn batch(&self, crops: &[RgbImage]) -> Result<Tensor> {
        if self.device().is_cpu() { preprocess::to_tensor(crops) } else { preprocess::to_bytes(crops) }
    }

    /// Images on the device, as the network takes them.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if they do not fit there.
    pub(super) fn upload(&self, images: &Tensor) -> Result<Tensor> {
        let dtype = self.precision().dtype(self.device());
        let uploaded = gpu::upload(images, self.device()).and_then(|images| match images.dtype() {
            DType::U8 if self.device().is_cpu() => planes(&images, dtype),
            DType::U8 => Ok(images),
            _ => images.to_dtype(dtype),
        });
        uploaded.map_err(|error| self.failed(error, images))
    }

    pub(super) fn on_device(
        &self,
        images: &Tensor,
        run: impl Fn(&QLNet, &Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        let on_device = self.upload(images)?;
        let found = run(self.net(), &on_device).and_then(|found| found.to_dtype(DType::F32));
        found.map_err(|error| self.failed(error, images))
    }

    /// An error of the device on images. The network has tried them one by one; but all are on the device meanwhile, and
    /// fewer would leave it more memory.
    pub(super) fn failed(&self, error: candle_core::Error, images: &Tensor) -> Error {
        let Ok((height, width)) = sides(images) else { return error.into() };
        let images = images.dim(0).unwrap_or(1);
        let what = format!("{} of {width}x{height} pixels", count(images as u64, "image"));
        device::failed(error, self.device(), what, (images > 1).then_some(images / 2))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::input::Preprocess;
    use crate::weights::{Weights, registry};

    #[test]
    fn a_plain_network_takes_bytes() {
        let classifier = Classifier::from_model("qlnet-digits").unwrap();
        let Preprocess { crop, .. } = classifier.preprocess();
        let picture =
            |seed: u32| RgbImage::from_fn(crop, crop, |x, y| image::Rgb([x * y % 251, x + seed, y].map(|v| v as u8)));
        let pictures = [picture(1), picture(90)];
        let expected = classifier.logits(&classifier.batch(&pictures).unwrap()).unwrap();
        let weights = Weights::from_model(registry::find("qlnet-digits").unwrap().name).unwrap();
        let plain = QLNet::new_plain(weights.config(), weights.var_builder(DType::F32, &Device::Cpu)).unwrap();
        let bytes = preprocess::to_bytes(&pictures).unwrap();
        assert_eq!((bytes.dims(), sides(&bytes).unwrap()), (&[2, 64, 64, 3][..], (64, 64)));
        assert_eq!(bits(&classifier.logits(&bytes).unwrap()), bits(&expected));
        let found = plain.forward(&bytes).unwrap();
        let difference = (found - &expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(difference < 1e-4, "{difference}");
    }

    fn bits(logits: &Tensor) -> Vec<u32> {
        logits.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn want_of_memory_says_how_many_images_may_fit() {
        let classifier = Classifier::from_model("qlnet-digits").unwrap();
        let images = Tensor::zeros((48, 64, 70, 3), DType::U8, &Device::Cpu).unwrap();
        let error = || candle_core::Error::Cuda("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".into());
        for (images, words, batch) in [
            (images.clone(), "cpu has too little memory for 48 images of 70x64 pixels", Some(24)),
            (images.narrow(0, 0, 1).unwrap(), "cpu has too little memory for 1 image of 70x64 pixels", None),
        ] {
            let failed = classifier.failed(error(), &images);
            assert_eq!(failed.to_string(), words);
            assert!(matches!(failed, Error::OutOfMemory { batch: found, .. } if found == batch));
        }
        assert!(matches!(classifier.failed(candle_core::Error::Msg("no".into()), &images), Error::Compute(_)));
    }
}
