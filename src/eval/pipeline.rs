//! From image files to scores, a batch at a time.
//!
//! Files are read, decoded and resized by threads of their own while the network computes, a batch
//! ahead of it and not more: memory does not grow with the number of images. [`prepare`] does the same without the
//! network, to see how fast that is.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use image::RgbImage;
use rayon::{Scope, ThreadPool, ThreadPoolBuilder};

use super::scores::UNLABELLED;
use super::{Row, Scores};
use crate::error::{At, Context, Error, Reason, Result, ensure};
use crate::eval::dataset::{Dataset, Listing};
use crate::input::decode::Options;
use crate::input::preprocess::{Crop, Preprocess, to_tensor};
use crate::network::Precision;
use crate::network::classifier::Classifier;
use crate::text::printable;

/// How much is done at a time, and how files are decoded.
#[derive(Clone, Copy, Debug)]
pub struct Pipeline {
    /// Images that go through the network together.
    pub batch_size: usize,
    /// Threads that read, decode and resize.
    pub workers: usize,
    /// Which files are taken, and how.
    pub pictures: Options,
}

impl Default for Pipeline {
    /// 32 images at a time, as many workers as rayon has threads, and pictures as timm takes them: not turned
    /// by EXIF.
    fn default() -> Self {
        let pictures = Options { exif: false, ..Options::default() };
        Self { batch_size: 32, workers: rayon::current_num_threads(), pictures }
    }
}

/// Evaluates images of a dataset, by their numbers and in that order, and hands the rows of each batch
/// to `each`, which may end the evaluation by [`ControlFlow::Break`].
///
/// # Errors
/// What `each` returns; [`Error::Compute`] if the device fails, or the batch size or the number of workers is
/// 0; and [`Error::Overflow`] if the network overflows in float32. An image that cannot be read, or that
/// overflows half precision, is no error: its row says so.
///
/// # Panics
/// If the dataset does not have one of the images.
pub fn evaluate<E: From<Error>>(
    classifier: &Classifier,
    dataset: &Dataset,
    images: impl IntoIterator<Item = usize>,
    pipeline: Pipeline,
    mut each: impl FnMut(Vec<Row>) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    with_crops(dataset.listing(), classifier.preprocess(), images, pipeline, |batch| {
        each(rows(classifier, dataset, batch)?)
    })
}

/// Reads, decodes and resizes images of a listing, by their numbers and in that order, as [`evaluate`] does, and hands
/// the crops of each batch to `each`, or why there is none.
///
/// # Errors
/// What `each` returns; [`Error::Compute`] if the batch size or the number of workers is 0.
///
/// # Panics
/// If the listing does not have one of the images.
pub fn prepare<E: From<Error>>(
    listing: &Listing,
    preprocess: Preprocess,
    images: impl IntoIterator<Item = usize>,
    pipeline: Pipeline,
    mut each: impl FnMut(Vec<Result<Crop, String>>) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    with_crops(listing, preprocess, images, pipeline, |batch| each(batch.into_iter().map(|(_, crop)| crop).collect()))
}

/// Hands batch after batch of crops to `each`.
fn with_crops<E: From<Error>>(
    listing: &Listing,
    preprocess: Preprocess,
    images: impl IntoIterator<Item = usize>,
    pipeline: Pipeline,
    mut each: impl FnMut(Vec<(usize, CropResult)>) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    let decoders = pipeline.decoders().map_err(Error::Compute)?;
    let stopped = AtomicBool::new(false);
    decoders.in_place_scope(|scope| {
        let images = images.into_iter().fuse();
        let mut crops =
            Crops { scope, listing, preprocess, pipeline, stopped: &stopped, images, waiting: VecDeque::new() };
        // On every way out, also on errors, queued images are skipped.
        let _stop = StopOnDrop(&stopped);
        loop {
            let batch = crops.next_batch();
            if batch.is_empty() || each(batch)?.is_break() {
                return Ok(());
            }
        }
    })
}

impl Pipeline {
    /// The threads that decode.
    fn decoders(&self) -> Result<ThreadPool, Reason> {
        let Self { batch_size, workers, .. } = *self;
        ensure!(batch_size > 0 && workers > 0, "a batch of at least one image and a worker are needed");
        ThreadPoolBuilder::new()
            .num_threads(workers)
            .thread_name(|index| format!("decode {index}"))
            .build()
            .context("cannot start the threads that decode")
    }
}

/// Sets a flag when it is dropped.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The crop of an image, or why there is none.
type CropResult = Result<Crop, String>;

/// The crops of images, in their order, however long each takes.
struct Crops<'scope, 'env, I> {
    scope: &'env Scope<'scope>,
    listing: &'scope Listing,
    preprocess: Preprocess,
    pipeline: Pipeline,
    stopped: &'scope AtomicBool,
    images: I,
    /// Images that are being decoded.
    waiting: VecDeque<(usize, mpsc::Receiver<CropResult>)>,
}

impl<I: Iterator<Item = usize>> Crops<'_, '_, I> {
    /// The next images with their crops; fewer than a batch only at the end.
    fn next_batch(&mut self) -> Vec<(usize, CropResult)> {
        let Pipeline { batch_size, workers, .. } = self.pipeline;
        for _ in 0..batch_size.max(2 * workers) + batch_size - self.waiting.len() {
            let Some(image) = self.images.next() else { break };
            self.begin(image);
        }
        let batch = self.waiting.drain(..batch_size.min(self.waiting.len()));
        batch.map(|(image, crop)| (image, crop.recv().unwrap_or_else(|error| Err(error.to_string())))).collect()
    }

    /// Has a thread make the crop of an image.
    fn begin(&mut self, image: usize) {
        let (done, crop) = mpsc::sync_channel(1);
        let (listing, preprocess, stopped) = (self.listing, self.preprocess, self.stopped);
        let pictures = self.pipeline.pictures;
        self.scope.spawn(move |_| {
            if !stopped.load(Ordering::Relaxed) {
                // Fails only if the evaluation has ended meanwhile, and the crop is not needed.
                drop(done.send(load(listing, image, &preprocess, pictures)));
            }
        });
        self.waiting.push_back((image, crop));
    }
}

/// Reads, decodes, resizes and crops an image.
fn load(listing: &Listing, image: usize, preprocess: &Preprocess, pictures: Options) -> CropResult {
    let crop = || -> Result<Crop> {
        let bytes = listing.read(image)?;
        let crop = preprocess.crop_of(&bytes, listing.path(image).as_ref(), pictures)?;
        Ok(crop)
    };
    crop().map_err(|error| printable(&error.to_string()))
}

/// Puts the crops of a batch through the network.
fn rows(classifier: &Classifier, dataset: &Dataset, batch: Vec<(usize, CropResult)>) -> Result<Vec<Row>> {
    let (mut readable, mut crops) = (Vec::new(), Vec::new());
    let outcomes: Vec<_> = batch
        .into_iter()
        .map(|(image, crop)| {
            let crop = if dataset.label(image).is_some() { crop } else { Err(UNLABELLED.into()) };
            let outcome = crop.map(|Crop { pixels, warning }| {
                readable.push(image);
                crops.push(pixels);
                warning
            });
            (image, outcome)
        })
        .collect();
    let mut scores = score(classifier, dataset, &readable, &crops)?.into_iter();
    let rows = outcomes.into_iter().map(|(image, outcome)| {
        let (scores, warning) = match outcome {
            Ok(warning) => (scores.next().unwrap_or_else(|| Err("no scores".into())), warning),
            Err(error) => (Err(error), None),
        };
        Row { path: dataset.path(image).into(), label: dataset.label(image), scores, warning }
    });
    Ok(rows.collect())
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
            let classes = logits.len();
            let Some(label) = dataset.label(*image) else { return Ok(Err(UNLABELLED.into())) };
            if label as usize >= classes {
                let words = format!("label {label} is none of the model's {classes} classes");
                return Err(Error::Compute(Reason::new(words)));
            }
            Ok(Ok(match dataset.outputs() {
                Some(outputs) => Scores::among(&logits, label, outputs),
                None => Scores::new(&logits, label),
            }))
        }
        // In float32 later images would overflow too.
        Err(error) if classifier.precision() == Precision::F32 => Err(error).at(dataset.path(*image)),
        Err(error) => Ok(Err(error.to_string())),
    });
    scores.collect()
}
