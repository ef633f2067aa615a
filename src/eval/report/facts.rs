//! What was run, as facts of pages.

use crate::eval::Run;
use crate::page::Fact;
use crate::text::{bytes, thousands};

/// What was evaluated, and how.
pub fn of_run(run: &Run) -> Vec<Fact> {
    let Run { qlnet, model, weights_sha256, weights_file, preprocess, jpeg_decoder, dtype, device, data, .. } = run;
    let file = weights_file.as_ref().map_or(String::new(), |file| format!("{file}, "));
    let size = bytes(data.bytes);
    let images = thousands(data.images as u64);
    let outputs = run.part_of_outputs().map(|part| format!("{part} were scored, as if the network had no others"));
    let damaged = run.strict.then_some("refused, also where all of their pixels can be decoded");
    [
        Some(Fact::new("model", model)),
        Some(Fact::with_code("weights", format!("{file}SHA-256"), weights_sha256)),
        outputs.map(|outputs| Fact::new("outputs", outputs)),
        Some(Fact::new("preprocessing", format!("{preprocess}; JPEG by {jpeg_decoder}"))),
        damaged.map(|words| Fact::new("damaged files", words)),
        Some(Fact::new("device, dtype", format!("{device}, {dtype}"))),
        Some(Fact::with_code("data", format!("{images} images, {size}; paths and labels have SHA-256"), &data.sha256)),
        Some(Fact::new("program", format!("qlnet {qlnet}"))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How fast it went, and with what: known of what was computed by the process that makes the page.
#[derive(Clone, Debug)]
pub struct Process {
    /// Threads that computed.
    pub threads: usize,
    /// Threads that read, decoded and resized images.
    pub workers: usize,
    /// Images that went through the network together.
    pub batch_size: usize,
    /// The instruction set of the products of matrices, if it was chosen.
    pub instructions: Option<String>,
}

impl Process {
    /// As facts.
    pub(super) fn facts(&self, images_per_second: Option<f64>, seconds: Option<f64>) -> Vec<Fact> {
        let Self { threads, workers, batch_size, instructions } = self;
        let instructions = instructions.as_ref().map_or(String::new(), |name| format!(", {name}"));
        let words = format!("{threads} compute{instructions}, {workers} decode; {batch_size} images at a time");
        let speed = images_per_second.zip(seconds).map(|(speed, seconds)| {
            let time = if seconds < 100.0 { format!("{seconds:.1}") } else { thousands(seconds.round() as u64) };
            Fact::new("speed", format!("{speed:.1} images per second, {time} seconds"))
        });
        [Some(Fact::new("threads", words)), speed].into_iter().flatten().collect()
    }
}
