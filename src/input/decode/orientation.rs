//! Turns a picture upright, by what the camera noted in the file.

use image::metadata::Orientation;

/// The orientation by EXIF data or, without them, by an XMP packet. As EXIF numbers it: 1, which is upright, to 8. This
/// is what Pillow's `Image.getexif` and `ImageOps.exif_transpose` do.
pub(crate) fn of(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> u8 {
    let by_exif = exif.and_then(|mut exif| {
        // Some programs write the mark of the JPEG segment, or two of them, in other formats too.
        for _ in 0..2 {
            exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
        }
        Orientation::from_exif_chunk(exif)
    });
    by_exif.map_or_else(|| xmp.and_then(in_xmp).unwrap_or(1), Orientation::to_exif)
}

/// `tiff:Orientation="6"` or `<tiff:Orientation>6<`.
fn in_xmp(packet: &[u8]) -> Option<u8> {
    const KEY: &[u8] = b"tiff:Orientation";
    packet.windows(KEY.len() + 3).find_map(|window| {
        let digit = match window.strip_prefix(KEY)? {
            [b'=', b'"', digit] | [b'>', digit, _] => digit.checked_sub(b'0')?,
            _ => return None,
        };
        (1..=8).contains(&digit).then_some(digit)
    })
}

/// Whether a picture of this orientation, once it is turned, has its stored height as its width.
pub(super) fn swaps_sides(orientation: u8) -> bool {
    orientation >= 5
}

/// A picture that is turned while its rows come.
pub(super) struct Turned {
    width: usize,
    height: usize,
    orientation: u8,
    /// `[height, width, 3]`, or with the sides swapped.
    pixels: Vec<u8>,
}

impl Turned {
    /// Makes room for a picture that is stored with this width and height, in pixels.
    pub(super) fn new(width: u32, height: u32, orientation: u8) -> Self {
        let (width, height) = (width as usize, height as usize);
        Self { width, height, orientation, pixels: vec![0; 3 * width * height] }
    }

    /// Takes whole rows, of which the first is number `row` of the stored picture. Rows beyond its height are ignored.
    pub(super) fn put(&mut self, row: usize, rows: &[u8]) {
        let (width, height) = (self.width, self.height);
        for (y, row) in (row..height).zip(rows.chunks_exact(3 * width)) {
            let (below, line) = (height - 1 - y, if swaps_sides(self.orientation) { height } else { width });
            for (x, pixel) in row.as_chunks::<3>().0.iter().enumerate() {
                let beside = width - 1 - x;
                // Pillow's transpositions, in the order of EXIF's numbers.
                let (x, y) = match self.orientation {
                    2 => (beside, y),
                    3 => (beside, below),
                    4 => (x, below),
                    5 => (y, x),
                    6 => (below, x),
                    7 => (below, beside),
                    8 => (y, beside),
                    _ => (x, y),
                };
                self.pixels[3 * (y * line + x)..][..3].copy_from_slice(pixel);
            }
        }
    }

    /// The pixels of the turned picture: `[height, width, 3]`.
    pub(super) fn finish(self) -> Vec<u8> {
        self.pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_turned_as_the_image_crate_does() {
        let pixels: Vec<u8> = (0..3 * 5 * 3).collect();
        let stored = image::RgbImage::from_raw(5, 3, pixels.clone()).unwrap();
        for number in 1..=8 {
            let mut turned = Turned::new(5, 3, number);
            turned.put(0, &pixels[..15]);
            turned.put(1, &pixels[15..]);
            let mut expected = image::DynamicImage::ImageRgb8(stored.clone());
            expected.apply_orientation(Orientation::from_exif(number).unwrap());
            assert_eq!(&turned.finish(), expected.as_bytes(), "{number}");
            assert_eq!(swaps_sides(number), expected.width() == 3);
        }
    }

    #[test]
    fn exif_comes_before_xmp() {
        let exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        assert_eq!(of(Some(exif), Some(b"<a tiff:Orientation=\"3\">")), 6);
        assert_eq!(of(Some(b""), Some(b"<a tiff:Orientation=\"3\">")), 3);
        assert_eq!(of(None, Some(b"<tiff:Orientation>8</tiff:Orientation>")), 8);
        assert_eq!(of(None, Some(b"<tiff:Orientation>9</tiff:Orientation>")), 1);
        assert_eq!(of(None, None), 1);
    }
}
