//! Small pictures in the page itself.

use std::io::Cursor;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;

use crate::input::resample::{Interpolation, Rect, resize_crop};

/// A small picture as an address that holds it, or the news that there is none.
#[derive(Clone, Debug)]
pub struct Thumbnail {
    /// `data:image/jpeg;base64,...`; `None` if there is no picture.
    pub address: Option<String>,
}

impl Thumbnail {
    /// A square picture such as the network sees, as a JPEG of at most `side` pixels and that quality, of 1 to 100.
    pub fn new(picture: &RgbImage, side: u32, quality: u8) -> Self {
        let side = side.min(picture.width());
        let whole = Rect { x: 0, y: 0, width: side, height: side };
        let small = resize_crop(picture, (side, side), Interpolation::Bicubic, whole);
        let mut jpeg = Cursor::new(Vec::new());
        let written = JpegEncoder::new_with_quality(&mut jpeg, quality).encode_image(&small);
        let address = || format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(jpeg.into_inner()));
        Self { address: written.is_ok().then(address) }
    }

    /// No picture.
    pub fn missing() -> Self {
        Self { address: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_small_jpegs() {
        let picture = RgbImage::from_fn(224, 224, |x, y| image::Rgb([x as u8, y as u8, 40]));
        for (side, expected) in [(64, 64), (300, 224)] {
            let address = Thumbnail::new(&picture, side, 80).address.unwrap();
            let jpeg = BASE64_STANDARD.decode(address.strip_prefix("data:image/jpeg;base64,").unwrap()).unwrap();
            let found = image::load_from_memory(&jpeg).unwrap().to_rgb8();
            assert_eq!(found.dimensions(), (expected, expected));
            let near = |x: u32, y: u32, corner: [i32; 3]| {
                let found = found.get_pixel(x, y).0.map(i32::from);
                assert!(found.iter().zip(corner).all(|(a, b)| (a - b).abs() < 16), "{found:?}, not {corner:?}");
            };
            near(expected - 1, 0, [222, 2, 40]);
            near(0, expected - 1, [2, 222, 40]);
        }
    }
}
