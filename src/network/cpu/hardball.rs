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
