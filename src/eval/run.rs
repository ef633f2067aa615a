//! What tells one evaluation from another.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Shard;
use crate::digest::sha256_of;
use crate::eval::dataset::{Dataset, Fingerprint, Selection};
use crate::input::decode::{JPEG_DECODER, Options};
use crate::input::preprocess::Preprocess;
use crate::network::classifier::Classifier;
use crate::network::device;
use crate::text::thousands;
use crate::weights::registry::Model;

/// The fact that shards of one run need not share.
const DEVICE: &str = "device";

/// The most classes of a file of predictions. Each gets a name, even where the file has no image of it, so a few bytes
/// that say there are millions would fill the memory. The largest set in use, ImageNet-21k, has 21,843.
pub(super) const MOST_CLASSES: usize = 100_000;

/// What was evaluated, and how: enough to tell whether two files of predictions belong together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The version of this program.
    pub qlnet: String,
    /// The registered model that gave labels and preprocessing.
    pub model: String,
    /// SHA-256 of the file that the weights came from, in hexadecimal.
    pub weights_sha256: String,
    /// The file that the weights came from, as it was named; `None` if they are the registered model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_file: Option<String>,
    /// The number of the model's classes.
    pub classes: usize,
    /// The outputs that images were scored among, in ascending order; `None` for all of the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<u32>>,
    /// How images were resized and cropped.
    pub preprocess: Preprocess,
    /// The library that decoded JPEG files: decoders differ in some of the values.
    pub jpeg_decoder: String,
    /// Whether damaged files were refused where all of their pixels could be decoded.
    pub strict: bool,
    /// Images with more pixels were refused.
    pub max_pixels: u64,
    /// The element type that was computed in, such as `f32`.
    pub dtype: String,
    /// The device that computed, such as `cpu`; of shards that were put together, all of them.
    pub device: String,
    /// Which part of the dataset was evaluated.
    pub selection: Selection,
    /// The images of that part, and their labels.
    pub data: Fingerprint,
    /// Which of those images this process evaluates.
    pub shard: Shard,
}

impl Run {
    /// The run of a classifier over a shard of a dataset, which is a selection of a larger one. `model` gave
    /// labels and preprocessing; `weights_sha256` is the SHA-256 of the file of weights, in hexadecimal.
    pub fn new(
        model: &Model,
        weights_sha256: String,
        classifier: &Classifier,
        dataset: &Dataset,
        selection: Selection,
        shard: Shard,
        pictures: Options,
    ) -> Self {
        Self {
            qlnet: env!("CARGO_PKG_VERSION").into(),
            model: model.name.into(),
            weights_sha256,
            weights_file: None,
            classes: classifier.labels().len(),
            outputs: dataset.outputs().map(<[u32]>::to_vec),
            preprocess: classifier.preprocess(),
            jpeg_decoder: JPEG_DECODER.into(),
            strict: pictures.strict,
            max_pixels: pictures.max_pixels,
            dtype: classifier.precision().name().into(),
            device: device::name(classifier.device()),
            selection,
            data: dataset.fingerprint(),
            shard,
        }
    }

    /// What to call the network: the name of the file of weights, or the model's.
    pub fn shown_name(&self) -> &str {
        let file = self.weights_file.as_deref().and_then(|file| Path::new(file).file_name()?.to_str());
        file.unwrap_or(&self.model)
    }

    /// How image files were taken.
    pub fn pictures(&self) -> Options {
        Options { exif: false, strict: self.strict, max_pixels: self.max_pixels }
    }

    /// Whether the values are possible, for one that was read from a file.
    pub(super) fn is_valid(&self) -> bool {
        let outputs = self.outputs.as_deref().is_none_or(|outputs| {
            let last = outputs.last().is_some_and(|last| (*last as usize) < self.classes);
            last && outputs.is_sorted_by(|one, other| one < other)
        });
        self.preprocess.validate().is_ok() && (1..=MOST_CLASSES).contains(&self.classes) && outputs
    }

    /// What is to be said of too many classes, if there are too many.
    pub(super) fn too_many_classes(&self) -> Option<String> {
        let [classes, most] = [self.classes, MOST_CLASSES].map(|count| thousands(count as u64));
        (self.classes > MOST_CLASSES)
            .then(|| format!("{classes} classes, and a file of predictions has at most {most}"))
    }

    /// How many outputs images were scored among.
    pub(super) fn scored_outputs(&self) -> usize {
        self.outputs.as_ref().map_or(self.classes, Vec::len)
    }

    /// Whether a class is one of the outputs that images were scored among.
    pub(super) fn scores_output(&self, class: u32) -> bool {
        match &self.outputs {
            Some(outputs) => outputs.binary_search(&class).is_ok(),
            None => (class as usize) < self.classes,
        }
    }

    /// What images were scored among, if not all of the model's outputs: `200 of 1,000`.
    pub fn part_of_outputs(&self) -> Option<String> {
        let outputs = self.outputs.as_ref()?;
        Some(format!("{} of {}", thousands(outputs.len() as u64), thousands(self.classes as u64)))
    }

    /// Why the predictions of `other` cannot be compared with those of this run, unless they can.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        // The device may be another: shards are put together from several.
        let (name, ours, theirs) = self.differences(other).into_iter().find(|(name, ..)| *name != DEVICE)?;
        Some(format!("other {name} ({ours} there, {theirs} here)"))
    }

    /// What differs from another run, in words: what it is, how it is here and there.
    pub(super) fn differences(&self, other: &Self) -> Vec<(&'static str, String, String)> {
        let both = self.facts().into_iter().zip(other.facts());
        let both = both.map(|((name, ours), (_, theirs))| (name, ours, theirs));
        both.filter(|(_, ours, theirs)| ours != theirs).collect()
    }

    /// What tells it from another run, with the name of each fact.
    fn facts(&self) -> [(&'static str, String); 10] {
        let hash = |hash: &str| hash.get(..12).unwrap_or(hash).to_string();
        let Fingerprint { images, bytes, sha256 } = &self.data;
        let outputs = match (self.part_of_outputs(), &self.outputs) {
            (Some(part), Some(outputs)) => {
                let text: String = outputs.iter().map(|output| format!("{output}\n")).collect();
                format!("{part}, {}", hash(&sha256_of(text.as_bytes())))
            }
            _ => "all".to_string(),
        };
        [
            ("weights", hash(&self.weights_sha256)),
            ("preprocessing", format!("{}, JPEG by {}", self.preprocess, self.jpeg_decoder)),
            ("treatment of damaged files", if self.strict { "refused" } else { "scored" }.into()),
            ("limit of pixels", thousands(self.max_pixels)),
            ("dtype", self.dtype.clone()),
            ("outputs", outputs),
            ("data", format!("{} images, {} bytes, {}", thousands(*images as u64), thousands(*bytes), hash(sha256))),
            ("model", format!("{} with {} classes", self.model, thousands(self.classes as u64))),
            ("version", format!("qlnet {}", self.qlnet)),
            (DEVICE, self.device.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::eval::predictions::Writer;

    /// Such a run as a file of predictions says it.
    fn run(classes: usize) -> Run {
        let run = json!({
            "qlnet": "0.1.0", "model": "qlnet-digits", "weights_sha256": "ff1a0a63e48a6530", "classes": classes,
            "preprocess": {"resize": 64, "interpolation": "bicubic", "crop": 64}, "jpeg_decoder": "none",
            "strict": false, "max_pixels": 1, "dtype": "f32", "device": "cpu", "selection": {"first": 3},
            "data": {"images": 3, "bytes": 369, "sha256": "749d9dfb59505a56"}, "shard": "1/1"
        });
        serde_json::from_value(run).unwrap()
    }

    /// Each class gets a name in memory, so that a kilobyte that says there are 2^24 would take a gigabyte.
    #[test]
    fn there_are_not_more_classes_than_can_be_named() {
        for classes in [1, 21_843, MOST_CLASSES] {
            assert!(run(classes).is_valid() && run(classes).too_many_classes().is_none());
        }
        for classes in [MOST_CLASSES + 1, 1 << 24, usize::MAX] {
            assert!(!run(classes).is_valid() && run(classes).too_many_classes().is_some());
        }
        assert!(!run(0).is_valid());
        // What could not be read is not written.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.csv");
        let error = Writer::create(&path, run(MOST_CLASSES + 1)).err().unwrap().to_string();
        let words = "p.csv: the network has 100,001 classes, and a file of predictions has at most 100,000";
        assert!(error.starts_with("cannot write ") && error.ends_with(words), "{error}");
        assert!(Writer::create(&path, run(MOST_CLASSES)).is_ok());
    }
}
