//! Colours for values with a sign: blue below zero, red above, and equal steps of the value are equal steps to the
//! eye.
//!
//! The two arms are straight lines in OKLab, a space where distances are about what people see (B. Ottosson,
//! "A perceptual color space for image processing", 2020, <https://bottosson.github.io/posts/oklab/>; the matrices
//! are his). Both run from the same near-white to colours of one lightness and one chroma, so that neither sign
//! looks stronger, and without colour vision the lightness still tells how far from zero a value is. Blue and
//! red stay apart for people who confuse red and green.

use std::sync::LazyLock;

/// How many colours there are. One in the middle means zero, and each sign has as many as the other.
pub const COLOURS: usize = 257;

/// What stands for a value that is no number: no other colour is a grey as dark.
pub const NO_NUMBER: [u8; 3] = [128, 128, 128];

/// Lightness of zero, and of the ends of both arms.
const LIGHTNESS: (f64, f64) = (0.97, 0.48);
/// Chroma of the ends. At this lightness sRGB has little more of either hue.
const CHROMA: f64 = 0.175;
/// Hues in degrees: of negative values, and of positive ones.
const HUES: (f64, f64) = (259.0, 30.0);

static TABLE: LazyLock<[[u8; 3]; COLOURS]> =
    LazyLock::new(|| std::array::from_fn(|index| to_srgb(on_arm(index as f64 / (COLOURS / 2) as f64 - 1.0))));

/// The colour of a value from -1 to 1, as red, green and blue. Values beyond have the colour of the end.
pub fn diverging(value: f32) -> [u8; 3] {
    if value.is_nan() {
        return NO_NUMBER;
    }
    let middle = (COLOURS / 2) as f32;
    TABLE[((value.clamp(-1.0, 1.0) + 1.0) * middle).round() as usize]
}

/// All colours from -1 to 1, six hexadecimal digits each, one after the other: a script finds that of `value` at
/// `6 * Math.round((value + 1) * 128)`.
pub fn diverging_table() -> String {
    TABLE.iter().map(|[r, g, b]| format!("{r:02x}{g:02x}{b:02x}")).collect()
}

/// The point of OKLab for a value from -1 to 1.
fn on_arm(value: f64) -> [f64; 3] {
    let (zero, end) = LIGHTNESS;
    let hue = if value < 0.0 { HUES.0 } else { HUES.1 }.to_radians();
    let chroma = CHROMA * value.abs();
    [zero + (end - zero) * value.abs(), chroma * hue.cos(), chroma * hue.sin()]
}

/// From OKLab to sRGB with 8 bits.
fn to_srgb([lightness, a, b]: [f64; 3]) -> [u8; 3] {
    let [l, m, s] = [
        lightness + 0.3963377774 * a + 0.2158037573 * b,
        lightness - 0.1055613458 * a - 0.0638541728 * b,
        lightness - 0.0894841775 * a - 1.2914855480 * b,
    ]
    .map(|root| root.powi(3));
    [
        4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
        -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
        -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
    ]
    .map(|linear| {
        let encoded = if linear > 0.0031308 { 1.055 * linear.powf(1.0 / 2.4) - 0.055 } else { 12.92 * linear };
        (255.0 * encoded).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From sRGB to OKLab, with Ottosson's matrices of that direction.
    fn to_oklab(colour: [u8; 3]) -> [f64; 3] {
        let [r, g, b] = colour.map(|byte| {
            let value = f64::from(byte) / 255.0;
            if value > 0.04045 { ((value + 0.055) / 1.055).powf(2.4) } else { value / 12.92 }
        });
        let [l, m, s] = [
            0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b,
            0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b,
            0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b,
        ]
        .map(f64::cbrt);
        [
            0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s,
            1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s,
            0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s,
        ]
    }

    fn distance(one: [u8; 3], other: [u8; 3]) -> f64 {
        let (one, other) = (to_oklab(one), to_oklab(other));
        one.iter().zip(other).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn equal_steps_are_equally_far_apart_in_oklab() {
        let colours: Vec<_> = (-16..=16).map(|step| diverging(step as f32 / 16.0)).collect();
        let steps: Vec<_> = colours.windows(2).map(|ends| distance(ends[0], ends[1])).collect();
        let mean = steps.iter().sum::<f64>() / steps.len() as f64;
        for step in &steps {
            // Bytes are that coarse.
            assert!((step / mean - 1.0).abs() < 0.05, "{step} beside {mean}");
        }
        // And the single steps of the table are never the same colour twice.
        assert!(TABLE.windows(2).all(|ends| (0.3..2.0).contains(&(distance(ends[0], ends[1]) / (mean / 8.0)))));
    }

    #[test]
    fn both_signs_are_equally_strong_and_zero_has_none() {
        let [below, zero, above] = [-1.0, 0.0, 1.0].map(|value| to_oklab(diverging(value)));
        let chroma = |[_, a, b]: [f64; 3]| a.hypot(b);
        assert!((below[0] - above[0]).abs() < 0.005 && (chroma(below) - chroma(above)).abs() < 0.005);
        // So the ends are colours of sRGB: nothing was cut off.
        assert!((below[0] - LIGHTNESS.1).abs() < 0.005 && (chroma(below) - CHROMA).abs() < 0.005);
        assert!(chroma(zero) < 0.002 && zero[0] > 0.96);
        let [[red_below, _, blue_below], [red_above, _, blue_above]] = [-1.0, 1.0].map(diverging);
        assert!(blue_below > red_below && red_above > blue_above);
    }

    #[test]
    fn values_beyond_and_no_numbers_have_a_colour() {
        assert_eq!(diverging(f32::INFINITY), diverging(1.0));
        assert_eq!(diverging(-7.0), diverging(-1.0));
        assert_eq!(diverging(f32::NAN), NO_NUMBER);
        assert!(!TABLE.contains(&NO_NUMBER));
    }

    #[test]
    fn a_script_finds_the_same_colours() {
        let table = diverging_table();
        assert_eq!(table.len(), 6 * COLOURS);
        for value in [-1.0f32, -0.3, 0.0, 0.004, 0.5, 1.0] {
            let place = 6 * ((value + 1.0) * 128.0).round() as usize;
            let [r, g, b] = diverging(value);
            assert_eq!(table[place..place + 6], format!("{r:02x}{g:02x}{b:02x}"));
        }
    }
}
