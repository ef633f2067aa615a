//! One block of the network: its packed weights, and how its work is split between threads.
//!
//! Hidden channels are padded to the vector's lanes with channels that are zero, and pixels in the
//! scratch buffers to an odd number of cache lines, so that neighbouring pixels do not fall into
//! the same set of the cache.

use std::io::{self, Write};

use super::buffer::Buffer;
use super::depthwise::Filters;
use super::operand::{Format, Operand, Products};
use super::packed::{Packed, Sections};
use super::panels::{Panels, gate_column};
use super::vector::lanes;
use super::volume;
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
    pub(super) config: BlockConfig,
    /// Of what enters the products of conv1, conv3 and the skip.
    pub(super) format: Format,
    pub(super) conv1: Panels,
    pub(super) conv1_bias: Packed,
    pub(super) conv2: Filters,
    pub(super) conv3: Panels,
    pub(super) skip: Option<Panels>,
    /// Of `conv3` and the skip together.
    pub(super) bias: Packed,
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

    /// `[n, h, w, c]` to `[n, ceil(h / stride), ceil(w / stride), o]`, on rayon's threads. The bits do not depend on how
    /// the work is split between them.
    ///
    /// # Panics
    /// If `x` does not have so many values.
    pub fn forward(&self, x: &[f32], n: usize, height: usize, width: usize) -> Vec<f32> {
        let sizes = [n, height, width, self.config.in_channels];
        assert_eq!(x.len(), volume(sizes), "another number of values than the images have");
        let shape = BlockShape::new(&self.config, self.format, height, width);
        match split(n, &shape, self.conv1.count(), rayon::current_num_threads()) {
            Split::Rows(parts) => self.forward_by_rows(x, &shape, parts),
            Split::Channels => self.forward_by_channels(x, n, &shape),
        }
    }
}

/// How the work of a block is split between threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Split {
    /// Each image into so many parts of rows.
    Rows(usize),
    /// The hidden channels, of all images together.
    Channels,
}

/// The split by which the last of the threads is done first, for `n` images and so many panels of `conv1`.
///
/// A part of an image costs 0.84 rows more than it has: of the two hidden rows that its neighbours make too,
/// `conv1`'s share, 42 %. Channels are split without such a price, but what `conv3` reads must then be made whole,
/// and stay in the threads' second-level caches.
fn split(n: usize, shape: &BlockShape, panels: usize, threads: usize) -> Split {
    let height = shape.out_height;
    let cost = |parts: &usize| {
        let rows = 100 * height.div_ceil(*parts) + if *parts > 1 { 84 } else { 0 };
        (n * parts).div_ceil(threads) * rows
    };
    let parts = (1..=height).min_by_key(cost).unwrap_or(1);
    let made = n * (shape.height * shape.hidden_row + height * shape.out_width * shape.spread_pixel);
    let fits = 4 * made <= threads * STRIP;
    // Two regions instead of one, and a few values that every thread rounds, are 4 %.
    let by_channels = 104 * n * height * panels.div_ceil(threads) / panels;
    if fits && by_channels < cost(&parts) { Split::Channels } else { Split::Rows(parts) }
}

/// Sizes in pixels and in values.
pub(super) struct BlockShape {
    pub height: usize,
    pub width: usize,
    pub out_height: usize,
    pub out_width: usize,
    /// Values of a row of `x`, and of `y`.
    pub row: usize,
    pub out_row: usize,
    /// Values from one pixel to the next, and of a row, in the scratch buffers.
    pub hidden_pixel: usize,
    pub hidden_row: usize,
    pub spread_pixel: usize,
    /// Output rows of a strip, at most.
    pub strip: usize,
}

impl BlockShape {
    fn new(config: &BlockConfig, format: Format, height: usize, width: usize) -> Self {
        let (out_height, out_width) = (height.div_ceil(config.stride), width.div_ceil(config.stride));
        let channels = config.hidden_channels.next_multiple_of(lanes());
        let (hidden_pixel, spread_pixel) = (Self::padded(channels), Self::padded(config.filters * channels));
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

    /// So many values, and as many more as make an odd number of cache lines.
    pub(super) fn padded(values: usize) -> usize {
        (values.div_ceil(16) | 1) * 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::tests::{test_stream, uniform};
    use crate::weights::config::{Config, Skip};

    #[test]
    fn work_is_split_only_as_far_as_it_helps() {
        let config = Config::qlnet_50_v0();
        let split = |layer: usize, n, side, threads| {
            let block = &config.layers[layer][1];
            let shape = BlockShape::new(block, Format::Float, side, side);
            split(n, &shape, block.hidden_channels.div_ceil(lanes()), threads)
        };
        assert_eq!(split(0, 1, 56, 1), Split::Rows(1));
        assert_eq!(split(0, 1, 56, 2), Split::Rows(2));
        assert_eq!(split(0, 4, 56, 2), Split::Rows(1));
        assert_eq!(split(0, 63, 56, 64), Split::Rows(1));
        assert!(matches!(split(0, 8, 56, 64), Split::Rows(parts) if parts > 1));
        // Small images, whose rows at the border are many.
        assert_eq!(split(2, 1, 14, 2), Split::Channels);
        assert_eq!(split(3, 1, 7, 2), Split::Channels);
        assert_eq!(split(3, 2, 7, 2), Split::Rows(1));
        assert_eq!(split(3, 1, 7, 16), Split::Channels);
    }

    /// In whatever way the work is split between threads, to the last bit.
    #[test]
    fn threads_do_not_change_the_bits() {
        let rng = &mut test_stream(5);
        for products in [Products::Float32, Products::Bfloat16, Products::Int8] {
            for (stride, skip, side) in [(1, Skip::Identity, 9), (2, Skip::Projection, 14), (1, Skip::Linear, 5)] {
                let (input, hidden, filters) = (24, 130, 2);
                let output = if skip == Skip::Identity { input } else { 40 };
                let config = BlockConfig {
                    in_channels: input,
                    hidden_channels: hidden,
                    filters,
                    out_channels: output,
                    stride,
                    skip,
                };
                let mut draw = |len| uniform(len, -0.3..0.3, rng);
                let conv1 = (draw(2 * hidden * input), draw(2 * hidden));
                let conv2 = (draw(filters * hidden * 9), draw(filters * hidden));
                let conv3 = (draw(output * filters * hidden), draw(output));
                let skip = (draw(output * input), draw(output));
                let x = draw(3 * side * side * input);
                let parameters = Parameters {
                    conv1: (&conv1.0, &conv1.1),
                    conv2: (&conv2.0, &conv2.1),
                    conv3: (&conv3.0, &conv3.1),
                    skip: config.skip.is_convolution().then_some((&skip.0[..], &skip.1[..])),
                };
                let block = PackedBlock::new(&config, products, &parameters);
                let shape = BlockShape::new(&config, block.format, side, side);
                let whole = block.forward_by_rows(&x, &shape, 1);
                for threads in [1, 2, 3, 7] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let same = |y: Vec<f32>| y.iter().map(|v| v.to_bits()).eq(whole.iter().map(|v| v.to_bits()));
                    assert!(same(pool.install(|| block.forward(&x, 3, side, side))), "{products:?}, {threads}");
                    assert!(same(pool.install(|| block.forward_by_rows(&x, &shape, 4))), "{products:?}, {threads}");
                    assert!(same(pool.install(|| block.forward_by_channels(&x, 3, &shape))), "{products:?}, {threads}");
                }
            }
        }
    }
}
