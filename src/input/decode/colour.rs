//! From values of other colours to RGB, as Pillow does it with 8 bits.

/// `a * b / 255`, rounded (`MULDIV255`).
pub(super) fn multiply(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    (((product >> 8) + product) >> 8) as u8
}

/// Inks to light (`cmyk2rgb`).
pub(super) fn cmyk_to_rgb([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let light = 255 - black;
    [cyan, magenta, yellow].map(|ink| light.saturating_sub(multiply(ink, light)))
}

/// Replaces what is in `rgb` by the colours of pixels that have one channel (grey), two (with alpha), three or four
/// (with alpha): grey is repeated, alpha dropped.
pub(super) fn to_rgb(samples: &[u8], channels: usize, rgb: &mut Vec<u8>) {
    rgb.clear();
    match channels {
        1 => rgb.extend(samples.iter().flat_map(|grey| [*grey; 3])),
        2 => rgb.extend(samples.as_chunks::<2>().0.iter().flat_map(|[grey, _]| [*grey; 3])),
        3 => rgb.extend_from_slice(samples),
        _ => rgb.extend(samples.as_chunks::<4>().0.iter().flat_map(|[r, g, b, _]| [*r, *g, *b])),
    }
}
