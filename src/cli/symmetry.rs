//! `qlnet symmetry`

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Tensor};
use serde::Serialize;

use super::{print_and_go_on as print, say, say_warning, to_json};
use crate::cli::arguments::Symmetry;
use crate::input::decode::Options;
use crate::input::files::read_bounded;
use crate::input::preprocess::to_tensor;
use crate::network::device;
use crate::output::{Output, ensure_distinct, to_csv};
use crate::symmetry::audit::{Counted, audit, small};
use crate::symmetry::balance::{self, HalfPrecision};
use crate::symmetry::check::{Change, FAR, Outcome, Subject, noise};
use crate::symmetry::path::{Step, walk};
use crate::symmetry::{Element, FAMILIES, Family, Side, draw, find, plot};
use crate::text::thousands;
use crate::weights::fold::Weights;

/// Images to run on unless others are named.
const DIGITS: [&[u8]; 2] =
    [include_bytes!("../../samples/digits/3-45.png"), include_bytes!("../../samples/digits/8-28.png")];
/// Images of noise beside them.
const NOISE: usize = 2;

pub fn run(args: &Symmetry) -> Result<ExitCode> {
    let families = match args.family.as_slice() {
        [] => FAMILIES.to_vec(),
        names => find(&names.iter().map(|name| name.trim()).collect::<Vec<_>>())?,
    };
    let outputs = Outputs::create(args)?;
    if args.audit {
        return run_audit(args, &families);
    }
    let dtype = args.model.dtype();
    ensure!(matches!(dtype, DType::F32 | DType::F64), "the symmetry is checked in f32 or f64, not in half precision");
    ensure!(args.path.is_none() || args.scale != Some(0.0), "with --scale 0 the path goes nowhere");
    let explicit = joining(args, &families).any(|family| !family.keeps_architecture());
    ensure!(args.save_state_dict.is_none() || !explicit, EXPLICIT);
    let model = args.model.registered()?;
    let images = images(args, model.preprocess())?;
    let device = args.model.device.open()?;
    let weights = if args.untrained { Weights::random(&(model.config)(), args.seed)? } else { args.model.weights()? };
    ensure!(args.save_state_dict.is_none() || !weights.config.has_explicit_skips(), EXPLICIT);
    if let Some(layer) = args.layer {
        let layers = weights.config.layers.len();
        ensure!((1..=layers).contains(&layer), "--layer {layer}: the network has layers 1 to {layers}");
    }
    let subject = Subject::new(&weights, &images, dtype, &device)?;
    let header = Header {
        model: if args.untrained { format!("{}, untrained", model.name) } else { args.model.shown_name() },
        dtype: dtype.as_str(),
        device: device::name(&device),
        seed: args.seed,
        layer: args.layer,
        scale: args.scale,
        images: images.dim(0)?,
        largest_logit: subject.largest_logit(),
        tolerance: subject.tolerance(),
    };
    if args.balance {
        return run_balance(args, &subject, &header, outputs);
    }
    match args.path {
        Some(steps) => run_path(args, &families, &subject, &header, steps, outputs),
        None => run_check(args, &families, &subject, &header, outputs),
    }
}

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

/// The files that are written at the end.
struct Outputs {
    plot: Option<Output>,
    csv: Option<Output>,
    save: Option<Output>,
    save_state_dict: Option<Output>,
}

impl Outputs {
    fn create(args: &Symmetry) -> Result<Self> {
        let files = [&args.plot, &args.csv, &args.save, &args.save_state_dict];
        let paths = |files: &[&Option<PathBuf>]| files.iter().filter_map(|file| (*file).clone()).collect::<Vec<_>>();
        ensure_distinct(&paths(&files), &[paths(&[&args.model.weights]), args.image.clone()].concat())?;
        if let Some(file) = &args.plot {
            plot::format(file)?;
        }
        let ending = |file: &Option<PathBuf>, ending: &str| match file {
            Some(file) if file.extension().is_none_or(|found| found != ending) => {
                bail!("{}: the name of this file ends in .{ending}", file.display())
            }
            _ => Ok(()),
        };
        ending(&args.csv, "csv")?;
        ending(&args.save, "safetensors")?;
        ending(&args.save_state_dict, "safetensors")?;
        let create = |file: &Option<PathBuf>| file.as_deref().map(Output::create).transpose();
        let [plot, csv, save, save_state_dict] = files.map(create);
        Ok(Self { plot: plot?, csv: csv?, save: save?, save_state_dict: save_state_dict? })
    }

    /// Writes what is asked for of the weights that `moved` makes.
    fn save(self, moved: impl FnOnce() -> Result<Weights>) -> Result<()> {
        if self.save.is_none() && self.save_state_dict.is_none() {
            return Ok(());
        }
        let weights = moved()?;
        let mut files = Vec::new();
        if let Some(output) = self.save {
            files.push((output, weights.to_safetensors()?));
        }
        if let Some(output) = self.save_state_dict {
            files.push((output, weights.to_state_dict()?));
        }
        files.into_iter().try_for_each(|(output, bytes)| output.write(&bytes))
    }
}

/// `[n, 3, h, w]`, normalised.
fn images(args: &Symmetry, preprocess: crate::input::preprocess::Preprocess) -> Result<Tensor> {
    let crop = |bytes: &[u8], name: &Path| {
        let crop = preprocess.crop_of(bytes, name, Options::default())?;
        if let Some(warning) = crop.warning {
            say_warning(name, &warning);
        }
        Ok(crop.pixels)
    };
    if args.image.is_empty() {
        let digits = DIGITS.iter().map(|bytes| crop(bytes, Path::new("digit.png"))).collect::<Result<Vec<_>>>()?;
        return Ok(Tensor::cat(&[to_tensor(&digits)?, noise(NOISE, preprocess.crop as usize, args.seed)?], 0)?);
    }
    let load = |path: &PathBuf| {
        let load = || crop(&read_bounded(File::open(path)?)?, path);
        load().with_context(|| path.display().to_string())
    };
    to_tensor(&args.image.iter().map(load).collect::<Result<Vec<_>>>()?)
}

fn run_check(
    args: &Symmetry,
    families: &[&'static dyn Family],
    subject: &Subject,
    header: &Header,
    outputs: Outputs,
) -> Result<ExitCode> {
    #[derive(Serialize)]
    struct Report<'a> {
        passed: bool,
        #[serde(flatten)]
        header: &'a Header,
        families: &'a [Outcome],
        /// All that keep the architecture one after the other, or all that were named.
        all: &'a Outcome,
    }
    let mut drawn = Vec::new();
    for &family in families {
        let element = draw(family, subject.weights(), args.layer, args.scale, args.seed)?;
        match element.is_empty() {
            false => drawn.push((family, element)),
            true => ensure!(args.family.is_empty(), "{} moves nothing in this network or layer", family.name()),
        }
    }
    if !args.json {
        print(&header.line())?;
        print(&format!(
            "\n{:<20} {:>10} {:>10} {:>10} {:>10} {:>7}  verdict",
            "family", "dimensions", "weights", "logits", "control", "top-1"
        ))?;
    }
    let outcome = |family: &dyn Family, element: &Element| -> Result<Outcome> {
        let outcome = subject.outcome_of(family, args.layer, element)?;
        if !args.json {
            print(&row(&outcome, subject.tolerance()))?;
        }
        Ok(outcome)
    };
    // Those that do not join come after all together.
    let joins = |family: &&'static dyn Family| joining(args, &[*family]).next().is_some();
    let (joined, apart): (Vec<_>, Vec<_>) = drawn.into_iter().partition(|(family, _)| joins(family));
    let mut outcomes = joined.iter().map(|(family, element)| outcome(*family, element)).collect::<Result<Vec<_>>>()?;
    let dimensions = outcomes.iter().map(|outcome| outcome.dimensions).sum();
    let elements: Vec<Element> = joined.into_iter().map(|(_, element)| element).collect();
    let all = subject.outcome("all together", "", dimensions, &elements)?;
    if !args.json {
        print(&row(&all, subject.tolerance()))?;
    }
    for (family, element) in &apart {
        outcomes.push(outcome(*family, element)?);
    }
    let passed = all.passed && outcomes.iter().all(|outcome| outcome.passed);
    if args.json {
        print(&to_json(&Report { passed, header, families: &outcomes, all: &all })?)?;
    }
    if passed {
        outputs.save(|| Ok(subject.moved(&elements, Side::Both)?))?;
    }
    let stays = outcomes.iter().chain([&all]).all(|outcome| outcome.change.logit_change <= subject.tolerance());
    verdict(passed, if stays { WEAK } else { "the logits do not stay" })
}

fn row(outcome: &Outcome, tolerance: f64) -> String {
    let Outcome { family, dimensions, change, control_logit_change, passed, .. } = outcome;
    let Change { weight_change, logit_change, top1_agreement, .. } = change;
    let verdict = match passed {
        true => "same output",
        false if *logit_change > tolerance => "OUTPUT CHANGED",
        false => "CONTROL TOO WEAK",
    };
    format!(
        "{family:<20} {:>10} {:>10} {logit_change:>10.1e} {control_logit_change:>10.1e} {:>5.0} %  {verdict}",
        if *dimensions > 0 { thousands(*dimensions as u64) } else { "discrete".into() },
        number(*weight_change),
        100.0 * top1_agreement
    )
}

/// With three decimals where that says something, else by powers of ten.
fn number(value: f64) -> String {
    if value == 0.0 || (1e-2..1e5).contains(&value) { format!("{value:.3}") } else { format!("{value:.1e}") }
}

fn run_path(
    args: &Symmetry,
    families: &[&'static dyn Family],
    subject: &Subject,
    header: &Header,
    steps: usize,
    outputs: Outputs,
) -> Result<ExitCode> {
    #[derive(Serialize)]
    struct Report<'a> {
        passed: bool,
        #[serde(flatten)]
        header: &'a Header,
        families: Vec<&'static str>,
        path: &'a [Step],
    }
    let families: Vec<&dyn Family> = joining(args, families).collect();
    let scale = args.scale.unwrap_or(1.0);
    let path = walk(subject, &families, args.layer, scale, steps, args.seed, |step| {
        let Step { t, weight_change, logit_change, control_logit_change } = step;
        if args.json {
            return Ok(());
        }
        if *t == 0.0 {
            print(&header.line())?;
            print(&format!("\n{:>8} {:>10} {:>10} {:>10}", "t", "weights", "logits", "control"))?;
        }
        let (t, weights) = (number(*t), number(*weight_change));
        print(&format!("{t:>8} {weights:>10} {logit_change:>10.1e} {control_logit_change:>10.1e}"))
    })?;
    let stays = path.iter().all(|step| step.logit_change <= subject.tolerance());
    let far = path.last().is_some_and(|step| step.control_logit_change >= FAR * subject.tolerance());
    let passed = stays && far;
    if args.json {
        let config = &subject.weights().config;
        let continuous = families.iter().filter(|family| family.dimensions(config, args.layer) > 0);
        let families = continuous.map(|family| family.name()).collect();
        print(&to_json(&Report { passed, header, families, path: &path })?)?;
    }
    if let (Some(output), Some(file)) = (outputs.plot, &args.plot) {
        let what = match args.family.as_slice() {
            [] => "all continuous families".to_string(),
            names => names.join(", "),
        };
        let what = args.layer.map_or(what.clone(), |layer| format!("{what} of layer {layer}"));
        let model = Path::new(&header.model).file_name().unwrap_or_default().to_string_lossy();
        let title = format!("{model} along {what} ({}, seed {})", header.dtype, header.seed);
        output.write(&plot::draw(&path, &title, subject.tolerance(), file)?)?;
    }
    if let Some(output) = outputs.csv {
        output.write(&to_csv(&path)?)?;
    }
    verdict(passed, if stays { WEAK } else { "the logits do not stay on the path" })
}

fn run_audit(args: &Symmetry, families: &[&dyn Family]) -> Result<ExitCode> {
    let weights = match (&args.model.weights, &args.model.model) {
        (None, None) => Weights::random(&small(), args.seed)?,
        (None, Some(_)) if args.untrained => Weights::random(&(args.model.registered()?.config)(), args.seed)?,
        _ => args.model.weights()?,
    };
    let audit = audit(&weights, families, args.seed)?;
    if args.json {
        print(&to_json(&audit)?)?;
    } else {
        let mut text = format!(
            "{}: {} parameters\nJacobian of the logits: {} equations, rank {}\n\
             last singular value that is not zero {:.1e}, first that is {:.1e} (relative to the largest)\n",
            audit.network,
            thousands(audit.parameters as u64),
            thousands(audit.equations as u64),
            audit.rank,
            audit.last_nonzero,
            audit.first_zero
        );
        for Counted { family, dimensions } in &audit.families {
            text += &format!("\n{family:<34} {dimensions:>6}");
        }
        if audit.scales > 0 {
            text += &format!("\n{:<34} {:>6}", "streams whose ball no pixel is inside", audit.scales);
        }
        text += &format!("\n{:<34} {:>6}", "all together", audit.expected);
        text += &format!("\n{:<34} {:>6}", "directions that change no logit", audit.null_space);
        print(&text)?;
    }
    verdict(audit.passed, "the families and the directions that change no logit do not agree in number")
}

fn run_balance(args: &Symmetry, subject: &Subject, header: &Header, outputs: Outputs) -> Result<ExitCode> {
    #[derive(Serialize)]
    struct Report<'a> {
        passed: bool,
        #[serde(flatten)]
        header: &'a Header,
        #[serde(flatten)]
        change: Change,
        half_precision: &'a [HalfPrecision],
    }
    let balanced = balance::balance(subject.weights())?;
    let change = subject.compare(&balanced)?;
    let passed = change.logit_change <= subject.tolerance();
    let half = [DType::F16, DType::BF16].map(|dtype| subject.half_precision(&balanced, dtype));
    let half = half.into_iter().collect::<Result<Vec<_>, _>>()?;
    if args.json {
        print(&to_json(&Report { passed, header, change, half_precision: &half })?)?;
    } else {
        print(&header.line())?;
        print(&format!(
            "\nbalanced: weights moved {}, logits {:.1e}\n\nlogits in half precision, off those in {} by\n{:<6} {:>10} {:>10}",
            number(change.weight_change),
            change.logit_change,
            header.dtype,
            "",
            "as given",
            "balanced"
        ))?;
        for HalfPrecision { dtype, given, balanced } in &half {
            let verdict = if *balanced < 0.8 * given { "better" } else { "no better" };
            print(&format!("{dtype:<6} {given:>10.1e} {balanced:>10.1e}  {verdict}"))?;
        }
    }
    if passed {
        outputs.save(|| Ok(balanced))?;
    }
    verdict(passed, "balancing changes the logits")
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
        for bytes in DIGITS {
            assert!(decode(bytes, Path::new("digit.png"), Options::default()).is_ok());
        }
        assert_eq!(noise(NOISE, 8, 1).unwrap().dims(), [NOISE, 3, 8, 8]);
    }
}
