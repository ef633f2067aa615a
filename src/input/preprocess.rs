//! From an image to the network's input: decode, resize, crop, normalise.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;

use anyhow::{Result, bail, ensure};
use candle_core::{Device, Tensor};
use image::RgbImage;
use rayon::prelude::*;

use crate::input::decode::{Options, Picture};
use crate::input::resample::{Interpolation, Rect, Resize};

/// Mean and standard deviation per channel of ImageNet's training images, in 0..1.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// How an image becomes the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Preprocess {
    /// Pixels of the shorter side after the resize.
    pub resize: u32,
    pub interpolation: Interpolation,
    /// Side of the square that is cut from the centre, at most `resize`.
    pub crop: u32,
}

impl Preprocess {
    /// timm's evaluation transform: the shorter side to `floor(crop / crop_pct)`.
    pub fn timm(crop: u32, crop_pct: f64, interpolation: Interpolation) -> Self {
        Self { resize: (f64::from(crop) / crop_pct).floor() as u32, interpolation, crop }
    }

    /// The transform of the author's notebook: 256 bilinear and 224, or in that proportion.
    pub fn notebook(crop: u32) -> Self {
        Self::timm(crop, 0.875, Interpolation::Bilinear)
    }

    /// Checks that the crop fits.
    ///
    /// # Errors
    /// If one of the sizes is zero or absurd, or the crop is larger than the resized image.
    pub fn validate(&self) -> Result<()> {
        let Self { resize, crop, .. } = *self;
        ensure!(crop > 0 && resize <= 8192, "resize and crop must lie between 1 and 8192, found {resize} and {crop}");
        ensure!(crop <= resize, "the crop ({crop}) is larger than the resized image's shorter side ({resize})");
        Ok(())
    }

    /// From an image file to what the network sees of it: decodes, resizes and crops, where the decoder
    /// permits it row by row. The name decides for TGA, see [`Picture::open`].
    ///
    /// Decoders of rare formats have bugs: one that panics makes an error of this image, and nothing else.
    ///
    /// # Errors
    /// For any reason that [`Picture::open`], [`Picture::read`] and [`Self::apply`] have.
    pub fn crop_of(&self, bytes: &[u8], name: &Path, options: Options) -> Result<Crop> {
        let crop = || {
            let picture = Picture::open(bytes, name, options)?;
            let mut resize = self.begin(picture.dimensions())?;
            let warning = picture.read(&mut |rows| resize.put(rows))?;
            Ok(Crop { pixels: resize.finish(), warning })
        };
        without_panic(crop)
            .unwrap_or_else(|| bail!("damaged, or of a kind that cannot be decoded: the decoder gave up on it"))
    }

    /// Resizes and crops as timm (torchvision's `Resize` and `CenterCrop`, by Pillow) does:
    /// `[crop, crop]` pixels.
    ///
    /// # Errors
    /// If the image is so elongated that its longer side would exceed any reason.
    pub fn apply(&self, image: &RgbImage) -> Result<RgbImage> {
        let mut resize = self.begin(image.dimensions())?;
        resize.put(image.as_raw());
        Ok(resize.finish())
    }

    /// The resize of an image of this width and height.
    fn begin(&self, (w, h): (u32, u32)) -> Result<Resize> {
        let (short, long) = (w.min(h), w.max(h));
        // torchvision: int(size * long / short).
        let long = (f64::from(self.resize) * f64::from(long) / f64::from(short)) as u64;
        ensure!(long < 1 << 24, "the image is too elongated: {w}x{h}");
        let (short, long) = (self.resize, long as u32);
        let (width, height) = if w <= h { (short, long) } else { (long, short) };
        let crop =
            Rect { x: centre(width, self.crop), y: centre(height, self.crop), width: self.crop, height: self.crop };
        Ok(Resize::new((w, h), (width, height), self.interpolation, crop))
    }
}

/// What the network sees of an image file.
#[derive(Clone, Debug)]
pub struct Crop {
    pub pixels: RgbImage,
    /// What is wrong with the file, although all of its pixels could be decoded.
    pub warning: Option<String>,
}

impl std::fmt::Display for Preprocess {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { resize, interpolation, crop } = self;
        write!(f, "resize {resize} {interpolation}, crop {crop}")
    }
}

/// What `work` gives, unless it panics; of a panic in this thread nothing is printed.
fn without_panic<T>(work: impl FnOnce() -> T) -> Option<T> {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                others(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    result.ok()
}

/// Python's `round((size - crop) / 2)`: ties to even.
fn centre(size: u32, crop: u32) -> u32 {
    (f64::from(size - crop) / 2.0).round_ties_even() as u32
}

/// Scales to 0..1 and normalises by [`IMAGENET_MEAN`] and [`IMAGENET_STD`], as torchvision's
/// `ToTensor` and `Normalize` do: float32 `[n, 3, h, w]` on the CPU.
///
/// # Errors
/// If there is no image, or they differ in size.
pub fn to_tensor(images: &[RgbImage]) -> Result<Tensor> {
    ensure!(!images.is_empty(), "no image to make a tensor of");
    let (width, height) = images[0].dimensions();
    let plane = width as usize * height as usize;
    let table: [[f32; 256]; 3] =
        std::array::from_fn(|c| std::array::from_fn(|v| (v as f32 / 255.0 - IMAGENET_MEAN[c]) / IMAGENET_STD[c]));
    let mut values = vec![0f32; images.len() * 3 * plane];
    let same = images.iter().all(|image| image.dimensions() == (width, height));
    ensure!(same, "images of one batch must have one size");
    values.par_chunks_exact_mut(3 * plane).zip(images).for_each(|(values, image)| {
        for (c, (values, table)) in values.chunks_exact_mut(plane).zip(&table).enumerate() {
            for (value, pixel) in values.iter_mut().zip(image.as_raw().as_chunks::<3>().0) {
                *value = table[pixel[c] as usize];
            }
        }
    });
    Ok(Tensor::from_vec(values, (images.len(), 3, height as usize, width as usize), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_centre_is_rounded_as_python_rounds() {
        assert_eq!(centre(235, 224), 6); // 5.5
        assert_eq!(centre(237, 224), 6); // 6.5
        assert_eq!(centre(313, 224), 44); // 44.5
        assert_eq!(centre(224, 224), 0);
    }

    #[test]
    fn sizes_are_those_of_timm() {
        let timm = Preprocess::timm(224, 0.95, Interpolation::Bicubic);
        assert_eq!(timm, Preprocess { resize: 235, interpolation: Interpolation::Bicubic, crop: 224 });
        assert_eq!(Preprocess::notebook(224).resize, 256);
        assert!(Preprocess { crop: 300, ..timm }.validate().is_err());
        assert!(Preprocess { crop: 0, ..timm }.validate().is_err());
    }

    #[test]
    fn a_panic_is_caught() {
        assert_eq!(without_panic(|| 3), Some(3));
        assert_eq!(without_panic(|| -> u32 { panic!("a bug in a decoder") }), None);
        assert_eq!(without_panic(|| -> u32 { [1][std::hint::black_box(1)] }), None);
    }

    #[test]
    fn elongated_images_are_cropped_or_refused() {
        let timm = Preprocess::timm(224, 0.95, Interpolation::Bicubic);
        assert_eq!(timm.apply(&RgbImage::new(5000, 2)).unwrap().dimensions(), (224, 224));
        assert!(timm.apply(&RgbImage::new(100_000, 1)).is_err());
    }
}
