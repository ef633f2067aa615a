//! Times the forward pass.

use std::time::{Duration, Instant};

use anyhow::Result;
use candle_core::Tensor;
use serde::Serialize;

use crate::classifier::Classifier;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Passes that are not counted, first.
    pub warmup: usize,
    /// The least number of passes that are counted.
    pub repetitions: usize,
    /// The least time that counted passes take together.
    pub duration: Duration,
}

/// The forward pass at one batch size.
#[derive(Clone, Debug, Serialize)]
pub struct Timing {
    pub batch_size: usize,
    /// Median over the counted passes.
    pub ms_per_image: f64,
    pub images_per_second: f64,
    /// Number of counted passes.
    pub repetitions: usize,
}

/// Times passes over seeded noise of the classifier's crop size. A pass includes moving the images
/// to the device and the logits back, which is what makes it wait for the device.
///
/// # Errors
/// If the network cannot run.
pub fn time(classifier: &Classifier, batch_size: usize, effort: &Effort) -> Result<Timing> {
    let images = noise(batch_size, classifier.preprocess.crop as usize)?;
    for _ in 0..effort.warmup {
        classifier.logits(&images)?;
    }
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < effort.repetitions || start.elapsed() < effort.duration {
        let pass = Instant::now();
        classifier.logits(&images)?;
        times.push(pass.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let median = (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0;
    Ok(Timing {
        batch_size,
        ms_per_image: 1e3 * median / batch_size as f64,
        images_per_second: batch_size as f64 / median,
        repetitions: times.len(),
    })
}

/// `[n, 3, side, side]`, uniform in -2..2, the range of normalised images; the same on every run.
fn noise(n: usize, side: usize) -> Result<Tensor> {
    let mut state = 1u32;
    let values: Vec<f32> = (0..n * 3 * side * side)
        .map(|_| {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 * 4.0 - 2.0
        })
        .collect();
    Ok(Tensor::from_vec(values, (n, 3, side, side), &candle_core::Device::Cpu)?)
}
