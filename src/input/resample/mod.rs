//! Pillow's resize of 8-bit images, to the bit.
//!
//! timm and torchvision resize with Pillow, so the pixels that a published accuracy was measured on
//! are Pillow's. Its algorithm (`Resample.c`) has two passes, one along the rows and one along the
//! columns, each a weighted sum over the kernel's support, in integers, rounded to 8 bits. Other
//! resizers round elsewhere or use shorter weights, and differ in up to a fifth of the values.

mod passes;
mod taps;

use std::ops::Range;

use image::RgbImage;

use passes::{ROWS, horizontal_pass, vertical_pass};
use taps::Taps;

/// The kernel of a resize. Where the image shrinks, the kernel is stretched, so that all pixels count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Weights that fall linearly with the distance.
    Bilinear,
    /// Cubic convolution with a = -1/2, over twice as many pixels; sharper.
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

/// A rectangle in an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// Distance from the left edge of the image.
    pub x: u32,
    /// Distance from the upper edge of the image.
    pub y: u32,
    /// Width of the rectangle.
    pub width: u32,
    /// Height of the rectangle.
    pub height: u32,
}

/// Resizes an image to `size`, width and height in pixels, and crops the result. Only the pixels inside `crop` are
/// computed.
///
/// # Panics
/// If `crop` does not lie within `size`, or the image, `size` or `crop` has no pixels.
pub fn resize_crop(image: &RgbImage, size: (u32, u32), interpolation: Interpolation, crop: Rect) -> RgbImage {
    let mut resize = Resize::new(image.dimensions(), size, interpolation, crop);
    resize.put(image.as_raw());
    resize.finish()
}

/// A resize that takes the image's rows as they come, and holds no more of them than it needs.
pub(super) struct Resize {
    /// From the image's columns to those of the crop.
    columns: Taps,
    /// From the image's rows to those of the crop.
    rows: Taps,
    /// The vertical pass comes before the horizontal one.
    vertical_first: bool,
    /// Width and height of the crop, in pixels.
    crop: (u32, u32),
    /// Bytes of a row of the image.
    stride: usize,
    /// The bytes of a row that an output reads.
    read: Range<usize>,
    /// The number of the row that comes next.
    next: usize,
    /// Rows that have come and that the first pass has not used up: of each the bytes `read`.
    waiting: Vec<u8>,
    /// The rows that the first pass has made.
    intermediate: Vec<u8>,
    /// Working memory of [`horizontal_pass`].
    pixels: Vec<u8>,
    /// Working memory of [`vertical_pass`].
    sums: Vec<i32>,
}

impl Resize {
    /// Starts to resize an image of width and height `from` to width and height `to`, of which only the pixels inside
    /// `crop` are computed.
    ///
    /// # Panics
    /// If `crop` does not lie within `to`, or `from`, `to` or `crop` has no pixels.
    pub(super) fn new(from: (u32, u32), to: (u32, u32), interpolation: Interpolation, crop: Rect) -> Self {
        let inside = |start: u32, length: u32, whole| start.checked_add(length).is_some_and(|end| end <= whole);
        assert!(inside(crop.x, crop.width, to.0) && inside(crop.y, crop.height, to.1), "the crop reaches outside");
        assert!(![from.0, from.1, crop.width, crop.height].contains(&0), "an image without pixels");
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

    /// The columns of the image that are looked at.
    pub(super) fn columns(&self) -> Range<u32> {
        (self.read.start / 3) as u32..(self.read.end / 3) as u32
    }

    /// Takes the next rows of the image, any number of whole ones: `[rows, width, 3]`.
    pub(super) fn put(&mut self, rows: &[u8]) {
        let (top, bottom) = self.rows.reach();
        let count = rows.len() / self.stride;
        // Rows that no output reads are left out.
        let from = top.saturating_sub(self.next).min(count);
        let to = bottom.saturating_sub(self.next).clamp(from, count);
        self.next += from;
        for rows in rows[from * self.stride..to * self.stride].chunks(ROWS * self.stride) {
            self.next += rows.len() / self.stride;
            if !self.vertical_first && self.waiting.is_empty() && rows.len() == ROWS * self.stride {
                self.resize_rows(rows, self.stride, self.read.clone());
                continue;
            }
            for row in rows.chunks_exact(self.stride) {
                self.waiting.extend_from_slice(&row[self.read.clone()]);
            }
            if self.vertical_first {
                self.blend_waiting_rows();
            } else if self.waiting.len() >= ROWS * self.read.len() {
                self.resize_waiting_rows(ROWS);
            }
        }
        self.next += count - to;
    }

    /// The horizontal pass where it comes first, over the bytes `read` of rows of `stride` bytes each.
    fn resize_rows(&mut self, rows: &[u8], stride: usize, read: Range<usize>) {
        let made = self.intermediate.len();
        self.intermediate.resize(made + rows.len() / stride * self.crop.0 as usize * 3, 0);
        horizontal_pass(rows, stride, read, &self.columns, &mut self.pixels, &mut self.intermediate[made..]);
    }

    /// The horizontal pass where it comes first, over the first `count` rows that wait.
    fn resize_waiting_rows(&mut self, count: usize) {
        let stride = self.read.len();
        let mut waiting = std::mem::take(&mut self.waiting);
        self.resize_rows(&waiting[..count * stride], stride, 0..stride);
        waiting.drain(..count * stride);
        self.waiting = waiting;
    }

    /// The vertical pass where it comes first: makes the outputs whose inputs have all come.
    fn blend_waiting_rows(&mut self) {
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
        // Rows that no output will read are removed when they are half of those that wait, so that no row is moved
        // often.
        let done = self.rows.first.get(output).map_or(end, |first| *first.min(&end)).saturating_sub(start) * stride;
        if 2 * done >= self.waiting.len() {
            self.waiting.drain(..done);
        }
    }

    /// The pixels inside the crop, once all rows have come.
    ///
    /// # Panics
    /// If rows are missing.
    pub(super) fn finish(mut self) -> RgbImage {
        let (top, bottom) = self.rows.reach();
        assert!(self.next >= bottom, "rows are missing");
        let (width, height) = self.crop;
        let made = width as usize * 3;
        let mut out = vec![0; made * height as usize];
        if self.vertical_first {
            let stride = self.read.len();
            horizontal_pass(&self.intermediate, stride, 0..stride, &self.columns, &mut self.pixels, &mut out);
        } else {
            self.resize_waiting_rows(self.waiting.len() / self.read.len());
            for (output, out) in out.chunks_exact_mut(made).enumerate() {
                let source = &self.intermediate[(self.rows.first[output] - top) * made..];
                vertical_pass(source, self.rows.weights(output), &mut self.sums, out);
            }
        }
        RgbImage::from_raw(width, height, out).expect("the buffer has the crop's size")
    }
}

/// Whether the vertical pass comes first. Until Pillow 12 it never does. From Pillow 13 on it does where it removes
/// more than twice as many rows as the horizontal pass removes columns (Pillow's pull request 9549).
fn vertical_first((from_width, from_height): (u32, u32), (width, height): (u32, u32)) -> bool {
    let [from_width, from_height, width, height] = [from_width, from_height, width, height].map(i64::from);
    height < from_height && 2 * (from_width - width) < from_height - height
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
