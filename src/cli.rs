//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::device::DeviceChoice;
use crate::resample::Interpolation;

/// QLNet, an image classifier with a continuous symmetry.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Classify(Classify),
    Bench(Bench),
}

impl Cli {
    /// The value of `--threads`.
    pub fn threads(&self) -> Option<usize> {
        match &self.command {
            Command::Classify(args) => args.model.threads,
            Command::Bench(args) => args.model.threads,
        }
        .map(usize::from)
    }
}

/// Say what is in pictures.
///
/// Prints the most likely classes of every image with their probabilities. An image that cannot be
/// read is reported and the others are still classified; the exit code is then 1.
#[derive(Debug, Args)]
pub struct Classify {
    /// Image files, directories of them (searched to any depth, but not through links), or `-` for
    /// standard input.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// How many classes to print for an image.
    #[arg(short = 'k', long, default_value_t = 5, value_name = "K", value_parser = positive)]
    pub top_k: usize,
    /// Print one JSON object a line: {"image", "model", "predictions": [{"index", "wnid", "label",
    /// "probability", "logit"}]}.
    #[arg(long)]
    pub json: bool,
    /// Take the pixels as they are stored, without the orientation that a camera noted.
    #[arg(long)]
    pub no_exif: bool,
    /// Images that are decoded, and then run through the network, together; by default 8, or as many
    /// as there are threads.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub batch_size: Option<usize>,
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Time the forward pass.
///
/// Runs the network on noise and prints the median time per image for each batch size.
#[derive(Debug, Args)]
pub struct Bench {
    /// Batch sizes to time, separated by commas.
    #[arg(long, default_value = "1,32", value_delimiter = ',', value_name = "N,...", value_parser = positive)]
    pub batch_size: Vec<usize>,
    /// Side of the square images; by default what the model was evaluated on.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub input_size: Option<u32>,
    /// Passes that are run first and not counted.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub warmup: usize,
    /// The least number of passes to count.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = positive)]
    pub repetitions: usize,
    /// The least time to measure each batch size for, in seconds.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS", value_parser = seconds)]
    pub duration: f64,
    /// Time each step of the network instead of the whole.
    #[arg(long)]
    pub layers: bool,
    /// Print a JSON array: [{"batch_size", "ms_per_image", "images_per_second", "repetitions"}], with
    /// --layers [{"batch_size", "steps": [{"step", "ms_per_image"}]}].
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Which network, and where it runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model and device")]
pub struct ModelArgs {
    /// A known model: qlnet-50-v0, qlnet-10m, qlnet-10m-ks (experimental), or qlnet-digits, which is
    /// built in. With --weights: the model whose preprocessing and labels the file shares.
    #[arg(long, default_value = "qlnet-50-v0", value_name = "NAME")]
    pub model: String,
    /// Take the weights from a file: what torch.save wrote of a training state or state_dict, or
    /// safetensors. Nothing is downloaded.
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// auto, cpu, cuda, cuda:N or metal.
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: DeviceChoice,
    /// Element type to compute in.
    #[arg(long, default_value = "f32", value_name = "TYPE")]
    pub dtype: DTypeChoice,
    /// Threads to compute with; by default as many as the process may use processors, or
    /// RAYON_NUM_THREADS.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// How an image becomes the network's input.
#[derive(Debug, Args)]
#[command(next_help_heading = "Preprocessing")]
pub struct PreprocessArgs {
    /// `timm`: what the published accuracy was measured with (resize to 235 bicubic, crop 224);
    /// `notebook`: that of the author's notebook (256 bilinear, 224).
    #[arg(long, default_value = "timm", value_name = "PRESET")]
    pub preprocess: Preset,
    /// Resize the shorter side to this many pixels instead.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub resize: Option<u32>,
    /// Resize with this kernel instead.
    #[arg(long, value_name = "KERNEL")]
    pub interpolation: Option<Interpolation>,
    /// Crop the centre to a square of this many pixels instead. Without --resize, the resize is
    /// changed in proportion.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub crop: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    Timm,
    Notebook,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DTypeChoice {
    F32,
    F16,
    Bf16,
}

/// A number that may be larger than is useful, but not so large that it cannot be meant.
fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=4096).contains(&number) => Ok(number),
        _ => Err("expected a whole number from 1 to 4096".into()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds, at most 86400".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
