//! From grey, CMYK and alpha to RGB, with 8 bits and as Pillow does it.

/// `a * b / 255`, rounded (Pillow's `MULDIV255`).
pub(super) fn multiply(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    (((product >> 8) + product) >> 8) as u8
}

/// From inks to RGB (Pillow's `cmyk2rgb`).
pub(super) fn cmyk_to_rgb([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let light = 255 - black;
    [cyan, magenta, yellow].map(|ink| light.saturating_sub(multiply(ink, light)))
}

/// Converts pixels of one channel (grey), two (grey and alpha), three (RGB) or four (RGB and alpha) to RGB, which
/// replaces what is in `rgb`. Alpha is dropped.
pub(super) fn to_rgb(samples: &[u8], channels: usize, rgb: &mut Vec<u8>) {
    rgb.clear();
    match channels {
        1 => rgb.extend(samples.iter().flat_map(|grey| [*grey; 3])),
        2 => rgb.extend(samples.as_chunks::<2>().0.iter().flat_map(|[grey, _]| [*grey; 3])),
        3 => rgb.extend_from_slice(samples),
        _ => rgb.extend(samples.as_chunks::<4>().0.iter().flat_map(|[r, g, b, _]| [*r, *g, *b])),
    }
}
