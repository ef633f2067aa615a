//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::eval::Shard;
use crate::input::decode::{MAX_PIXELS, Options};
use crate::input::resample::Interpolation;
use crate::network::device::DeviceChoice;

/// What works at once, wherever the program is.
const EXAMPLES: &str = "\
Try it; these need no download:
  qlnet symmetry --model qlnet-digits     move the weights of the built-in model: its output stays
  qlnet symmetry --audit                  count its symmetries: the list of them is complete
  qlnet bench --model qlnet-digits        how fast this machine computes it
Then, with the published weights (80 MB, downloaded once):
  qlnet classify photo.png                what is in this picture";

/// QLNet, an image classifier with a continuous symmetry.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Classify(Classify),
    Eval(Box<Eval>),
    Symmetry(Box<Symmetry>),
    Bench(Bench),
}

impl Cli {
    /// The value of `--threads`.
    pub fn threads(&self) -> Option<usize> {
        match &self.command {
            Command::Classify(args) => args.model.threads,
            Command::Eval(args) => args.model.threads,
            Command::Symmetry(args) => args.model.threads,
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
    /// "probability", "logit"}]}, and "warning" if the file is damaged.
    #[arg(long)]
    pub json: bool,
    /// Take the pixels as they are stored, as timm and eval do; otherwise pictures are turned by the
    /// orientation that a camera noted.
    #[arg(long)]
    pub no_exif: bool,
    /// Images that are decoded, and then run through the network, together; by default 8, or as many
    /// as there are threads.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub batch_size: Option<usize>,
    #[command(flatten)]
    pub pictures: PictureArgs,
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Measure accuracy on a folder or an archive of labelled images.
///
/// Prints top-1 and top-5 accuracy as timm's validate.py computes them. Images are decoded while the
/// network computes, and taken as they are stored: as in timm, and not as in classify, none is turned by
/// the orientation that a camera noted.
///
/// The exit code is 1 if an image could not be read (see --skip-errors), 130 if the run was
/// interrupted.
#[derive(Debug, Args)]
pub struct Eval {
    /// The images: a folder with a folder per class (named by WordNet id, or for other models by label
    /// or index), or a folder of images with a file of labels; or a tar archive of either.
    #[arg(long, visible_alias = "data", value_name = "PATH", required_unless_present = "merge")]
    pub imagenet_val: Option<PathBuf>,
    #[command(flatten)]
    pub labels: LabelArgs,
    #[command(flatten)]
    pub part: PartArgs,
    #[command(flatten)]
    pub results: ResultArgs,
    /// Images that go through the network together.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = positive, help_heading = "Speed")]
    pub batch_size: usize,
    /// Threads that read, decode and resize images; by default as many as compute.
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Speed")]
    pub workers: Option<usize>,
    #[command(flatten)]
    pub pictures: PictureArgs,
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// What the images show.
#[derive(Debug, Args)]
#[command(next_help_heading = "Labels")]
pub struct LabelArgs {
    /// The class of each image, for images that are not in class folders: a line each, in the order of
    /// the file names, or with the file name before it. LOC_val_solution.csv, labels.txt and the like
    /// are found beside the images.
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// What class each folder is, where their names do not say: lines of a folder and a class, or of
    /// only a folder, from class 0 on.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["labels", "merge"])]
    pub class_map: Option<PathBuf>,
    /// ImageNet-ReaL's real.json: also print the share of images whose prediction is one of several
    /// right answers.
    #[arg(long, value_name = "FILE")]
    pub real_labels: Option<PathBuf>,
}

/// Which of the images are evaluated.
#[derive(Debug, Args)]
#[command(next_help_heading = "Part of the images")]
pub struct PartArgs {
    /// Only the first N, in the order of their paths.
    #[arg(long, value_name = "N", conflicts_with = "sample", value_parser = count)]
    pub limit: Option<usize>,
    /// Only N of them, drawn at random.
    #[arg(long, value_name = "N", value_parser = count)]
    pub sample: Option<usize>,
    /// Of the same images, --sample draws the same N with the same seed.
    #[arg(long, default_value_t = 0, value_name = "SEED", requires = "sample")]
    pub seed: u64,
    /// Only the Ith of every N images, for N processes or machines; I counts from 1. --merge puts
    /// their --predictions together.
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
}

/// What is made of the results.
#[derive(Debug, Args)]
#[command(next_help_heading = "Results")]
pub struct ResultArgs {
    /// Print one JSON object: {"images", "errors", "top1", "top5", "loss", "images_per_second", ...}, with
    /// accuracies from 0 to 1.
    #[arg(long)]
    pub json: bool,
    /// Write a row per image to a .csv or .jsonl file, as they come: path, label, the five most likely
    /// classes and their probabilities, rank of the label, loss, error, warning.
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Go on with a file of predictions that was interrupted, or begin it if it is not there.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["predictions", "merge"])]
    pub resume: Option<PathBuf>,
    /// Write the accuracy of each class, and what it is most often taken for, to a .csv file.
    #[arg(long, value_name = "FILE")]
    pub per_class: Option<PathBuf>,
    /// Write a page to look at: accuracy per class, calibration, the most confused classes and the
    /// most confident mistakes with pictures.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Exit with 0 even if images could not be scored.
    #[arg(long)]
    pub skip_errors: bool,
    /// Evaluate nothing; put together the predictions of all shards of a run, or take one file again.
    /// With --imagenet-val, the report has pictures.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = [
        "labels", "limit", "sample", "seed", "shard", "batch_size", "workers", "strict", "max_pixels", "preprocess",
        "resize", "interpolation", "crop", "model", "weights", "device", "dtype", "threads",
    ])]
    pub merge: Vec<PathBuf>,
}

/// Move the weights along the symmetry, and show that the output stays.
///
/// Draws an element of each family of the network's symmetry, applies it to the weights, and compares
/// the logits; beside it runs a control, half of the same element, which is no symmetry and must change
/// them. The exit code is 1 if a logit moves by more than rounding explains, or a control does not.
///
/// Columns: dimensions of the family; how far the weights moved, relative to the norm of the tensors that
/// did; the largest change of a logit, and of one under the control, relative to the largest logit; share of
/// the images whose most likely class stays. `all together`, which is also what is saved, is every family
/// but general-linear, which changes the architecture and joins the others only if it is named.
#[derive(Debug, Args)]
pub struct Symmetry {
    /// The same number draws the same elements, noise and untrained weights.
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub seed: u64,
    /// Only these families: stage-rotation, stem-scaling, product-balance, product-scale, filter-mixing,
    /// conv2-bias-shift, stream-shift, skip-bias-shift, hidden-permutation, factor-swap, general-linear.
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub family: Vec<String>,
    /// Only what begins in this layer, from 1.
    #[arg(long, value_name = "N")]
    pub layer: Option<usize>,
    /// Go so far along a one-parameter subgroup, from 0 to 3, instead of drawing an element from all of the
    /// group. At 1 the weights have changed by about half. Discrete families go as far as ever.
    #[arg(long, value_name = "S", value_parser = scale)]
    pub scale: Option<f64>,
    /// Run on these images instead of two digits and two images of noise.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub image: Vec<PathBuf>,
    /// Take random weights in the model's dimensions; nothing is downloaded.
    #[arg(long, conflicts_with = "weights")]
    pub untrained: bool,
    /// Print one JSON object: {"passed", "tolerance", "families": [{"family", "dimensions", "weight_change",
    /// "logit_change", "control_logit_change", "passed"}], ...}, changes relative.
    #[arg(long)]
    pub json: bool,
    /// Walk in N steps to --scale (or 1), in each continuous family along a one-parameter subgroup.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub path: Option<usize>,
    /// Draw the path, as .svg or .png.
    #[arg(long, value_name = "FILE", requires = "path")]
    pub plot: Option<PathBuf>,
    /// Write the path as .csv.
    #[arg(long, value_name = "FILE", requires = "path")]
    pub csv: Option<PathBuf>,
    /// Count the directions that leave the logits of a small network where they are, and compare with the
    /// dimensions of the families: of one that is made for it, with random weights, or of --weights.
    #[arg(long, conflicts_with_all = [
        "path", "plot", "csv", "save", "save_state_dict", "layer", "scale", "image", "dtype", "device",
    ])]
    pub audit: bool,
    /// Even out the weights by product balance, product scale and scalings of filters; show what that does
    /// to the logits in half precision.
    #[arg(long, conflicts_with_all = ["path", "plot", "csv", "audit", "family", "layer", "scale"])]
    pub balance: bool,
    /// Save the moved weights in float32, with batch norm folded in, as .safetensors.
    #[arg(long, value_name = "FILE", conflicts_with = "path")]
    pub save: Option<PathBuf>,
    /// Save them with the names and shapes of PyTorch's state_dict, as .safetensors; depthwise kernels that
    /// were shared are written out.
    #[arg(long, value_name = "FILE", conflicts_with = "path")]
    pub save_state_dict: Option<PathBuf>,
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
    /// [default: qlnet-50-v0]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
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

/// Which files are taken.
#[derive(Debug, Args)]
#[command(next_help_heading = "Pictures")]
pub struct PictureArgs {
    /// Refuse files that are damaged even where all of their pixels can be decoded. Without it there is a
    /// warning: libjpeg, and with it Pillow, goes on after errors in the data.
    #[arg(long)]
    pub strict: bool,
    /// Refuse pictures of more pixels; by default what Pillow calls a decompression bomb.
    #[arg(long, value_name = "N", default_value_t = MAX_PIXELS, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub max_pixels: u64,
}

impl PictureArgs {
    /// `exif` turns pictures.
    pub fn options(&self, exif: bool) -> Options {
        Options { exif, strict: self.strict, max_pixels: self.max_pixels }
    }
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
    F64,
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

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "expected a whole number from 1 on".into())
}

fn scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if (0.0..=3.0).contains(&scale) => Ok(scale),
        _ => Err("expected a number from 0 to 3".into()),
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
