//! The arguments of `qlnet eval`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::arguments::{LayoutArgs, ModelArgs, PictureArgs, PreprocessArgs, count, positive, workers};
use crate::eval::Shard;
use crate::eval::dataset::Selection;

/// Measure accuracy on labelled images
///
/// The images are in folders, archives or tables, here or on the hub. Prints top-1 and top-5 accuracy as timm's validate.py computes them. Images are decoded while the
/// network computes, and taken as they are stored: as in timm, and not as in classify, none is turned by
/// the orientation that a camera noted.
///
/// Several sets of images, --imagenet-val for each, are evaluated one after the other and printed as one
/// table. Each has files of its own then: of a set whose path ends in NAME, `--predictions p.csv` writes
/// `p.NAME.csv`, and so do --resume, --per-class and --report.
///
/// The exit code is 1 if an image could not be read (see --skip-errors), 130 if the run was
/// interrupted.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Eval {
    /// The images: a folder, tar, Parquet, shards or hf:OWNER/NAME
    ///
    /// A folder with a folder per class (named by WordNet id, by index as ImageNet-V2's, or for other models by
    /// label), or a folder of images with a file of labels; or a tar archive of either; or Parquet files or WebDataset
    /// shards, or the folder that they are in ('val-{00..63}.tar' stands for all of them); or
    /// hf:OWNER/NAME[@REVISION][:SPLIT], a data set on the hub, which is downloaded; or a folder of ImageNet-C, with a
    /// folder per corruption and severity.
    #[arg(value_name = "PATH", required_unless_present_any = ["imagenet_val", "merge", "compare"])]
    pub path: Option<PathBuf>,
    /// The images, by name; several times for several sets
    #[arg(long, visible_alias = "data", value_name = "PATH", conflicts_with = "path")]
    pub imagenet_val: Vec<PathBuf>,
    #[command(flatten)]
    pub layout: LayoutArgs,
    #[command(flatten)]
    pub labels: LabelArgs,
    #[command(flatten)]
    pub part: PartArgs,
    #[command(flatten)]
    pub results: ResultArgs,
    /// Images that go through the network together
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = positive, help_heading = "Speed")]
    pub batch_size: usize,
    /// Threads that read images
    ///
    /// They read, decode and resize; by default there are as many as compute.
    #[arg(long, value_name = "N", value_parser = workers, help_heading = "Speed", hide_short_help = true)]
    pub workers: Option<usize>,
    #[command(flatten)]
    pub pictures: PictureArgs,
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// What the images show.
#[derive(Args)]
#[command(next_help_heading = "Labels")]
pub struct LabelArgs {
    /// The class of each image, where folders do not say it
    ///
    /// A line each, in the order of the file names, or with the file name before it. LOC_val_solution.csv, labels.txt
    /// and the like are found beside the images.
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// What class each folder, label or number is
    ///
    /// Lines of a folder and a class, or of only a folder, from class 0 on. For labels of Parquet files and shards, of
    /// a label, or its name, and a class; for numbers in --labels, of a number and a class, or map_clsloc.txt of
    /// ILSVRC's development kit.
    #[arg(long, value_name = "FILE", conflicts_with = "merge")]
    pub class_map: Option<PathBuf>,
    /// Numbers in --labels are indices, from 0
    ///
    /// A list of numbers without a 0 may be one of ILSVRC's development kit, which counts from 1 in another order: it is
    /// refused unless this is said, or --class-map.
    #[arg(long, conflicts_with_all = ["class_map", "merge"], hide_short_help = true)]
    pub zero_based: bool,
    /// Score images among the classes that have images
    ///
    /// And not among all that the model has: so are ImageNet-A and ImageNet-R scored. What is there is found out before
    /// --limit, --sample and --shard.
    #[arg(long, conflicts_with_all = ["valid_labels", "merge"])]
    pub restrict_to_present: bool,
    /// Score images among the classes in this file
    ///
    /// An index (as for timm) or WordNet id a line.
    #[arg(long, value_name = "FILE", conflicts_with = "merge", hide_short_help = true)]
    pub valid_labels: Option<PathBuf>,
    /// ImageNet-ReaL's real.json: score several right answers
    ///
    /// Also print the share of images whose prediction is one of several right answers.
    #[arg(long, value_name = "FILE")]
    pub real_labels: Option<PathBuf>,
}

/// Which of the images are evaluated.
#[derive(Args)]
#[command(next_help_heading = "Part of the images")]
pub struct PartArgs {
    /// Only the first N, in the order of their paths
    #[arg(long, value_name = "N", conflicts_with = "sample", value_parser = count)]
    pub limit: Option<usize>,
    /// Only N of them, drawn at random
    #[arg(long, value_name = "N", value_parser = count)]
    pub sample: Option<usize>,
    /// Of the same images, --sample draws the same with a seed
    #[arg(long, default_value_t = 0, value_name = "SEED", requires = "sample", hide_short_help = true)]
    pub seed: u64,
    /// Only the Ith of every N images, I from 1
    ///
    /// For N processes or machines; --merge puts their --predictions together.
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
}

/// What is made of the results.
#[derive(Args)]
#[command(next_help_heading = "Results")]
pub struct ResultArgs {
    /// Print one JSON object
    ///
    /// {"images", "errors", "top1", "top5", "loss", "images_per_second", ...}, with accuracies from 0 to 1. For several
    /// sets, a line each with "set", its name.
    #[arg(long)]
    pub json: bool,
    /// Write a row per image, as .csv or .jsonl
    ///
    /// As they come: path, label, the five most likely classes and their probabilities, rank of the label, loss, error,
    /// warning.
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Go on with predictions that were interrupted, or begin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["predictions", "merge"])]
    pub resume: Option<PathBuf>,
    /// Write the accuracy of each class, as .csv
    ///
    /// Also what each class is most often taken for.
    #[arg(long, value_name = "FILE")]
    pub per_class: Option<PathBuf>,
    /// Write a page to look at
    ///
    /// Accuracy per class, calibration, the most confused classes and the most confident mistakes with pictures.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Exit with 0 even if images could not be scored
    #[arg(long, hide_short_help = true)]
    pub skip_errors: bool,
    /// Put the predictions of all shards together
    ///
    /// Nothing is evaluated. One file may be taken again, for other results. With --imagenet-val, the report has
    /// pictures.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = [
        "labels", "limit", "sample", "seed", "shard", "batch_size", "workers", "strict", "max_pixels", "preprocess",
        "resize", "interpolation", "crop", "model", "weights", "device", "dtype", "threads",
    ])]
    pub merge: Vec<PathBuf>,
    /// Compare two files of predictions, image by image
    ///
    /// Nothing is evaluated; both must be complete, and of the same images. Shows accuracy, what only one gets right,
    /// and McNemar's exact test. With --imagenet-val, the --report has pictures. With --json
    /// {"a", "b", "differences", "top1": {"both", "only_a", "only_b", "neither", "difference", "mcnemar_p"}, ...}.
    #[arg(long, value_names = ["A", "B"], num_args = 2, conflicts_with_all = [
        "LabelArgs", "PartArgs", "PictureArgs", "PreprocessArgs", "ModelArgs", "batch_size", "workers", "predictions",
        "resume", "merge", "per_class", "skip_errors",
    ])]
    pub compare: Vec<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  qlnet eval imagenet/val                              folders of classes, here n01440764 and so on
  qlnet eval val --labels val_labels.txt --limit 1000  a list of labels, of 1,000 images
  qlnet eval hf:timm/imagenet-1k-wds:validation --report report.html
                                                       from the hub, with a page to look at
  qlnet eval imagenet/val --predictions p.csv          a row for each image; --resume p.csv goes on
  qlnet eval imagenet-a --restrict-to-present          among the 200 classes that it has
  qlnet eval --compare a.csv b.csv                     two runs, image by image
  qlnet eval samples/digits-held-out.tar --model qlnet-digits    no download; in the sources of this program";

impl Eval {
    /// The sets of images that were named.
    pub fn sets(&self) -> &[PathBuf] {
        self.path.as_ref().map_or(&self.imagenet_val, std::slice::from_ref)
    }
}

impl PartArgs {
    /// Which images are taken before they are split into shards.
    pub fn selection(&self) -> Selection {
        match (self.limit, self.sample) {
            (Some(count), _) => Selection::First(count),
            (None, Some(count)) => Selection::Random { count, seed: self.seed },
            (None, None) => Selection::All,
        }
    }
}
