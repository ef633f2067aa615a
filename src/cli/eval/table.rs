//! The results of evaluations, as tables.

use std::fmt::Write;
use std::time::Duration;

use candle_core::Device;
use serde::Serialize;

use super::arguments::Eval;
use super::sets::Set;
use crate::eval::corruptions::{Corruption, CorruptionErrors, SEVERITIES};
use crate::eval::{Run, Summary};
use crate::text::{percent, printable, thousands};

/// A row for each number, and for what it was measured on.
pub fn table(args: &Eval, summary: &Summary) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| text += &row_of(name, value);
    let accuracy = |value: Option<f64>, interval: Option<[f64; 2]>| match (value, interval) {
        (Some(value), Some(interval)) => format!("{}   95 % interval {}", percent(value), from_to(interval)),
        _ => "-".to_string(),
    };
    let part = summary.part().map_or(String::new(), |part| format!("   {part}"));
    row("images", &format!("{}{part}", thousands(summary.images)));
    if summary.errors > 0 {
        row("not scored", &thousands(summary.errors));
    }
    if summary.warnings > 0 {
        row("damaged files", &thousands(summary.warnings));
    }
    row("top-1", &accuracy(summary.top1, summary.top1_interval));
    row("top-5", &accuracy(summary.top5, summary.top5_interval));
    if let Some(images) = summary.real_images {
        let of = |accuracy: String| format!("{accuracy}, of {} images", thousands(images));
        row("ReaL top-1", &of(accuracy(summary.real, summary.real_interval)));
        row("ReaL top-5", &of(accuracy(summary.real_top5, summary.real_top5_interval)));
    }
    row("cross-entropy", &summary.loss.map_or("-".into(), |loss| format!("{loss:.4}")));
    row("calibration error", &summary.calibration_error.map_or("-".into(), percent));
    if let Some(outputs) = outputs(args, summary.run) {
        row("outputs", &outputs);
    }
    if let Some(speed) = summary.images_per_second {
        row("images per second", &format!("{speed:.1}"));
    }
    text + &facts(args, summary.run, &summary.run.preprocess.to_string(), summary.images_per_second.is_some())
}

/// A line of the table. Values may be what a file of predictions says of its run: they stay in one line, and give the
/// terminal no orders.
fn row_of(name: &str, value: &str) -> String {
    format!("{name:<18} {}\n", printable(value))
}

fn from_to([low, high]: [f64; 2]) -> String {
    format!("{} to {}", percent(low), percent(high))
}

/// What was scored, if not all outputs.
fn outputs(args: &Eval, run: &Run) -> Option<String> {
    let why = match &args.labels.valid_labels {
        Some(file) => format!(": those of the classes in {}", file.display()),
        None if args.labels.restrict_to_present => ": those of the classes that are there".to_string(),
        None => String::new(),
    };
    Some(run.part_of_outputs()? + &why)
}

/// What was evaluated, and how. Sets may differ in their preprocessing. Whether it was `here`:
/// threads and instructions are known only of what has just been computed.
fn facts(args: &Eval, run: &Run, preprocessing: &str, here: bool) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| text += &row_of(name, value);
    let Run { model, weights_sha256, jpeg_decoder, device, dtype, .. } = run;
    row("model", model);
    let file = args.model.weights.as_ref().map_or(String::new(), |file| format!("{}, ", file.display()));
    row("weights", &format!("{file}SHA-256 {weights_sha256}"));
    row("preprocessing", &format!("{preprocessing}, JPEG by {jpeg_decoder}"));
    let threads = if here { format!(", {} threads", rayon::current_num_threads()) } else { String::new() };
    row("device", &format!("{device}{threads}"));
    let instructions = if here { args.model.precision().instructions(&Device::Cpu) } else { None };
    let instructions = instructions.filter(|_| device == "cpu").map_or(String::new(), |name| format!(", {name}"));
    row("dtype", &format!("{dtype}{instructions}"));
    text.truncate(text.trim_end().len());
    text
}

/// The result of one of several sets.
pub struct Line {
    name: String,
    /// Of a part of ImageNet-C: what all of that is called, and which part it is.
    corrupted: Option<(String, &'static Corruption, u8)>,
    images: u64,
    errors: u64,
    top1: Option<f64>,
    top1_interval: Option<[f64; 2]>,
    top5: Option<f64>,
    real: [Option<f64>; 2],
    /// What was evaluated, if not all.
    part: Option<String>,
    run: Run,
    /// Images that were evaluated by this process, and how long that took.
    timing: (u64, Duration),
    /// Whether no image is left.
    pub complete: bool,
}

impl Line {
    pub fn new(set: &Set, summary: &Summary, timing: (u64, Duration)) -> Self {
        let corrupted = set.corrupted.as_ref();
        Self {
            name: set.name.clone(),
            corrupted: corrupted.map(|(of, part)| (of.clone(), part.corruption, part.severity)),
            images: summary.images,
            errors: summary.errors,
            top1: summary.top1,
            top1_interval: summary.top1_interval,
            top5: summary.top5,
            real: [summary.real, summary.real_top5],
            part: summary.part(),
            run: summary.run.clone(),
            timing,
            complete: summary.complete,
        }
    }
}

/// What is printed of several sets: a line each, a table of all that belongs to ImageNet-C, and how it was measured.
pub fn of_sets(args: &Eval, lines: &[Line]) -> String {
    let sets: Vec<&Line> = lines.iter().filter(|line| line.corrupted.is_none()).collect();
    let mut text = String::new();
    if !sets.is_empty() {
        text += &columns(&rows_of_sets(&sets));
        text.push('\n');
    }
    for collection in Collection::of(lines) {
        text += &collection.table();
        text.push('\n');
    }
    let (images, seconds) = lines
        .iter()
        .fold((0, 0.0), |(images, seconds), line| (images + line.timing.0, seconds + line.timing.1.as_secs_f64()));
    if images > 0 {
        let _ = writeln!(text, "{:<18} {:.1}", "images per second", images as f64 / seconds);
    }
    let ways = |corrupted: bool| {
        let lines = lines.iter().filter(move |line| line.corrupted.is_some() == corrupted);
        lines.map(|line| line.run.preprocess.to_string()).next()
    };
    let preprocessing = match (ways(false), ways(true)) {
        (Some(whole), Some(crops)) if whole != crops => format!("{whole}; ImageNet-C {crops}"),
        (whole, crops) => whole.or(crops).unwrap_or_default(),
    };
    text + &facts(args, &lines[0].run, &preprocessing, images > 0)
}

fn rows_of_sets(sets: &[&Line]) -> Vec<Vec<String>> {
    let [real, errors] = [sets.iter().any(|line| line.real[0].is_some()), sets.iter().any(|line| line.errors > 0)];
    let [part, outputs] = [|line: &&Line| line.part.is_some(), |line: &&Line| line.run.outputs.is_some()];
    let [part, outputs] = [sets.iter().any(part), sets.iter().any(outputs)];
    let columns = [
        ("set", true),
        ("images", true),
        ("not scored", errors),
        ("top-1", true),
        ("95 % interval", true),
        ("top-5", true),
        ("ReaL top-1", real),
        ("ReaL top-5", real),
        ("outputs", outputs),
        ("part", part),
    ];
    let choose = |cells: [String; 10]| -> Vec<String> {
        cells.into_iter().zip(columns).filter(|(_, (_, shown))| *shown).map(|(cell, _)| cell).collect()
    };
    let share = |value: Option<f64>| value.map_or("-".to_string(), percent);
    let row = |line: &&Line| {
        choose([
            line.name.clone(),
            thousands(line.images),
            thousands(line.errors),
            share(line.top1),
            line.top1_interval.map_or("-".into(), from_to),
            share(line.top5),
            share(line.real[0]),
            share(line.real[1]),
            line.run.part_of_outputs().unwrap_or_else(|| thousands(line.run.classes as u64)),
            line.part.clone().unwrap_or_else(|| "all".into()),
        ])
    };
    let header = choose(columns.map(|(name, _)| name.to_string()));
    std::iter::once(header).chain(sets.iter().map(row)).collect()
}

/// All that was evaluated of a folder of ImageNet-C. In JSON, the last line of several sets.
#[derive(Serialize)]
pub struct Collection {
    set: String,
    /// Images that were scored.
    images: u64,
    #[serde(flatten)]
    errors: CorruptionErrors,
    /// What was evaluated of each corruption and severity, if not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<String>,
}

impl Collection {
    /// The collections that these sets make up, in their order.
    pub fn of(lines: &[Line]) -> Vec<Self> {
        let mut names: Vec<&str> = lines.iter().filter_map(|line| Some(line.corrupted.as_ref()?.0.as_str())).collect();
        names.dedup();
        let collection = |name: &str| {
            let parts =
                lines.iter().filter(|line| line.complete && line.corrupted.as_ref().is_some_and(|of| of.0 == name));
            let error = |line: &Line| {
                let (_, corruption, severity) = line.corrupted.as_ref()?;
                Some((*corruption, *severity, 1.0 - line.top1?))
            };
            Self {
                set: name.to_string(),
                images: parts.clone().map(|line| line.images).sum(),
                errors: CorruptionErrors::new(&parts.clone().filter_map(error).collect::<Vec<_>>()),
                part: parts.clone().find_map(|line| line.part.clone()),
            }
        };
        names.into_iter().map(collection).collect()
    }

    /// The errors by corruption and severity.
    fn table(&self) -> String {
        let share = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{:.2}", 100.0 * value));
        let severities = SEVERITIES.map(|severity| severity.to_string());
        let header = ["error, %".to_string()].into_iter().chain(severities).chain(["mean".into(), "CE".into()]);
        let mut rows = vec![header.collect::<Vec<_>>()];
        for row in &self.errors.corruptions {
            let extra = if row.extra { " (extra)" } else { "" };
            let numbers = row.errors.iter().chain([&row.mean_error, &row.corruption_error]);
            let name = format!("{}{extra}", row.corruption);
            rows.push([name].into_iter().chain(numbers.map(|value| share(*value))).collect());
        }
        let part = self.part.as_ref().map_or(String::new(), |part| format!(", {part} of each"));
        let mean = match self.errors.mean_corruption_error {
            Some(mean) => format!("{}   mean of the 15 corruptions' CE, of which AlexNet has 100 %", percent(mean)),
            None => format!("-   not without {}", self.errors.missing.join(", ")),
        };
        format!("{}, {} images{part}\n{}{:<18} {mean}\n", self.set, thousands(self.images), columns(&rows), "mCE")
    }
}

/// Rows with their cells below each other: the first of each on the left, the others on the right.
fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| match (column, width(column)) {
            (0, width) => format!("{cell:<width$}", width = width.max(18)),
            (_, width) => format!("{cell:>width$}"),
        });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("   ").trim_end());
    }
    text
}
