//! `qlnet bench`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::{print, to_json};
use crate::bench::{Effort, time};
use crate::cli::Bench;
use crate::device;
use crate::preprocess::Preprocess;

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
            classifier.dtype.as_str(),
            device::name(&classifier.device),
            rayon::current_num_threads()
        ))?;
        print("batch  ms per image  images per second")?;
    }
    let mut timings = Vec::new();
    for &batch_size in &args.batch_size {
        let timing = time(&classifier, batch_size, &effort)?;
        if !args.json {
            print(&format!("{batch_size:5}  {:12.2}  {:17.1}", timing.ms_per_image, timing.images_per_second))?;
        }
        timings.push(timing);
    }
    if args.json {
        print(&to_json(&timings)?)?;
    }
    Ok(ExitCode::SUCCESS)
}
