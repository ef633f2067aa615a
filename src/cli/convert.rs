//! `qlnet convert`: a checkpoint as safetensors.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::slice;

use anyhow::{Context, Result};
use candle_core::DType;
use clap::{Args, ValueEnum};

use super::loading;
use super::output::{ensure_distinct, ensure_ending};
use super::print::say;
use crate::output::Output;
use crate::text;
use crate::weights::registry::{self, WeightsSource};
use crate::weights::{Checkpoint, checkpoint_of_model};

/// Write a checkpoint as safetensors, for PyTorch or folded
///
/// The file has the network's tensors and nothing else: neither the state of an optimizer nor the options of a
/// training. PyTorch's class loads it strictly, and every command takes it with --weights.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Convert {
    /// A checkpoint, as --weights takes it, or the name of a model
    ///
    /// What torch.save wrote of a training state or state_dict, safetensors, or folded weights; or a known model such
    /// as qlnet-50-v0, which is downloaded if need be. A file of that name comes first.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The file to write: .safetensors
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Fold batch norm into the convolutions
    ///
    /// Weights and biases are then in float32, under names of their own; unless set, the tensors are those of PyTorch's
    /// state_dict, as they are in the checkpoint.
    #[arg(long)]
    folded: bool,
    /// Round the numbers to this type
    ///
    /// Unless set they keep the type that they have. A number that is too large for the type is an error.
    #[arg(long, value_name = "TYPE")]
    dtype: Option<Type>,
}

const EXAMPLES: &str = "\
Examples:
  qlnet convert qlnet-50-v0.pth.tar qlnet.safetensors            80 MB become 40
  qlnet convert qlnet-50-v0 half.safetensors --dtype bf16        a model by name, in half the bytes
  qlnet convert trained.pth folded.safetensors --folded          for programs without batch norm";

/// The type of the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Type {
    F32,
    F16,
    Bf16,
}

impl From<Type> for DType {
    fn from(dtype: Type) -> Self {
        match dtype {
            Type::F32 => Self::F32,
            Type::F16 => Self::F16,
            Type::Bf16 => Self::BF16,
        }
    }
}

/// Converts the checkpoint.
pub fn run(args: &Convert) -> Result<ExitCode> {
    let out = Some(args.output.clone());
    ensure_ending(&out, &["safetensors"], "the name of the file to write")?;
    ensure_distinct(slice::from_ref(&args.output), slice::from_ref(&args.input))?;
    let output = Output::create(&args.output)?;
    let shown = args.input.display();
    let converted = checkpoint(&args.input)?.convert(args.folded, args.dtype.map(DType::from));
    let converted = converted.with_context(|| shown.to_string())?;
    output.write(&converted.file)?;
    let form = if args.folded { "folded" } else { "named as in PyTorch" };
    let types: Vec<_> = converted.dtypes.iter().map(|dtype| dtype.as_str()).collect();
    let (size, count) = (text::bytes(converted.file.len() as u64), converted.tensors);
    say("note", &format!("{}: {size}, {count} tensors in {}, {form}", args.output.display(), types.join(" and ")));
    Ok(ExitCode::SUCCESS)
}

/// The checkpoint of a file, or of the model of that name.
fn checkpoint(input: &Path) -> Result<Checkpoint> {
    let model = input.to_str().filter(|_| !input.is_file()).and_then(|name| registry::find(name).ok());
    let Some(model) = model else { return Ok(Checkpoint::open(input)?) };
    let size = match &model.source {
        WeightsSource::Hub(file) => file.size,
        WeightsSource::Embedded(_) => 0,
    };
    loading::shown(model.name, size, |report| Ok(checkpoint_of_model(model, report)?))
}
