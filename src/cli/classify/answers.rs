//! What classify prints for programs.

use std::path::Path;

use anyhow::{Result, anyhow};
use serde::Serialize;

use crate::cli::images::{Image, ImageName};
use crate::input::decode::{JPEG_DECODER, Options};
use crate::input::preprocess::Preprocess;
use crate::network::{Classifier, Explanation, Prediction, device};

/// What produced results: enough to get them again.
#[derive(Serialize)]
pub struct Provenance<'a> {
    /// The version of this program.
    pub qlnet: &'static str,
    /// What the model is called in results.
    pub model: &'a str,
    /// Of the file that the weights came from, in hexadecimal.
    pub weights_sha256: &'a str,
    /// The number of the network's outputs.
    pub classes: usize,
    /// How images were resized and cropped.
    pub preprocess: Preprocess,
    /// The library that decoded JPEG files.
    pub jpeg_decoder: &'static str,
    /// Whether pictures were turned by the orientation that a camera noted.
    pub exif: bool,
    /// Whether damaged files were refused where all of their pixels could be decoded.
    pub strict: bool,
    /// Images with more pixels were refused.
    pub max_pixels: u64,
    /// The element type that was computed in.
    pub dtype: &'static str,
    /// The device that computed.
    pub device: String,
    /// The instruction set of its products, where it is known.
    pub instructions: Option<String>,
}

impl<'a> Provenance<'a> {
    /// What a classifier produces from images that are decoded in this way.
    pub fn new(classifier: &Classifier, model: &'a str, weights_sha256: &'a str, options: Options) -> Self {
        let (precision, on) = (classifier.precision(), classifier.device());
        Self {
            qlnet: env!("CARGO_PKG_VERSION"),
            model,
            weights_sha256,
            classes: classifier.labels().len(),
            preprocess: classifier.preprocess(),
            jpeg_decoder: JPEG_DECODER,
            exif: options.exif,
            strict: options.strict,
            max_pixels: options.max_pixels,
            dtype: precision.name(),
            device: device::name(on),
            instructions: precision.instructions(on),
        }
    }
}

/// What is printed of an image as JSON.
#[derive(Serialize)]
pub struct Answer<'a> {
    #[serde(flatten)]
    image: ImageName,
    model: &'a str,
    predictions: Vec<Class<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'a str>,
    /// The picture that was written of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<String>,
}

#[derive(Serialize)]
struct Class<'a> {
    #[serde(flatten)]
    prediction: &'a Prediction,
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<&'a [Vec<f32>]>,
}

impl<'a> Answer<'a> {
    /// What `model` says of an image; with `maps` if they are asked for.
    pub fn new(
        image: &'a Image,
        model: &'a str,
        explanations: &'a [Explanation],
        maps: bool,
        picture: Option<&Path>,
    ) -> Self {
        let class = |explanation: &'a Explanation| Class {
            prediction: &explanation.prediction,
            map: maps.then_some(&explanation.map),
        };
        Self {
            image: image.path.into(),
            model,
            predictions: explanations.iter().map(class).collect(),
            warning: image.warning.as_deref(),
            picture: picture.map(|path| path.display().to_string()),
        }
    }
}

const COLUMNS: [&str; 8] = ["image", "rank", "index", "wnid", "label", "probability", "logit", "image_base64"];

/// CSV, of which the first line has the names of the columns.
#[derive(Default)]
pub struct Rows {
    begun: bool,
}

impl Rows {
    /// The names of the columns, if there has been no row: a table without rows is a table too.
    pub fn names(&self, run: bool) -> Option<String> {
        (!self.begun).then(|| COLUMNS.into_iter().chain(run.then_some("run")).collect::<Vec<_>>().join(","))
    }

    /// The rows of an image, with the line of names if they are the first, and then with what produced them, if that
    /// is to be said.
    ///
    /// # Errors
    /// If they have no form as CSV.
    pub fn of(&mut self, path: &Path, explanations: &[Explanation], provenance: Option<&str>) -> Result<String> {
        let ImageName { image, image_base64 } = path.into();
        let mut writer = csv::Writer::from_writer(Vec::new());
        let first = !std::mem::replace(&mut self.begun, true);
        if first {
            writer.write_record(COLUMNS.into_iter().chain(provenance.map(|_| "run")))?;
        }
        for (place, Explanation { prediction, .. }) in explanations.iter().enumerate() {
            let Prediction { index, wnid, label, probability, logit } = prediction;
            let numbers = [(place + 1).to_string(), index.to_string(), probability.to_string(), logit.to_string()];
            let [rank, index, probability, logit] = &numbers;
            let (wnid, bytes) = (wnid.as_deref().unwrap_or_default(), image_base64.as_deref().unwrap_or_default());
            let row = [&image, rank, index, wnid, label, probability, logit, bytes];
            let run = provenance.map(|provenance| if first && place == 0 { provenance } else { "" });
            writer.write_record(row.into_iter().chain(run))?;
        }
        let text = String::from_utf8(writer.into_inner().map_err(|error| anyhow!("{error}"))?)?;
        // What prints it ends the line.
        Ok(text.trim_end_matches('\n').to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explanation(label: &str) -> Explanation {
        let prediction = Prediction { index: 3, wnid: None, label: label.into(), probability: 0.1, logit: -1e-7 };
        Explanation { prediction, map: Vec::new() }
    }

    #[test]
    fn rows_hold_any_name() {
        let mut rows = Rows::default();
        let name = Path::new("a \"b\",\nc.png");
        let mut text = rows.of(name, &[explanation("x, y"), explanation("\"z\"")], Some("{\"qlnet\": 1}")).unwrap();
        text += "\n";
        text += &rows.of(Path::new("\n"), &[explanation("")], Some("{\"qlnet\": 1}")).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        assert_eq!(
            reader.headers().unwrap(),
            vec!["image", "rank", "index", "wnid", "label", "probability", "logit", "image_base64", "run"]
        );
        let records: Vec<Vec<String>> =
            reader.records().map(|record| record.unwrap().iter().map(String::from).collect()).collect();
        let name = name.to_str().unwrap();
        assert_eq!(records[0], [name, "1", "3", "", "x, y", "0.1", "-0.0000001", "", "{\"qlnet\": 1}"]);
        assert_eq!(records[1], [name, "2", "3", "", "\"z\"", "0.1", "-0.0000001", "", ""]);
        assert_eq!(records[2], ["\n", "1", "3", "", "", "0.1", "-0.0000001", "", ""]);
    }
}
