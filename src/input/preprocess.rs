//! From an image to the network's input: decode, resize, crop, normalise.

use std::fmt;
use std::path::Path;

use candle_core::{Device, Tensor};
use image::RgbImage;
use rayon::prelude::*;

use crate::error::{Error, Reason, Result, ensure};
use crate::input::decode::{Options, Picture, without_panic};
use crate::input::resample::{Interpolation, Rect, Resize};

/// The mean of ImageNet's training images, for red, green and blue in 0..1.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];

/// The standard deviation of ImageNet's training images, for red, green and blue in 0..1.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// The largest number of pixels to which the shorter side of an image may be resized.
const LARGEST: u32 = 8192;

/// How an image becomes the network's input: resized by Pillow's algorithm until its shorter side has a given
/// length, then cropped to a square in its centre.
///
/// The fields may hold any numbers: [`Self::validate`], and every method that uses them, returns an error for those
/// that make no sense.
///
/// ```
/// use qlnet::input::Preprocess;
/// use qlnet::input::Interpolation;
///
/// let preprocess = Preprocess::timm(224, 0.95, Interpolation::Bicubic);
/// assert_eq!(preprocess.to_string(), "resize 235 bicubic, crop 224");
/// let photo = qlnet::image::RgbImage::new(640, 480);
/// assert_eq!(preprocess.apply(&photo)?.dimensions(), (224, 224));
/// # Ok::<(), qlnet::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Preprocess {
    /// Pixels of the shorter side after the resize, at most 8192.
    pub resize: u32,
    /// The kernel of the resize.
    pub interpolation: Interpolation,
    /// Pixels of each side of the square that is cut from the centre: at least 1, at most `resize`.
    pub crop: u32,
}

impl Preprocess {
    /// timm's transform for evaluation: resizes the shorter side to `floor(crop / crop_pct)` pixels, and crops.
    pub fn timm(crop: u32, crop_pct: f64, interpolation: Interpolation) -> Self {
        Self { resize: (f64::from(crop) / crop_pct).floor() as u32, interpolation, crop }
    }

    /// The transform in the notebook of QLNet's author: bilinear to 256 pixels, and a crop of 224. For another crop,
    /// in the same proportion.
    pub fn notebook(crop: u32) -> Self {
        Self::timm(crop, 0.875, Interpolation::Bilinear)
    }

    /// Checks that the crop fits into the resized image.
    ///
    /// # Errors
    /// [`Error::Preprocess`] if the crop is zero or larger than the resized image's shorter side, or that side is
    /// longer than 8192 pixels.
    pub fn validate(&self) -> Result<()> {
        self.check().map_err(Error::Preprocess)
    }

    fn check(&self) -> Result<(), Reason> {
        let Self { resize, crop, .. } = *self;
        ensure!(
            crop > 0 && resize <= LARGEST,
            "resize and crop must lie between 1 and {LARGEST}, found {resize} and {crop}"
        );
        ensure!(crop <= resize, "the crop ({crop}) is larger than the resized image's shorter side ({resize})");
        Ok(())
    }

    /// From the bytes of an image file to what the network sees of it: decodes, resizes and crops, row by row where
    /// the format permits it. `name` is looked at only to recognise TGA, whose content has no mark.
    ///
    /// Decoders of rare formats have bugs: where one panics on a damaged file, that is an [`Error::Image`] like
    /// another, and nothing is printed. For that the first call installs a panic hook, which hands all other panics
    /// on to the hook that was there before.
    ///
    /// # Errors
    /// As [`decode`](crate::input::decode()) and [`Self::apply`].
    pub fn crop_of(&self, bytes: &[u8], name: &Path, options: Options) -> Result<Crop> {
        let crop = || {
            let mut picture = Picture::open(bytes, name, options)?;
            let mut resize = self.start(picture.dimensions())?;
            picture.expect(resize.columns());
            let warning = picture.read(&mut |rows| resize.put(rows))?;
            Ok(Crop { pixels: resize.finish(), warning })
        };
        without_panic(crop)
    }

    /// Resizes and crops as timm does (torchvision's `Resize` and `CenterCrop`, which use Pillow), to the bit:
    /// `[crop, crop]` pixels.
    ///
    /// # Errors
    /// [`Error::Preprocess`] as [`Self::validate`]; [`Error::Image`] if the image has no pixels, or is so elongated
    /// that its longer side would have more than 16 million pixels.
    pub fn apply(&self, image: &RgbImage) -> Result<RgbImage> {
        let mut resize = self.start(image.dimensions())?;
        resize.put(image.as_raw());
        Ok(resize.finish())
    }

    /// Starts the resize of an image of this width and height.
    fn start(&self, from: (u32, u32)) -> Result<Resize> {
        self.validate()?;
        let (width, height) = self.resized(from).map_err(Error::Image)?;
        // A valid crop is at most as long as the shorter side, and lies inside.
        let crop =
            Rect { x: centre(width, self.crop), y: centre(height, self.crop), width: self.crop, height: self.crop };
        Ok(Resize::new(from, (width, height), self.interpolation, crop))
    }

    /// Width and height of the whole image after the resize: neither is less than `self.resize`.
    fn resized(&self, (w, h): (u32, u32)) -> Result<(u32, u32), Reason> {
        ensure!(w > 0 && h > 0, "the image has no pixels ({w}x{h})");
        let (short, long) = (w.min(h), w.max(h));
        // torchvision: int(size * long / short).
        let long = (f64::from(self.resize) * f64::from(long) / f64::from(short)) as u64;
        ensure!(long < 1 << 24, "the image is too elongated: {w}x{h}");
        let (short, long) = (self.resize, long as u32);
        Ok(if w <= h { (short, long) } else { (long, short) })
    }
}

impl fmt::Display for Preprocess {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { resize, interpolation, crop } = self;
        write!(f, "resize {resize} {interpolation}, crop {crop}")
    }
}

/// What the network sees of an image file.
#[derive(Clone, Debug)]
pub struct Crop {
    /// The square in the centre of the resized image: 8-bit RGB.
    pub pixels: RgbImage,
    /// What is wrong with the file, if it is damaged although all of its pixels could be decoded.
    pub warning: Option<String>,
}

/// Where a crop in the centre begins, as Python's `round((size - crop) / 2)`: ties to even. `crop` is at most `size`.
fn centre(size: u32, crop: u32) -> u32 {
    (f64::from(size - crop) / 2.0).round_ties_even() as u32
}

/// Makes a batch of images: scales their pixels to 0..1 and normalises them by [`IMAGENET_MEAN`] and
/// [`IMAGENET_STD`], as torchvision's `ToTensor` and `Normalize` do. The result is float32 on the CPU, NCHW:
/// `[images, 3, height, width]`.
///
/// # Errors
/// [`Error::Compute`] if there is no image, they differ in size, or have no pixels.
pub fn to_tensor(images: &[RgbImage]) -> Result<Tensor> {
    let (width, height) = common_size(images).map_err(Error::Compute)?;
    let plane = width as usize * height as usize;
    let table: [[f32; 256]; 3] =
        std::array::from_fn(|c| std::array::from_fn(|v| (v as f32 / 255.0 - IMAGENET_MEAN[c]) / IMAGENET_STD[c]));
    let mut values = vec![0f32; images.len() * 3 * plane];
    values.par_chunks_exact_mut(3 * plane).zip(images).for_each(|(values, image)| {
        for (c, (values, table)) in values.chunks_exact_mut(plane).zip(&table).enumerate() {
            for (value, pixel) in values.iter_mut().zip(image.as_raw().as_chunks::<3>().0) {
                *value = table[pixel[c] as usize];
            }
        }
    });
    Ok(Tensor::from_vec(values, (images.len(), 3, height as usize, width as usize), &Device::Cpu)?)
}

/// Makes a batch of images without a change: bytes on the CPU, NHWC, `[images, height, width, 3]`.
///
/// # Errors
/// As [`to_tensor`].
pub(crate) fn to_bytes(images: &[RgbImage]) -> Result<Tensor> {
    let (width, height) = common_size(images).map_err(Error::Compute)?;
    let bytes = images.iter().map(|image| image.as_raw().as_slice()).collect::<Vec<_>>().concat();
    Ok(Tensor::from_vec(bytes, (images.len(), height as usize, width as usize, 3), &Device::Cpu)?)
}

/// The width and height of all images.
fn common_size(images: &[RgbImage]) -> Result<(u32, u32), Reason> {
    ensure!(!images.is_empty(), "no image to make a tensor of");
    let (width, height) = images[0].dimensions();
    let same = images.iter().all(|image| image.dimensions() == (width, height));
    ensure!(same, "images of one batch must have one size");
    ensure!(width > 0 && height > 0, "the images have no pixels ({width}x{height})");
    Ok((width, height))
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
    fn a_decoder_that_panics_makes_an_error_of_its_file() {
        let timm = Preprocess::timm(224, 0.95, Interpolation::Bicubic);
        let crop = timm.crop_of(crate::input::decode::PANICS, "a.png".as_ref(), Options::default());
        assert!(matches!(crop, Err(Error::Image(_))));
    }

    #[test]
    fn elongated_images_are_cropped_or_refused() {
        let timm = Preprocess::timm(224, 0.95, Interpolation::Bicubic);
        assert_eq!(timm.apply(&RgbImage::new(5000, 2)).unwrap().dimensions(), (224, 224));
        assert!(timm.apply(&RgbImage::new(100_000, 1)).is_err());
    }

    #[test]
    fn settings_that_are_not_valid_are_errors_wherever_they_are_used() {
        let png = include_bytes!("../../tests/fixtures/decode/rgb.png");
        let image = RgbImage::new(37, 26);
        for (resize, crop) in [(10, 20), (20, 0), (0, 0), (0, 1), (u32::MAX, 16), (u32::MAX, u32::MAX)] {
            let preprocess = Preprocess { resize, interpolation: Interpolation::Bilinear, crop };
            assert!(matches!(preprocess.validate(), Err(Error::Preprocess(_))), "{preprocess}");
            assert!(matches!(preprocess.apply(&image), Err(Error::Preprocess(_))), "{preprocess}");
            let crop = preprocess.crop_of(png, "a.png".as_ref(), Options::default());
            assert!(matches!(crop, Err(Error::Preprocess(_))), "{preprocess}");
        }
        for crop_pct in [0.0, -1.0, f64::NAN, 1.5, 1e-300] {
            assert!(Preprocess::timm(224, crop_pct, Interpolation::Bicubic).validate().is_err(), "{crop_pct}");
        }
    }

    #[test]
    fn images_without_pixels_are_errors() {
        for (width, height) in [(0, 0), (0, 7), (7, 0)] {
            let image = RgbImage::new(width, height);
            assert!(matches!(Preprocess::notebook(8).apply(&image), Err(Error::Image(_))), "{width}x{height}");
            assert!(matches!(to_tensor(&[image]), Err(Error::Compute(_))), "{width}x{height}");
        }
    }

    #[test]
    fn batches_have_one_size() {
        let batch = to_tensor(&[RgbImage::new(4, 3), RgbImage::new(4, 3)]).unwrap();
        assert_eq!(batch.dims(), [2, 3, 3, 4]);
        assert!(matches!(to_tensor(&[]), Err(Error::Compute(_))));
        assert!(matches!(to_tensor(&[RgbImage::new(4, 3), RgbImage::new(3, 4)]), Err(Error::Compute(_))));
    }
}
