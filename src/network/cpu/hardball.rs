//! The hardball of pixels in place.

use crate::simd::vectorised;

vectorised! {
    /// Projects every pixel of `channels` values onto the ball of radius `sqrt(channels)`.
    ///
    /// # Panics
    /// If `channels` is zero.
    pub fn project(pixels: &mut [f32], channels: usize) {
        let radius = (channels as f32).sqrt();
        for pixel in pixels.chunks_exact_mut(channels) {
            // Sixteen partial sums, so that the compiler may use vectors.
            let mut sums = [0.0; 16];
            let (whole, rest) = pixel.as_chunks::<16>();
            for chunk in whole {
                for i in 0..16 {
                    sums[i] += chunk[i] * chunk[i];
                }
            }
            for (sum, v) in sums.iter_mut().zip(rest) {
                *sum += v * v;
            }
            let norm = sums.into_iter().sum::<f32>().sqrt();
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
    use candle_core::{Device, Tensor};

    #[test]
    fn it_is_the_plain_hardball() {
        for channels in [1, 16, 21, 64] {
            let mut pixels: Vec<f32> = (0..9 * channels).map(|i| (i * 37 % 101) as f32 / 30.0 - 1.5).collect();
            pixels[..channels].iter_mut().for_each(|v| *v *= 0.1);
            let x = Tensor::from_slice(&pixels, (9, channels), &Device::Cpu).unwrap();
            let expected = crate::network::ops::hardball(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            project(&mut pixels, channels);
            for (found, wanted) in pixels.iter().zip(expected) {
                assert!((found - wanted).abs() < 1e-6, "{channels}: {found} for {wanted}");
            }
        }
    }
}
