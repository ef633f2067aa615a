//! Image files.

use std::path::Path;

use super::{Outcome, one_line, twice};
use crate::input::decode::{self, Options};
use crate::input::preprocess::Preprocess;
use crate::input::resample::Interpolation;
use crate::input::to_tensor;

/// Larger pictures are refused here, so that a check ends soon.
const MAX_PIXELS: u64 = 1 << 20;

/// What the format is called that the bytes seem to have.
pub fn format_of(bytes: &[u8], name: &Path) -> Option<String> {
    decode::format_of(bytes, name)
}

/// An image file: decoded, and as the network's input.
pub fn picture(bytes: &[u8], name: &Path) -> Outcome {
    let options = Options { max_pixels: MAX_PIXELS, ..Options::default() };
    let preprocess = Preprocess { resize: 36, interpolation: Interpolation::Bicubic, crop: 32 };
    let crop = || preprocess.crop_of(bytes, name, options);
    let image = match decode::decode(bytes, name, options) {
        Ok(image) => image,
        Err(error) => {
            let words = one_line(&error);
            // Of a picture that has no square in its middle, the pixels are not asked for.
            crop().map(drop).expect_err("what is not decoded gives no crop");
            return Err(words);
        }
    };
    let (width, height) = image.dimensions();
    assert!(u64::from(width) * u64::from(height) <= MAX_PIXELS, "{width}x{height}");
    // Decoded as a whole, and row by row with only the columns that are looked at.
    let crop = twice(crop, |one, other| assert!(one.pixels == other.pixels && one.warning == other.warning))?;
    let whole = preprocess.apply(&image).expect("what gives a crop is cropped");
    assert!(crop.pixels == whole, "the rows give another crop than the picture");
    let strict = preprocess.crop_of(bytes, name, Options { strict: true, ..options });
    match (&crop.warning, strict) {
        (None, Ok(strict)) => assert!(strict.pixels == crop.pixels),
        (Some(_), Err(error)) => drop(one_line(&error)),
        (warning, strict) => panic!("{warning:?}, and strictly {:?}", strict.map(|strict| strict.warning)),
    }
    let tensor = to_tensor(&[crop.pixels]).expect("a crop makes a tensor");
    assert_eq!(tensor.dims(), [1, 3, 32, 32]);
    Ok(())
}

/// EXIF data, or an XMP packet.
pub fn orientation(bytes: &[u8]) -> Outcome {
    let numbers = [(Some(bytes), None), (None, Some(bytes))].map(|(exif, xmp)| decode::orientation::of(exif, xmp));
    assert!(numbers.iter().all(|number| (1..=8).contains(number)), "{numbers:?}");
    if numbers == [1, 1] { Err("upright".into()) } else { Ok(()) }
}
