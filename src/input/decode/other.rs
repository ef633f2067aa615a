//! Formats that the crate `image` decodes as Pillow does, with few corrections: WebP, TGA, QOI and others.

use std::io::{Cursor, Read};

use image::codecs::{pnm::PnmDecoder, qoi::QoiDecoder, tga::TgaDecoder};
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::colour::to_rgb;
use super::{CUT_SHORT, Decoder, orientation, riff, webp};
use crate::error::{Context, Reason, Result, ensure};

/// An image whose header the crate `image` has read.
pub(super) struct Other<'a> {
    decoder: Box<dyn ImageDecoder + 'a>,
    format: ImageFormat,
    bytes: &'a [u8],
}

impl<'a> Other<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// If it is damaged, or of a kind that the crate does not decode.
    pub(super) fn open(bytes: &'a [u8], format: ImageFormat) -> Result<Self, Reason> {
        if format == ImageFormat::WebP {
            webp::ensure_room(bytes)?;
        }
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        // The number of pixels is bounded elsewhere, and with it what they take.
        reader.limits(Limits::no_limits());
        let decoder: Box<dyn ImageDecoder + 'a> = match format {
            ImageFormat::Qoi => Box::new(QoiDecoder::new(with_end(bytes))?),
            ImageFormat::Pnm => {
                let decoder = PnmDecoder::new(bytes)?;
                // Where a PAM file does not say what its samples are the crate takes them for bytes.
                let is_deep = decoder.header().maximal_sample() > 255
                    && decoder.color_type().bytes_per_pixel() == decoder.color_type().channel_count();
                ensure!(!is_deep, "a PAM file with samples of 16 bits has to have a TUPLTYPE");
                Box::new(decoder)
            }
            ImageFormat::Tga => Box::new(TgaDecoder::new(of_pillow(bytes)?)?),
            _ => Box::new(reader.into_decoder()?),
        };
        Ok(Self { decoder, format, bytes })
    }
}

impl Decoder for Other<'_> {
    fn dimensions(&self) -> (u32, u32) {
        self.decoder.dimensions()
    }

    fn decoded(&self) -> (u32, u32) {
        let frame = (self.format == ImageFormat::WebP).then(|| riff::largest(self.bytes)).flatten();
        frame.unwrap_or(self.dimensions())
    }

    fn orientation(&self) -> u8 {
        // Of these formats only WebP says how it has to be turned. The `image` crate would allocate whatever size
        // the file names for it.
        match self.format {
            ImageFormat::WebP => {
                orientation::of(riff::content_in(self.bytes, b"EXIF"), riff::content_in(self.bytes, b"XMP "))
            }
            _ => 1,
        }
    }

    fn memory(&self) -> u64 {
        // The pixels, and as much again inside the decoder, which has those of a frame before it looks at its size.
        let (width, height) = self.decoded();
        let frame = if self.format == ImageFormat::WebP { 4 * u64::from(width) * u64::from(height) } else { 0 };
        self.decoder.total_bytes().max(frame).saturating_mul(2)
    }

    fn read(self: Box<Self>, put: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Reason> {
        let five_bits = self.decoder.original_color_type() == ExtendedColorType::Rgb5x1;
        let image = DynamicImage::from_decoder(self.decoder)?;
        let line = image.width() as usize;
        // The `image` crate would round 16 bits to 8.
        let upper = |value: &u16| (value >> 8) as u8;
        let whole = |value: &u8| *value;
        match image {
            // The `image` crate rounds when it makes 8 bits of 5, Pillow does not.
            DynamicImage::ImageRgb8(image) if five_bits => {
                by_rows(image.as_raw(), line, 3, |value| (u16::from(value >> 3) * 255 / 31) as u8, put);
            }
            DynamicImage::ImageRgb8(image) => put(image.as_raw()),
            DynamicImage::ImageLuma8(image) => by_rows(image.as_raw(), line, 1, whole, put),
            DynamicImage::ImageLumaA8(image) => by_rows(image.as_raw(), line, 2, whole, put),
            DynamicImage::ImageRgba8(image) => by_rows(image.as_raw(), line, 4, whole, put),
            DynamicImage::ImageLuma16(image) => by_rows(image.as_raw(), line, 1, upper, put),
            DynamicImage::ImageLumaA16(image) => by_rows(image.as_raw(), line, 2, upper, put),
            DynamicImage::ImageRgb16(image) => by_rows(image.as_raw(), line, 3, upper, put),
            DynamicImage::ImageRgba16(image) => by_rows(image.as_raw(), line, 4, upper, put),
            other => put(other.into_rgb8().as_raw()),
        }
        Ok(Vec::new())
    }
}

/// A QOI file with the mark of its end once more: some programs do not write it, and the `image` crate insists on it.
/// In a file that is cut short the decoder takes this mark for pixels, and still finds none at the end.
fn with_end(bytes: &[u8]) -> impl Read {
    bytes.chain(&[0, 0, 0, 0, 0, 0, 0, 1][..])
}

/// A TGA file as Pillow reads it. Its header is changed to say that pixels of 16 bits have no alpha: the `image` crate refuses
/// files that say that they have 8 bits of it; Pillow ignores the number. And the crate takes a picture of any unknown type
/// for a grey one.
fn of_pillow(bytes: &[u8]) -> Result<impl Read, Reason> {
    let (header, rest) = bytes.split_first_chunk::<18>().context(CUT_SHORT)?;
    let mut header = *header;
    let kind = header[2];
    ensure!(matches!(kind, 1..=3 | 9..=11), "there is no TGA picture of type {kind}");
    if let [_, _, 2 | 10, .., 16, descriptor] = &mut header {
        *descriptor &= 0xf0;
    }
    Ok(Cursor::new(header).chain(rest))
}

/// Converts pixels of so many channels to RGB, a row at a time, so that no second picture is held.
fn by_rows<T>(values: &[T], width: usize, channels: usize, to_u8: impl Fn(&T) -> u8, put: &mut dyn FnMut(&[u8])) {
    let (mut samples, mut rgb) = (Vec::new(), Vec::new());
    for row in values.chunks_exact(channels * width) {
        samples.clear();
        samples.extend(row.iter().map(&to_u8));
        to_rgb(&samples, channels, &mut rgb);
        put(&rgb);
    }
}

#[cfg(test)]
mod tests {
    use crate::input::decode::{Options, decode};

    #[test]
    fn what_the_crate_takes_for_grey_or_black_is_refused() {
        let pixels = |bytes: &[u8], name: &str| {
            decode(bytes, name.as_ref(), Options::default())
                .map(|image| image.into_raw())
                .map_err(|error| error.to_string())
        };
        let tga = |kind| [&[0, 0, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 8, 0x20][..], &[7, 9]].concat();
        assert_eq!(pixels(&tga(3), "a.tga").unwrap(), [7, 7, 7, 9, 9, 9]);
        for kind in [0, 77] {
            let error = pixels(&tga(kind), "a.tga").unwrap_err();
            assert!(error.contains(&format!("there is no TGA picture of type {kind}")), "{error}");
        }
        let pam = |most: u16, kind: &str| {
            let header = format!("P7\nWIDTH 2\nHEIGHT 1\nDEPTH 1\nMAXVAL {most}\n{kind}ENDHDR\n");
            [header.as_bytes(), &[7, 0, 9, 0][..if most > 255 { 4 } else { 2 }]].concat()
        };
        assert_eq!(pixels(&pam(65535, "TUPLTYPE GRAYSCALE\n"), "a.pam").unwrap(), [7, 7, 7, 9, 9, 9]);
        assert_eq!(pixels(&pam(255, ""), "a.pam").unwrap(), [7, 7, 7, 0, 0, 0]);
        let error = pixels(&pam(65535, ""), "a.pam").unwrap_err();
        assert!(error.contains("has to have a TUPLTYPE"), "{error}");
    }
}
