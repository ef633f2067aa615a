//! The models that are known by name, as data.

use std::fmt;

use crate::error::{Error, Result};
use crate::hub::{ContentHash, HubFile, Repository};
use crate::input::preprocess::Preprocess;
use crate::input::resample::Interpolation;
use crate::weights::config::Config;

/// A model: where its weights are, what it takes, and what its outputs mean.
#[derive(Debug)]
pub struct Model {
    /// Such as `qlnet-50-v0`.
    pub name: &'static str,
    /// Where its weights are.
    pub source: WeightsSource,
    /// Its dimensions, as far as they are known without its weights.
    pub config: fn() -> Config,
    /// Side of the square that the network was evaluated on, in pixels.
    pub input_size: u32,
    /// The part of the resized image's shorter side that is kept, as timm's `crop_pct`.
    pub crop_pct: f64,
    /// How images are resized.
    pub interpolation: Interpolation,
    /// Parameters that PyTorch counts, where the file is known to have as many as the dimensions say.
    pub parameters: Option<u64>,
    /// The accuracy that was published.
    pub published: Option<Published>,
    /// Index, WordNet id (or nothing) and name of each output, tab-separated, below a header.
    labels: &'static str,
}

/// An accuracy as somebody published it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// The share of images whose most likely class is right, from 0 to 1.
    pub top1: f64,
    /// Of which images.
    pub images: &'static str,
    /// Who says so.
    pub source: &'static str,
}

/// Where the weights of a registered model are.
pub enum WeightsSource {
    /// On the Hugging Face hub.
    Hub(HubFile<'static>),
    /// In this library: the bytes of a checkpoint.
    Embedded(&'static [u8]),
}

impl fmt::Debug for WeightsSource {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Hub(file) => file.fmt(f),
            Self::Embedded(bytes) => write!(f, "Embedded({} bytes)", bytes.len()),
        }
    }
}

/// What one output of a network stands for: a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The class's WordNet id, such as `n02123045`. ImageNet's classes have one.
    pub wnid: Option<String>,
    /// The class's name, such as `tabby, tabby cat`.
    pub text: String,
}

impl Label {
    /// Labels for that many outputs: these if they are so many, else `class 0`, `class 1`, ...
    pub fn for_outputs(labels: Vec<Self>, outputs: usize) -> Vec<Self> {
        if labels.len() == outputs {
            return labels;
        }
        (0..outputs).map(|index| Self { wnid: None, text: format!("class {index}") }).collect()
    }
}

/// An accuracy of the authors, on ImageNet-1k.
const fn of_authors(top1: f64) -> Option<Published> {
    Some(Published {
        top1,
        images: "the 50,000 validation images of ImageNet-1k",
        source: "the model card, https://huggingface.co/liuyao/QLNet",
    })
}

const IMAGENET: &str = include_str!("../../data/imagenet.tsv");
const DIGITS: &str = include_str!("../../data/digits.tsv");

/// Every model, the default first.
pub const MODELS: &[Model] = &[
    Model {
        name: "qlnet-50-v0",
        source: WeightsSource::Hub(HubFile {
            repository: Repository::Model("liuyao/QLNet"),
            // The commit before 809645d6, which deleted the file from `main`.
            revision: "c388ac008044564d491817aa30658481acfbc177",
            file: "qlnet-50-v0.pth.tar",
            size: 80_405_585,
            hash: ContentHash::Sha256("12eb566b938681ff931ff037298d09205545d1a36c239bbfc083ceeca475286a"),
        }),
        config: Config::qlnet_50_v0,
        input_size: 224,
        crop_pct: 0.95,
        interpolation: Interpolation::Bicubic,
        parameters: Some(9_993_640),
        published: of_authors(0.784),
        labels: IMAGENET,
    },
    Model {
        name: "qlnet-10m",
        source: WeightsSource::Hub(HubFile {
            repository: Repository::Model("liuyao/QLNet"),
            revision: "3a6393b790afec081f8a1dabf463d83994059381",
            file: "qlnet-10m.pth.tar",
            size: 40_668_469,
            hash: ContentHash::Sha256("3ef3de79ee65221496ad99c3e79c50c297a7d1af5a4da11f239f0bf7ac98c0eb"),
        }),
        config: Config::qlnet_10m,
        input_size: 224,
        crop_pct: 0.95,
        interpolation: Interpolation::Bicubic,
        parameters: Some(10_064_296),
        published: of_authors(0.7861),
        labels: IMAGENET,
    },
    Model {
        // Experimental: how the kernels are shared is read off the shapes, see `fold`.
        name: "qlnet-10m-ks",
        source: WeightsSource::Hub(HubFile {
            repository: Repository::Model("liuyao/QLNet"),
            revision: "c201790bf58560ff9b8d92b620383dd75bdb01d4",
            file: "qlnet-10m-ks.pth.tar",
            size: 40_270_185,
            hash: ContentHash::Sha256("593cd748b4547993a9fa3381f4de09102b15d03ef06b557091c4912e5ebf3664"),
        }),
        config: Config::qlnet_10m,
        input_size: 224,
        crop_pct: 0.95,
        interpolation: Interpolation::Bicubic,
        parameters: None,
        published: None,
        labels: IMAGENET,
    },
    Model {
        name: "qlnet-digits",
        source: WeightsSource::Embedded(include_bytes!("../../models/qlnet-digits.safetensors")),
        config: Config::qlnet_digits,
        input_size: 64,
        crop_pct: 1.0,
        interpolation: Interpolation::Bicubic,
        parameters: Some(65_386),
        published: Some(Published {
            top1: 357.0 / 360.0,
            images: "the 360 digits of samples/digits-held-out.tar",
            source: "weights.md of this program",
        }),
        labels: DIGITS,
    },
];

impl Model {
    /// The preprocessing that the model's accuracy was measured with.
    pub fn preprocess(&self) -> Preprocess {
        Preprocess::timm(self.input_size, self.crop_pct, self.interpolation)
    }

    /// What each output means, in order.
    pub fn labels(&self) -> Vec<Label> {
        self.labels
            .lines()
            .skip(1)
            .filter_map(|line| {
                let mut fields = line.split('\t').skip(1);
                let (wnid, text) = (fields.next()?, fields.next()?);
                Some(Label { wnid: (!wnid.is_empty()).then(|| wnid.to_string()), text: text.to_string() })
            })
            .collect()
    }
}

/// The model of that name.
///
/// # Errors
/// [`Error::UnknownModel`] if there is none. It holds the registered name that is most like it.
pub fn find(name: &str) -> Result<&'static Model> {
    MODELS.iter().find(|model| model.name == name).ok_or_else(|| {
        let likeness = |model: &Model| strsim::sorensen_dice(model.name, &name.to_lowercase());
        let nearest = MODELS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|m| likeness(m) > 0.3);
        Error::UnknownModel { name: name.to_string(), nearest: nearest.map(|model| model.name) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::config::Conv;

    #[test]
    fn labels_are_complete() {
        let imagenet = MODELS[0].labels();
        assert_eq!(imagenet.len(), 1000);
        assert_eq!(imagenet[281], Label { wnid: Some("n02123045".into()), text: "tabby, tabby cat".into() });
        let digits = find("qlnet-digits").unwrap().labels();
        assert_eq!(digits.len(), 10);
        assert_eq!(digits[7], Label { wnid: None, text: "7".into() });
    }

    #[test]
    fn the_built_in_model_has_its_dimensions() {
        let weights = crate::weights::Weights::from_model("qlnet-digits").unwrap();
        assert_eq!(*weights.config(), Config::qlnet_digits());
    }

    /// A batch norm, with two parameters for each channel, is in the place of each bias.
    #[test]
    fn parameters_are_those_of_the_dimensions() {
        for model in MODELS {
            let convs = (model.config)().convs();
            let (head, convs) = convs.split_last().unwrap();
            let weights = |conv: &Conv| conv.shape.iter().product::<usize>();
            let count = convs.iter().map(|conv| weights(conv) + 2 * conv.shape[0]).sum::<usize>();
            let count = (count + weights(head) + head.shape[0]) as u64;
            assert!(model.parameters.is_none_or(|parameters| parameters == count), "{}: {count}", model.name);
        }
    }

    #[test]
    fn pins_are_well_formed() {
        for model in MODELS {
            if let WeightsSource::Hub(file) = &model.source {
                let hexadecimal = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                assert!(file.revision.len() == 40 && hexadecimal(file.revision));
                let ContentHash::Sha256(sha256) = file.hash else { panic!("it names what is kept of the model") };
                assert!(sha256.len() == 64 && hexadecimal(sha256));
                assert!(file.repository.name().split('/').count() == 2);
            }
        }
    }

    #[test]
    fn a_misspelt_name_is_corrected() {
        for (typed, meant) in [("qlnet50-v0", "qlnet-50-v0"), ("QLNet-10M", "qlnet-10m"), ("digits", "qlnet-digits")] {
            let message = find(typed).unwrap_err().to_string();
            assert!(message.contains(&format!("did you mean `{meant}`")), "{message}");
        }
    }
}
