//! `qlnet eval`

use std::fmt::Write;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use serde::Serialize;

use super::{bar_style, print, printable, say, to_json};
use crate::cli::{Eval, PartArgs};
use crate::dataset::{Classes, Dataset, Listing, RealLabels, Selection};
use crate::decode::{JPEG_DECODER, decode};
use crate::device;
use crate::eval::classes::{class_rows, to_csv};
use crate::eval::predictions::{Run, Shard, Shards, Writer, partial};
use crate::eval::report::{Report, percent, thousands};
use crate::eval::{Accuracy, Effort, Row, Tally, Unreadable, evaluate};
use crate::output::Output;
use crate::registry::{self, Label};

/// Unreadable images that are named on standard error; the others are counted.
const NAMED: u64 = 20;

pub fn run(args: &Eval) -> Result<ExitCode> {
    match &args.imagenet_val {
        Some(images) if args.results.merge.is_empty() => evaluate_images(args, images),
        _ => merge(args),
    }
}

/// The files that are written at the end, opened at the beginning.
struct Outputs {
    per_class: Option<Output>,
    report: Option<Output>,
}

impl Outputs {
    fn create(args: &Eval) -> Result<Self> {
        if let Some(path) = &args.results.per_class {
            let csv = path.extension().is_some_and(|extension| extension == "csv");
            ensure!(csv, "{}: the name of the file for --per-class ends in .csv", path.display());
        }
        let create = |path: &Option<_>| path.as_ref().map(|path: &std::path::PathBuf| Output::create(path)).transpose();
        Ok(Self { per_class: create(&args.results.per_class)?, report: create(&args.results.report)? })
    }
}

/// What came out, for printing.
struct Outcome<'a> {
    tally: &'a Tally,
    run: &'a Run,
    labels: &'a [Label],
    images: Option<&'a Dataset>,
    /// Images that were evaluated just now, and how long that took.
    timing: Option<(u64, Duration)>,
    /// Images that are to be evaluated.
    expected: u64,
}

fn evaluate_images(args: &Eval, images: &Path) -> Result<ExitCode> {
    let model = args.model.registered()?;
    let preprocess = args.preprocess.resolve(model)?;
    let listing = Listing::new(images)?;
    let outputs = Outputs::create(args)?;
    let classifier = args.model.load(preprocess)?;
    let classes = classifier.labels().len();
    let real = match &args.labels.real_labels {
        Some(file) => Some(RealLabels::open(file, listing.paths(), classes)?),
        None => None,
    };
    let labels = args.labels.labels.as_deref();
    let names = Classes::new(classifier.labels());
    let dataset = Dataset::new(listing, &names, labels, args.labels.class_map.as_deref())?;
    if let (Some(file), None) = (&dataset.labels_from, labels) {
        say("note", &format!("labels from {}", printable(&file.display().to_string())));
    }
    let dataset = Arc::new(dataset.select(args.part.selection()));
    let shard = args.part.shard.unwrap_or(Shard::WHOLE);
    let count = dataset.samples().len();
    let positions = shard.positions(count);
    let expected = positions.clone().count();
    ensure!(expected > 0, "shard {shard} is empty: there are only {count} images");
    let run = Run {
        qlnet: env!("CARGO_PKG_VERSION").into(),
        model: model.name.into(),
        weights_sha256: args.model.weights_sha256()?,
        classes,
        preprocess,
        jpeg_decoder: JPEG_DECODER.into(),
        dtype: classifier.dtype.as_str().into(),
        device: device::name(&classifier.device),
        data: dataset.fingerprint(),
        shard,
    };

    let mut tally = Tally::default();
    let mut done = 0;
    let mut writer = match (&args.results.predictions, &args.results.resume) {
        (Some(path), _) => Some(Writer::create(path, run.clone())?),
        (None, Some(path)) => {
            let mut each = |row: Row| tally.add(&row, real.as_ref());
            let (writer, rows) = Writer::resume(path, run.clone(), &dataset, args.batch_size, &mut each)?;
            let (rows_text, of) = (thousands(rows as u64), thousands(expected as u64));
            match rows {
                0 => say("note", &format!("{} is not there yet: begun", path.display())),
                _ => say("note", &format!("{}: {rows_text} of {of} images are done", path.display())),
            }
            done = rows;
            Some(writer)
        }
        (None, None) => None,
    };

    let interrupted = interruption()?;
    let mut progress = Progress::new(expected as u64, done as u64);
    let workers = args.workers.unwrap_or_else(rayon::current_num_threads);
    let effort = Effort { batch_size: args.batch_size, workers };
    let mut left = expected - done;
    evaluate(&classifier, &dataset, positions.skip(done), effort, &mut |rows| {
        for row in &rows {
            tally.add(row, real.as_ref());
            if let Err(error) = &row.scores {
                progress.unreadable(&tally, &row.path, error);
            }
        }
        if let Some(writer) = &mut writer {
            writer.append(&rows)?;
        }
        left -= rows.len();
        progress.advance(rows.len() as u64, &tally);
        let stop = interrupted.load(Ordering::Relaxed) && left > 0;
        Ok(if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let timing = Some(((expected - done - left) as u64, progress.finish()));

    if left == 0
        && let Some(writer) = writer
    {
        writer.finish()?;
    }
    let outcome = Outcome {
        tally: &tally,
        run: &run,
        labels: classifier.labels(),
        images: Some(&dataset),
        timing,
        expected: expected as u64,
    };
    show(args, &outcome, outputs)?;
    if left > 0 {
        let way_on = match args.results.predictions.as_ref().or(args.results.resume.as_ref()) {
            Some(path) => format!(
                "what is done is in {}; go on with the same command and --resume {}",
                partial(path).display(),
                path.display()
            ),
            None => "nothing was kept; with --predictions FILE, a run can be continued".to_string(),
        };
        let (done, of) = (thousands((expected - left) as u64), thousands(expected as u64));
        say("interrupted", &format!("{done} of {of} images; {way_on}"));
        return Ok(ExitCode::from(130));
    }
    verdict(args, &tally)
}

/// Prints what files of predictions say together.
fn merge(args: &Eval) -> Result<ExitCode> {
    let outputs = Outputs::create(args)?;
    let shards = Shards::open(&args.results.merge)?;
    let run = &shards.run;
    let labels = Label::for_outputs(registry::find(&run.model)?.labels(), run.classes);
    let real = match &args.labels.real_labels {
        Some(file) => {
            let mut paths = Vec::new();
            shards.for_each(&mut |row| {
                paths.push(row.path);
                Ok(())
            })?;
            Some(RealLabels::open(file, paths.iter().map(String::as_str), run.classes)?)
        }
        None => None,
    };
    let images = match &args.imagenet_val {
        Some(path) => Some(Dataset::unlabelled(Listing::new(path)?)),
        None => None,
    };
    let mut writer = match &args.results.predictions {
        Some(path) => Some(Writer::create(path, run.clone())?),
        None => None,
    };
    let mut tally = Tally::default();
    let mut rows = Vec::new();
    shards.for_each(&mut |row| {
        tally.add(&row, real.as_ref());
        if let Some(writer) = &mut writer {
            rows.push(row);
            if rows.len() == 1024 {
                writer.append(&rows)?;
                rows.clear();
            }
        }
        Ok(())
    })?;
    if let Some(mut writer) = writer {
        writer.append(&rows)?;
        writer.finish()?;
    }
    let expected = run.data.images as u64;
    let outcome = Outcome { tally: &tally, run, labels: &labels, images: images.as_ref(), timing: None, expected };
    show(args, &outcome, outputs)?;
    verdict(args, &tally)
}

impl PartArgs {
    fn selection(&self) -> Selection {
        match (self.limit, self.sample) {
            (Some(count), _) => Selection::First(count),
            (None, Some(count)) => Selection::Random { count, seed: self.seed },
            (None, None) => Selection::All,
        }
    }
}

/// A flag that is set when the program is asked to stop. Asked again, it stops at once.
fn interruption() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    let handler = move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        say("note", "stopping after this batch; once more to stop at once");
    };
    ctrlc::set_handler(handler).context("cannot listen for Ctrl-C")?;
    Ok(flag)
}

/// Shows how far an evaluation is: by a bar on a terminal, by a line now and then elsewhere.
struct Progress {
    bar: ProgressBar,
    start: Instant,
    /// When a line was last written, where there is no terminal.
    line: Option<Instant>,
    /// Images that were done before.
    before: u64,
}

impl Progress {
    /// Between lines.
    const PERIOD: Duration = Duration::from_secs(30);

    fn new(images: u64, done: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(images) } else { ProgressBar::hidden() };
        bar.set_length(images);
        bar.set_style(bar_style("{wide_bar} {human_pos}/{human_len} {msg} {eta} left"));
        bar.set_position(done);
        bar.reset_eta();
        let now = Instant::now();
        Self { bar, start: now, line: (!terminal).then_some(now), before: done }
    }

    fn advance(&mut self, images: u64, tally: &Tally) {
        let accuracy =
            |accuracy: Option<Accuracy>| accuracy.map_or("-".to_string(), |accuracy| percent(accuracy.value));
        self.bar.inc(images);
        let (position, length) = (self.bar.position(), self.bar.length().unwrap_or_default());
        let seconds = self.start.elapsed().as_secs_f64();
        let speed = (position - self.before) as f64 / seconds;
        let running = format!("top-1 {} top-5 {} {speed:.1} images/s", accuracy(tally.top1()), accuracy(tally.top5()));
        if self.line.is_some_and(|line| line.elapsed() >= Self::PERIOD) {
            self.line = Some(Instant::now());
            let left = indicatif::HumanDuration(Duration::from_secs_f64((length - position) as f64 / speed.max(1e-9)));
            say(
                "progress",
                &format!("{} of {} images, {running}, {left} left", thousands(position), thousands(length)),
            );
        }
        self.bar.set_message(running);
    }

    fn unreadable(&self, tally: &Tally, path: &str, error: &str) {
        if tally.unreadable.len() as u64 <= NAMED {
            self.bar.suspend(|| say("error", &format!("{path}: {error}")));
        }
    }

    /// Removes the bar. Returns how long it was there.
    fn finish(self) -> Duration {
        self.bar.finish_and_clear();
        self.start.elapsed()
    }
}

/// Prints and writes what came out.
fn show(args: &Eval, outcome: &Outcome, outputs: Outputs) -> Result<()> {
    let Outcome { tally, run, labels, images, .. } = outcome;
    if let Some(output) = outputs.per_class {
        output.write(&to_csv(&class_rows(tally, labels))?)?;
    }
    if let Some(output) = outputs.report {
        let crop = |path: &str| {
            let images = images.as_ref()?;
            let bytes = images.read(images.find(path)?).ok()?;
            run.preprocess.apply(&decode(&bytes, path.as_ref(), false).ok()?).ok()
        };
        let data = args.imagenet_val.as_ref().or(args.results.merge.first());
        let data =
            data.and_then(|path| path.file_name()).map_or_else(String::new, |name| name.to_string_lossy().into());
        let part = outcome.part();
        let report = Report { run, tally, labels, data: &data, part: part.as_deref(), crop: &crop };
        output.write(report.html().as_bytes())?;
        if images.is_none() {
            say("note", "the report has no pictures; give --imagenet-val too");
        }
    }
    let summary = Summary::new(args, outcome);
    print(&if args.results.json { to_json(&summary)? } else { summary.table() })?;
    Ok(())
}

/// Unreadable images are an error unless they were accepted.
fn verdict(args: &Eval, tally: &Tally) -> Result<ExitCode> {
    if tally.errors > 0 {
        let (errors, all) = (thousands(tally.errors), thousands(tally.errors + tally.images));
        let text = format!("{errors} of {all} images could not be read and were not scored");
        ensure!(tally.images > 0, text);
        ensure!(args.results.skip_errors, "{text}; --skip-errors accepts that");
        say("note", &text);
    }
    Ok(ExitCode::SUCCESS)
}

impl Outcome<'_> {
    /// What of the data was evaluated, if it was not all.
    fn part(&self) -> Option<String> {
        let done = self.tally.images + self.tally.errors;
        let interrupted = done < self.expected;
        let shard = self.run.shard != Shard::WHOLE;
        let text = match (shard, interrupted) {
            (false, false) => return None,
            (true, false) => format!("shard {}", self.run.shard),
            (false, true) => format!("interrupted after {} of {}", thousands(done), thousands(self.expected)),
            (true, true) => {
                format!(
                    "shard {}, interrupted after {} of {}",
                    self.run.shard,
                    thousands(done),
                    thousands(self.expected)
                )
            }
        };
        Some(text)
    }
}

/// An evaluation's result, as `--json` prints it. Accuracies are shares; what there is no image for is
/// `null`.
#[derive(Serialize)]
struct Summary<'a> {
    /// Images that were scored, and images that could not be.
    images: u64,
    errors: u64,
    top1: Option<f64>,
    top1_interval: Option<[f64; 2]>,
    top5: Option<f64>,
    top5_interval: Option<[f64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    real: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    real_interval: Option<[f64; 2]>,
    /// Images that have labels in ImageNet-ReaL.
    #[serde(skip_serializing_if = "Option::is_none")]
    real_images: Option<u64>,
    /// Mean cross-entropy.
    loss: Option<f64>,
    calibration_error: Option<f64>,
    /// Of this process, without loading the model.
    images_per_second: Option<f64>,
    seconds: Option<f64>,
    /// Whether all images were evaluated that were to be.
    complete: bool,
    #[serde(flatten)]
    run: &'a Run,
    threads: usize,
    batch_size: usize,
    /// The first thousand.
    unreadable: &'a [Unreadable],
    #[serde(skip)]
    part: Option<String>,
    #[serde(skip)]
    weights: String,
}

impl<'a> Summary<'a> {
    fn new(args: &Eval, outcome: &Outcome<'a>) -> Self {
        let Outcome { tally, run, timing, expected, .. } = outcome;
        let value = |accuracy: Option<Accuracy>| accuracy.map(|accuracy| accuracy.value);
        let interval = |accuracy: Option<Accuracy>| accuracy.map(|accuracy| accuracy.interval());
        let seconds = timing.map(|(_, time)| time.as_secs_f64());
        Self {
            images: tally.images,
            errors: tally.errors,
            top1: value(tally.top1()),
            top1_interval: interval(tally.top1()),
            top5: value(tally.top5()),
            top5_interval: interval(tally.top5()),
            real: value(tally.real()),
            real_interval: interval(tally.real()),
            real_images: args.labels.real_labels.as_ref().map(|_| tally.real_images),
            loss: tally.loss(),
            calibration_error: tally.calibration_error(),
            images_per_second: timing.filter(|(images, _)| *images > 0).map(|(n, time)| n as f64 / time.as_secs_f64()),
            seconds,
            complete: tally.images + tally.errors == *expected,
            run,
            threads: rayon::current_num_threads(),
            batch_size: args.batch_size,
            unreadable: &tally.unreadable,
            part: outcome.part(),
            weights: args.model.weights.as_ref().map_or(String::new(), |file| format!("{}, ", file.display())),
        }
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<18} {value}");
        };
        let accuracy = |value: Option<f64>, interval: Option<[f64; 2]>| match (value, interval) {
            (Some(value), Some([low, high])) => {
                format!("{}   95 % interval {} to {}", percent(value), percent(low), percent(high))
            }
            _ => "-".to_string(),
        };
        let part = self.part.as_ref().map_or(String::new(), |part| format!("   {part}"));
        row("images", &format!("{}{part}", thousands(self.images)));
        if self.errors > 0 {
            row("unreadable", &thousands(self.errors));
        }
        row("top-1", &accuracy(self.top1, self.top1_interval));
        row("top-5", &accuracy(self.top5, self.top5_interval));
        if let Some(images) = self.real_images {
            row("ReaL", &format!("{}, of {} images", accuracy(self.real, self.real_interval), thousands(images)));
        }
        row("cross-entropy", &self.loss.map_or("-".into(), |loss| format!("{loss:.4}")));
        row("calibration error", &self.calibration_error.map_or("-".into(), percent));
        if let Some(speed) = self.images_per_second {
            row("images per second", &format!("{speed:.1}"));
        }
        row("model", &self.run.model);
        row("weights", &printable(&format!("{}SHA-256 {}", self.weights, self.run.weights_sha256)));
        row("preprocessing", &format!("{}, JPEG by {}", self.run.preprocess, self.run.jpeg_decoder));
        let threads = self.images_per_second.map_or(String::new(), |_| format!(", {} threads", self.threads));
        row("device", &format!("{}{threads}", self.run.device));
        row("dtype", &self.run.dtype);
        text.truncate(text.trim_end().len());
        text
    }
}
