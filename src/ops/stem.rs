//! The stem: a 7x7 convolution of stride 2, ReLU, and a 3x3 max pool of stride 2. It takes the
//! image as NCHW, as PyTorch does, and gives NHWC to the blocks.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use super::{Float, for_float, on_cpu, slice};
use crate::simd::vectorised;

/// Images `[n, 3, h, w]`, a weight `[o, 3, 7, 7]` and a bias `[o]` make `[n, h', w', o]`, where
/// `h'` is `h` halved twice, rounding up.
pub fn stem(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        on_cpu(x, [weight, bias], |x, [weight, bias]| x.apply_op3_no_bwd(weight, bias, &Stem))
    } else {
        stem_plain(x, weight, bias)
    }
}

/// [`stem`] in candle's own operations. The pool pads with zeros where PyTorch pads with `-inf`:
/// after ReLU no value is below zero, so neither ever wins.
pub fn stem_plain(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let y = x.conv2d(weight, 3, 2, 1, 1)?;
    let y = y.broadcast_add(&bias.reshape((1, (), 1, 1))?)?.relu()?;
    let y = y.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
    y.max_pool2d_with_stride(3, 2)?.permute((0, 2, 3, 1))?.contiguous()
}

struct Stem;

impl CustomOp3 for Stem {
    fn name(&self) -> &'static str {
        "stem"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, channels, height, width) = xl.shape().dims4()?;
        let (outputs, weight_channels, 7, 7) = wl.shape().dims4()? else {
            bail!("a stem of 7x7 filters is needed, found {:?}", wl.dims());
        };
        if channels != weight_channels {
            bail!("images of {weight_channels} channels are needed, found {channels}");
        }
        let geometry = Geometry::new(channels, height, width, outputs);
        for_float!(x, T => {
            let out = run(slice::<T>(x, xl)?, slice(w, wl)?, slice(b, bl)?, n, &geometry);
            let shape = (n, geometry.pooled.0, geometry.pooled.1, outputs);
            Ok((<T as WithDType>::to_cpu_storage_owned(out), shape.into()))
        })
    }
}

struct Geometry {
    channels: usize,
    height: usize,
    width: usize,
    outputs: usize,
    /// Height and width after the convolution.
    convolved: (usize, usize),
    /// Height and width after the pool.
    pooled: (usize, usize),
}

impl Geometry {
    fn new(channels: usize, height: usize, width: usize, outputs: usize) -> Self {
        let convolved = (height.div_ceil(2), width.div_ceil(2));
        let pooled = (convolved.0.div_ceil(2), convolved.1.div_ceil(2));
        Self { channels, height, width, outputs, convolved, pooled }
    }
}

/// Rows of pooled output that one task makes. It convolves one row more than twice as many, so
/// larger tiles repeat less, and smaller ones stay in cache.
const TILE: usize = 7;

fn run<T: Float>(x: &[T], weight: &[T], bias: &[T], n: usize, g: &Geometry) -> Vec<T> {
    let row = g.pooled.1 * g.outputs;
    let mut out = vec![T::ZERO; n * g.pooled.0 * row];
    let image = g.channels * g.height * g.width;
    let tiles: Vec<_> = out
        .chunks_mut(g.pooled.0 * row)
        .zip(x.chunks_exact(image))
        .flat_map(|(out, x)| out.chunks_mut(TILE * row).enumerate().map(move |(tile, out)| (tile * TILE, out, x)))
        .collect();
    tiles.into_par_iter().for_each(|(first, out, x)| tile(out, first, x, weight, bias, g));
    out
}

/// The pooled rows from `first` on, as many as `out` has room for.
fn tile<T: Float>(out: &mut [T], first: usize, x: &[T], weight: &[T], bias: &[T], g: &Geometry) {
    let (height, width) = g.convolved;
    let rows = out.len() / (g.pooled.1 * g.outputs);
    // The pool of row p reads the convolved rows 2p - 1 to 2p + 1.
    let from = (2 * first).saturating_sub(1);
    let to = (2 * (first + rows)).min(height);
    let patch = g.channels * 49;
    let patches = im2col(x, from, to, g);
    let mut y = bias.repeat((to - from) * width);
    // y[pixel, o] += patches[pixel, k] * weight[o, k]
    // SAFETY: the three slices hold the m x n, m x k and n x k elements that these strides reach.
    unsafe {
        gemm::gemm(
            (to - from) * width,
            g.outputs,
            patch,
            y.as_mut_ptr(),
            1,
            g.outputs as isize,
            true,
            patches.as_ptr(),
            1,
            patch as isize,
            weight.as_ptr(),
            patch as isize,
            1,
            T::one(),
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
    pool(out, &y, first, from, g);
}

vectorised! {
    /// ReLU and max pool of the convolved rows from `from` on, to the pooled rows from `first` on.
    fn pool<T: Float>(out: &mut [T], y: &[T], first: usize, from: usize, g: &Geometry) {
        let (height, width) = g.convolved;
        for (p, out) in out.chunks_exact_mut(g.pooled.1 * g.outputs).enumerate() {
            let p = first + p;
            for (q, out) in out.chunks_exact_mut(g.outputs).enumerate() {
                // Starting from zero is ReLU, and the padding.
                out.fill(T::ZERO);
                for row in (2 * p).saturating_sub(1)..(2 * p + 2).min(height) {
                    for column in (2 * q).saturating_sub(1)..(2 * q + 2).min(width) {
                        let y = &y[((row - from) * width + column) * g.outputs..][..g.outputs];
                        for (out, y) in out.iter_mut().zip(y) {
                            *out = if *y > *out { *y } else { *out };
                        }
                    }
                }
            }
        }
    }
}

/// The inputs of the convolved rows `from..to`: `[(to - from) * width, channels * 7 * 7]`.
fn im2col<T: Float>(x: &[T], from: usize, to: usize, g: &Geometry) -> Vec<T> {
    let width = g.convolved.1;
    let patch = g.channels * 49;
    let mut patches = vec![T::ZERO; (to - from) * width * patch];
    for (row, patches) in (from..to).zip(patches.chunks_exact_mut(width * patch)) {
        for (column, patch) in patches.chunks_exact_mut(patch).enumerate() {
            // Of the seven columns from 2 * column - 3 on, those inside the image.
            let left = (2 * column).max(3) - 3;
            let right = (2 * column + 4).min(g.width);
            let skipped = left + 3 - 2 * column;
            for (line, patch) in patch.chunks_exact_mut(7).enumerate() {
                let (channel, ky) = (line / 7, line % 7);
                let y = 2 * row + ky;
                if (3..g.height + 3).contains(&y) {
                    let source = &x[(channel * g.height + y - 3) * g.width..][left..right];
                    patch[skipped..skipped + source.len()].copy_from_slice(source);
                }
            }
        }
    }
    patches
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn fast_and_plain_agree() {
        for (h, w) in [(64, 64), (33, 47), (8, 5), (1, 1), (7, 120)] {
            let random = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
            let (x, weight, bias) = (random(&[2, 3, h, w]), random(&[12, 3, 7, 7]), random(&[12]));
            for dtype in [DType::F32, DType::F64] {
                let [x, weight, bias] = [&x, &weight, &bias].map(|t| t.to_dtype(dtype).unwrap());
                let (fast, plain) = (stem(&x, &weight, &bias).unwrap(), stem_plain(&x, &weight, &bias).unwrap());
                assert_eq!(fast.dims(), plain.dims());
                let difference = (fast - plain).unwrap().abs().unwrap().max_all().unwrap();
                let difference = difference.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
                assert!(difference < 1e-4, "{h}x{w} {dtype:?}: {difference}");
            }
        }
    }
}
