//! Pillow's resize of 8-bit images, to the bit.
//!
//! timm and torchvision resize with Pillow, so the pixels that a published accuracy was measured on
//! are Pillow's. Its algorithm (`Resample.c`) has two passes, one along the rows and one along the
//! columns, each a weighted sum over the kernel's support, in integers, rounded to 8 bits. Other
//! resizers round elsewhere or use shorter weights, and differ in up to a fifth of the values.

use std::ops::Range;

use image::RgbImage;

use crate::simd::vectorised;

/// The kernel of a resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    Bilinear,
    Bicubic,
}

impl std::fmt::Display for Interpolation {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
        })
    }
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
pub fn resize_crop(image: &RgbImage, size: (u32, u32), interpolation: Interpolation, crop: Rect) -> RgbImage {
    let mut resize = Resize::new(image.dimensions(), size, interpolation, crop);
    resize.put(image.as_raw());
    resize.finish()
}

/// A resize that takes the image's rows as they come, and holds no more of them than it needs.
pub struct Resize {
    columns: Taps,
    rows: Taps,
    /// The vertical pass comes first.
    vertical_first: bool,
    /// Width and height of what is made.
    crop: (u32, u32),
    /// Bytes of a row of the image, and those of them that an output reads.
    stride: usize,
    read: Range<usize>,
    /// The number of the row that comes next.
    next: usize,
    /// The last rows that came, as far as an output that is not made yet reads them.
    waiting: Vec<u8>,
    /// What the first pass has made.
    intermediate: Vec<u8>,
    /// Room for [`horizontal_pass`] and [`vertical_pass`].
    pixels: Vec<u8>,
    sums: Vec<i32>,
}

impl Resize {
    /// For an image of size `from`, to what `image.resize(to, interpolation)` would be inside `crop`.
    ///
    /// # Panics
    /// If `crop` does not lie within `to`, or one of the images is empty.
    pub fn new(from: (u32, u32), to: (u32, u32), interpolation: Interpolation, crop: Rect) -> Self {
        assert!(crop.x + crop.width <= to.0 && crop.y + crop.height <= to.1, "the crop reaches outside");
        let columns = Taps::new(from.0, to.0, crop.x, crop.width, interpolation);
        let (left, right) = columns.reach();
        let vertical_first = vertical_first(from, to);
        let blended = if vertical_first { right - left } else { crop.width as usize };
        Self {
            columns,
            rows: Taps::new(from.1, to.1, crop.y, crop.height, interpolation),
            vertical_first,
            crop: (crop.width, crop.height),
            stride: from.0 as usize * 3,
            read: left * 3..right * 3,
            next: 0,
            waiting: Vec::new(),
            intermediate: Vec::new(),
            pixels: vec![0; (right - left) * ROWS * 4],
            sums: vec![0; blended * 3],
        }
    }

    /// Takes whole rows: `[rows, width, 3]`.
    pub fn put(&mut self, rows: &[u8]) {
        let (top, bottom) = self.rows.reach();
        let count = rows.len() / self.stride;
        // Rows that no output reads are left out.
        let from = top.saturating_sub(self.next).min(count);
        let to = bottom.saturating_sub(self.next).clamp(from, count);
        self.next += from;
        for rows in rows[from * self.stride..to * self.stride].chunks(ROWS * self.stride) {
            self.next += rows.len() / self.stride;
            if !self.vertical_first && self.waiting.is_empty() && rows.len() == ROWS * self.stride {
                self.shorten(rows, self.stride, self.read.clone());
                continue;
            }
            for row in rows.chunks_exact(self.stride) {
                self.waiting.extend_from_slice(&row[self.read.clone()]);
            }
            if self.vertical_first {
                self.blend_waiting();
            } else if self.waiting.len() >= ROWS * self.read.len() {
                self.shorten_waiting(ROWS);
            }
        }
        self.next += count - to;
    }

    /// The horizontal pass where it comes first: of rows that are `stride` bytes apart, and of which the bytes
    /// `read` are read.
    fn shorten(&mut self, rows: &[u8], stride: usize, read: Range<usize>) {
        let made = self.intermediate.len();
        self.intermediate.resize(made + rows.len() / stride * self.crop.0 as usize * 3, 0);
        horizontal_pass(rows, stride, read, &self.columns, &mut self.pixels, &mut self.intermediate[made..]);
    }

    /// The same, of the first so many rows that wait.
    fn shorten_waiting(&mut self, count: usize) {
        let stride = self.read.len();
        let mut waiting = std::mem::take(&mut self.waiting);
        self.shorten(&waiting[..count * stride], stride, 0..stride);
        waiting.drain(..count * stride);
        self.waiting = waiting;
    }

    /// The vertical pass where it comes first: the outputs whose inputs are there.
    fn blend_waiting(&mut self) {
        let stride = self.read.len();
        let (start, end) = (self.next - self.waiting.len() / stride, self.next);
        let mut output = self.intermediate.len() / stride;
        while self.rows.first.get(output).is_some_and(|first| first + self.rows.count <= end) {
            let made = self.intermediate.len();
            self.intermediate.resize(made + stride, 0);
            let source = &self.waiting[(self.rows.first[output] - start) * stride..];
            vertical_pass(source, self.rows.weights(output), &mut self.sums, &mut self.intermediate[made..]);
            output += 1;
        }
        // Rows that are read no more go when they are half of those that wait, so that none is moved often.
        let done = self.rows.first.get(output).map_or(end, |first| *first.min(&end)).saturating_sub(start) * stride;
        if 2 * done >= self.waiting.len() {
            self.waiting.drain(..done);
        }
    }

    /// What lies in the crop.
    ///
    /// # Panics
    /// If rows are missing.
    pub fn finish(mut self) -> RgbImage {
        let (top, bottom) = self.rows.reach();
        assert!(self.next >= bottom, "rows are missing");
        let (width, height) = self.crop;
        let made = width as usize * 3;
        let mut out = vec![0; made * height as usize];
        if self.vertical_first {
            let stride = self.read.len();
            horizontal_pass(&self.intermediate, stride, 0..stride, &self.columns, &mut self.pixels, &mut out);
        } else {
            self.shorten_waiting(self.waiting.len() / self.read.len());
            for (output, out) in out.chunks_exact_mut(made).enumerate() {
                let source = &self.intermediate[(self.rows.first[output] - top) * made..];
                vertical_pass(source, self.rows.weights(output), &mut self.sums, out);
            }
        }
        RgbImage::from_raw(width, height, out).expect("the buffer has the crop's size")
    }
}

/// Whether the vertical pass comes first: never, until Pillow 12; from Pillow 13 on, where that removes more
/// than twice as many rows as the other pass removes columns (Pillow's pull request 9549).
fn vertical_first((from_width, from_height): (u32, u32), (width, height): (u32, u32)) -> bool {
    let [from_width, from_height, width, height] = [from_width, from_height, width, height].map(i64::from);
    height < from_height && 2 * (from_width - width) < from_height - height
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

    /// The weights of an output's inputs.
    fn weights(&self, output: usize) -> &[i32] {
        &self.weights[output * self.count..][..self.count]
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

/// Rows that are made together. They share the weights, so that their pixels of one column, with a
/// fourth channel that is thrown away, are one long vector.
const ROWS: usize = 16;

/// Rounds to nearest.
const HALF: i32 = 1 << (PRECISION - 1);

vectorised! {
    /// Of every row of `source`, `stride` bytes each, the bytes `read`, which begin with the first pixel that one of
    /// `taps` reads: to `[rows, taps, 3]`. `pixels` is room for [`ROWS`] times what is read of a row, with
    /// a fourth channel.
    fn horizontal_pass(
        source: &[u8],
        stride: usize,
        read: Range<usize>,
        taps: &Taps,
        pixels: &mut [u8],
        out: &mut [u8],
    ) {
        let outputs = taps.first.len();
        let origin = taps.reach().0;
        let mut sums = [0i32; ROWS * 4];
        for (source, out) in source.chunks(ROWS * stride).zip(out.chunks_mut(ROWS * outputs * 3)) {
            let lanes = source.len() / stride * 4;
            for (row, source) in source.chunks_exact(stride).enumerate() {
                let source = source[read.clone()].as_chunks::<3>().0;
                for (column, pixel) in pixels.chunks_exact_mut(lanes).zip(source) {
                    column[row * 4..][..4].copy_from_slice(&[pixel[0], pixel[1], pixel[2], 0]);
                }
            }
            for (output, (first, weights)) in taps.first.iter().zip(taps.weights.chunks_exact(taps.count)).enumerate() {
                let sums = &mut sums[..lanes];
                sums.fill(HALF);
                for (column, weight) in pixels[(first - origin) * lanes..].chunks_exact(lanes).zip(weights) {
                    for (sum, value) in sums.iter_mut().zip(column) {
                        *sum += i32::from(*value) * weight;
                    }
                }
                for (out, sum) in out.chunks_exact_mut(outputs * 3).zip(sums.as_chunks::<4>().0) {
                    out[output * 3..][..3].copy_from_slice(&[to_u8(sum[0]), to_u8(sum[1]), to_u8(sum[2])]);
                }
            }
        }
    }
}

vectorised! {
    /// One row `out` of as many rows of `source` as there are weights, each as long as it. `sums` is room for
    /// as many values.
    fn vertical_pass(source: &[u8], weights: &[i32], sums: &mut [i32], out: &mut [u8]) {
        sums.fill(HALF);
        for (row, weight) in source.chunks_exact(out.len()).zip(weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        for (out, sum) in out.iter_mut().zip(sums.iter()) {
            *out = to_u8(*sum);
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
            for (width, height) in [(40, 30), (90, 100), (61, 47), (7, 90), (60, 33)] {
                let all = resize_crop(&image, (width, height), interpolation, whole(width, height));
                let rect = Rect { x: 2, y: 11, width: 5, height: 19 };
                let part = resize_crop(&image, (width, height), interpolation, rect);
                let view = image::imageops::crop_imm(&all, rect.x, rect.y, rect.width, rect.height).to_image();
                assert_eq!(part, view);
            }
        }
    }

    #[test]
    fn rows_may_come_in_any_number() {
        for (from, to) in
            [((61, 47), (40, 30)), ((9, 300), (11, 90)), ((300, 5), (220, 7)), ((1, 40), (3, 3)), ((50, 1), (9, 9))]
        {
            let image = RgbImage::from_fn(from.0, from.1, |x, y| {
                image::Rgb([(x * 7 + y) as u8, (x * y) as u8, (y * 31) as u8])
            });
            let crop = Rect { x: to.0 / 4, y: to.1 / 3, width: to.0 / 2, height: to.1 / 2 };
            let expected = resize_crop(&image, to, Interpolation::Bicubic, crop);
            for rows in [1, 2, 7, 16, 17, 40] {
                let mut resize = Resize::new(from, to, Interpolation::Bicubic, crop);
                resize.put(&[]);
                image.as_raw().chunks(rows * from.0 as usize * 3).for_each(|rows| resize.put(rows));
                assert_eq!(resize.finish(), expected, "{from:?} to {to:?} by {rows}");
            }
        }
        assert!(vertical_first((9, 300), (11, 90)) && !vertical_first((61, 47), (40, 30)));
    }

    #[test]
    fn the_same_size_is_the_same_image() {
        let image = RgbImage::from_fn(33, 20, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            assert_eq!(resize_crop(&image, (33, 20), interpolation, whole(33, 20)), image);
        }
    }
}
