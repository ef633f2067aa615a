//! The stem: a 7x7 convolution of stride 2, ReLU and a 3x3 max pool of stride 2, from NCHW to NHWC.
//!
//! The convolution is a product whose "pixel" is a window of the image: the microkernel of
//! [`super::matmul`] broadcasts single values from wherever they are, so that a table of the 147
//! offsets inside a window takes the place of an explicit im2col. A tile of pooled rows is one task:
//! the image rows under it are copied with a border of zeros, convolved into a scratch buffer, and
//! pooled from there. The weight is small and is packed at every call.

use super::matmul::accumulate_windows;
use super::operand::Format;
use super::panels::Panels;
use super::segments::{self, Scratch};
use crate::simd::vectorised;

/// Side of the window, and what lies outside the image on each side.
const SIDE: usize = 7;
const BORDER: usize = 3;

/// Pooled rows that one task makes at most. It convolves one row more than twice as many, so larger
/// tiles repeat less, and smaller ones stay in the cache.
const TILE: usize = 14;

/// Images `[n, channels, height, width]` to `[n, pooled height, pooled width, outputs]`; `weight` is
/// `[outputs, channels, 7, 7]`.
///
/// # Panics
/// If a size is zero, or a slice does not have as many values as its sizes say.
pub fn forward(
    x: &[f32],
    (n, channels, height, width): (usize, usize, usize, usize),
    weight: &[f32],
    bias: &[f32],
) -> Vec<f32> {
    let shape = StemShape::new(channels, height, width, bias.len());
    let window = channels * SIDE * SIDE;
    assert!(x.len() == n * channels * height * width, "another number of values than the images have");
    assert!(weight.len() == bias.len() * window, "another number of weights than the filters have");
    let weight = Panels::new(Format::Float, window, shape.outputs, |i, j| weight[j * window + i]);
    let row = shape.pooled.1 * shape.outputs;
    // At least one tile for every thread.
    let tiles = shape.pooled.0.div_ceil(TILE).max(rayon::current_num_threads().div_ceil(n));
    let tile = shape.pooled.0.div_ceil(tiles);
    segments::for_each(x, (channels * height * width, shape.pooled.0, row), tile, |x, first, y, scratch| {
        // Zero is ReLU's, and the padding of the pool.
        y.iter_mut().for_each(|value| {
            value.write(0.0);
        });
        // SAFETY: all of it has been written.
        let y = unsafe { y.assume_init_mut() };
        pooled_rows(x, &shape, &weight, bias, first, y, scratch);
        y
    })
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
