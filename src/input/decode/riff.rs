//! The chunks of WebP files, which are RIFF files, and the size of what is in them.

/// The content of the first chunk with this name in a file.
pub(super) fn content_in<'a>(bytes: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    content_of(bytes.get(12..)?, name)
}

/// The content of the first of these chunks with this name.
fn content_of<'a>(chunks: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    let (content, length) = chunk(chunks, name)?;
    content.get(..length)
}

/// All that follows the header of the first of these chunks with this name, and the length of its content.
pub(super) fn chunk<'a>(mut rest: &'a [u8], name: &[u8; 4]) -> Option<(&'a [u8], usize)> {
    loop {
        let (found, behind) = rest.split_first_chunk::<4>()?;
        let (length, behind) = behind.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        if found == name {
            return Some((behind, length));
        }
        rest = behind.get(length.checked_next_multiple_of(2)?..)?;
    }
}

/// Width and height of the first frame of a WebP file, which the crate decodes before it compares them with those that the
/// file begins with.
pub(super) fn frame(bytes: &[u8]) -> Option<(u32, u32)> {
    // What is behind the place and the duration of an animation's frame is as in other files.
    let chunks = content_in(bytes, b"ANMF").map_or(bytes.get(12..), |frame| frame.get(16..))?;
    if let Some([_, _, _, 0x9d, 0x01, 0x2a, sides @ ..]) = content_of(chunks, b"VP8 ") {
        let side = |at: usize| Some(u32::from(u16::from_le_bytes(*sides.get(at..)?.first_chunk()?) & 0x3fff));
        return Some((side(0)?, side(2)?));
    }
    let (_, width, height) = lossless(content_of(chunks, b"VP8L")?)?;
    Some((width, height))
}

/// The stream of a lossless picture behind its header, with width and height.
pub(super) fn lossless(content: &[u8]) -> Option<(&[u8], u32, u32)> {
    let (header, stream) = content.strip_prefix(&[0x2f])?.split_first_chunk()?;
    let sides = u32::from_le_bytes(*header);
    Some((stream, 1 + (sides & 0x3fff), 1 + (sides >> 14 & 0x3fff)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::input::decode::{Options, decode};

    #[test]
    fn a_frame_of_webp_is_not_decoded_if_it_is_too_large() {
        let chunk = |name: &[u8], content: &[u8]| [name, &(content.len() as u32).to_le_bytes(), content].concat();
        // The picture has 16 x 16 pixels, and its frame 16,383 x 11,500.
        let canvas = chunk(b"VP8X", &[0, 0, 0, 0, 15, 0, 0, 15, 0, 0]);
        let sides = [16_383u16, 11_500].map(u16::to_le_bytes).concat();
        let lossy = chunk(b"VP8 ", &[&[0x10, 0, 0, 0x9d, 0x01, 0x2a][..], &sides, &[0; 50]].concat());
        let webp = |chunks: &[&[u8]]| chunk(b"RIFF", &[b"WEBP", &chunks.concat()[..]].concat());
        let file = webp(&[&canvas, &lossy]);
        let error = decode(&file, "a.webp".as_ref(), Options::default()).unwrap_err();
        assert!(matches!(error, Error::ImageTooLarge { .. }), "{error}");
        assert_eq!(frame(&file), Some((16_383, 11_500)));
        let lossless = chunk(b"VP8L", &[&[0x2f][..], &(4u32 | 6 << 14).to_le_bytes()].concat());
        assert_eq!(frame(&webp(&[&canvas, &lossless])), Some((5, 7)));
        let animated = chunk(b"ANMF", &[&[0; 16], &lossless[..]].concat());
        assert_eq!(frame(&webp(&[&canvas, &animated, &lossy])), Some((5, 7)));
    }
}
