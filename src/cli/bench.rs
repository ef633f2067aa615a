//! `qlnet bench`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::{print, to_json};
use crate::cli::arguments::Bench;
use crate::input::preprocess::Preprocess;
use crate::network::bench::{Effort, StepTiming, time, time_steps};
use crate::network::classifier::Classifier;
use crate::network::device;

pub fn run(args: &Bench) -> Result<ExitCode> {
    let model = args.model.registered()?;
    let crop = args.input_size.unwrap_or(model.input_size);
    let classifier = args.model.load(Preprocess { resize: crop, crop, interpolation: model.interpolation })?;
    let effort =
        Effort { warmup: args.warmup, repetitions: args.repetitions, duration: Duration::from_secs_f64(args.duration) };
    if !args.json {
        print(&format!(
            "{}, {crop}x{crop}, {} on {}, {} threads",
            args.model.shown_name(),
            classifier.dtype().as_str(),
            device::name(classifier.device()),
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
