//! Runs a classifier over a dataset.
//!
//! Files are read, decoded and resized by threads of their own while the network computes, a batch
//! ahead of it and not more: memory does not grow with the number of images.

mod accuracy;
pub mod classes;
pub mod dataset;
pub mod predictions;
pub mod report;
mod run;
mod summary;
mod tally;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};

use anyhow::{Context, Result, ensure};
use candle_core::DType;
use image::RgbImage;
use rayon::ThreadPoolBuilder;

pub use accuracy::Accuracy;
pub use run::{Run, Shard};
pub use summary::Summary;
pub use tally::{ClassTally, Confusion, Failed, Mistake, Tally};

use crate::eval::dataset::Dataset;
use crate::input::decode::Options;
use crate::input::preprocess::{Crop, Preprocess, to_tensor};
use crate::network::classifier::{Classifier, log_sum_exp};
use crate::text::one_line;

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
    /// As [`Dataset::path`].
    pub path: String,
    pub label: u32,
    /// The scores, or why there are none.
    pub scores: Result<Scores, String>,
    /// What is wrong with the file, although it was scored.
    pub warning: Option<String>,
}

/// How much is done at a time.
#[derive(Clone, Copy, Debug)]
pub struct Pipeline {
    /// Images that go through the network together.
    pub batch_size: usize,
    /// Threads that read, decode and resize.
    pub workers: usize,
    /// Which files are taken, and how.
    pub pictures: Options,
}

/// Evaluates images of a dataset, by their numbers and in that order, and hands the rows of each batch
/// to `each`, which may break off.
///
/// # Errors
/// If the device or `each` fails, or the network overflows in float32. An image that cannot be read,
/// or that overflows half precision, gives a row that says so.
pub fn evaluate(
    classifier: &Classifier,
    dataset: &Arc<Dataset>,
    images: impl Iterator<Item = usize>,
    pipeline: Pipeline,
    each: &mut dyn FnMut(Vec<Row>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let Pipeline { batch_size, workers, pictures } = pipeline;
    ensure!(batch_size > 0 && workers > 0, "a batch of at least one image and a worker are needed");
    let preprocess = classifier.preprocess();
    let decoders = ThreadPoolBuilder::new()
        .num_threads(workers)
        .thread_name(|index| format!("decode {index}"))
        .build()
        .context("cannot start the threads that decode")?;
    let start = |image| {
        let (done, crop) = mpsc::sync_channel(1);
        let shared = dataset.clone();
        // If nobody waits for it any more, an error has ended the evaluation.
        decoders.spawn(move || drop(done.send(load(&shared, image, &preprocess, pictures))));
        (image, crop)
    };
    // In the order of the images, however long each takes.
    let mut images = images.fuse();
    let mut waiting = VecDeque::new();
    loop {
        let room = batch_size.max(2 * workers) + batch_size - waiting.len();
        waiting.extend(images.by_ref().take(room).map(start));
        let batch: Vec<(usize, Result<Crop, String>)> = waiting
            .drain(..batch_size.min(waiting.len()))
            .map(|(image, crop)| (image, crop.recv().unwrap_or_else(|error| Err(error.to_string()))))
            .collect();
        if batch.is_empty() {
            return Ok(());
        }
        let mut crops = Vec::new();
        let outcomes: Vec<_> = batch
            .into_iter()
            .map(|(image, crop)| {
                let outcome = crop.map(|Crop { pixels, warning }| {
                    crops.push(pixels);
                    warning
                });
                (image, outcome)
            })
            .collect();
        let readable: Vec<_> =
            outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(image, _)| *image).collect();
        let mut scores = score(classifier, dataset, &readable, &crops)?.into_iter();
        let rows = outcomes.into_iter().map(|(image, outcome)| {
            let (scores, warning) = match outcome {
                Ok(warning) => (scores.next().unwrap_or_else(|| Err("no scores".into())), warning),
                Err(error) => (Err(error), None),
            };
            Row { path: dataset.path(image).into(), label: dataset.label(image), scores, warning }
        });
        if each(rows.collect())?.is_break() {
            return Ok(());
        }
    }
}

/// Reads, decodes, resizes and crops an image.
fn load(dataset: &Dataset, image: usize, preprocess: &Preprocess, pictures: Options) -> Result<Crop, String> {
    let bytes = dataset.listing().read(image);
    let crop = bytes.and_then(|bytes| preprocess.crop_of(&bytes, dataset.path(image).as_ref(), pictures));
    crop.map_err(|error| one_line(&error))
}

/// The scores of images by their crops.
fn score(
    classifier: &Classifier,
    dataset: &Dataset,
    images: &[usize],
    crops: &[RgbImage],
) -> Result<Vec<Result<Scores, String>>> {
    if images.is_empty() {
        return Ok(Vec::new());
    }
    let logits = classifier.logits(&to_tensor(crops)?)?.to_vec2::<f32>()?;
    let scores = images.iter().zip(logits).map(|(image, logits)| match classifier.check_finite(&logits) {
        Ok(()) => {
            let label = dataset.label(*image);
            ensure!((label as usize) < logits.len(), "label {label} is none of the model's {} classes", logits.len());
            Ok(Ok(Scores::new(&logits, label)))
        }
        // No later image will fare better.
        Err(error) if classifier.dtype() == DType::F32 => Err(error).context(dataset.path(*image).to_string()),
        Err(error) => Ok(Err(error.to_string())),
    });
    scores.collect()
}

impl Scores {
    /// Of finite logits, one a class, of which `label` is one.
    pub fn new(logits: &[f32], label: u32) -> Self {
        let mut top: Vec<u32> = Vec::with_capacity(TOP + 1);
        for (index, logit) in (0..).zip(logits) {
            let place = top.partition_point(|other| logits[*other as usize] >= *logit);
            if place < TOP {
                top.insert(place, index);
                top.truncate(TOP);
            }
        }
        let normaliser = log_sum_exp(logits);
        let own = logits[label as usize];
        let before = |(index, logit): (usize, &f32)| *logit > own || (*logit == own && index < label as usize);
        let probability = |index: u32| (f64::from(logits[index as usize]) - normaliser).exp() as f32;
        Self {
            rank: 1 + logits.iter().enumerate().filter(|other| before(*other)).count() as u32,
            loss: (normaliser - f64::from(own)) as f32,
            top: top.into_iter().map(|index| (index, probability(index))).collect(),
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
