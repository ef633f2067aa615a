//! From image files to scores, a batch at a time.
//!
//! Files are read, decoded and resized by threads of their own while the network computes, a batch
//! ahead of it and not more: memory does not grow with the number of images. [`prepare`] does the same without the
//! network, to see how fast that is.

use std::ops::ControlFlow;

use image::RgbImage;

use super::scores::UNLABELLED;
use super::{Row, Scores};
use crate::error::{At, Error, Reason, Result};
use crate::eval::dataset::{Dataset, Listing};
use crate::input::ahead::Ahead;
use crate::input::decode::Options;
use crate::input::preprocess::{Crop, Preprocess};
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
    each: impl FnMut(Vec<(usize, CropResult)>) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    let Pipeline { batch_size, workers, pictures } = pipeline;
    Ahead { batch_size, workers }.load(images, |image| load(listing, image, &preprocess, pictures), each)
}

/// The crop of an image, or why there is none.
type CropResult = Result<Crop, String>;

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
    let logits = classifier.logits(&classifier.batch(crops)?)?.to_vec2::<f32>()?;
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
