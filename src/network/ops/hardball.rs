//! The hardball: the projection of every pixel onto the ball of radius `sqrt(channels)`. It
//! commutes with rotations of the channels, which is what the network's symmetry rests on.

use candle_core::{D, DType, Result, Tensor};

use crate::network::gpu;

/// `x`, or `x * r / |x|` where a pixel's norm exceeds `r = sqrt(n)`; `n` is the last dimension of
/// `[..., n]`. Half precision takes the norm in float32: the sum of squares leaves float16's range.
///
/// # Errors
/// If the device fails.
pub fn hardball(x: &Tensor) -> Result<Tensor> {
    if gpu::runs(&[x]) { gpu::hardball(x)?.run() } else { hardball_plain(x) }
}

/// [`hardball`] in candle's own operations.
///
/// # Errors
/// As [`hardball`].
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::tests::{test_stream, uniform};
    use candle_core::Device;

    #[test]
    fn pixels_outside_the_ball_are_projected() {
        // Norms from well inside to well outside the ball.
        let rng = &mut test_stream(1);
        let x = crate::random::normal((3, 4, 5, 21), rng).unwrap();
        let scale = Tensor::from_vec(uniform(60, 0.2..3.0, rng), (3, 4, 5, 1), &Device::Cpu).unwrap();
        let x = x.broadcast_mul(&scale).unwrap();
        let projected = hardball(&x).unwrap();
        let norm = |t: &Tensor| {
            t.sqr().unwrap().sum(D::Minus1).unwrap().sqrt().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let radius = 21f32.sqrt();
        let (before, after) = (norm(&x), norm(&projected));
        assert!(before.iter().any(|n| *n > radius) && before.iter().any(|n| *n < radius));
        for (before, after) in before.iter().zip(after) {
            assert!((after - before.min(radius)).abs() < 1e-5);
        }

        // Half precision: the sum of 21 squares of 300 leaves float16's range, the result does not.
        let large = (&x * 300.0).unwrap();
        for dtype in [DType::F16, DType::BF16] {
            let found = hardball(&large.to_dtype(dtype).unwrap()).unwrap().to_dtype(DType::F32).unwrap();
            let difference = (found - hardball(&large).unwrap()).unwrap().abs().unwrap().max_all().unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 0.05, "{dtype:?} {difference}");
        }
    }

    #[test]
    fn the_fast_path_projects_as_the_plain_operations() {
        for channels in [1, 16, 21, 64] {
            let mut pixels: Vec<f32> = (0..9 * channels).map(|i| (i * 37 % 101) as f32 / 30.0 - 1.5).collect();
            pixels[..channels].iter_mut().for_each(|v| *v *= 0.1);
            let x = Tensor::from_slice(&pixels, (9, channels), &Device::Cpu).unwrap();
            let expected = hardball_plain(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            crate::network::cpu::hardball::project(&mut pixels, channels);
            for (found, wanted) in pixels.iter().zip(expected) {
                assert!((found - wanted).abs() < 1e-6, "{channels}: {found} for {wanted}");
            }
        }
    }
}
