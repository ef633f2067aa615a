//! `qlnet classify`

use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::Serialize;

use super::{bar_style, print, say, say_warning, to_json};
use crate::cli::arguments::Classify;
use crate::input::decode::Options;
use crate::input::files::{is_image_name, read_bounded};
use crate::input::preprocess::{Crop, Preprocess};
use crate::network::classifier::Prediction;
use crate::text::{one_line, printable};

#[derive(Serialize)]
struct Record<'a> {
    image: &'a str,
    model: &'a str,
    predictions: &'a [Prediction],
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'a str>,
}

pub fn run(args: &Classify) -> Result<ExitCode> {
    let preprocess = args.preprocess.resolve(args.model.registered()?)?;
    let mut failed = false;
    let mut report = |bar: &ProgressBar, error: &anyhow::Error| {
        failed = true;
        bar.suspend(|| say("error", &one_line(error)));
    };
    let bar = ProgressBar::hidden();
    let mut images = Vec::new();
    for path in &args.images {
        expand(path, &mut images, &mut |error| report(&bar, &error));
    }
    if images.is_empty() {
        return Ok(ExitCode::FAILURE);
    }

    let classifier = args.model.load(preprocess)?;
    let model = args.model.shown_name();
    let batch_size = args.batch_size.unwrap_or_else(|| rayon::current_num_threads().max(8));
    let bar = if images.len() > batch_size {
        ProgressBar::new(images.len() as u64).with_style(bar_style("{wide_bar} {pos}/{len} images {per_sec} {eta}"))
    } else {
        bar
    };
    let options = args.pictures.options(!args.no_exif);
    let mut first = true;
    for batch in images.chunks(batch_size) {
        let crops: Vec<_> = batch.par_iter().map(|path| load(path, options, &preprocess)).collect();
        let (mut names, mut warnings, mut good) = (Vec::new(), Vec::new(), Vec::new());
        for (path, crop) in batch.iter().zip(crops) {
            match crop {
                Ok(Crop { pixels, warning }) => {
                    if let Some(warning) = &warning {
                        bar.suspend(|| say_warning(path, warning));
                    }
                    names.push(path.display().to_string());
                    warnings.push(warning);
                    good.push(pixels);
                }
                Err(error) => report(&bar, &error),
            }
        }
        if !good.is_empty() {
            let outcomes = classifier.classify_crops(&good, args.top_k)?;
            for ((image, warning), predictions) in names.iter().zip(&warnings).zip(outcomes) {
                let predictions = match predictions {
                    Ok(predictions) => predictions,
                    Err(error) => {
                        report(&bar, &anyhow::Error::new(error).context(image.clone()));
                        continue;
                    }
                };
                let text = if args.json {
                    to_json(&Record { image, model: &model, predictions: &predictions, warning: warning.as_deref() })?
                } else {
                    table(image, &predictions, std::mem::take(&mut first))
                };
                bar.suspend(|| print(&text))?;
            }
        }
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Adds a file as it is; a directory as the images below it, in order of their paths. A directory
/// that cannot be read is reported, and the others are still searched.
fn expand(path: &Path, images: &mut Vec<PathBuf>, report: &mut dyn FnMut(anyhow::Error)) {
    let is_dir = match std::fs::metadata(path) {
        Ok(metadata) => metadata.is_dir(),
        Err(_) if path.as_os_str() == "-" => false,
        // Told before anything is downloaded for its sake.
        Err(error) => return report(anyhow::Error::new(error).context(path.display().to_string())),
    };
    if !is_dir {
        images.push(path.to_path_buf());
        return;
    }
    let mut found = Vec::new();
    let mut failed = false;
    let mut directories = vec![path.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let entries = std::fs::read_dir(&directory).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let entries = entries.with_context(|| format!("cannot read {}", directory.display())).unwrap_or_else(|error| {
            failed = true;
            report(error);
            Vec::new()
        });
        for entry in entries {
            // Not through links: they may lead in circles.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(entry.path());
            } else if is_image_name(&entry.path()) && entry.path().is_file() {
                found.push(entry.path());
            }
        }
    }
    if found.is_empty() && !failed {
        let path = path.display();
        report(anyhow!("{path}: no images in this directory (known by their extension, such as .jpg)"));
    }
    found.sort();
    images.append(&mut found);
}

/// Reads, decodes, resizes and crops one image.
fn load(path: &Path, options: Options, preprocess: &Preprocess) -> Result<Crop> {
    let load = || {
        let bytes = if path.as_os_str() == "-" {
            read_bounded(std::io::stdin().lock())?
        } else {
            read_bounded(File::open(path)?)?
        };
        preprocess.crop_of(&bytes, path, options)
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
    text.push_str(&printable(image));
    for p in predictions {
        let wnid = p.wnid.as_ref().map_or(String::new(), |wnid| format!("{wnid}  "));
        let _ = write!(text, "\n  {:6.2} %  {}  {wnid}{}", 100.0 * p.probability, bar(p.probability), p.label);
    }
    text
}

/// A bar of [`BAR`] cells, drawn in eighths.
fn bar(probability: f64) -> String {
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
            assert_eq!(bar(f64::from(i) / 1000.0).chars().count(), BAR);
        }
        assert_eq!(bar(0.5), format!("{}{}", "█".repeat(10), " ".repeat(10)));
    }
}
