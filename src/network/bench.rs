//! Times the forward pass.

use std::time::{Duration, Instant};

use candle_core::Tensor;
use image::{Rgb, RgbImage};
use rand::RngExt;
use serde::Serialize;

use crate::error::Result;
use crate::network::classifier::Classifier;
use crate::random;

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
    /// Images that go through the network together.
    pub batch_size: usize,
    /// Median over the counted passes.
    pub ms_per_image: f64,
    /// By the same median.
    pub images_per_second: f64,
    /// Number of counted passes.
    pub repetitions: usize,
    /// Images that went through the network together: a part of the batch where more bring nothing or do not fit.
    pub images_at_once: usize,
}

/// Times passes over seeded noise of the classifier's crop size. A pass includes moving the images, as bytes, to a GPU and
/// the logits back, which is what makes it wait for the device.
///
/// # Errors
/// If the network cannot run.
pub fn time(classifier: &Classifier, batch_size: usize, effort: &Effort) -> Result<Timing> {
    let images = noise(classifier, batch_size)?;
    let mut times = Vec::new();
    repeat(effort, |counted| {
        let pass = Instant::now();
        classifier.logits(&images)?;
        if counted {
            times.push(pass.elapsed().as_secs_f64());
        }
        Ok(())
    })?;
    let repetitions = times.len();
    let median = median(&mut times);
    Ok(Timing {
        batch_size,
        ms_per_image: 1e3 * median / batch_size as f64,
        images_per_second: batch_size as f64 / median,
        repetitions,
        images_at_once: classifier.net().images_at_once(&images, classifier.device())?.min(batch_size),
    })
}

/// The time of one step of the network.
#[derive(Clone, Debug, Serialize)]
pub struct StepTiming {
    /// `stem`, `layer1.0`, ..., `act`, `head`.
    pub step: String,
    /// Median over the counted passes.
    pub ms_per_image: f64,
}

/// Times the steps of the network on a whole batch at once, where [`time`] runs a large one in parts.
/// On a GPU every step is waited for, which makes the whole slower than [`time`] has it.
///
/// # Errors
/// If the network cannot run.
pub fn time_steps(classifier: &Classifier, batch_size: usize, effort: &Effort) -> Result<Vec<StepTiming>> {
    let images = classifier.upload(&noise(classifier, batch_size)?)?;
    let mut steps: Vec<(String, Vec<f64>)> = Vec::new();
    repeat(effort, |counted| {
        let mut laps = Vec::new();
        let mut last = Instant::now();
        let mut done = Ok(());
        let mut lap = |step: &str| {
            // Whatever fails is said after the pass.
            done = std::mem::replace(&mut done, Ok(())).and(classifier.device().synchronize());
            laps.push((step.to_string(), last.elapsed().as_secs_f64()));
            last = Instant::now();
        };
        let passed = classifier.net().forward_observed(&images, &mut |step, _| lap(step));
        passed.map_err(|error| classifier.failed(error, &images))?;
        lap("head");
        done?;
        if counted {
            steps.resize(laps.len(), Default::default());
            for ((name, times), (step, seconds)) in steps.iter_mut().zip(laps) {
                *name = step;
                times.push(seconds);
            }
        }
        Ok(())
    })?;
    let timing = |(step, mut times): (String, Vec<f64>)| StepTiming {
        step,
        ms_per_image: 1e3 * median(&mut times) / batch_size as f64,
    };
    Ok(steps.into_iter().map(timing).collect())
}

/// Runs `pass` as often as `effort` says; `pass` is told whether it counts.
fn repeat(effort: &Effort, mut pass: impl FnMut(bool) -> Result<()>) -> Result<()> {
    for _ in 0..effort.warmup {
        pass(false)?;
    }
    let start = Instant::now();
    let mut counted = 0;
    while counted < effort.repetitions || start.elapsed() < effort.duration {
        pass(true)?;
        counted += 1;
    }
    Ok(())
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0
}

/// Seeded noise of the classifier's crop size, as it takes a batch of pictures: the same on every run.
fn noise(classifier: &Classifier, images: usize) -> Result<Tensor> {
    let side = classifier.preprocess().crop;
    let mut bytes = random::stream(1, random::IMAGES);
    let image = |_| RgbImage::from_fn(side, side, |_, _| Rgb(bytes.random()));
    classifier.batch(&(0..images).map(image).collect::<Vec<_>>())
}
