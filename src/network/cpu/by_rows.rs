//! A block in one pass over its image, or over a part of its rows.
//!
//! In `y = skip(x) + conv3(conv2(a * b))`, the halves `a` and `b` of `conv1(x)`, their product and
//! `conv2`'s output are several times larger than `x` and `y` and leave the cache if they are made
//! whole: in layer 1 the halves 6.4 MB together, their product 3.2 MB, and `conv2`'s output 6.4 MB.
//! So the halves are never stored, and a block is made in strips of output rows, whose intermediates
//! stay in the second-level cache:
//!
//! ```text
//! hidden   gate(conv1(x))    the strip's rows and one above and below, in a ring of rows
//! spread   conv2(hidden)     the strip's rows
//! y        skip(x) + bias, then += conv3(spread), then hardball where the block has one
//! ```
//!
//! The ring keeps the rows that two strips share, so nothing is computed twice inside a segment. A
//! segment is what one thread does: a whole image where there are enough images, otherwise a part
//! of one, at the price of one or two rows of `hidden` that its neighbour computes too.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::block::{BlockShape, PackedBlock};
use super::buffer::Buffer;
use super::depthwise::{self, Around};
use super::hardball::project;
use super::matmul::{accumulate, gate};
use super::operand::{Format, Operand, Rows};
use super::segments::{self, Scratch};

impl PackedBlock {
    /// [`Self::forward`] with each image split into `parts` parts of rows.
    pub(super) fn forward_by_rows(&self, x: &[f32], shape: &BlockShape, parts: usize) -> Vec<f32> {
        let rows = shape.out_height.div_ceil(parts);
        let sizes = (shape.height * shape.row, shape.out_height, shape.out_row);
        segments::for_each(x, sizes, rows, |x, first, y, scratch| self.segment(x, shape, first, y, scratch))
    }

    /// The output rows from `first` on, as many as `y` has room for, of the image `x`. All of `y` is written.
    fn segment<'a>(
        &self,
        x: &[f32],
        shape: &BlockShape,
        first: usize,
        y: &'a mut [MaybeUninit<f32>],
        scratch: &mut Scratch,
    ) -> &'a mut [f32] {
        let s = self.config.stride;
        let rows = y.len() / shape.out_row;
        let strips = rows.div_ceil(shape.strip);
        let strip = rows.div_ceil(strips);
        let ring = ((strip - 1) * s + 3).min(shape.height);
        let Scratch { floats: [hidden, spread], operands: [input, rounded] } = scratch;
        let hidden = hidden.grow_to(ring * shape.hidden_row);
        // The next row of the hidden activation that the ring does not have yet.
        let mut next = (first * s).saturating_sub(1);
        for (start, y) in (first..first + rows).step_by(strip).zip(y.chunks_mut(strip * shape.out_row)) {
            let count = y.len() / shape.out_row;
            let end = ((start + count - 1) * s + 2).min(shape.height);
            while next < end {
                // As many rows as lie side by side in the ring.
                let run = (end - next).min(ring - next % ring);
                let x = &x[next * shape.row..][..run * shape.row];
                gate(
                    run * shape.width,
                    self.rounded(x, self.config.in_channels, run * shape.width, input),
                    &self.conv1,
                    self.conv1_bias.as_slice(),
                    &mut hidden[next % ring * shape.hidden_row..][..run * shape.hidden_row],
                    shape.hidden_pixel,
                );
                next += run;
            }
            let spread = self.spread(hidden, shape, ring, start..start + count, spread, rounded);
            let y = self.skip(x, shape, start, y, input);
            accumulate(count * shape.out_width, spread, &self.conv3, y, self.config.out_channels);
            if self.config.skip.ends_in_hardball() {
                project(y, self.config.out_channels);
            }
        }
        // SAFETY: the strips are all of it, and `skip` has written each.
        unsafe { y.assume_init_mut() }
    }

    /// The input of a convolution: `count` pixels of `x`, `pixel` values apart.
    pub(super) fn rounded<'a>(&self, x: &'a [f32], pixel: usize, count: usize, operand: &'a mut Operand) -> Rows<'a> {
        if self.format == Format::Float {
            return Rows::floats(x, pixel);
        }
        operand.round(self.format, 0, count, x, pixel, self.config.in_channels);
        operand.rows(self.format, self.config.in_channels)
    }

    /// `conv2` of the ring `hidden`, for a range of output rows. What is rounded is rounded a few pixels at a time,
    /// while they are in the first-level cache.
    fn spread<'a>(
        &self,
        hidden: &[f32],
        shape: &BlockShape,
        ring: usize,
        rows: Range<usize>,
        spread: &'a mut Buffer,
        rounded: &'a mut Operand,
    ) -> Rows<'a> {
        /// Pixels that are made before they are rounded.
        const TOGETHER: usize = 4;
        let pixel = shape.spread_pixel;
        let around = |row: usize| {
            shape.around(row * self.config.stride, shape.hidden_pixel, |row| {
                &hidden[row % ring * shape.hidden_row..][..shape.hidden_row]
            })
        };
        if self.format == Format::Float {
            let spread = spread.grow_to::<f32>(rows.len() * shape.out_width * pixel);
            for (row, out) in rows.zip(spread.chunks_exact_mut(shape.out_width * pixel)) {
                depthwise::row(&self.conv2, around(row), 0..shape.out_width, out, pixel);
            }
            return Rows::floats(spread, pixel);
        }
        let out = spread.grow_to::<f32>((TOGETHER + 1) * pixel);
        for (i, row) in rows.enumerate() {
            let mut x = 0;
            while x < shape.out_width {
                // The first pixel, at the border, is made alone; those after it in whole fours.
                let part = x..shape.out_width.min(x.next_multiple_of(TOGETHER) + 1 + if x == 0 { TOGETHER } else { 0 });
                let (first, count) = (i * shape.out_width + x, part.len());
                x = part.end;
                depthwise::row(&self.conv2, around(row), part, out, pixel);
                rounded.round(self.format, first, count, out, pixel, self.conv3.k());
            }
        }
        rounded.rows(self.format, self.conv3.k())
    }

    /// Writes the skip and all biases to `y`, the output rows from `start` on.
    fn skip<'a>(
        &self,
        x: &[f32],
        shape: &BlockShape,
        start: usize,
        y: &'a mut [MaybeUninit<f32>],
        operand: &mut Operand,
    ) -> &'a mut [f32] {
        let (input, output, s) = (self.config.in_channels, self.config.out_channels, self.config.stride);
        let (x, bias) = (&x[start * s * shape.row..], &self.bias.as_slice::<f32>()[..output]);
        for (i, y) in y.chunks_exact_mut(output).enumerate() {
            if self.skip.is_some() {
                y.write_copy_of_slice(bias);
            } else {
                for ((y, x), bias) in y.iter_mut().zip(&x[i * output..][..output]).zip(bias) {
                    y.write(x + bias);
                }
            }
        }
        // SAFETY: rows are whole pixels, all of which have been written.
        let y = unsafe { y.assume_init_mut() };
        if let Some(skip) = &self.skip {
            for (row, y) in y.chunks_exact_mut(shape.out_row).enumerate() {
                let x = self.rounded(&x[row * s * shape.row..][..shape.row], s * input, shape.out_width, operand);
                accumulate(shape.out_width, x, skip, y, output);
            }
        }
        y
    }
}

impl BlockShape {
    /// The input rows around `centre`, of which `row` gives those inside the image.
    pub(super) fn around<'a>(&self, centre: usize, pixel: usize, row: impl Fn(usize) -> &'a [f32]) -> Around<'a> {
        let rows = [0, 1, 2].map(|ky| (1..=self.height).contains(&(centre + ky)).then(|| row(centre + ky - 1)));
        Around { rows, width: self.width, pixel }
    }
}
