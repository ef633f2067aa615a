//! One block of the network as one pass over its image.
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
//!
//! Hidden channels are padded to the vector's lanes with channels that are zero, and pixels in the
//! scratch buffers to an odd number of cache lines, so that neighbouring pixels do not fall into
//! the same set of the cache.

use std::io::{self, Write};
use std::ops::Range;

use super::buffer::Buffer;
use super::depthwise::{self, Filters};
use super::hardball::project;
use super::matmul::{accumulate, gate};
use super::operand::{Format, Operand, Products, Rows};
use super::packed::{Packed, Sections};
use super::panels::{Panels, gate_column};
use super::segments::{self, Scratch};
use super::vector::lanes;
use crate::weights::config::BlockConfig;

/// The folded parameters of a block in PyTorch's order, for `c` channels, `w` hidden ones with `f` filters
/// each, and `o` output channels.
pub struct Parameters<'a> {
    /// Weight `[2w, c, 1, 1]` and bias.
    pub conv1: (&'a [f32], &'a [f32]),
    /// Weight `[f * w, 1, 3, 3]` and bias.
    pub conv2: (&'a [f32], &'a [f32]),
    /// Weight `[o, f * w, 1, 1]` and bias.
    pub conv3: (&'a [f32], &'a [f32]),
    /// Weight `[o, c, 1, 1]` and bias, where the skip is a convolution.
    pub skip: Option<(&'a [f32], &'a [f32])>,
}

/// A block with its weights packed.
#[derive(Clone, Debug)]
pub struct PackedBlock {
    config: BlockConfig,
    /// Of what enters the products of conv1, conv3 and the skip.
    format: Format,
    conv1: Panels,
    conv1_bias: Packed,
    conv2: Filters,
    conv3: Panels,
    skip: Option<Panels>,
    /// Of `conv3` and the skip together.
    bias: Packed,
}

/// Bytes that the intermediates of a strip may take: half of a common second-level cache.
const STRIP: usize = 1 << 20;

impl PackedBlock {
    /// Packs the parameters of a block, and chooses how its products are computed.
    ///
    /// # Panics
    /// If one of them does not have as many values as the configuration says.
    pub fn new(config: &BlockConfig, products: Products, p: &Parameters) -> Self {
        let (format, weight) = (products.format(), |value: f32| products.weight(value));
        let &BlockConfig { in_channels: input, hidden_channels: hidden, filters, out_channels: output, stride, .. } =
            config;
        let check = |(weight, bias): (&[f32], &[f32]), outputs: usize, inputs: usize| {
            assert!(weight.len() == outputs * inputs && bias.len() == outputs, "parameters of another block");
        };
        check(p.conv1, 2 * hidden, input);
        check(p.conv2, filters * hidden, 9);
        check(p.conv3, output, filters * hidden);
        p.skip.inspect(|skip| check(*skip, output, input));
        let channels = hidden.next_multiple_of(lanes());
        // conv1's rows by packed column; channels that only pad are zero.
        let row = |j: usize| {
            let (factor, channel) = gate_column(j);
            (channel < hidden).then_some(factor * hidden + channel)
        };
        let rows: Vec<Option<usize>> = (0..2 * channels).map(row).collect();
        let conv1 = Panels::for_gate(format, input, 2 * channels, |i, j| {
            rows[j].map_or(0.0, |row| weight(p.conv1.0[row * input + i]))
        });
        let mut conv1_bias = Buffer::zeros::<f32>(2 * channels);
        for (j, bias) in conv1_bias.as_mut_slice().iter_mut().enumerate().take(2 * channels) {
            *bias = rows[j].map_or(0.0, |row| p.conv1.1[row]);
        }
        let conv2 = Filters::new(p.conv2.0, p.conv2.1, filters, stride);
        // conv3's columns by packed row.
        let column = |i: usize| {
            let (filter, channel) = (i / channels, i % channels);
            (channel < hidden).then_some(channel * filters + filter)
        };
        let columns: Vec<Option<usize>> = (0..filters * channels).map(column).collect();
        let conv3 = Panels::new(format, filters * channels, output, |i, j| {
            columns[i].map_or(0.0, |column| weight(p.conv3.0[j * hidden * filters + column]))
        });
        let skip = p.skip.map(|(skip, _)| Panels::new(format, input, output, |i, j| weight(skip[j * input + i])));
        let bias = match p.skip {
            Some((_, skip)) => Packed::copy_of(&p.conv3.1.iter().zip(skip).map(|(a, b)| a + b).collect::<Vec<f32>>()),
            None => Packed::copy_of(p.conv3.1),
        };
        Self { config: config.clone(), format, conv1, conv1_bias: conv1_bias.into(), conv2, conv3, skip, bias }
    }

    /// [`Self::new`] with what [`Self::write`] has written of a block of the same configuration and format, if
    /// there is so much.
    pub fn restore(config: &BlockConfig, format: Format, sections: &mut Sections) -> Option<Self> {
        let &BlockConfig { in_channels: input, hidden_channels: hidden, filters, out_channels: output, stride, skip } =
            config;
        let channels = hidden.checked_next_multiple_of(lanes())?;
        let halves = channels.checked_mul(2)?;
        Some(Self {
            config: config.clone(),
            format,
            conv1: Panels::restore_for_gate(format, input, halves, sections)?,
            conv1_bias: sections.take::<f32>(halves)?,
            conv2: Filters::restore(hidden, filters, stride, sections)?,
            conv3: Panels::restore(format, filters.checked_mul(channels)?, output, sections)?,
            skip: match skip.is_convolution() {
                true => Some(Panels::restore(format, input, output, sections)?),
                false => None,
            },
            bias: sections.take::<f32>(output)?,
        })
    }

    /// Writes all weights as they are in memory.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.conv1.write(out)?;
        self.conv1_bias.write(out)?;
        self.conv2.write(out)?;
        self.conv3.write(out)?;
        self.skip.iter().try_for_each(|skip| skip.write(out))?;
        self.bias.write(out)
    }

    /// The block's dimensions.
    pub fn config(&self) -> &BlockConfig {
        &self.config
    }

    /// `[n, h, w, c]` to `[n, ceil(h / stride), ceil(w / stride), o]`, on rayon's threads.
    ///
    /// # Panics
    /// If `x` does not have so many values.
    pub fn forward(&self, x: &[f32], n: usize, height: usize, width: usize) -> Vec<f32> {
        let shape = BlockShape::new(&self.config, self.format, height, width);
        let image = height * shape.row;
        assert_eq!(x.len(), n * image, "another number of values than the images have");
        let mut y = vec![0.0; n * shape.out_height * shape.out_row];
        let parts = parts(n, shape.out_height, rayon::current_num_threads());
        let rows = shape.out_height.div_ceil(parts);
        segments::for_each(x, image, &mut y, (shape.out_height, shape.out_row), rows, |x, first, y, scratch| {
            self.segment(x, &shape, first, y, scratch);
        });
        y
    }

    /// The output rows from `first` on, as many as `y` has room for, of the image `x`.
    fn segment(&self, x: &[f32], shape: &BlockShape, first: usize, y: &mut [f32], scratch: &mut Scratch) {
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
            self.skip(x, shape, start, y, input);
            accumulate(count * shape.out_width, spread, &self.conv3, y, self.config.out_channels);
            if self.config.skip.ends_in_hardball() {
                project(y, self.config.out_channels);
            }
        }
    }

    /// The input of a convolution: `count` pixels of `x`, `pixel` values apart.
    fn rounded<'a>(&self, x: &'a [f32], pixel: usize, count: usize, operand: &'a mut Operand) -> Rows<'a> {
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
        const TOGETHER: usize = 8;
        let (s, pixel) = (self.config.stride, shape.spread_pixel);
        let around = |row: usize| {
            [0, 1, 2].map(|ky| {
                let inside = (1..=shape.height).contains(&(row * s + ky));
                inside.then(|| &hidden[(row * s + ky - 1) % ring * shape.hidden_row..][..shape.hidden_row])
            })
        };
        if self.format == Format::Float {
            let spread = spread.grow_to::<f32>(rows.len() * shape.out_width * pixel);
            for (row, out) in rows.zip(spread.chunks_exact_mut(shape.out_width * pixel)) {
                let part = 0..shape.out_width;
                depthwise::row(&self.conv2, around(row), shape.width, shape.hidden_pixel, part, out, pixel);
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
                depthwise::row(&self.conv2, around(row), shape.width, shape.hidden_pixel, part, out, pixel);
                rounded.round(self.format, first, count, out, pixel, self.conv3.k());
            }
        }
        rounded.rows(self.format, self.conv3.k())
    }

    /// The skip and all biases, of the output rows from `start` on.
    fn skip(&self, x: &[f32], shape: &BlockShape, start: usize, y: &mut [f32], operand: &mut Operand) {
        let (input, output, s) = (self.config.in_channels, self.config.out_channels, self.config.stride);
        let bias = &self.bias.as_slice::<f32>()[..output];
        let Some(skip) = &self.skip else {
            let x = &x[start * shape.row..][..y.len()];
            for (y, x) in y.chunks_exact_mut(output).zip(x.chunks_exact(output)) {
                for ((y, x), bias) in y.iter_mut().zip(x).zip(bias) {
                    *y = x + bias;
                }
            }
            return;
        };
        y.chunks_exact_mut(output).for_each(|y| y.copy_from_slice(bias));
        for (row, y) in y.chunks_exact_mut(shape.out_row).enumerate() {
            let x = self.rounded(&x[(start + row) * s * shape.row..][..shape.row], s * input, shape.out_width, operand);
            accumulate(shape.out_width, x, skip, y, output);
        }
    }
}

/// Into how many parts each of `n` images of `height` rows is split for `threads` threads, so that
/// the last thread is done as early as possible. A part of an image costs 0.84 rows more than it has:
/// of the two hidden rows that its neighbours make too, `conv1`'s share, 42 %.
fn parts(n: usize, height: usize, threads: usize) -> usize {
    let cost = |parts: &usize| {
        let rows = 100 * height.div_ceil(*parts) + if *parts > 1 { 84 } else { 0 };
        (n * parts).div_ceil(threads) * rows
    };
    (1..=height).min_by_key(cost).unwrap_or(1)
}

/// Sizes in pixels and in values.
struct BlockShape {
    height: usize,
    width: usize,
    out_height: usize,
    out_width: usize,
    /// Values of a row of `x`, and of `y`.
    row: usize,
    out_row: usize,
    /// Values from one pixel to the next, and of a row, in the scratch buffers.
    hidden_pixel: usize,
    hidden_row: usize,
    spread_pixel: usize,
    /// Output rows of a strip, at most.
    strip: usize,
}

impl BlockShape {
    fn new(config: &BlockConfig, format: Format, height: usize, width: usize) -> Self {
        let (out_height, out_width) = (height.div_ceil(config.stride), width.div_ceil(config.stride));
        let channels = config.hidden_channels.next_multiple_of(lanes());
        // An odd number of cache lines.
        let padded = |values: usize| (values.div_ceil(16) | 1) * 16;
        let (hidden_pixel, spread_pixel) = (padded(channels), padded(config.filters * channels));
        let hidden_row = width * hidden_pixel;
        let spread_row = out_width
            * match format {
                Format::Float => spread_pixel,
                format => Operand::stride(format, config.filters * channels),
            };
        let strip = (STRIP / 4).saturating_sub(2 * hidden_row) / (config.stride * hidden_row + spread_row);
        Self {
            height,
            width,
            out_height,
            out_width,
            row: width * config.in_channels,
            out_row: out_width * config.out_channels,
            hidden_pixel,
            hidden_row,
            spread_pixel,
            strip: strip.max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_split_only_as_far_as_it_helps() {
        assert_eq!(parts(1, 56, 1), 1);
        assert_eq!(parts(1, 56, 2), 2);
        assert_eq!(parts(1, 7, 2), 2);
        assert_eq!(parts(4, 56, 2), 1);
        assert_eq!(parts(63, 56, 64), 1);
        assert!(parts(8, 56, 64) > 1);
        assert!(parts(1, 7, 64) <= 7);
    }
}
