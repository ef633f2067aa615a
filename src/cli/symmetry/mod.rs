//! `qlnet symmetry`: the weights move, the output stays.

mod arguments;
mod audit;
mod balance;
mod check;
mod outputs;
mod path;
mod quantise;
mod report;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use serde::Serialize;

pub use self::arguments::Symmetry;
use self::outputs::Outputs;
use super::print::{say, say_warning};
use crate::input::decode::Options;
use crate::input::files::read_bounded;
use crate::input::preprocess::{Preprocess, to_tensor};
use crate::network::{Precision, device};
use crate::page::Origin;
use crate::symmetry::check::{FAR, Subject, noise};
use crate::symmetry::page::Picture;
use crate::symmetry::{FAMILIES, Family, find};
use crate::text::printable;
use crate::weights::registry::Label;
use crate::weights::{Loaded, Weights};

/// Images to run on unless others are named.
const DIGITS: [(&str, &[u8]); 2] = [
    ("3-45.png", include_bytes!("../../../samples/digits/3-45.png")),
    ("8-28.png", include_bytes!("../../../samples/digits/8-28.png")),
];
/// Images of noise beside them.
const NOISE: usize = 2;

/// Checks the families, walks along them, counts them, balances the weights or prepares them for int8.
pub fn run(args: &Symmetry) -> Result<ExitCode> {
    let families = match args.family.as_slice() {
        [] => FAMILIES.to_vec(),
        names => find(names)?,
    };
    if args.report.is_some() {
        report::ensure_few(args)?;
    }
    let outputs = Outputs::create(args)?;
    if args.audit {
        return audit::run(args, &families);
    }
    let precision = args.model.precision();
    ensure!(matches!(precision, Precision::F32 | Precision::F64), FEW_BITS);
    ensure!(args.path.is_none() || args.scale != Some(0.0), "with --scale 0 the path goes nowhere");
    let explicit = joining(args, &families).any(|family| !family.keeps_architecture());
    ensure!(args.save_state_dict.is_none() || !explicit, EXPLICIT);
    let model = args.model.registered();
    let pictures = pictures(args, model.preprocess())?;
    let images = images(args, model.preprocess(), &pictures)?;
    // Int8, which --quantise is about, is computed there.
    let device = if args.quantise { args.model.cpu()? } else { args.model.open_device()? };
    let (weights, weights_sha256) = if args.untrained {
        (Weights::random(&(model.config)(), args.seed)?, None)
    } else {
        let Loaded { weights, sha256 } = args.model.weights()?;
        (weights, Some(sha256))
    };
    ensure!(args.save_state_dict.is_none() || !weights.config().has_explicit_skips(), EXPLICIT);
    if let Some(layer) = args.layer {
        let layers = weights.config().layers.len();
        ensure!((1..=layers).contains(&layer), "--layer {layer}: the network has layers 1 to {layers}");
    }
    let subject = Subject::new(&weights, &images, precision, &device)?;
    let header = Header {
        model: if args.untrained { format!("{}, untrained", model.name) } else { args.model.shown_name() },
        dtype: precision.name(),
        device: device::name(&device),
        seed: args.seed,
        layer: args.layer,
        scale: args.scale,
        images: images.dim(0)?,
        largest_logit: subject.largest_logit(),
        tolerance: subject.tolerance(),
    };
    if args.balance {
        return balance::run(args, &subject, &header, outputs);
    }
    if args.quantise {
        return quantise::run(args, &subject, &header, outputs);
    }
    match args.path {
        Some(steps) => {
            let labels = Label::for_outputs(model.labels(), weights.config().num_classes);
            let asked = Asked { pictures, labels, weights_sha256, origin: Origin::now() };
            path::run(args, &families, &subject, &header, steps, &asked, outputs)
        }
        None => check::run(args, &families, &subject, &header, outputs),
    }
}

/// Why nothing is checked in fewer bits.
const FEW_BITS: &str = "the symmetry is checked in f32 or f64, not in fewer bits";

/// Why a state_dict cannot be written.
const EXPLICIT: &str = "explicit skips, which general-linear makes, are not in PyTorch's class, so there is no \
                        state_dict with them: use --save, or other families";

/// Why a check shows nothing.
const WEAK: &str = "a control hardly moves the logits either, so the check shows nothing: go further with --scale";

/// The families that are applied one after the other, for all together, for saving and on a path: what
/// changes the architecture joins the others only if it is asked for.
fn joining<'a>(args: &Symmetry, families: &'a [&'static dyn Family]) -> impl Iterator<Item = &'static dyn Family> + 'a {
    let named = !args.family.is_empty();
    families.iter().copied().filter(move |family| family.keeps_architecture() || named)
}

/// What was looked at.
#[derive(Serialize)]
struct Header {
    model: String,
    dtype: &'static str,
    device: String,
    seed: u64,
    /// As they were given.
    layer: Option<usize>,
    scale: Option<f64>,
    images: usize,
    largest_logit: f64,
    /// How far rounding may move a logit, relative to the largest.
    tolerance: f64,
}

impl Header {
    fn line(&self) -> String {
        let Self { model, dtype, device, seed, images, largest_logit, tolerance, .. } = self;
        format!(
            "{model}, {dtype} on {device}, seed {seed}, {images} images, largest logit {}\n\
             changes relative to that logit: rounding may move one by {tolerance:.1e}, a control must by {:.1e}",
            number(*largest_logit),
            FAR * tolerance
        )
    }
}

/// What a page shows of the network and what it is asked about.
struct Asked {
    pictures: Vec<Picture>,
    labels: Vec<Label>,
    /// Untrained weights are in no file.
    weights_sha256: Option<String>,
    origin: Origin,
}

/// The images that were named, or digits, as the network sees them.
fn pictures(args: &Symmetry, preprocess: Preprocess) -> Result<Vec<Picture>> {
    let picture = |bytes: &[u8], path: &Path| {
        let crop = preprocess.crop_of(bytes, path, Options::default())?;
        if let Some(warning) = crop.warning {
            say_warning(path, &warning);
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        Ok(Picture { name: printable(&name), crop: crop.pixels })
    };
    if args.image.is_empty() {
        return DIGITS.iter().map(|(name, bytes)| picture(bytes, Path::new(name))).collect();
    }
    let load = |path: &PathBuf| {
        let load = || picture(&read_bounded(File::open(path)?, 0)?, path);
        load().with_context(|| path.display().to_string())
    };
    args.image.iter().map(load).collect()
}

/// What the network runs on, `[n, 3, h, w]`, normalised: the pictures, and noise unless images are named or there is a
/// page, on which noise says nothing.
fn images(args: &Symmetry, preprocess: Preprocess, pictures: &[Picture]) -> Result<Tensor> {
    let crops: Vec<_> = pictures.iter().map(|picture| picture.crop.clone()).collect();
    let images = to_tensor(&crops)?;
    if !args.image.is_empty() || args.report.is_some() {
        return Ok(images);
    }
    Ok(Tensor::cat(&[images, noise(NOISE, preprocess.crop as usize, args.seed)?], 0)?)
}

/// With three decimals where that says something, else by powers of ten.
fn number(value: f64) -> String {
    if value == 0.0 || (1e-2..1e5).contains(&value) { format!("{value:.3}") } else { format!("{value:.1e}") }
}

fn verdict(passed: bool, failure: &str) -> Result<ExitCode> {
    if passed {
        return Ok(ExitCode::SUCCESS);
    }
    say("error", failure);
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::decode::decode;

    #[test]
    fn the_default_images_are_readable() {
        for (name, bytes) in DIGITS {
            assert!(decode(bytes, Path::new(name), Options::default()).is_ok());
        }
        assert_eq!(noise(NOISE, 8, 1).unwrap().dims(), [NOISE, 3, 8, 8]);
    }
}
