//! `qlnet classify`: what is in pictures.

use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::Serialize;

use super::arguments::{ModelArgs, PictureArgs, PreprocessArgs, positive};
use super::hints::with_advice;
use super::manner::has_blocks;
use super::print::{is_broken_pipe, print, progress_bar, say, say_warning, strong, to_json};
use crate::input::decode::Options;
use crate::input::files::{Links, images_below, read_bounded};
use crate::input::preprocess::{Crop, Preprocess};
use crate::network::classifier::{Classifier, Prediction};
use crate::text::printable;

/// Say what is in pictures.
///
/// Prints the most likely classes of every image with their probabilities. An image that cannot be
/// read is reported and the others are still classified; the exit code is then 1.
#[derive(Args)]
pub struct Classify {
    /// Image files, directories of them (searched to any depth, but not through links), or `-` for
    /// standard input.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// How many classes to print for an image.
    #[arg(short = 'k', long, default_value_t = 5, value_name = "K", value_parser = positive)]
    pub top_k: usize,
    /// Print one JSON object a line: {"image", "model", "predictions": [{"index", "wnid", "label",
    /// "probability", "logit"}]}, "warning" if the file is damaged, "image_base64" if its name is not UTF-8.
    #[arg(long)]
    pub json: bool,
    /// Take the pixels as they are stored, as timm and eval do; otherwise pictures are turned by the
    /// orientation that a camera noted.
    #[arg(long)]
    pub no_exif: bool,
    /// Images that are decoded, and then run through the network, together; by default 8, or as many
    /// as there are threads.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub batch_size: Option<usize>,
    #[command(flatten)]
    pub pictures: PictureArgs,
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// What is printed of an image for programs.
#[derive(Serialize)]
struct Answer<'a> {
    image: &'a str,
    /// The very bytes of a name that is not UTF-8, and that `image` shows only in part.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_base64: Option<String>,
    model: &'a str,
    predictions: &'a [Prediction],
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'a str>,
}

/// Classifies the pictures that the arguments name.
pub fn run(args: &Classify) -> Result<ExitCode> {
    let preprocess = args.preprocess.resolve(args.model.registered())?;
    let mut images = Vec::new();
    let mut failed = false;
    for path in &args.images {
        // A missing file is reported before weights are downloaded for its sake.
        failed |= !add_images(path, &mut images);
    }
    if images.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    let mut session = Session {
        classifier: args.model.load(preprocess)?.0,
        preprocess,
        options: args.pictures.options(!args.no_exif),
        model: args.model.shown_name(),
        top_k: args.top_k,
        json: args.json,
        bar: ProgressBar::hidden(),
        failed,
        first: true,
    };
    let batch_size = args.batch_size.unwrap_or_else(|| rayon::current_num_threads().max(8));
    if images.len() > batch_size {
        session.bar = progress_bar(images.len() as u64, "{wide_bar} {pos}/{len} images {per_sec} {eta}");
    }
    for batch in images.chunks(batch_size) {
        match session.classify(batch) {
            // The reader has seen enough, but what was wrong before stays wrong.
            Err(error) if is_broken_pipe(&error) => break,
            done => done?,
        }
        session.bar.inc(batch.len() as u64);
    }
    session.bar.finish_and_clear();
    Ok(if session.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Adds a file as it is; a directory as the images below it, in the order of their paths. What cannot be
/// read is reported, and the rest of a directory is still searched. Returns whether all could be read.
fn add_images(path: &Path, images: &mut Vec<PathBuf>) -> bool {
    let report = |error: anyhow::Error| say("error", &with_advice(&error));
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => {}
        Err(error) if path.as_os_str() != "-" => {
            report(anyhow::Error::new(error).context(path.display().to_string()));
            return false;
        }
        _ => {
            images.push(path.to_path_buf());
            return true;
        }
    }
    let (before, mut all) = (images.len(), true);
    // Not through links: they may lead in circles.
    for image in images_below(path, Links::NotFollowed) {
        match image {
            // A directory or a link that leads nowhere may have an image's name too.
            Ok(image) if image.is_file() => images.push(image),
            Ok(_) => {}
            Err(error) => {
                all = false;
                report(error.into());
            }
        }
    }
    if images.len() == before && all {
        let path = path.display();
        report(anyhow!("{path}: no images in this directory (known by their extension, such as .jpg)"));
        return false;
    }
    all
}

/// What all batches of a run have in common.
struct Session {
    classifier: Classifier,
    preprocess: Preprocess,
    options: Options,
    /// What the model is called in results.
    model: String,
    top_k: usize,
    json: bool,
    bar: ProgressBar,
    /// Whether an image could not be classified.
    failed: bool,
    /// Whether nothing has been printed yet.
    first: bool,
}

impl Session {
    /// Loads the images, runs them through the network together, and prints what it says of each.
    ///
    /// # Errors
    /// If the device fails, or the results cannot be printed. Images that cannot be classified are reported.
    fn classify(&mut self, batch: &[PathBuf]) -> Result<()> {
        let crops: Vec<_> = batch.par_iter().map(|path| load(path, self.options, &self.preprocess)).collect();
        let (mut loaded, mut pixels) = (Vec::new(), Vec::new());
        for (path, crop) in batch.iter().zip(crops) {
            match crop {
                Ok(Crop { pixels: crop, warning }) => {
                    if let Some(warning) = &warning {
                        self.bar.suspend(|| say_warning(path, warning));
                    }
                    loaded.push((path, warning));
                    pixels.push(crop);
                }
                Err(error) => self.report(&error),
            }
        }
        if pixels.is_empty() {
            return Ok(());
        }
        let outcomes = self.classifier.classify_crops(&pixels, self.top_k)?;
        for ((path, warning), predictions) in loaded.into_iter().zip(outcomes) {
            match predictions {
                Ok(predictions) => self.print(path, &predictions, warning.as_deref())?,
                Err(error) => self.report(&anyhow::Error::new(error).context(path.display().to_string())),
            }
        }
        Ok(())
    }

    fn print(&mut self, path: &Path, predictions: &[Prediction], warning: Option<&str>) -> Result<()> {
        let image = path.display().to_string();
        let text = if self.json {
            let bytes = path.as_os_str().as_encoded_bytes();
            let image_base64 = path.to_str().is_none().then(|| BASE64_STANDARD.encode(bytes));
            to_json(&Answer { image: &image, image_base64, model: &self.model, predictions, warning })?
        } else {
            table(&image, predictions, std::mem::take(&mut self.first))
        };
        self.bar.suspend(|| print(&text))
    }

    /// Says why an image has no predictions.
    fn report(&mut self, error: &anyhow::Error) {
        self.failed = true;
        self.bar.suspend(|| say("error", &with_advice(error)));
    }
}

/// Reads, decodes, resizes and crops one image.
fn load(path: &Path, options: Options, preprocess: &Preprocess) -> Result<Crop> {
    let load = || {
        let bytes = match path.as_os_str() == "-" {
            true => read_bounded(std::io::stdin().lock(), 0)?,
            false => read_bounded(File::open(path)?, 0)?,
        };
        anyhow::Ok(preprocess.crop_of(&bytes, path, options)?)
    };
    load().with_context(|| path.display().to_string())
}

/// Cells of a bar that means certainty.
const BAR: usize = 20;

/// One image's predictions for people:
///
/// ```text
/// photo.png
///    87.31 %  █████████████████▍    n02123045  tabby, tabby cat
/// ```
fn table(image: &str, predictions: &[Prediction], first: bool) -> String {
    let mut text = if first { String::new() } else { "\n".to_string() };
    text.push_str(&strong(&printable(image)));
    for p in predictions {
        let wnid = p.wnid.as_ref().map_or(String::new(), |wnid| format!("{wnid}  "));
        let _ = write!(
            text,
            "\n  {:6.2} %  {}  {wnid}{}",
            100.0 * p.probability,
            bar(p.probability, has_blocks()),
            p.label
        );
    }
    text
}

/// A bar of [`BAR`] cells, drawn in eighths where there are blocks.
fn bar(probability: f64, blocks: bool) -> String {
    if !blocks {
        let cells = (probability * BAR as f64).round() as usize;
        return format!("{:BAR$}", "#".repeat(cells));
    }
    let eighths = (probability * 8.0 * BAR as f64).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    bar.push_str(["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8]);
    let cells = eighths.div_ceil(8);
    bar + &" ".repeat(BAR.saturating_sub(cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_one_width() {
        for i in 0..=1000 {
            for blocks in [true, false] {
                assert_eq!(bar(f64::from(i) / 1000.0, blocks).chars().count(), BAR);
            }
        }
        assert_eq!(bar(0.5, true), format!("{}{}", "█".repeat(10), " ".repeat(10)));
        assert_eq!(bar(0.52, false), format!("{}{}", "#".repeat(10), " ".repeat(10)));
    }
}
