//! A block of small images, with the work split by channels.
//!
//! Of an image of 14 or 7 rows, a part of the rows has so few that the one or two hidden rows which its neighbour
//! makes too are a fifth of the work, and every thread reads all weights. Here each thread makes some of the hidden
//! channels, of all pixels, and reads only their weights; then each makes some of the outputs from all hidden
//! channels. Every sum has the order that it has in [`by_rows`](super::by_rows), so the bits are the same.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::block::{BlockShape, PackedBlock};
use super::buffer::Buffer;
use super::depthwise;
use super::hardball::project;
use super::matmul::{accumulate_part, gate_part};
use super::operand::{Format, Operand, Rows};
use super::segments::{self, Place, Scratch, evenly};
use super::vector::lanes;
use super::volume;

/// What the threads share.
#[derive(Default)]
struct Shared {
    input: Operand,
    skip: Operand,
    spread: Buffer,
    rounded: Operand,
}

thread_local! {
    /// Of the thread that calls. It is taken while it is used: a thread that waits for the others may be given
    /// another block to do.
    static SHARED: RefCell<Shared> = RefCell::default();
}

impl PackedBlock {
    /// [`Self::forward`] of `n` images together.
    pub(super) fn forward_by_channels(&self, x: &[f32], n: usize, shape: &BlockShape) -> Vec<f32> {
        let threads = rayon::current_num_threads();
        let mut shared = SHARED.take();
        let Shared { input, skip, spread, rounded } = &mut shared;
        let pixels = volume([n, shape.out_height, shape.out_width]);

        let rows = self.rounded(x, self.config.in_channels, n * shape.height * shape.width, input);
        let spread = spread.grow_to::<f32>(volume([pixels, shape.spread_pixel]));
        let place = Place::new(spread.as_mut_ptr());
        evenly(self.conv1.count(), threads).for_each(|panels| {
            segments::with_scratch(|scratch| self.spread_of(panels, rows, n, shape, &place, scratch));
        });

        let spread = match self.format {
            Format::Float => Rows::floats(spread, shape.spread_pixel),
            format => {
                rounded.round_by(threads, format, pixels, spread, shape.spread_pixel, self.conv3.k());
                rounded.rows(format, self.conv3.k())
            }
        };
        // The pixels that a strided convolution reads, side by side.
        let skip = self.skip.as_ref().map(|_| self.subsampled(x, n, shape, skip));
        let len = volume([pixels, self.config.out_channels]);
        let mut y = Vec::with_capacity(len);
        let place = Place::new(y.spare_capacity_mut().as_mut_ptr().cast());
        evenly(self.conv3.count(), threads).for_each(|panels| {
            self.output_of(panels, pixels, x, skip, spread, &place);
        });
        // SAFETY: every panel's columns have been written, in every pixel.
        unsafe { y.set_len(len) };
        if self.config.skip.ends_in_hardball() {
            project(&mut y, self.config.out_channels);
        }
        SHARED.set(shared);
        y
    }

    /// `conv2` of the hidden channels of some panels of `conv1`, to their places in the pixels of `spread`.
    fn spread_of(
        &self,
        panels: Range<usize>,
        x: Rows,
        n: usize,
        shape: &BlockShape,
        spread: &Place,
        scratch: &mut Scratch,
    ) {
        let channels = panels.start * lanes()..panels.end * lanes();
        let (pixels, pixel) = (n * shape.height * shape.width, BlockShape::padded(channels.len()));
        let hidden = scratch.floats[0].grow_to::<f32>(volume([pixels, pixel]));
        // SAFETY: the panels are some of `conv1`, and there is room for a vector of each in every pixel.
        unsafe {
            let bias: &[f32] = self.conv1_bias.as_slice();
            gate_part(pixels, x, &self.conv1, panels, bias.as_ptr(), hidden.as_mut_ptr(), pixel);
        }
        let row_len = shape.width * pixel;
        for row in 0..n * shape.out_height {
            let (image, row_of_image) = (row / shape.out_height, row % shape.out_height);
            let around = shape.around(row_of_image * self.config.stride, pixel, |row| {
                &hidden[(image * shape.height + row) * row_len..][..row_len]
            });
            let out = spread.at(row * shape.out_width * shape.spread_pixel);
            // SAFETY: the row lies in `spread`, and no other thread writes to these channels.
            unsafe {
                let part = 0..shape.out_width;
                depthwise::row_of(&self.conv2, around, part, channels.clone(), out, shape.spread_pixel);
            }
        }
    }

    /// What the skip's convolution reads.
    fn subsampled<'a>(&self, x: &[f32], n: usize, shape: &BlockShape, operand: &'a mut Operand) -> Rows<'a> {
        let (input, s) = (self.config.in_channels, self.config.stride);
        for row in 0..n * shape.out_height {
            let from = (row / shape.out_height * shape.height + row % shape.out_height * s) * shape.row;
            operand.take(
                self.format,
                row * shape.out_width,
                shape.out_width,
                &x[from..][..shape.row],
                s * input,
                input,
            );
        }
        operand.rows(self.format, input)
    }

    /// The outputs of some panels of `conv3`: the skip, all biases, and `conv3`, for all pixels.
    fn output_of(&self, panels: Range<usize>, pixels: usize, x: &[f32], skip: Option<Rows>, spread: Rows, y: &Place) {
        let output = self.config.out_channels;
        let columns = self.conv3.columns_of(&panels);
        let bias = &self.bias.as_slice::<f32>()[columns.clone()];
        for pixel in 0..pixels {
            // SAFETY: the pixel lies in `y`, and no other thread writes to these columns.
            let y = unsafe { y.values(pixel * output + columns.start, columns.len()) };
            if self.skip.is_some() {
                y.write_copy_of_slice(bias);
            } else {
                let x = &x[pixel * output..][columns.clone()];
                for ((y, x), bias) in y.iter_mut().zip(x).zip(bias) {
                    y.write(x + bias);
                }
            }
        }
        // SAFETY: the columns have been written, the panels are some of the skip and of `conv3`, which have the same
        // columns, and no other thread writes to these.
        unsafe {
            let y = y.at(columns.start);
            if let Some((weights, x)) = self.skip.as_ref().zip(skip) {
                accumulate_part(pixels, x, weights, panels.clone(), y, output);
            }
            accumulate_part(pixels, spread, &self.conv3, panels, y, output);
        }
    }
}
