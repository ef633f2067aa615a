//! `qlnet bench`

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use super::arguments::{LayoutArgs, ModelArgs, ensure_batch, positive, seconds, up_to_4096};
use super::data_sets;
use super::print::{print, say, to_json};
use crate::eval::{Pipeline, prepare};
use crate::input::preprocess::Preprocess;
use crate::network::bench::{Effort, StepTiming, time, time_steps};
use crate::network::classifier::Classifier;
use crate::network::device;
use crate::text::thousands;

/// Time the forward pass, or how fast images are read
///
/// Runs the network on noise and prints the median time per image for each batch size; with --data, reads,
/// decodes and resizes the images of a data set as eval does, without the network.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Bench {
    /// Batch sizes to time, separated by commas
    #[arg(long, default_value = "1,32", value_delimiter = ',', value_name = "N,...", value_parser = positive)]
    pub batch_size: Vec<usize>,
    /// Side of the square images, in pixels
    ///
    /// By default what the model was evaluated on.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub input_size: Option<u32>,
    /// Passes that are run first and not counted
    #[arg(long, hide_short_help = true, default_value_t = 3, value_name = "N", value_parser = up_to_4096)]
    pub warmup: usize,
    /// The least number of passes to count
    #[arg(long, hide_short_help = true, default_value_t = 10, value_name = "N", value_parser = positive)]
    pub repetitions: usize,
    /// The least time to measure each batch size for, in seconds
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS", value_parser = seconds)]
    pub duration: f64,
    /// Time each step of the network instead of the whole
    #[arg(long)]
    pub layers: bool,
    /// Read, decode and resize these images instead
    ///
    /// A folder, an archive, Parquet files or WebDataset shards, as eval takes them. --threads is the number of threads
    /// that do it.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["batch_size", "input_size", "layers", "weights", "dtype", "tf32", "device"])]
    pub data: Option<PathBuf>,
    /// Print JSON
    ///
    /// [{"batch_size", "ms_per_image", "images_per_second", "repetitions", "images_at_once"}], with --layers [{"batch_size", "steps":
    /// [{"step", "ms_per_image"}]}]; with --data one object: {"images", "threads", "images_per_second", "repetitions"}.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub layout: LayoutArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  qlnet bench --model qlnet-digits               of the network that is built in
  qlnet bench --dtype int8 --threads 1           in eight bits, with one thread
  qlnet bench --layers --batch-size 1            which step takes how long
  qlnet bench --data imagenet/val                how fast images are read";

pub fn run(args: &Bench) -> Result<ExitCode> {
    if let Some(data) = &args.data {
        reading(args, data)?;
        return Ok(ExitCode::SUCCESS);
    }
    let model = args.model.registered();
    let crop = args.input_size.unwrap_or(model.input_size);
    args.batch_size.iter().try_for_each(|images| ensure_batch(*images, crop))?;
    let (classifier, _) = args.model.load(Preprocess { resize: crop, crop, interpolation: model.interpolation })?;
    let effort =
        Effort { warmup: args.warmup, repetitions: args.repetitions, duration: Duration::from_secs_f64(args.duration) };
    if !args.json {
        let (precision, on) = (classifier.precision(), classifier.device());
        let instructions = precision.instructions(on).map(|name| format!(" ({name})")).unwrap_or_default();
        print(&format!(
            "{}, {crop}x{crop}, {precision} on {}{instructions}, {} threads",
            args.model.shown_name(),
            device::name(on),
            rayon::current_num_threads()
        ))?;
    }
    if args.layers { layers(args, &classifier, &effort) } else { whole(args, &classifier, &effort) }?;
    Ok(ExitCode::SUCCESS)
}

fn whole(args: &Bench, classifier: &Classifier, effort: &Effort) -> Result<()> {
    if !args.json {
        print("batch  ms per image  images per second")?;
    }
    let mut timings = Vec::new();
    for &batch_size in &args.batch_size {
        let timing = time(classifier, batch_size, effort)?;
        if !args.json {
            print(&format!("{batch_size:5}  {:12.2}  {:17.1}", timing.ms_per_image, timing.images_per_second))?;
        }
        let parts = timing.images_at_once;
        if parts < batch_size && !classifier.device().is_cpu() {
            say("note", &format!("a batch of {batch_size} runs in parts of {parts}"));
        }
        timings.push(timing);
    }
    if args.json { print(&to_json(&timings)?) } else { Ok(()) }
}

fn layers(args: &Bench, classifier: &Classifier, effort: &Effort) -> Result<()> {
    #[derive(Serialize)]
    struct Batch {
        batch_size: usize,
        steps: Vec<StepTiming>,
    }
    let mut batches = Vec::new();
    for &batch_size in &args.batch_size {
        let steps = time_steps(classifier, batch_size, effort)?;
        if !args.json {
            print(&format!("batch {batch_size}    ms per image"))?;
            for StepTiming { step, ms_per_image } in &steps {
                print(&format!("  {step:10}  {ms_per_image:10.3}"))?;
            }
        }
        batches.push(Batch { batch_size, steps });
    }
    if args.json { print(&to_json(&batches)?) } else { Ok(()) }
}

/// How fast images are read, decoded and resized.
#[derive(Serialize)]
struct Reading {
    /// Images of the data set.
    images: usize,
    threads: usize,
    /// The median of all passes.
    images_per_second: f64,
    /// Passes over all images that were counted.
    repetitions: usize,
}

fn reading(args: &Bench, data: &Path) -> Result<()> {
    let model = args.model.registered();
    let preprocess = model.preprocess();
    let listing = data_sets::listing(data, &args.layout.layout())?;
    let pipeline = Pipeline::default();
    let (images, threads) = (listing.images(), pipeline.workers);
    let pass = || -> Result<Duration> {
        let start = Instant::now();
        let mut failed = None;
        prepare(&listing, preprocess, 0..images, pipeline, |crops| -> Result<_> {
            failed = failed.take().or_else(|| crops.into_iter().find_map(Result::err));
            Ok(if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        failed.map_or(Ok(start.elapsed()), |error| bail!("{}: {error}", data.display()))
    };
    // The first brings the files into memory.
    pass()?;
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.is_empty() || start.elapsed().as_secs_f64() < args.duration {
        times.push(pass()?);
    }
    times.sort();
    let median = times[times.len() / 2].as_secs_f64();
    let reading = Reading { images, threads, images_per_second: images as f64 / median, repetitions: times.len() };
    if args.json {
        return print(&to_json(&reading)?);
    }
    print(&format!(
        "{} images, {preprocess}, {threads} threads\n{:.1} images per second, {:.1} each thread",
        thousands(images as u64),
        reading.images_per_second,
        reading.images_per_second / threads as f64
    ))
}
