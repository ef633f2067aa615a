//! Decodes image files to 8-bit RGB, as Pillow's `Image.open(f).convert("RGB")` does: alpha is
//! dropped, grey and palette are expanded, and of 16 bits the upper 8 are kept. (Pillow keeps them of
//! colour; of 16-bit grey it makes white what exceeds 255, which nobody wants.)

use std::io::{Cursor, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

/// The most pixels that an image may have: the number from which Pillow refuses one as a
/// decompression bomb.
pub const MAX_PIXELS: u64 = 178_956_970;

/// What decodes JPEG files.
pub const JPEG_DECODER: &str = if cfg!(feature = "libjpeg-turbo") { "libjpeg-turbo" } else { "zune-jpeg" };

/// Everything that an image file holds, unless it is endless, as devices and pipes may be.
///
/// # Errors
/// If it cannot be read, or is larger than 256 MiB.
pub fn read_image(file: impl Read) -> Result<Vec<u8>> {
    const LIMIT: u64 = 1 << 28;
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= LIMIT, "larger than 256 MiB, which no image should be");
    Ok(bytes)
}

/// File name extensions of the formats that can be decoded.
pub fn has_image_extension(path: &Path) -> bool {
    ImageFormat::from_path(path).is_ok_and(|format| format.reading_enabled())
}

/// Decodes an image of any format that the `image` crate knows, recognised by its content; the name
/// decides only for TGA, whose content has no mark.
///
/// With `exif`, the orientation that a camera noted in the file is applied; Pillow, and so timm,
/// does not do that unless asked.
///
/// # Errors
/// If the format is not known, the file is damaged or cut short, or it has more than
/// [`MAX_PIXELS`].
pub fn decode(bytes: &[u8], name: &Path, exif: bool) -> Result<RgbImage> {
    ensure!(!bytes.is_empty(), "the file is empty");
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    if reader.format().is_none() && matches!(ImageFormat::from_path(name), Ok(ImageFormat::Tga)) {
        reader.set_format(ImageFormat::Tga);
    }
    let Some(format) = reader.format().filter(ImageFormat::reading_enabled) else {
        if let Some(kind) = not_decoded(bytes) {
            bail!("{kind} is not decoded here; convert it first, for example with ImageMagick: magick FILE photo.png");
        }
        bail!("not an image of a known format (JPEG, PNG, GIF, WebP, TIFF, BMP and others)");
    };
    ensure!(format != ImageFormat::Jpeg || jpeg_is_whole(bytes), "damaged or incomplete JPEG: it is cut short");
    #[cfg(feature = "libjpeg-turbo")]
    if format == ImageFormat::Jpeg {
        return decode_by_libjpeg_turbo(bytes, exif);
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(8 * MAX_PIXELS);
    reader.limits(limits);
    let name = format.extensions_str().first().copied().unwrap_or("image").to_uppercase();
    let mut decoder = reader.into_decoder().with_context(|| format!("cannot decode this {name}"))?;
    let (width, height) = decoder.dimensions();
    ensure_decodable(u64::from(width), u64::from(height))?;
    // Pillow applies it to TIFF files whether asked or not.
    let orientation = if exif || format == ImageFormat::Tiff { decoder.orientation().ok() } else { None };
    let mut image = DynamicImage::from_decoder(decoder).with_context(|| format!("damaged or incomplete {name}"))?;
    image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    Ok(to_rgb8(image))
}

/// Decodes a JPEG file as Pillow does, to the bit: by libjpeg-turbo, with what is the default in both.
#[cfg(feature = "libjpeg-turbo")]
fn decode_by_libjpeg_turbo(bytes: &[u8], exif: bool) -> Result<RgbImage> {
    let (width, height, pixels) = libjpeg_turbo(bytes).context("damaged or incomplete JPEG")?;
    let image = RgbImage::from_raw(width, height, pixels).context("three values per pixel")?;
    let decoder = || image::codecs::jpeg::JpegDecoder::new(Cursor::new(bytes)).ok();
    let orientation = exif.then(|| decoder()?.orientation().ok()).flatten();
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    Ok(image.into_rgb8())
}

/// Width, height and RGB pixels. Not by the crate's safe functions, to which a warning is an error:
/// libjpeg has warnings for stray bytes between markers and the like, and Pillow ignores them.
#[cfg(feature = "libjpeg-turbo")]
fn libjpeg_turbo(bytes: &[u8]) -> Result<(u32, u32, Vec<u8>)> {
    use std::ffi::{CStr, c_int};
    use turbojpeg::raw;

    struct Handle(raw::tjhandle);
    impl Drop for Handle {
        fn drop(&mut self) {
            // SAFETY: it is destroyed once, and null is allowed.
            unsafe { raw::tj3Destroy(self.0) }
        }
    }
    // SAFETY: the handle lives to the end of the function and is used by this thread only.
    let handle = Handle(unsafe { raw::tj3Init(raw::TJINIT_TJINIT_DECOMPRESS as c_int) });
    ensure!(!handle.0.is_null(), "libjpeg-turbo does not start");
    let check = |status: c_int| {
        // SAFETY: the handle is valid, and the message is copied before the next call.
        let (code, text) = unsafe { (raw::tj3GetErrorCode(handle.0), CStr::from_ptr(raw::tj3GetErrorStr(handle.0))) };
        let warning = code == raw::TJERR_TJERR_WARNING as c_int;
        ensure!(status == 0 || warning, "{}", text.to_string_lossy());
        Ok(())
    };
    // SAFETY: pointer and length are those of a slice.
    check(unsafe { raw::tj3DecompressHeader(handle.0, bytes.as_ptr(), bytes.len() as _) })?;
    // SAFETY: the handle is valid.
    let get = |parameter: raw::TJPARAM| unsafe { raw::tj3Get(handle.0, parameter as c_int) };
    let (width, height) = (get(raw::TJPARAM_TJPARAM_JPEGWIDTH), get(raw::TJPARAM_TJPARAM_JPEGHEIGHT));
    ensure!(width > 0 && height > 0, "no size");
    let (width, height) = (width as u32, height as u32);
    ensure_decodable(width.into(), height.into())?;
    let colours = get(raw::TJPARAM_TJPARAM_COLORSPACE);
    let cmyk = [raw::TJCS_TJCS_CMYK, raw::TJCS_TJCS_YCCK].map(|space| space as c_int).contains(&colours);
    let (format, channels) = if cmyk { (raw::TJPF_TJPF_CMYK, 4) } else { (raw::TJPF_TJPF_RGB, 3) };
    let mut pixels = vec![0; channels * width as usize * height as usize];
    // SAFETY: with a pitch of 0 the rows follow each other, and the buffer holds all of them.
    check(unsafe {
        raw::tj3Decompress8(handle.0, bytes.as_ptr(), bytes.len() as _, pixels.as_mut_ptr(), 0, format as c_int)
    })?;
    if cmyk {
        pixels = pixels.as_chunks::<4>().0.iter().flat_map(inverted_cmyk_to_rgb).collect();
    }
    Ok((width, height, pixels))
}

/// Adobe's programs store what is left of white, and Pillow assumes theirs; its rounding.
#[cfg(feature = "libjpeg-turbo")]
fn inverted_cmyk_to_rgb(&[c, m, y, k]: &[u8; 4]) -> [u8; 3] {
    [c, m, y].map(|ink| {
        let product = u32::from(255 - ink) * u32::from(k) + 128;
        k.saturating_sub((((product >> 8) + product) >> 8) as u8)
    })
}

/// What a file is that people take for a picture, or that is one, and for which there is no decoder.
fn not_decoded(bytes: &[u8]) -> Option<&'static str> {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    // ISO base media files tell their kind by a brand.
    let brand = bytes.get(4..12).filter(|start| start.starts_with(b"ftyp")).map(|start| &start[4..]);
    match brand {
        Some(b"avif" | b"avis") => Some("AVIF"),
        Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"mif1" | b"msf1") => Some("HEIC, which phones make,"),
        Some(_) => Some("a film"),
        None if starts(b"\0\0\0\x0cjP  ") || starts(b"\xff\x4f\xff\x51") => Some("JPEG 2000"),
        None if starts(b"\0\0\0\x0cJXL ") || starts(b"\xff\x0a") => Some("JPEG XL"),
        None if starts(b"8BPS") => Some("Photoshop's PSD"),
        None if starts(b"\x01\xda") => Some("SGI's format"),
        None if starts(b"icns") => Some("Apple's ICNS"),
        None if starts(b"%PDF-") => Some("a PDF"),
        None if starts(b"%!PS") => Some("PostScript"),
        None if starts(b"<svg") || starts(b"<?xml") => Some("SVG"),
        None => None,
    }
}

/// Refuses sizes that no decoder should be asked for.
fn ensure_decodable(width: u64, height: u64) -> Result<()> {
    let pixels = width * height;
    ensure!(pixels > 0, "the image has no pixels ({width}x{height})");
    ensure!(pixels <= MAX_PIXELS, "the image is too large: {width}x{height}, at most {MAX_PIXELS} pixels are decoded");
    Ok(())
}

/// Whether a JPEG file has its end-of-image marker. The decoder fills what is missing with grey, and
/// the network would classify that.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // To the next marker: in a scan, 0xff is followed by 0 where it is data, or by a restart.
        let Some(found) = bytes.get(at..).and_then(|rest| {
            rest.windows(2).position(|w| w[0] == 0xff && !matches!(w[1], 0 | 0xff | 0x01 | 0xd0..=0xd7))
        }) else {
            return false;
        };
        at += found;
        if bytes[at + 1] == 0xd9 {
            return true;
        }
        // Over the segment, whose length counts itself. It may hold a thumbnail with markers.
        let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
        at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
    }
}

fn to_rgb8(image: DynamicImage) -> RgbImage {
    let (width, height) = (image.width(), image.height());
    // The `image` crate would round 16 bits to 8.
    let rgb: Vec<u8> = match image {
        DynamicImage::ImageLuma16(i) => i.pixels().flat_map(|p| [(p.0[0] >> 8) as u8; 3]).collect(),
        DynamicImage::ImageLumaA16(i) => i.pixels().flat_map(|p| [(p.0[0] >> 8) as u8; 3]).collect(),
        DynamicImage::ImageRgb16(i) => i.as_raw().iter().map(|v| (v >> 8) as u8).collect(),
        DynamicImage::ImageRgba16(i) => {
            i.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]].map(|v| (v >> 8) as u8)).collect()
        }
        other => return other.into_rgb8(),
    };
    RgbImage::from_raw(width, height, rgb).expect("three values per pixel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_refused() {
        // A PNG header that claims 100,000 x 100,000 grey pixels.
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        let mut chunk = |kind: &[u8], data: &[u8]| {
            png.extend((data.len() as u32).to_be_bytes());
            let body = [kind, data].concat();
            png.extend(&body);
            png.extend(crc32fast::hash(&body).to_be_bytes());
        };
        let side = 100_000u32.to_be_bytes();
        chunk(b"IHDR", &[&side[..], &side[..], &[8, 0, 0, 0, 0]].concat());
        chunk(b"IDAT", b"");
        let error = format!("{:#}", decode(&png, "a.png".as_ref(), true).unwrap_err());
        assert!(error.contains("too large") || error.contains("limit"), "{error}");
    }

    #[test]
    fn what_is_not_decoded_is_named() {
        for (start, kind) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "HEIC"),
            (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
            (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
            (b"\xff\x0a\x7f\x02\x08", "JPEG XL"),
            (b"8BPS\0\x01", "PSD"),
            (b"%PDF-1.7\n", "PDF"),
        ] {
            let error = decode(start, "photo".as_ref(), true).unwrap_err().to_string();
            assert!(error.contains(kind) && error.contains("convert it"), "{error}");
        }
    }

    #[test]
    fn a_jpeg_cut_anywhere_is_refused() {
        for name in ["rgb.jpg", "progressive.jpg", "grey.jpg", "cmyk.jpg"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode").join(name);
            let whole = std::fs::read(path).unwrap();
            assert!(decode(&whole, name.as_ref(), true).is_ok());
            // What follows the end is nobody's business.
            assert!(decode(&[&whole[..], b"trailer"].concat(), name.as_ref(), true).is_ok());
            for length in 0..whole.len() {
                assert!(decode(&whole[..length], name.as_ref(), true).is_err(), "{name}, {length} bytes");
            }
        }
    }

    /// Cameras and copying programs leave bytes between the markers, and libjpeg warns of them.
    #[test]
    fn stray_bytes_before_the_end_do_no_harm() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode/rgb.jpg");
        let whole = std::fs::read(path).unwrap();
        let (scan, end) = whole.split_at(whole.len() - 2);
        assert_eq!(end, [0xff, 0xd9]);
        let stray = [scan, b"stray", end].concat();
        assert!(decode(&stray, "a.jpg".as_ref(), false).unwrap() == decode(&whole, "a.jpg".as_ref(), false).unwrap());
    }

    #[test]
    fn sixteen_bits_keep_the_upper_eight() {
        let mut png = Vec::new();
        let image = image::ImageBuffer::from_fn(2, 1, |x, _| image::Rgb([0x12ffu16, 0xff00, 256 * x as u16]));
        DynamicImage::ImageRgb16(image).write_to(&mut Cursor::new(&mut png), ImageFormat::Png).unwrap();
        assert_eq!(decode(&png, "a.png".as_ref(), true).unwrap().as_raw(), &[0x12, 0xff, 0, 0x12, 0xff, 1]);
    }
}
