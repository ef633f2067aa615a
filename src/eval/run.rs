//! What an evaluation is of.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::eval::dataset::{Dataset, Fingerprint, Selection};
use crate::input::decode::{JPEG_DECODER, Options};
use crate::input::preprocess::Preprocess;
use crate::network::classifier::Classifier;
use crate::network::device;
use crate::weights::registry::Model;

/// What was evaluated by what: enough to tell whether two files of predictions belong together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The version of this program.
    pub qlnet: String,
    /// The registered model that gave labels and preprocessing.
    pub model: String,
    /// Of the file that the weights came from.
    pub weights_sha256: String,
    pub classes: usize,
    pub preprocess: Preprocess,
    /// As [`crate::input::decode::JPEG_DECODER`].
    pub jpeg_decoder: String,
    /// Whether damaged files were refused, and from how many pixels on.
    pub strict: bool,
    pub max_pixels: u64,
    pub dtype: String,
    pub device: String,
    pub selection: Selection,
    pub data: Fingerprint,
    pub shard: Shard,
}

impl Run {
    /// The run of a classifier over (a shard of) a selection of a dataset. `model` gave labels and
    /// preprocessing.
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
            classes: classifier.labels().len(),
            preprocess: classifier.preprocess(),
            jpeg_decoder: JPEG_DECODER.into(),
            strict: pictures.strict,
            max_pixels: pictures.max_pixels,
            dtype: classifier.dtype().as_str().into(),
            device: device::name(classifier.device()),
            selection,
            data: dataset.fingerprint(),
            shard,
        }
    }

    /// How its pictures were taken.
    pub fn pictures(&self) -> Options {
        Options { exif: false, strict: self.strict, max_pixels: self.max_pixels }
    }

    /// Refuses what no run can be of.
    pub(super) fn validate(&self) -> Result<()> {
        self.preprocess.validate()?;
        ensure!((1..=1 << 24).contains(&self.classes), "{} classes", self.classes);
        Ok(())
    }

    /// What makes predictions of `other` something else, if anything does.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let hash = |hash: &str| hash.get(..12).unwrap_or(hash).to_string();
        let data = |data: &Fingerprint| format!("{} images, {} bytes, {}", data.images, data.bytes, hash(&data.sha256));
        let preprocess = |run: &Self| format!("{}, JPEG by {}", run.preprocess, run.jpeg_decoder);
        let facts = |run: &Self| {
            [
                ("weights", hash(&run.weights_sha256)),
                ("preprocessing", preprocess(run)),
                ("treatment of damaged files", if run.strict { "refused" } else { "scored" }.into()),
                ("limit of pixels", run.max_pixels.to_string()),
                ("dtype", run.dtype.clone()),
                ("data", data(&run.data)),
                ("model", format!("{} with {} classes", run.model, run.classes)),
                ("version", format!("qlnet {}", run.qlnet)),
            ]
        };
        let (ours, theirs) = (facts(self), facts(other));
        let (ours, theirs) = ours.into_iter().zip(theirs).find(|(ours, theirs)| ours != theirs)?;
        Some(format!("other {} ({} there, {} here)", ours.0, ours.1, theirs.1))
    }
}

/// Part `index` of `of`, from 1: of every `of` images the `index`th.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    pub(super) index: usize,
    pub(super) of: usize,
}

impl Shard {
    /// All of it.
    pub const WHOLE: Self = Self { index: 1, of: 1 };
    /// The most parts: the files of all are open at once when they are put together.
    const MOST: usize = 1000;

    /// # Errors
    /// If there is no such part, or there are more than a thousand.
    pub fn new(index: usize, of: usize) -> Result<Self> {
        ensure!((1..=of).contains(&index) && of <= Self::MOST, "there is no shard {index}/{of}");
        Ok(Self { index, of })
    }

    /// The numbers of its images among so many.
    pub fn images(self, images: usize) -> impl Iterator<Item = usize> + Clone {
        (self.index - 1..images).step_by(self.of)
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |text: &str| text.parse().ok();
        match text.split_once('/').map(|(index, of)| (parse(index), parse(of))) {
            Some((Some(index), Some(of))) => Self::new(index, of).ok(),
            _ => None,
        }
        .ok_or_else(|| format!("expected I/N with I from 1 to N, such as 1/8, and N at most {}", Self::MOST))
    }
}

impl TryFrom<String> for Shard {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}
