//! One set of images: from what was asked for to its result.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::arguments::{Eval, LabelArgs};
use super::outputs::{Outcome, Outputs, title};
use super::progress::Progress;
use super::sets::Set;
use super::table::{self, Line};
use super::verdict::Verdict;
use super::{InSet, show};
use crate::cli::arguments::ensure_batch;
use crate::cli::print::{print_and_go_on, say, to_json};
use crate::error::{DatasetProblem, Error};
use crate::eval::dataset::{Classes, Dataset, LabelFiles, Listing, RealLabels, read_outputs};
use crate::eval::predictions::{Writer, partial, without_partial};
use crate::eval::report::Process;
use crate::eval::{Pipeline, Row, Run, Shard, Summary, Tally, evaluate};
use crate::network::classifier::Classifier;
use crate::text::{printable, thousands};

/// What all sets share.
pub struct Session<'a> {
    pub args: &'a Eval,
    pub classifier: Classifier,
    /// Of the file of weights.
    pub sha256: String,
    /// Whether there are several sets: each is named then.
    pub several: bool,
    /// Set when the program is asked to stop.
    pub interrupted: Arc<AtomicBool>,
    pub verdict: Verdict,
    /// Folders of ImageNet-C of which it was said that classes are missing: all of its parts lack the same.
    pub noted: BTreeSet<String>,
}

/// A set whose images are known, and what they show.
pub struct Prepared {
    dataset: Dataset,
    real: Option<RealLabels>,
    run: Run,
    /// Images of this shard.
    expected: usize,
}

impl Session<'_> {
    /// The set's name, if there are several.
    fn name<'a>(&self, set: &'a Set) -> Option<&'a str> {
        self.several.then_some(set.name.as_str())
    }

    /// How images are computed.
    fn process(&self) -> Process {
        let (threads, dtype) = (rayon::current_num_threads(), self.args.model.precision());
        let workers = self.args.workers.unwrap_or(threads);
        let instructions = dtype.instructions(self.classifier.device());
        Process { threads, workers, batch_size: self.args.batch_size, instructions }
    }

    /// Says something of a set.
    fn note(&self, set: &Set, text: &str) {
        let name = self.name(set).map_or(String::new(), |name| format!("{name}: "));
        say("note", &format!("{name}{text}"));
    }

    /// Finds out what each image shows, and which of them are to be scored, and how.
    ///
    /// # Errors
    /// If an image has no class, or a class that is not scored, or no image is left.
    pub fn prepare(&mut self, set: &Set, listing: Listing) -> Result<Prepared> {
        self.classifier.set_preprocess(set.preprocess)?;
        let args = self.args;
        let real = self.real_labels(set, &listing)?;
        let dataset = self.labelled(set, listing)?;
        let dataset = self.restricted(set, dataset).with_context(|| set.path.display().to_string())?;
        let selection = args.part.selection();
        let dataset = dataset.select(selection);
        let shard = args.part.shard.unwrap_or(Shard::WHOLE);
        let expected = shard.images(dataset.images()).count();
        let of = self.name(set).map_or(String::new(), |name| format!(" of {name}"));
        ensure!(expected > 0, "shard {shard}{of} is empty: there are only {} images", dataset.images());
        ensure_batch(args.batch_size.min(expected), set.preprocess.crop)?;
        let (model, pictures) = (args.model.registered(), args.pictures.options(false));
        let mut run = Run::new(model, self.sha256.clone(), &self.classifier, &dataset, selection, shard, pictures);
        run.weights_file = args.model.weights.as_ref().map(|file| file.display().to_string());
        Ok(Prepared { dataset, real, run, expected })
    }

    /// The set's labels in ImageNet-ReaL. Of several sets, those may go without that it does not have.
    fn real_labels(&self, set: &Set, listing: &Listing) -> Result<Option<RealLabels>> {
        let Some(file) = &self.args.labels.real_labels else { return Ok(None) };
        let classes = self.classifier.labels().len();
        if self.several {
            // What is wrong with the file itself is an error all the same.
            RealLabels::open(file, std::iter::empty(), classes)?;
        }
        match RealLabels::open(file, listing.paths(), classes) {
            Err(Error::Dataset { problem: DatasetProblem::Labels, reason }) if self.several => {
                self.note(set, &format!("without ReaL: {}", printable(&reason.to_string())));
                Ok(None)
            }
            real => Ok(real.map(Some)?),
        }
    }

    /// Finds out what each image shows, and says where that stands if it was not said.
    fn labelled(&self, set: &Set, listing: Listing) -> Result<Dataset> {
        let args = &self.args.labels;
        let names = Classes::new(self.classifier.labels());
        let LabelArgs { labels, class_map, zero_based, .. } = args;
        let files = LabelFiles { labels: labels.as_deref(), class_map: class_map.as_deref(), zero_based: *zero_based };
        let dataset = Dataset::new(listing, &names, files)?;
        if let (Some(file), None) = (dataset.labels_from(), &args.labels) {
            self.note(set, &format!("labels from {}", printable(&file.display().to_string())));
        }
        for note in [dataset.listing().note(), dataset.note()].into_iter().flatten() {
            self.note(set, &printable(note));
        }
        Ok(dataset)
    }

    /// Says which outputs count. That some classes have no images changes nothing unless it was asked for.
    fn restricted(&mut self, set: &Set, dataset: Dataset) -> Result<Dataset> {
        let (args, classes) = (&self.args.labels, self.classifier.labels().len());
        let present = dataset.classes_present();
        let outputs = match &args.valid_labels {
            Some(file) => read_outputs(file, &Classes::new(self.classifier.labels()))?,
            None if args.restrict_to_present => present,
            None => {
                let new = set.corrupted.as_ref().is_none_or(|(all, _)| self.noted.insert(all.clone()));
                // Where something was said of labels that came with the images, they may not be what they seem.
                let doubtful = dataset.note().is_some() && dataset.listing().is_labelled();
                if present.len() < classes && new && !doubtful {
                    let [few, all] = [present.len(), classes].map(|count| thousands(count as u64));
                    let way = "--restrict-to-present scores them among those alone, as ImageNet-A and ImageNet-R are";
                    self.note(set, &format!("images of {few} classes, scored among the model's {all}; {way}"));
                }
                return Ok(dataset);
            }
        };
        Ok(if outputs.len() < classes { dataset.restrict(outputs)? } else { dataset })
    }

    /// Evaluates a set, prints its result where it stands alone or is one of JSON's lines, and writes its files.
    /// Returns its line of a table of several sets.
    ///
    /// # Errors
    /// If the network overflows, the device fails or a file cannot be written.
    pub fn evaluate(&mut self, set: &Set, prepared: Prepared, outputs: Outputs) -> Result<Line> {
        self.classifier.set_preprocess(set.preprocess)?;
        let Prepared { dataset, real, run, expected } = prepared;
        let mut evaluation = Evaluation::begin(self.args, set, &run, &dataset, real)?;
        let timing = evaluation.go_on(self, &run, &dataset, expected)?;
        let Evaluation { tally, writer, done, .. } = evaluation;
        let summary = Summary::new(&tally, &run, Some(timing));
        // The result first: whatever happens to the files, it is seen. If it cannot be printed, they are written.
        let printed = match self.name(set) {
            None => show(self.args, &summary, table::table),
            Some(_) if self.args.results.json => print_and_go_on(&to_json(&InSet::new(set, &summary))?),
            Some(_) => Ok(()),
        };
        let line = Line::new(set, &summary, timing);
        if done < expected {
            self.say_interrupted(set, done, expected);
            return printed.map(|()| line);
        }
        if let Some(writer) = writer {
            writer.finish()?;
        }
        let title = if self.several { set.name.clone() } else { title(&set.path) };
        outputs.write(Outcome {
            data: &title,
            summary: &summary,
            tally: &tally,
            labels: self.classifier.labels(),
            images: Some(dataset.listing()),
            process: Some(self.process()),
        })?;
        self.verdict.add(self.name(set), &tally);
        printed.map(|()| line)
    }

    /// Says how to go on with an evaluation that was interrupted.
    fn say_interrupted(&self, set: &Set, done: usize, expected: usize) {
        let results = &self.args.results;
        let own = set.files.predictions.as_ref().or(set.files.resume.as_ref());
        let way_on = match own.zip(results.predictions.as_ref().or(results.resume.as_ref())) {
            Some(_) if done == 0 => "nothing is done yet; the same command begins again".to_string(),
            Some((own, named)) => format!(
                "what is done is in {}; go on with the same command and --resume {}",
                partial(own).display(),
                without_partial(named).display()
            ),
            None => "nothing was kept; with --predictions FILE, a run can be continued".to_string(),
        };
        let (done, of) = (thousands(done as u64), thousands(expected as u64));
        let name = self.name(set).map_or(String::new(), |name| format!(" of {name}"));
        say("interrupted", &format!("{done} of {of} images{name}; {way_on}"));
    }
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
    fn begin(args: &Eval, set: &Set, run: &Run, dataset: &Dataset, real: Option<RealLabels>) -> Result<Self> {
        let mut tally = Tally::default();
        let mut done = 0;
        let writer = match (&set.files.predictions, &set.files.resume) {
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
    fn go_on(&mut self, session: &Session, run: &Run, dataset: &Dataset, expected: usize) -> Result<(u64, Duration)> {
        let before = self.done;
        let Session { classifier, interrupted, .. } = session;
        let mut progress = Progress::new(expected as u64, before as u64);
        let Process { workers, batch_size, .. } = session.process();
        let pipeline = Pipeline { batch_size, workers, pictures: run.pictures() };
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
