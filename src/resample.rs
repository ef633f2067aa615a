//! Pillow's resize of 8-bit images, to the bit.
//!
//! timm and torchvision resize with Pillow, so the pixels that a published accuracy was measured on
//! are Pillow's. Its algorithm (`Resample.c`): all rows to the new width, then all columns to the
//! new height, each pass a weighted sum over the kernel's support, in integers, rounded to 8 bits.
//! Other resizers go columns first or use shorter weights, and differ in up to a fifth of the values.

use image::RgbImage;

/// The kernel of a resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interpolation {
    Bilinear,
    Bicubic,
}

impl Interpolation {
    /// Half the kernel's width, in output pixels where the image shrinks.
    fn support(self) -> f64 {
        match self {
            Interpolation::Bilinear => 1.0,
            Interpolation::Bicubic => 2.0,
        }
    }

    fn kernel(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Interpolation::Bilinear => (1.0 - x).max(0.0),
            // Cubic convolution with a = -1/2, in Pillow's order of operations.
            Interpolation::Bicubic => {
                const A: f64 = -0.5;
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
        }
    }
}

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// What `image.resize((width, height), interpolation)` would be inside `crop`; only what lies there
/// is computed.
///
/// # Panics
/// If `crop` does not lie within `width` x `height`, or one of the images is empty.
pub fn resize_crop(image: &RgbImage, (width, height): (u32, u32), interpolation: Interpolation, crop: Rect) -> RgbImage {
    assert!(crop.x + crop.width <= width && crop.y + crop.height <= height, "the crop reaches outside");
    let columns = Taps::new(image.width(), width, crop.x, crop.width, interpolation);
    let rows = Taps::new(image.height(), height, crop.y, crop.height, interpolation);
    // Only the rows that the second pass reads.
    let (from, to) = rows.reach();
    let line = image.width() as usize * 3;
    let source = &image.as_raw()[from * line..to * line];
    let mut across = vec![0; (to - from) * crop.width as usize * 3];
    let mut out = vec![0; crop.width as usize * crop.height as usize * 3];
    pulp::Arch::new().dispatch(|| {
        resize_rows(source, line, &columns, &mut across);
        resize_columns(&across, from, crop.width as usize * 3, &rows, &mut out);
    });
    RgbImage::from_raw(crop.width, crop.height, out).expect("the buffer has the crop's size")
}

/// Fractional bits of the weights: with 8 bits of value and 2 of overshoot they fill 32.
const PRECISION: u32 = 32 - 8 - 2;

/// For each output position, the inputs it reads and their weights.
struct Taps {
    /// First input of each output.
    first: Vec<usize>,
    /// `[outputs, count]`, padded with zeros.
    weights: Vec<i32>,
    /// Inputs per output: the largest number that one of them reads.
    count: usize,
}

impl Taps {
    /// For the outputs `start..start + length` of a resize from `input` to `output` positions.
    fn new(input: u32, output: u32, start: u32, length: u32, interpolation: Interpolation) -> Self {
        let scale = f64::from(input) / f64::from(output);
        let stretch = scale.max(1.0);
        let support = interpolation.support() * stretch;
        let count = (support.ceil() as usize * 2 + 1).min(input as usize);
        let mut taps = Self { first: Vec::new(), weights: Vec::new(), count };
        for i in start..start + length {
            let centre = (f64::from(i) + 0.5) * scale;
            let from = ((centre - support + 0.5) as i64).max(0) as usize;
            let to = ((centre + support + 0.5) as i64).min(i64::from(input)) as usize;
            let mut weights: Vec<f64> =
                (from..to).map(|x| interpolation.kernel((x as f64 - centre + 0.5) * (1.0 / stretch))).collect();
            let sum: f64 = weights.iter().sum();
            if sum != 0.0 {
                weights.iter_mut().for_each(|w| *w /= sum);
            }
            // The padding reads inputs too, with weight zero: they must exist.
            let padding = (from + count).saturating_sub(input as usize);
            taps.first.push(from - padding);
            let end = taps.weights.len() + count;
            taps.weights.extend(std::iter::repeat_n(0, padding));
            // `f64::round` rounds half away from zero, as Pillow does.
            taps.weights.extend(weights.iter().map(|w| (w * f64::from(1 << PRECISION)).round() as i32));
            taps.weights.resize(end, 0);
        }
        taps
    }

    /// The first input that is read, and one past the last.
    fn reach(&self) -> (usize, usize) {
        let from = self.first.iter().copied().min().unwrap_or(0);
        let to = self.first.iter().map(|first| first + self.count).max().unwrap_or(0);
        (from, to)
    }
}

#[inline(always)]
fn to_u8(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Rounds to nearest.
const HALF: i32 = 1 << (PRECISION - 1);

/// Every row of `source`, `line` bytes each, to `[rows, taps, 3]`.
#[inline(always)]
fn resize_rows(source: &[u8], line: usize, taps: &Taps, out: &mut [u8]) {
    let outputs = taps.first.len();
    // The three channels and a fourth that is thrown away make one vector per pixel.
    let mut wide = vec![[0i32; 4]; line / 3];
    for (source, out) in source.chunks_exact(line).zip(out.chunks_exact_mut(outputs * 3)) {
        for (wide, pixel) in wide.iter_mut().zip(source.as_chunks::<3>().0) {
            *wide = [i32::from(pixel[0]), i32::from(pixel[1]), i32::from(pixel[2]), 0];
        }
        for ((out, first), weights) in
            out.as_chunks_mut::<3>().0.iter_mut().zip(&taps.first).zip(taps.weights.chunks_exact(taps.count))
        {
            let mut sum = [HALF; 4];
            for (pixel, weight) in wide[*first..][..taps.count].iter().zip(weights) {
                for c in 0..4 {
                    sum[c] += pixel[c] * weight;
                }
            }
            *out = [to_u8(sum[0]), to_u8(sum[1]), to_u8(sum[2])];
        }
    }
}

/// Rows of `line` values, the first of which is row `from` of the image, to the rows of `taps`.
#[inline(always)]
fn resize_columns(source: &[u8], from: usize, line: usize, taps: &Taps, out: &mut [u8]) {
    const LANES: usize = 32;
    for ((out, first), weights) in
        out.chunks_exact_mut(line).zip(&taps.first).zip(taps.weights.chunks_exact(taps.count))
    {
        let source = &source[(first - from) * line..][..taps.count * line];
        for start in (0..line).step_by(LANES) {
            let lanes = LANES.min(line - start);
            let mut sum = [HALF; LANES];
            for (row, weight) in source.chunks_exact(line).zip(weights) {
                if lanes == LANES {
                    for (sum, value) in sum.iter_mut().zip(&row[start..start + LANES]) {
                        *sum += i32::from(*value) * weight;
                    }
                } else {
                    for (sum, value) in sum.iter_mut().zip(&row[start..]) {
                        *sum += i32::from(*value) * weight;
                    }
                }
            }
            for (out, sum) in out[start..start + lanes].iter_mut().zip(sum) {
                *out = to_u8(sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(width: u32, height: u32) -> Rect {
        Rect { x: 0, y: 0, width, height }
    }

    #[test]
    fn a_crop_is_part_of_the_whole() {
        let image = RgbImage::from_fn(61, 47, |x, y| image::Rgb([(x * 7 + y) as u8, (x * y) as u8, (y * 31) as u8]));
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            for (width, height) in [(40, 30), (90, 100), (61, 47), (7, 90)] {
                let all = resize_crop(&image, (width, height), interpolation, whole(width, height));
                let rect = Rect { x: 2, y: 11, width: 5, height: 19 };
                let part = resize_crop(&image, (width, height), interpolation, rect);
                let view = image::imageops::crop_imm(&all, rect.x, rect.y, rect.width, rect.height).to_image();
                assert_eq!(part, view);
            }
        }
    }

    #[test]
    fn the_same_size_is_the_same_image() {
        let image = RgbImage::from_fn(33, 20, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            assert_eq!(resize_crop(&image, (33, 20), interpolation, whole(33, 20)), image);
        }
    }
}
