//! `qlnet classify`: what is in pictures.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::arguments::{ModelArgs, PreprocessArgs, positive};
use super::images::{Image, ImageArgs, ImageName};
use super::print::to_json;
use crate::network::classifier::Prediction;
use crate::text::printable;

/// Say what is in pictures.
///
/// Prints the most likely classes of every image with their probabilities. An image that cannot be
/// read is reported and the others are still classified; the exit code is then 1.
#[derive(Args)]
pub struct Classify {
    /// How many classes to print for an image.
    #[arg(short = 'k', long, default_value_t = 5, value_name = "K", value_parser = positive)]
    pub top_k: usize,
    /// Print one JSON object a line: {"image", "model", "predictions": [{"index", "wnid", "label",
    /// "probability", "logit"}]}, "warning" if the file is damaged, "image_base64" if its name is not UTF-8.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub images: ImageArgs,
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// What is printed of an image for programs.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    image: ImageName,
    model: &'a str,
    predictions: &'a [Prediction],
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'a str>,
}

/// Classifies the pictures that the arguments name.
pub fn run(args: &Classify) -> Result<ExitCode> {
    let preprocess = args.preprocess.resolve(args.model.registered())?;
    let Some(images) = args.images.find()? else { return Ok(ExitCode::FAILURE) };
    let classifier = args.model.load(preprocess)?.0;
    let model = args.model.shown_name();
    let mut first = true;
    images.run(&preprocess, |progress, batch| {
        let outcomes = classifier.classify_crops(&batch.crops, args.top_k)?;
        for (Image { path, warning }, predictions) in batch.images.iter().zip(outcomes) {
            let predictions = match predictions {
                Ok(predictions) => predictions,
                Err(error) => {
                    progress.report_image(path, error);
                    continue;
                }
            };
            let text = if args.json {
                let (image, warning) = (ImageName::from(*path), warning.as_deref());
                to_json(&Answer { image, model: &model, predictions: &predictions, warning })?
            } else {
                table(&path.display().to_string(), &predictions, std::mem::take(&mut first))
            };
            progress.print(&text)?;
        }
        Ok(())
    })
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
