//! What several commands take, and what it means.

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use candle_core::Device;
use clap::builder::{PossibleValue, PossibleValuesParser, StringValueParser, TypedValueParser};
use clap::{Arg, Args, Command, ValueEnum};

use super::loading;
use super::print::{info, say};
use crate::eval::dataset::Layout;
use crate::input::decode::{MAX_PIXELS, Options};
use crate::input::preprocess::Preprocess;
use crate::input::resample::Interpolation;
use crate::network::Precision;
use crate::network::classifier::Classifier;
use crate::network::device::{self, DeviceChoice};
use crate::network::load::Preparation;
use crate::symmetry::prepare_for_int8;
use crate::text::thousands;
use crate::weights::registry::{self, MODELS, Model, WeightsSource};
use crate::weights::{Event, Loaded, Source, load_file, load_model};

/// Which network, and where it runs.
#[derive(Args)]
#[command(next_help_heading = "Model and device")]
pub struct ModelArgs {
    /// A model by name, of `qlnet models` [default: qlnet-50-v0]
    ///
    /// qlnet-50-v0, qlnet-10m, qlnet-10m-ks (experimental) or qlnet-digits (built in, and small). With --weights: the
    /// model whose preprocessing and labels the file shares.
    #[arg(long, value_name = "NAME", value_parser = registered_model(), hide_possible_values = true)]
    pub model: Option<&'static Model>,
    /// Take the weights from a file: PyTorch's or safetensors
    ///
    /// What torch.save wrote of a training state or state_dict, or safetensors. Nothing is downloaded.
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// auto, cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "auto", value_name = "DEVICE", value_parser = DeviceName, hide_possible_values = true)]
    pub device: DeviceChoice,
    /// Element type: f32, f64, tf32, f16, bf16 or int8
    ///
    /// On a CPU f32 is faster than f16 and f64; bf16 and int8 round only what enters the products of 1x1 convolutions.
    /// int8 is the fastest (CPU only); its first run for a checkpoint takes some seconds more. bf16 is faster than f32
    /// where the CPU has it (`qlnet devices` says what computes). On a GPU f16 and bf16 take half the memory of f32; tf32
    /// (CUDA only) is float32 whose products round what enters them to ten bits of fraction.
    #[arg(long, default_value = "f32", value_name = "TYPE", value_parser = precision(), hide_possible_values = true)]
    pub dtype: Precision,
    /// Let CUDA round what enters float32's products: --dtype tf32
    #[arg(long, hide_short_help = true)]
    tf32: bool,
    /// Threads to compute with; by default all processors
    ///
    /// As many as the process may use, or RAYON_NUM_THREADS.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// Takes the names of the registered models.
fn registered_model() -> impl TypedValueParser<Value = &'static Model> {
    PossibleValuesParser::new(MODELS.iter().map(|model| model.name)).try_map(|name| registry::find(&name))
}

/// Takes the names of devices; shells complete those without a number.
#[derive(Clone)]
struct DeviceName;

impl TypedValueParser for DeviceName {
    type Value = DeviceChoice;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<DeviceChoice, clap::Error> {
        let parse = |text: &str| text.parse::<DeviceChoice>();
        StringValueParser::new().try_map(move |text| parse(&text)).parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(["auto", "cpu", "cuda", "metal"].into_iter().map(PossibleValue::new)))
    }
}

/// Weights are moved to where rounding to eight bits hurts least. The name changes with what the move gives.
const INT8: Preparation = Preparation { name: "p1", prepare: prepare_for_int8 };

/// The names of all that is done to weights before they are packed.
pub const PREPARED: [&str; 1] = [INT8.name];

/// Takes the names of element types.
fn precision() -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(Precision::ALL.map(Precision::name)).try_map(|name| name.parse::<Precision>())
}

impl ModelArgs {
    /// The registered model that gives preprocessing and labels, and the weights if no file does.
    pub fn registered(&self) -> &'static Model {
        self.model.unwrap_or(&MODELS[0])
    }

    /// What to call the model in results: its name, or the file's.
    pub fn shown_name(&self) -> String {
        self.weights.as_ref().map_or_else(|| self.registered().name.to_string(), |file| file.display().to_string())
    }

    /// Finds out whether the file of weights is there, if one is named, before anything takes long.
    ///
    /// # Errors
    /// If it is not.
    pub fn ensure_weights_are_there(&self) -> Result<()> {
        let Some(file) = &self.weights else { return Ok(()) };
        file.metadata().map(drop).map_err(|error| crate::Error::io("read", file)(error).into())
    }

    /// What the network computes in.
    pub fn precision(&self) -> Precision {
        if self.tf32 && self.dtype == Precision::F32 { Precision::Tf32 } else { self.dtype }
    }

    /// Opens the device, and says if the machine has a GPU that cannot be used.
    ///
    /// # Errors
    /// If the device that was asked for cannot be used.
    pub fn open_device(&self) -> Result<Device> {
        ensure!(
            !self.tf32 || self.precision() == Precision::Tf32,
            "--tf32 is for float32, not for --dtype {}",
            self.dtype
        );
        if self.precision() == Precision::Int8 {
            return self.cpu();
        }
        Ok(self.device.open_or_tell(&mut |error| say("note", &format!("the CPU computes: {error}")))?)
    }

    /// The CPU, for what no GPU computes.
    ///
    /// # Errors
    /// If another device was asked for.
    pub fn cpu(&self) -> Result<Device> {
        let taken = matches!(self.device, DeviceChoice::Auto | DeviceChoice::Cpu);
        ensure!(taken, "int8 is computed on the CPU only; leave out --device, or say --device cpu");
        Ok(Device::Cpu)
    }

    /// Loads the weights and puts the network on its device. With it comes the SHA-256 of the checkpoint.
    ///
    /// # Errors
    /// If the weights cannot be loaded, or the device cannot be used.
    pub fn load(&self, preprocess: Preprocess) -> Result<(Classifier, String)> {
        let (device, labels, precision) = (self.open_device()?, self.registered().labels(), self.precision());
        let preparation = (precision == Precision::Int8).then_some(INT8);
        let usual = labels.len();
        let start = Instant::now();
        let loaded = self.shown(|source, report| {
            Classifier::load(source, labels, preprocess, device, precision, preparation, report)
        })?;
        let found = loaded.0.labels().len();
        if self.model.is_none() && found != usual {
            let (name, [found, usual]) = (self.registered().name, [found, usual].map(|count| thousands(count as u64)));
            say(
                "note",
                &format!(
                    "these weights have {found} classes, and {name}, whose preprocessing they get, has {usual}; if they \
                     are another model's, --model names it"
                ),
            );
        }
        info(|| {
            let (classifier, sha256) = &loaded;
            let (name, time, on) = (self.shown_name(), start.elapsed(), classifier.device());
            let instructions = precision.instructions(on).map(|name| format!(" ({name})")).unwrap_or_default();
            let (on, threads) = (device::name(on), rayon::current_num_threads());
            format!(
                "{name}: ready after {:.1} ms, {precision} on {on}{instructions}, {threads} threads; {}; SHA-256 {sha256}",
                1000.0 * time.as_secs_f64(),
                classifier.preprocess()
            )
        });
        Ok(loaded)
    }

    /// Loads the weights.
    ///
    /// # Errors
    /// If they cannot be loaded.
    pub fn weights(&self) -> Result<Loaded> {
        self.shown(|source, report| match source {
            Source::File(path) => load_file(path, report),
            Source::Model(model) => load_model(model, report),
        })
    }

    /// Loads something from where the weights are, and shows how that goes.
    fn shown<T>(&self, load: impl FnOnce(Source, &mut dyn FnMut(Event)) -> crate::Result<T>) -> Result<T> {
        if let Some(file) = &self.weights {
            let name = file.display().to_string();
            return loading::shown(&name, 0, |report| Ok(load(Source::File(file), report)?));
        }
        let model = self.registered();
        let size = match &model.source {
            WeightsSource::Hub(file) => file.size,
            WeightsSource::Embedded(_) => {
                info(|| format!("{}: weights that are built in", model.name));
                0
            }
        };
        loading::shown(model.name, size, |report| Ok(load(Source::Model(model), report)?))
    }
}

/// Which files and columns are taken of Parquet files and WebDataset shards.
#[derive(Args, Clone)]
#[command(next_help_heading = "Parquet and WebDataset")]
pub struct LayoutArgs {
    /// The split of a folder that has several
    ///
    /// validation unless set.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub split: Option<String>,
    /// The column of images
    ///
    /// `image` unless set; or the extension of images in shards.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub input_key: Option<String>,
    /// The column of labels
    ///
    /// `label` unless set; or the extension, or the field of the JSON, that says the class in shards, `cls` or `label`
    /// unless set.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub target_key: Option<String>,
}

impl LayoutArgs {
    /// As the library takes them.
    pub fn layout(&self) -> Layout {
        let Self { split, input_key, target_key } = self.clone();
        Layout { input_key, target_key, split }
    }
}

/// Which files are taken.
#[derive(Args)]
#[command(next_help_heading = "Pictures")]
pub struct PictureArgs {
    /// Refuse files that are damaged
    ///
    /// Even where all of their pixels can be decoded. Without it there is a warning: libjpeg, and with it Pillow, goes on
    /// after errors in the data.
    #[arg(long, hide_short_help = true)]
    pub strict: bool,
    /// Refuse pictures of more pixels
    ///
    /// By default, of so many that Pillow calls them a decompression bomb.
    #[arg(long, value_name = "N", default_value_t = MAX_PIXELS, hide_short_help = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub max_pixels: u64,
}

impl PictureArgs {
    /// `exif` turns pictures.
    pub fn options(&self, exif: bool) -> Options {
        Options { exif, strict: self.strict, max_pixels: self.max_pixels }
    }
}

/// How an image becomes the network's input.
#[derive(Args)]
#[command(next_help_heading = "Preprocessing")]
pub struct PreprocessArgs {
    /// timm, or notebook [default: timm]
    ///
    /// timm is what the published accuracy was measured with (resize to 235 bicubic, crop 224), notebook that of the
    /// author's notebook (256 bilinear, 224).
    #[arg(long, value_name = "PRESET", hide_possible_values = true)]
    pub preprocess: Option<Preset>,
    /// Resize the shorter side to this many pixels instead
    #[arg(long, value_name = "PIXELS", hide_short_help = true, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub resize: Option<u32>,
    /// Resize with this kernel instead
    #[arg(long, value_name = "KERNEL", hide_short_help = true)]
    pub interpolation: Option<Kernel>,
    /// Crop the centre to a square of this many pixels instead
    ///
    /// Without --resize, the resize is changed in proportion.
    #[arg(long, value_name = "PIXELS", hide_short_help = true, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub crop: Option<u32>,
}

impl PreprocessArgs {
    /// The preset, changed by the options that were given.
    ///
    /// # Errors
    /// If the sizes do not fit each other.
    pub fn resolve(&self, model: &Model) -> Result<Preprocess> {
        let preset = |crop| match self.preprocess.unwrap_or(Preset::Timm) {
            Preset::Timm => Preprocess::timm(crop, model.crop_pct, model.interpolation),
            Preset::Notebook => Preprocess::notebook(crop),
        };
        let mut preprocess = preset(self.crop.unwrap_or(model.input_size));
        preprocess.resize = self.resize.unwrap_or(preprocess.resize);
        preprocess.interpolation = self.interpolation.map_or(preprocess.interpolation, Kernel::interpolation);
        preprocess.validate()?;
        Ok(preprocess)
    }

    /// The same for images that are crops already, as ImageNet-C's: they are not made larger to be cropped again,
    /// unless a preset or a resize was asked for.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_for_crops(&self, model: &Model) -> Result<Preprocess> {
        let preprocess = self.resolve(model)?;
        let asked = self.preprocess.is_some() || self.resize.is_some();
        Ok(if asked { preprocess } else { Preprocess { resize: preprocess.crop, ..preprocess } })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    Timm,
    Notebook,
}

/// The kernel of a resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kernel {
    Bilinear,
    Bicubic,
}

impl Kernel {
    fn interpolation(self) -> Interpolation {
        match self {
            Self::Bilinear => Interpolation::Bilinear,
            Self::Bicubic => Interpolation::Bicubic,
        }
    }
}

/// A whole number from 1 to 4096; a larger one must be a mistake.
pub fn positive(text: &str) -> Result<usize, String> {
    whole(text, 1..=4096)
}

/// A whole number up to 4096.
pub fn up_to_4096(text: &str) -> Result<usize, String> {
    whole(text, 0..=4096)
}

/// A number of threads that read images. Far more than there are processors wait for each other.
pub fn workers(text: &str) -> Result<usize, String> {
    whole(text, 1..=512)
}

fn whole(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("expected a whole number from {} to {}", range.start(), range.end()))
}

/// Refuses a batch of images with so many pixels on a side that no memory has room for, before it is made.
pub fn ensure_batch(images: usize, side: u32) -> Result<()> {
    /// Those of 5,000 images of 224x224, of 12 bytes as the network takes them: 3.2 GB.
    const MOST_PIXELS: u64 = 1 << 28;
    let pixels = u64::from(side).pow(2).saturating_mul(images as u64);
    ensure!(
        pixels <= MOST_PIXELS,
        "a batch of {images} images of {side}x{side} pixels is too large; take fewer at a time"
    );
    Ok(())
}

/// A number of images.
pub fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "expected a whole number from 1 on".into())
}

/// How far to go along a subgroup.
pub fn scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if (0.0..=3.0).contains(&scale) => Ok(scale),
        _ => Err("expected a number from 0 to 3".into()),
    }
}

/// A number of seconds, at most a day.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds, at most 86400".into()),
    }
}
