//! Runs a classifier over a dataset.
//!
//! Files are read, decoded and resized by threads of their own while the network computes, and never
//! more than a batch ahead of it: memory does not grow with the number of images.

mod accuracy;
pub mod classes;
pub mod predictions;
pub mod report;
mod tally;

use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::Tensor;
use futures::stream::{self, StreamExt};
use image::RgbImage;
use tokio::runtime;

pub use accuracy::Accuracy;
pub use tally::{ClassTally, Confusion, Mistake, Tally, Unreadable};

use crate::classifier::Classifier;
use crate::dataset::{Dataset, Sample};
use crate::decode::decode;
use crate::preprocess::{Preprocess, to_tensor};

/// How many of the most likely classes are kept of an image.
pub const TOP: usize = 5;

/// What the network says of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// The most likely classes with their probabilities, by softmax over all classes; the most likely
    /// first, and of equal ones that with the lower index. [`TOP`] of them, or all.
    pub top: Vec<(u32, f32)>,
    /// Rank of the label among all classes, from 1.
    pub rank: u32,
    /// Cross-entropy: `-ln` of the label's probability.
    pub loss: f32,
}

/// An image of a dataset with what came out for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// As [`Sample::path`].
    pub path: String,
    pub label: u32,
    /// The scores, or why there are none.
    pub scores: Result<Scores, String>,
}

/// How much is done at a time.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Images that go through the network together.
    pub batch_size: usize,
    /// Threads that read, decode and resize.
    pub workers: usize,
}

/// Evaluates the samples with the given positions, in that order, and hands the rows of each batch to
/// `each`, which may break off.
///
/// # Errors
/// If the device or `each` fails. An image that cannot be read gives a row that says so.
pub fn evaluate(
    classifier: &Classifier,
    dataset: &Arc<Dataset>,
    positions: impl Iterator<Item = usize>,
    effort: Effort,
    each: &mut dyn FnMut(Vec<Row>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let Effort { batch_size, workers } = effort;
    let preprocess = classifier.preprocess;
    // Each image is one task for a blocking thread.
    let runtime = runtime::Builder::new_current_thread()
        .max_blocking_threads(workers)
        .build()
        .context("cannot start the threads that decode")?;
    let crops = stream::iter(positions).map(|position| {
        let shared = dataset.clone();
        let task = runtime.spawn_blocking(move || load(&shared, &shared.samples()[position], &preprocess));
        async move { (position, task.await.unwrap_or_else(|_| Err("the decoder failed".into()))) }
    });
    let mut batches = crops.buffered(batch_size.max(2 * workers)).chunks(batch_size);
    while let Some(batch) = runtime.block_on(batches.next()) {
        let mut images = Vec::new();
        let mut rows = Vec::new();
        for (position, crop) in batch {
            let sample = &dataset.samples()[position];
            // What is readable gets its scores below.
            let scores = crop.map(|crop| images.push(crop)).map(|()| Scores { top: Vec::new(), rank: 0, loss: 0.0 });
            rows.push(Row { path: sample.path().into(), label: sample.label, scores });
        }
        if !images.is_empty() {
            let logits = classifier.logits(&to_tensor(&images)?)?;
            score(classifier, &logits, rows.iter_mut().filter(|row| row.scores.is_ok()))?;
        }
        if each(rows)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn load(dataset: &Dataset, sample: &Sample, preprocess: &Preprocess) -> Result<RgbImage, String> {
    let load = || preprocess.apply(&decode(&dataset.read(sample)?, sample.path().as_ref(), false)?);
    load().map_err(|error| crate::commands::one_line(&error))
}

/// Scores the rows by their logits `[rows, classes]`.
fn score<'a>(classifier: &Classifier, logits: &Tensor, rows: impl Iterator<Item = &'a mut Row>) -> Result<()> {
    let classes = logits.dim(1)?;
    let logits = logits.flatten_all()?.to_vec1::<f32>()?;
    for (row, logits) in rows.zip(logits.chunks_exact(classes)) {
        row.scores = match classifier.check_finite(logits) {
            Ok(()) => Ok(Scores::new(logits, row.label)),
            Err(error) => Err(error.to_string()),
        };
    }
    Ok(())
}

impl Scores {
    /// Of finite logits, one a class.
    pub fn new(logits: &[f32], label: u32) -> Self {
        let mut top: Vec<u32> = Vec::with_capacity(TOP + 1);
        for (index, logit) in (0..).zip(logits) {
            let place = top.partition_point(|other| logits[*other as usize] >= *logit);
            if place < TOP {
                top.insert(place, index);
                top.truncate(TOP);
            }
        }
        let largest = top.first().map_or(0.0, |first| f64::from(logits[*first as usize]));
        let exp = |logit: f32| (f64::from(logit) - largest).exp();
        let sum: f64 = logits.iter().map(|logit| exp(*logit)).sum();
        let own = logits[label as usize];
        let before = |(index, logit): (usize, &f32)| *logit > own || (*logit == own && index < label as usize);
        Self {
            rank: 1 + logits.iter().enumerate().filter(|other| before(*other)).count() as u32,
            loss: (sum.ln() + largest - f64::from(own)) as f32,
            top: top.into_iter().map(|index| (index, (exp(logits[index as usize]) / sum) as f32)).collect(),
        }
    }

    /// The most likely class, and its probability.
    pub fn prediction(&self) -> (u32, f32) {
        self.top.first().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_a_sorted_softmax() {
        let logits = [0.5f32, 2.0, -1.0, 2.0, 0.0, 1.0, -3.0];
        let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        let scores = Scores::new(&logits, 5);
        assert_eq!(scores.top.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 3, 5, 0, 4]);
        for (index, p) in &scores.top {
            assert!((f64::from(*p) - f64::from(logits[*index as usize]).exp() / sum).abs() < 1e-7);
        }
        assert_eq!(scores.rank, 3);
        assert!((f64::from(scores.loss) - (sum.ln() - 1.0)).abs() < 1e-6);
        // Of equal logits the lower index is the more likely.
        assert_eq!(Scores::new(&logits, 1).rank, 1);
        assert_eq!(Scores::new(&logits, 3).rank, 2);
        // Fewer classes than are kept, and logits that would overflow.
        let scores = Scores::new(&[3000.0, -3000.0], 1);
        assert_eq!((scores.top.len(), scores.rank, scores.loss), (2, 2, 6000.0));
    }
}
