//! The commands: they parse, call the library and print.

pub mod arguments;
mod bench;
mod classify;
mod eval;
mod loading;
mod symmetry;
pub mod threads;

use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use candle_core::DType;
use indicatif::ProgressStyle;
use serde::Serialize;

use crate::cli::arguments::{Cli, Command, DTypeChoice, ModelArgs, PreprocessArgs, Preset};
use crate::error::Error;
use crate::input::preprocess::Preprocess;
use crate::network::classifier::Classifier;
use crate::text::{one_line, printable};
use crate::weights::digest::{sha256, sha256_of};
use crate::weights::registry::{self, MODELS, Model, WeightsSource};
use crate::weights::{self, Weights};

/// Runs a command.
///
/// # Errors
/// If it fails as a whole. What fails in part, such as one image of many, is reported by the
/// command, and shows in the exit code.
pub fn run(cli: &Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Classify(args) => classify::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Symmetry(args) => symmetry::run(args),
        Command::Bench(args) => bench::run(args),
    }
}

impl ModelArgs {
    /// The registered model that gives preprocessing and labels, and the weights if no file does.
    fn registered(&self) -> Result<&'static Model> {
        Ok(registry::find(self.model_name())?)
    }

    /// The name of that model.
    fn model_name(&self) -> &str {
        self.model.as_deref().unwrap_or(MODELS[0].name)
    }

    /// What to call the model in results: its name, or the file's.
    fn shown_name(&self) -> String {
        self.weights.as_ref().map_or_else(|| self.model_name().to_string(), |file| file.display().to_string())
    }

    /// The SHA-256 of the file that the weights come from.
    fn weights_sha256(&self) -> Result<String> {
        match (&self.weights, &self.registered()?.source) {
            (Some(file), _) => Ok(sha256(file)?),
            (None, WeightsSource::Hub(file)) => Ok(file.sha256.to_string()),
            (None, WeightsSource::Embedded(bytes)) => Ok(sha256_of(bytes)),
        }
    }

    /// Loads the weights and puts the network on its device.
    fn load(&self, preprocess: Preprocess) -> Result<Classifier> {
        let model = self.registered()?;
        let device = self.device.open()?;
        Classifier::new(&self.weights()?, model.labels(), preprocess, device, self.dtype())
    }

    fn weights(&self) -> Result<Weights> {
        match &self.weights {
            Some(file) => {
                loading::shown(&file.display().to_string(), 0, |report| Ok(weights::from_file(file, report)?))
            }
            None => {
                let model = self.registered()?;
                let size = match &model.source {
                    WeightsSource::Hub(file) => file.size,
                    WeightsSource::Embedded(_) => 0,
                };
                loading::shown(model.name, size, |report| Ok(weights::from_model(model, report)?))
            }
        }
    }

    fn dtype(&self) -> DType {
        match self.dtype {
            DTypeChoice::F32 => DType::F32,
            DTypeChoice::F64 => DType::F64,
            DTypeChoice::F16 => DType::F16,
            DTypeChoice::Bf16 => DType::BF16,
        }
    }
}

impl PreprocessArgs {
    /// The preset, with what was set by hand.
    fn resolve(&self, model: &Model) -> Result<Preprocess> {
        let preset = |crop| match self.preprocess {
            Preset::Timm => Preprocess::timm(crop, model.crop_pct, model.interpolation),
            Preset::Notebook => Preprocess::notebook(crop),
        };
        let mut preprocess = preset(self.crop.unwrap_or(model.input_size));
        preprocess.resize = self.resize.unwrap_or(preprocess.resize);
        preprocess.interpolation = self.interpolation.unwrap_or(preprocess.interpolation);
        preprocess.validate()?;
        Ok(preprocess)
    }
}

/// Tells what ended the program, and where a download failed, the ways round it.
pub fn tell(error: &anyhow::Error) {
    let mut text = one_line(error);
    if let Some(Error::Download { file, url, .. }) = error.downcast_ref::<Error>().map(Error::root) {
        let _ = write!(
            text,
            "\n  fetch {url} by hand, and name it: --weights {file}\n  or do without a download: --model qlnet-digits is \
             built in"
        );
    }
    say("error", &text);
}

/// Writes a line to standard error. If nobody listens there, there is nobody to tell.
pub fn say(kind: &str, text: &str) {
    let _ = writeln!(std::io::stderr(), "{kind}: {text}");
}

/// Tells what is wrong with a picture that is taken all the same.
fn say_warning(path: &Path, warning: &str) {
    say("warning", &printable(&format!("{}: {warning}", path.display())));
}

fn bar_style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Writes results to standard output where more is to be done after them: files to write, an exit code
/// that says something. If the reader has seen enough, that is done all the same.
fn print_and_go_on(line: &str) -> Result<()> {
    match print(line) {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        printed => printed,
    }
}

/// Whether whoever read our output went away, as `head` does.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Writes a line of results to standard output, at once.
fn print(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot write to standard output")
}

fn to_json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(value)?)
}
