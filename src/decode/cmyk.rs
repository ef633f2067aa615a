//! Inks to light.

/// Pillow's `cmyk2rgb`, with its division by 255.
pub fn cmyk_to_rgb([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    [cyan, magenta, yellow].map(|ink| {
        let product = u32::from(ink) * u32::from(255 - black) + 128;
        (255 - black).saturating_sub((((product >> 8) + product) >> 8) as u8)
    })
}
