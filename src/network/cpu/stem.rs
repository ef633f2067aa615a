//! The stem: a 7x7 convolution of stride 2, ReLU and a 3x3 max pool of stride 2, from NCHW to NHWC.
//!
//! The convolution is a product whose "pixel" is a window of the image: the microkernel of
//! [`super::matmul`] broadcasts single values from wherever they are, so that a table of the 147
//! offsets inside a window takes the place of an explicit im2col. A tile of pooled rows is one task:
//! the image rows under it are copied with a border of zeros, convolved into a scratch buffer, and
//! pooled from there.

use std::io::{self, Write};

use super::matmul::accumulate_windows;
use super::operand::Format;
use super::packed::{Packed, Sections};
use super::panels::Panels;
use super::segments::{self, Scratch};
use super::volume;
use crate::simd::vectorised;

/// Side of the window, and what lies outside the image on each side.
const SIDE: usize = 7;
const BORDER: usize = 3;

/// Pooled rows that one task makes at most. It convolves one row more than twice as many, so larger
/// tiles repeat less, and smaller ones stay in the cache.
const TILE: usize = 14;

/// The stem with its weight packed.
#[derive(Clone, Debug)]
pub struct PackedStem {
    channels: usize,
    outputs: usize,
    weight: Panels,
    bias: Packed,
}

impl PackedStem {
    /// Packs a weight `[outputs, channels, 7, 7]` and a bias `[outputs]`.
    ///
    /// # Panics
    /// If there are no outputs or no channels, or the weight does not have as many values.
    pub fn new(channels: usize, weight: &[f32], bias: &[f32]) -> Self {
        let (outputs, window) = (bias.len(), channels * SIDE * SIDE);
        assert!(weight.len() == outputs * window, "another number of weights than the filters have");
        let weight = Panels::new(Format::Float, window, outputs, |i, j| weight[j * window + i]);
        Self { channels, outputs, weight, bias: Packed::copy_of(bias) }
    }

    /// [`Self::new`] with what [`Self::write`] has written of a stem of the same size, if there is so much.
    pub fn restore(channels: usize, outputs: usize, sections: &mut Sections) -> Option<Self> {
        let weight = Panels::restore(Format::Float, channels.checked_mul(SIDE * SIDE)?, outputs, sections)?;
        Some(Self { channels, outputs, weight, bias: sections.take::<f32>(outputs)? })
    }

    /// Writes all weights as they are in memory.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.weight.write(out)?;
        self.bias.write(out)
    }

    /// Channels of the images.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Channels that it makes of them.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Images `[n, channels, height, width]` to `[n, pooled height, pooled width, outputs]`.
    ///
    /// # Panics
    /// If a size is zero, or there are not as many values as the sizes say.
    pub fn forward(&self, x: &[f32], n: usize, height: usize, width: usize) -> Vec<f32> {
        let image = volume([self.channels, height, width]);
        assert_eq!(x.len(), volume([n, image]), "another number of values than the images have");
        let shape = StemShape::new(self.channels, height, width, self.outputs);
        let row = shape.pooled.1 * shape.outputs;
        // At least one tile for every thread.
        let tiles = shape.pooled.0.div_ceil(TILE).max(rayon::current_num_threads().div_ceil(n));
        let tile = shape.pooled.0.div_ceil(tiles);
        let bias = &self.bias.as_slice()[..self.outputs];
        segments::for_each(x, (image, shape.pooled.0, row), tile, |x, first, y, scratch| {
            // Zero is ReLU's, and the padding of the pool.
            y.iter_mut().for_each(|value| {
                value.write(0.0);
            });
            // SAFETY: all of it has been written.
            let y = unsafe { y.assume_init_mut() };
            pooled_rows(x, &shape, &self.weight, bias, first, y, scratch);
            y
        })
    }
}

/// Sizes of an image before and after each operation.
struct StemShape {
    channels: usize,
    height: usize,
    width: usize,
    outputs: usize,
    /// Height and width after the convolution.
    convolved: (usize, usize),
    /// Height and width after the pool.
    pooled: (usize, usize),
}

impl StemShape {
    fn new(channels: usize, height: usize, width: usize, outputs: usize) -> Self {
        let convolved = (height.div_ceil(2), width.div_ceil(2));
        let pooled = (convolved.0.div_ceil(2), convolved.1.div_ceil(2));
        Self { channels, height, width, outputs, convolved, pooled }
    }
}

/// The pooled rows from `first` on, as many as `out` has room for. It is zero before.
fn pooled_rows(
    x: &[f32],
    s: &StemShape,
    weight: &Panels,
    bias: &[f32],
    first: usize,
    out: &mut [f32],
    Scratch { floats: [image, convolved], .. }: &mut Scratch,
) {
    let rows = out.len() / (s.pooled.1 * s.outputs);
    // The pool of row p reads the convolved rows 2p - 1 to 2p + 1.
    let from = (2 * first).saturating_sub(1);
    let to = (2 * (first + rows)).min(s.convolved.0);

    // The image rows under them, 2 from - 3 to 2 (to - 1) + 3, with zeros around.
    let (lines, line) = (2 * (to - from) + SIDE - 2, s.width + 2 * BORDER);
    let image = image.grow_to::<f32>(s.channels * lines * line);
    image.fill(0.0);
    for (channel, image) in image.chunks_exact_mut(lines * line).enumerate() {
        for (i, image) in image.chunks_exact_mut(line).enumerate() {
            let y = 2 * from + i;
            if (BORDER..s.height + BORDER).contains(&y) {
                let x = &x[(channel * s.height + y - BORDER) * s.width..][..s.width];
                image[BORDER..][..s.width].copy_from_slice(x);
            }
        }
    }

    let offsets: Vec<usize> = (0..s.channels * SIDE * SIDE)
        .map(|i| (i / (SIDE * SIDE) * lines + i / SIDE % SIDE) * line + i % SIDE)
        .collect();
    let convolved = convolved.grow_to::<f32>((to - from) * s.convolved.1 * s.outputs);
    convolved.chunks_exact_mut(s.outputs).for_each(|pixel| pixel.copy_from_slice(bias));
    for (row, convolved) in convolved.chunks_exact_mut(s.convolved.1 * s.outputs).enumerate() {
        accumulate_windows(s.convolved.1, &image[2 * row * line..], &offsets, weight, convolved, s.outputs);
    }
    pool(out, convolved, first, from, s);
}

vectorised! {
    /// Max pool of the convolved rows from `from` on, to the pooled rows from `first` on, which are zero before. That
    /// makes it ReLU too.
    fn pool(out: &mut [f32], convolved: &[f32], first: usize, from: usize, s: &StemShape) {
        let (height, width) = s.convolved;
        for (p, out) in out.chunks_exact_mut(s.pooled.1 * s.outputs).enumerate() {
            let p = first + p;
            for (q, out) in out.chunks_exact_mut(s.outputs).enumerate() {
                for row in (2 * p).saturating_sub(1)..(2 * p + 2).min(height) {
                    for column in (2 * q).saturating_sub(1)..(2 * q + 2).min(width) {
                        let y = &convolved[((row - from) * width + column) * s.outputs..][..s.outputs];
                        for (out, y) in out.iter_mut().zip(y) {
                            *out = if *y > *out { *y } else { *out };
                        }
                    }
                }
            }
        }
    }
}
