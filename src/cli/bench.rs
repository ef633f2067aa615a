//! `qlnet bench`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::arguments::{ModelArgs, positive, seconds};
use super::print::{print, to_json};
use crate::input::preprocess::Preprocess;
use crate::network::bench::{Effort, StepTiming, time, time_steps};
use crate::network::classifier::Classifier;
use crate::network::device;

/// Time the forward pass.
///
/// Runs the network on noise and prints the median time per image for each batch size.
#[derive(Args)]
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

pub fn run(args: &Bench) -> Result<ExitCode> {
    let model = args.model.registered();
    let crop = args.input_size.unwrap_or(model.input_size);
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
