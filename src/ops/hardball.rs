//! The hardball: the projection of every pixel onto the ball of radius `sqrt(channels)`. It
//! commutes with rotations of the channels, which is what the network's symmetry rests on.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Float, for_float, on_cpu, slice};
use crate::simd::vectorised;

/// `x`, or `x * r / |x|` where a pixel's norm exceeds `r = sqrt(n)`; `n` is the last dimension of
/// `[..., n]`.
pub fn hardball(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() { on_cpu(x, [], |x, []| x.apply_op1_no_bwd(&Hardball)) } else { hardball_plain(x) }
}

/// [`hardball`] in candle's own operations. Half precision takes the norm in float32: the sum of
/// squares leaves float16's range.
pub fn hardball_plain(x: &Tensor) -> Result<Tensor> {
    let radius = (x.dim(D::Minus1)? as f64).sqrt();
    let wide = match x.dtype() {
        DType::F16 | DType::BF16 => x.to_dtype(DType::F32)?,
        _ => x.clone(),
    };
    let norm = wide.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    // Exactly 1 inside the ball.
    let factor = (norm.maximum(radius)?.recip()? * radius)?;
    let factor = norm.le(radius)?.where_cond(&factor.ones_like()?, &factor)?;
    x.broadcast_mul(&factor.to_dtype(x.dtype())?)
}

struct Hardball;

impl CustomOp1 for Hardball {
    fn name(&self) -> &'static str {
        "hardball"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let channels = xl.dims()[xl.dims().len() - 1];
        for_float!(x, T => {
            let out = project(slice::<T>(x, xl)?, channels);
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(out), xl.shape().clone()))
        })
    }
}

fn project<T: Float>(x: &[T], channels: usize) -> Vec<T> {
    let mut out = x.to_vec();
    out.par_chunks_mut(channels * (1usize << 13).div_ceil(channels)).for_each(|pixels| project_all(pixels, channels));
    out
}

/// [`hardball`] of pixels in place, on one thread.
pub(crate) fn project_all<T: Float>(pixels: &mut [T], channels: usize) {
    project_pixels(pixels, channels, T::from_usize(channels).sqrt());
}

vectorised! {
    fn project_pixels<T: Float>(pixels: &mut [T], channels: usize, radius: T) {
        for pixel in pixels.chunks_exact_mut(channels) {
            // Sixteen partial sums, so that the compiler may use vectors.
            let mut sums = [T::ZERO; 16];
            let (whole, rest) = pixel.as_chunks::<16>();
            for chunk in whole {
                for i in 0..16 {
                    sums[i] += chunk[i] * chunk[i];
                }
            }
            for (sum, v) in sums.iter_mut().zip(rest) {
                *sum += *v * *v;
            }
            let norm = sums.into_iter().fold(T::ZERO, |a, b| a + b).sqrt();
            if norm > radius {
                let factor = radius / norm;
                pixel.iter_mut().for_each(|v| *v *= factor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn fast_and_plain_agree_and_project() {
        // Norms from well inside to well outside the ball.
        let x = Tensor::randn(0f32, 1.0, (3, 4, 5, 21), &Device::Cpu).unwrap();
        let scale = Tensor::rand(0.2f32, 3.0, (3, 4, 5, 1), &Device::Cpu).unwrap();
        let x = x.broadcast_mul(&scale).unwrap();
        let (fast, plain) = (hardball(&x).unwrap(), hardball_plain(&x).unwrap());
        let difference = (&fast - &plain).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(difference < 1e-6, "{difference}");
        // Half precision: the sum of 21 squares of 300 leaves float16's range, the result does not.
        let large = (&x * 300.0).unwrap();
        for dtype in [DType::F16, DType::BF16] {
            let found = hardball_plain(&large.to_dtype(dtype).unwrap()).unwrap().to_dtype(DType::F32).unwrap();
            let other = hardball(&large.to_dtype(dtype).unwrap()).unwrap().to_dtype(DType::F32).unwrap();
            for found in [found, other] {
                let difference = (found - hardball(&large).unwrap()).unwrap().abs().unwrap().max_all().unwrap();
                assert!(difference.to_scalar::<f32>().unwrap() < 0.05, "{dtype:?} {difference}");
            }
        }
        let norm = |t: &Tensor| {
            t.sqr().unwrap().sum(D::Minus1).unwrap().sqrt().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let radius = 21f32.sqrt();
        let (before, after) = (norm(&x), norm(&fast));
        assert!(before.iter().any(|n| *n > radius) && before.iter().any(|n| *n < radius));
        for (before, after) in before.iter().zip(after) {
            assert!((after - before.min(radius)).abs() < 1e-5);
        }
    }
}
