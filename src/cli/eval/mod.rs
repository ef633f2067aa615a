//! `qlnet eval`: how accurate the network is.

mod arguments;
mod outputs;
mod progress;
mod table;

use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};

pub use self::arguments::Eval;
use self::outputs::Outputs;
use self::progress::{Progress, interruption};
use super::data_sets;
use super::print::{print_and_go_on, say, to_json};
use crate::error::Error;
use crate::eval::dataset::{Classes, Dataset, Listing, RealLabels};
use crate::eval::predictions::{Shards, Writer, partial};
use crate::eval::{Pipeline, Row, Run, Shard, Summary, Tally, evaluate};
use crate::network::classifier::Classifier;
use crate::text::{printable, thousands};
use crate::weights::registry::{self, Label};

/// Evaluates images, or puts together what was evaluated before.
pub fn run(args: &Eval) -> Result<ExitCode> {
    match &args.imagenet_val {
        Some(images) if args.results.merge.is_empty() => evaluate_images(args, images),
        _ => merge(args),
    }
}

fn evaluate_images(args: &Eval, images: &Path) -> Result<ExitCode> {
    let model = args.model.registered();
    let preprocess = args.preprocess.resolve(model)?;
    let (path, _) = data_sets::here(images, None)?;
    let listing = Listing::new(&path)?;
    let outputs = Outputs::create(args)?;
    let (classifier, sha256) = args.model.load(preprocess)?;
    let real = match &args.labels.real_labels {
        Some(file) => Some(RealLabels::open(file, listing.paths(), classifier.labels().len())?),
        None => None,
    };
    let dataset = labelled(args, listing, &classifier)?;
    let selection = args.part.selection();
    let dataset = dataset.select(selection);
    let shard = args.part.shard.unwrap_or(Shard::WHOLE);
    let expected = shard.images(dataset.images()).count();
    ensure!(expected > 0, "shard {shard} is empty: there are only {} images", dataset.images());
    let run = Run::new(model, sha256, &classifier, &dataset, selection, shard, args.pictures.options(false));

    let mut evaluation = Evaluation::begin(args, &run, &dataset, real)?;
    let timing = evaluation.go_on(args, &run, &classifier, &dataset, expected)?;
    let Evaluation { tally, writer, done, .. } = evaluation;
    let summary = Summary::new(&tally, &run, Some(timing));
    // The result first: whatever happens to the files, it is seen.
    show(args, &summary)?;
    if done < expected {
        say_interrupted(args, done, expected);
        return Ok(ExitCode::from(130));
    }
    if let Some(writer) = writer {
        writer.finish()?;
    }
    outputs.write(images, &summary, &tally, classifier.labels(), Some(dataset.listing()))?;
    verdict(args, &tally)
}

/// Finds out what each image shows, and says where that stands if it was not said.
fn labelled(args: &Eval, listing: Listing, classifier: &Classifier) -> Result<Dataset> {
    let labels = args.labels.labels.as_deref();
    let names = Classes::new(classifier.labels());
    let dataset = Dataset::new(listing, &names, labels, args.labels.class_map.as_deref())?;
    if let (Some(file), None) = (dataset.labels_from(), labels) {
        say("note", &format!("labels from {}", printable(&file.display().to_string())));
    }
    Ok(dataset)
}

/// How far an evaluation is.
struct Evaluation {
    tally: Tally,
    real: Option<RealLabels>,
    writer: Option<Writer>,
    /// Images that have been evaluated, also by an earlier process.
    done: usize,
}

impl Evaluation {
    /// Opens the file of predictions, if there is to be one, and adds up what it holds already.
    fn begin(args: &Eval, run: &Run, dataset: &Dataset, real: Option<RealLabels>) -> Result<Self> {
        let mut tally = Tally::default();
        let mut done = 0;
        let writer = match (&args.results.predictions, &args.results.resume) {
            (Some(path), _) => Some(Writer::create(path, run.clone())?),
            (None, Some(path)) => {
                let mut each = |row: Row| tally.add(&row, real.as_ref());
                let (writer, rows) = Writer::resume(path, run.clone(), dataset, args.batch_size, &mut each)?;
                done = rows.unwrap_or_default();
                let expected = run.shard.images(dataset.images()).count();
                let (done, of) = (thousands(done as u64), thousands(expected as u64));
                let text = match rows {
                    Some(_) => format!("{}: {done} of {of} images are done", path.display()),
                    None => format!("{} is not there yet: begun", path.display()),
                };
                say("note", &text);
                Some(writer)
            }
            (None, None) => None,
        };
        Ok(Self { tally, real, writer, done })
    }

    /// Evaluates what is left of the `expected` images, or as much as there is until somebody interrupts it.
    /// Returns how many images it evaluated, and how long that took.
    fn go_on(
        &mut self,
        args: &Eval,
        run: &Run,
        classifier: &Classifier,
        dataset: &Dataset,
        expected: usize,
    ) -> Result<(u64, Duration)> {
        let before = self.done;
        let interrupted = interruption()?;
        let mut progress = Progress::new(expected as u64, before as u64);
        let workers = args.workers.unwrap_or_else(rayon::current_num_threads);
        let pipeline = Pipeline { batch_size: args.batch_size, workers, pictures: run.pictures() };
        let images = run.shard.images(dataset.images()).skip(before);
        evaluate(classifier, dataset, images, pipeline, |rows| -> Result<_> {
            for row in &rows {
                self.tally.add(row, self.real.as_ref());
                progress.tell(&self.tally, row);
            }
            if let Some(writer) = &mut self.writer {
                writer.append(&rows)?;
            }
            self.done += rows.len();
            progress.advance(rows.len() as u64, &self.tally);
            let stop = interrupted.load(Ordering::Relaxed) && self.done < expected;
            Ok(if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(((self.done - before) as u64, progress.finish()))
    }
}

/// Says how to go on with an evaluation that was interrupted.
fn say_interrupted(args: &Eval, done: usize, expected: usize) {
    let way_on = match args.results.predictions.as_ref().or(args.results.resume.as_ref()) {
        Some(path) => format!(
            "what is done is in {}; go on with the same command and --resume {}",
            partial(path).display(),
            path.display()
        ),
        None => "nothing was kept; with --predictions FILE, a run can be continued".to_string(),
    };
    let (done, of) = (thousands(done as u64), thousands(expected as u64));
    say("interrupted", &format!("{done} of {of} images; {way_on}"));
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
    let images = match &args.imagenet_val {
        Some(images) => Some(Listing::new(&data_sets::here(images, None)?.0)?),
        None => None,
    };
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
    print_and_go_on(&if args.results.json { to_json(summary)? } else { table::table(args, summary) })
}
