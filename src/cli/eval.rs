//! `qlnet eval`

use std::cell::Cell;
use std::fmt::Write;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::{HumanDuration, ProgressBar};

use super::{bar_style, print_and_go_on, say, to_json};
use crate::cli::arguments::{Eval, LabelArgs, PartArgs};
use crate::error::Error;
use crate::eval::classes::class_rows;
use crate::eval::dataset::{Classes, Dataset, Listing, RealLabels, Selection};
use crate::eval::predictions::{Shards, Writer, partial};
use crate::eval::report::Report;
use crate::eval::{Accuracy, Pipeline, Row, Run, Shard, Summary, Tally, evaluate};
use crate::output::{Output, ensure_distinct, to_csv};
use crate::text::{percent, printable, thousands};
use crate::weights::registry::{self, Label};

/// Images without scores, and damaged ones, that are named on standard error; the others are counted.
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
        if let Some(path) = &args.results.report {
            let html = path.extension().is_some_and(|extension| extension == "html" || extension == "htm");
            ensure!(html, "{}: the name of a report ends in .html", path.display());
        }
        let results = &args.results;
        let paths = |paths: [&Option<PathBuf>; 4]| paths.into_iter().flatten().cloned().collect::<Vec<_>>();
        let outputs = paths([&results.predictions, &results.resume, &results.per_class, &results.report]);
        let LabelArgs { labels, class_map, real_labels } = &args.labels;
        let inputs = [paths([labels, class_map, real_labels, &args.model.weights]), results.merge.clone()].concat();
        ensure_distinct(&outputs, &inputs)?;
        let create = |path: &Option<PathBuf>| path.as_deref().map(Output::create).transpose();
        Ok(Self { per_class: create(&args.results.per_class)?, report: create(&args.results.report)? })
    }

    /// Writes them. Without `images`, the report has no pictures.
    fn write(
        self,
        data: &Path,
        summary: &Summary,
        tally: &Tally,
        labels: &[Label],
        images: Option<&Listing>,
    ) -> Result<()> {
        if tally.images == 0 {
            return Ok(());
        }
        if let Some(output) = self.per_class {
            output.write(&to_csv(&class_rows(tally, labels))?)?;
        }
        if let Some(output) = self.report {
            let missing = Cell::new(0);
            let crop = |path: &str| {
                let images = images?;
                let image = images.find(path);
                missing.set(missing.get() + usize::from(image.is_none()));
                let bytes = images.read(image?).ok()?;
                let crop = summary.run.preprocess.crop_of(&bytes, path.as_ref(), summary.run.pictures());
                crop.ok().map(|crop| crop.pixels)
            };
            let data = data.canonicalize().unwrap_or_else(|_| data.to_path_buf());
            let data = data.file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
            let report = Report { run: summary.run, tally, labels, data: &data, part: summary.part(), crop: &crop };
            output.write(report.html().as_bytes())?;
            if images.is_none() {
                say("note", "the report has no pictures; give --imagenet-val too");
            } else if missing.get() > 0 {
                say("note", "the report lacks pictures: --imagenet-val does not hold all images that were evaluated");
            }
        }
        Ok(())
    }
}

fn evaluate_images(args: &Eval, images: &Path) -> Result<ExitCode> {
    let model = args.model.registered()?;
    let preprocess = args.preprocess.resolve(model)?;
    let listing = Listing::new(images)?;
    let outputs = Outputs::create(args)?;
    let classifier = args.model.load(preprocess)?;
    let real = match &args.labels.real_labels {
        Some(file) => Some(RealLabels::open(file, listing.paths(), classifier.labels().len())?),
        None => None,
    };
    let labels = args.labels.labels.as_deref();
    let names = Classes::new(classifier.labels());
    let dataset = Dataset::new(listing, &names, labels, args.labels.class_map.as_deref())?;
    if let (Some(file), None) = (dataset.labels_from(), labels) {
        say("note", &format!("labels from {}", printable(&file.display().to_string())));
    }
    let selection = args.part.selection();
    let dataset = dataset.select(selection);
    let shard = args.part.shard.unwrap_or(Shard::WHOLE);
    let expected = shard.images(dataset.images()).count();
    ensure!(expected > 0, "shard {shard} is empty: there are only {} images", dataset.images());
    let run = Run::new(
        model,
        args.model.weights_sha256()?,
        &classifier,
        &dataset,
        selection,
        shard,
        args.pictures.options(false),
    );

    let mut tally = Tally::default();
    let mut done = 0;
    let mut writer = match (&args.results.predictions, &args.results.resume) {
        (Some(path), _) => Some(Writer::create(path, run.clone())?),
        (None, Some(path)) => {
            let mut each = |row: Row| tally.add(&row, real.as_ref());
            let (writer, rows) = Writer::resume(path, run.clone(), &dataset, args.batch_size, &mut each)?;
            done = rows.unwrap_or_default();
            let (done, of) = (thousands(done as u64), thousands(expected as u64));
            say(
                "note",
                &match rows {
                    Some(_) => format!("{}: {done} of {of} images are done", path.display()),
                    None => format!("{} is not there yet: begun", path.display()),
                },
            );
            Some(writer)
        }
        (None, None) => None,
    };

    let interrupted = interruption()?;
    let mut progress = Progress::new(expected as u64, done as u64);
    let workers = args.workers.unwrap_or_else(rayon::current_num_threads);
    let pipeline = Pipeline { batch_size: args.batch_size, workers, pictures: run.pictures() };
    let mut left = expected - done;
    evaluate(&classifier, &dataset, shard.images(dataset.images()).skip(done), pipeline, |rows| -> Result<_> {
        for row in &rows {
            tally.add(row, real.as_ref());
            progress.tell(&tally, row);
        }
        if let Some(writer) = &mut writer {
            writer.append(&rows)?;
        }
        left -= rows.len();
        progress.advance(rows.len() as u64, &tally);
        let stop = interrupted.load(Ordering::Relaxed) && left > 0;
        Ok(if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let timing = ((expected - done - left) as u64, progress.finish());
    let summary = Summary::new(&tally, &run, Some(timing));

    if left > 0 {
        show(args, &summary)?;
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
    // The result first: whatever happens to the files, it is seen.
    show(args, &summary)?;
    if let Some(writer) = writer {
        writer.finish()?;
    }
    outputs.write(images, &summary, &tally, classifier.labels(), Some(dataset.listing()))?;
    verdict(args, &tally)
}

/// Prints what files of predictions say together.
fn merge(args: &Eval) -> Result<ExitCode> {
    let files = &args.results.merge;
    let outputs = Outputs::create(args)?;
    let shards = Shards::open(files)?;
    let run = shards.run();
    let labels = Label::for_outputs(registry::find(&run.model)?.labels(), run.classes);
    let real = match &args.labels.real_labels {
        Some(file) => {
            let mut paths = Vec::new();
            shards.for_each(|row| {
                paths.push(row.path);
                Ok::<_, Error>(())
            })?;
            Some(RealLabels::open(file, paths.iter().map(String::as_str), run.classes)?)
        }
        None => None,
    };
    let images = args.imagenet_val.as_deref().map(Listing::new).transpose()?;
    let mut writer = match &args.results.predictions {
        Some(path) => Some(Writer::create(path, run.clone())?),
        None => None,
    };
    let tally = shards.tally(real.as_ref(), writer.as_mut())?;
    let summary = Summary::new(&tally, run, None);
    let data = args.imagenet_val.as_ref().unwrap_or(&files[0]);
    show(args, &summary)?;
    if let Some(writer) = writer {
        writer.finish()?;
    }
    outputs.write(data, &summary, &tally, &labels, images.as_ref())?;
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
            let left = HumanDuration(Duration::from_secs_f64((length - position) as f64 / speed.max(1e-9)));
            say(
                "progress",
                &format!("{} of {} images, {running}, {left} left", thousands(position), thousands(length)),
            );
        }
        self.bar.set_message(running);
    }

    /// What is wrong with an image, if anything is.
    fn tell(&self, tally: &Tally, row: &Row) {
        let (kind, text, so_far) = match (&row.scores, &row.warning) {
            (Err(error), _) => ("error", error, tally.failed.len() as u64),
            (Ok(_), Some(warning)) => ("warning", warning, tally.warnings),
            (Ok(_), None) => return,
        };
        if so_far <= NAMED {
            self.bar.suspend(|| say(kind, &format!("{}: {text}", row.path)));
        }
    }

    /// Removes the bar. Returns how long it was there.
    fn finish(self) -> Duration {
        self.bar.finish_and_clear();
        self.start.elapsed()
    }
}

/// Images without scores are an error unless they were accepted.
fn verdict(args: &Eval, tally: &Tally) -> Result<ExitCode> {
    if tally.warnings > 0 {
        let images = thousands(tally.warnings);
        say("note", &format!("{images} of the scored images are damaged files; --strict would not score them"));
    }
    if tally.errors > 0 {
        let (errors, all) = (thousands(tally.errors), thousands(tally.errors + tally.images));
        let text = format!("{errors} of {all} images could not be read and were not scored");
        ensure!(tally.images > 0, text);
        ensure!(args.results.skip_errors, "{text}; --skip-errors accepts that, and --resume would not try them again");
        say("note", &text);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(args: &Eval, summary: &Summary) -> Result<()> {
    print_and_go_on(&if args.results.json { to_json(summary)? } else { table(args, summary) })
}

fn table(args: &Eval, summary: &Summary) -> String {
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
    let Run { model, weights_sha256, preprocess, jpeg_decoder, device, dtype, .. } = summary.run;
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
        row("ReaL", &format!("{}, of {} images", accuracy(summary.real, summary.real_interval), thousands(images)));
    }
    row("cross-entropy", &summary.loss.map_or("-".into(), |loss| format!("{loss:.4}")));
    row("calibration error", &summary.calibration_error.map_or("-".into(), percent));
    if let Some(speed) = summary.images_per_second {
        row("images per second", &format!("{speed:.1}"));
    }
    row("model", model);
    let file = args.model.weights.as_ref().map_or(String::new(), |file| format!("{}, ", file.display()));
    row("weights", &printable(&format!("{file}SHA-256 {weights_sha256}")));
    row("preprocessing", &format!("{preprocess}, JPEG by {jpeg_decoder}"));
    let threads =
        summary.images_per_second.map_or(String::new(), |_| format!(", {} threads", rayon::current_num_threads()));
    row("device", &format!("{device}{threads}"));
    row("dtype", dtype);
    text.truncate(text.trim_end().len());
    text
}
