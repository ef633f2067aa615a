//! The chunks of WebP files, which are RIFF files, and the size of what is in them.

/// A chunk of a file.
#[derive(Clone, Copy)]
pub(super) struct Chunk<'a> {
    pub(super) name: [u8; 4],
    /// Its content, as far as it is there.
    pub(super) content: &'a [u8],
    pub(super) is_whole: bool,
}

/// The chunks that lie one behind the other, up to the first that is cut short.
fn chunks(mut rest: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    std::iter::from_fn(move || {
        let (name, behind) = rest.split_first_chunk::<4>()?;
        let (length, behind) = behind.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        rest = length.checked_next_multiple_of(2).and_then(|length| behind.get(length..)).unwrap_or_default();
        let content = behind.get(..length);
        Some(Chunk { name: *name, content: content.unwrap_or(behind), is_whole: content.is_some() })
    })
}

/// The first chunk with this name in a WebP file.
pub(super) fn chunk<'a>(bytes: &'a [u8], name: &[u8; 4]) -> Option<Chunk<'a>> {
    chunks(bytes.get(12..)?).find(|chunk| chunk.name == *name)
}

/// The content of the first chunk with this name in a WebP file, if it is whole.
pub(super) fn content_in<'a>(bytes: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    chunk(bytes, name).filter(|chunk| chunk.is_whole).map(|chunk| chunk.content)
}

/// The chunks that the crate may decode when it is asked for a WebP file's picture: of an animation the first two in its
/// first frame, the second for what belongs to the first whatever its name is; and of other files the first with each of
/// these names, where those of a frame stand in for what is not there otherwise.
pub(super) fn pictures(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let top = [b"VP8 ", b"VP8L", b"ALPH"].into_iter().filter_map(|name| chunk(bytes, name));
    // Place, size and duration come first.
    let frame = chunk(bytes, b"ANMF").and_then(|frame| frame.content.get(16..)).unwrap_or_default();
    top.chain(chunks(frame).take(2))
}

/// Width and height of the largest picture in a WebP file that the crate may decode before it compares them with those that the
/// file begins with.
pub(super) fn largest(bytes: &[u8]) -> Option<(u32, u32)> {
    let sides = pictures(bytes).filter_map(|chunk| match &chunk.name {
        b"ALPH" => None,
        b"VP8L" => lossless(chunk.content).map(|(_, width, height)| (width, height)),
        _ => lossy(chunk.content),
    });
    sides.max_by_key(|(width, height)| u64::from(*width) * u64::from(*height))
}

/// Width and height of a lossy picture.
fn lossy(content: &[u8]) -> Option<(u32, u32)> {
    let [_, _, _, 0x9d, 0x01, 0x2a, a, b, c, d, ..] = *content else { return None };
    let side = |bytes| u32::from(u16::from_le_bytes(bytes) & 0x3fff);
    Some((side([a, b]), side([c, d])))
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
    fn a_picture_of_webp_is_not_decoded_if_it_is_too_large() {
        let chunk = |name: &[u8], content: &[u8]| {
            let end = &[0][..content.len() % 2];
            [name, &(content.len() as u32).to_le_bytes(), content, end].concat()
        };
        // The picture has 16 x 16 pixels, and what is stored of it 16,383 x 11,500.
        let canvas = |flags| chunk(b"VP8X", &[flags, 0, 0, 0, 15, 0, 0, 15, 0, 0]);
        let sides = [16_383u16, 11_500].map(u16::to_le_bytes).concat();
        let lossy = chunk(b"VP8 ", &[&[0x10, 0, 0, 0x9d, 0x01, 0x2a][..], &sides, &[0; 50]].concat());
        let lossless = chunk(b"VP8L", &[&[0x2f][..], &(4u32 | 6 << 14).to_le_bytes()].concat());
        let webp = |chunks: &[&[u8]]| chunk(b"RIFF", &[b"WEBP", &chunks.concat()[..]].concat());
        let frame = |chunks: &[&[u8]]| chunk(b"ANMF", &[&[0; 16], &chunks.concat()[..]].concat());
        let error = |file: &[u8]| decode(file, "a.webp".as_ref(), Options::default()).unwrap_err();
        let alone = webp(&[&canvas(0), &lossy]);
        // The crate decodes what is outside a frame, and in a frame the second chunk, whatever its name is.
        let outside = webp(&[&canvas(0), &frame(&[&lossless]), &lossy]);
        let renamed = [b"what", &lossy[4..]].concat();
        let animation = [canvas(2), chunk(b"ANIM", &[0; 6])].concat();
        let alpha = chunk(b"ALPH", &[0; 8]);
        let second = webp(&[&animation, &frame(&[&alpha, &renamed])]);
        for file in [alone, outside, second] {
            assert_eq!(largest(&file), Some((16_383, 11_500)));
            assert!(matches!(error(&file), Error::ImageTooLarge { .. }));
        }
        assert_eq!(largest(&webp(&[&canvas(0), &lossless])), Some((5, 7)));
        assert_eq!(largest(&webp(&[&animation, &frame(&[&lossless, &alpha, &lossy])])), Some((5, 7)));
        // With more bytes than there are.
        let mut longer = webp(&[&canvas(0), &lossy]);
        longer[35] = 1;
        assert!(error(&longer).to_string().contains("it is cut short"), "{}", error(&longer));
    }
}
