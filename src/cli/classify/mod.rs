//! `qlnet classify`: what is in pictures.
//!
//! ```text
//! answers     what is printed for programs: JSON and CSV, and what produced it
//! table       what is printed for people
//! pictures    --explain: where the network looked, a picture for each image
//! report      --report: a page of all images
//! ```

mod answers;
mod pictures;
mod report;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use clap::Args;

use self::answers::{Answer, Provenance, Rows};
use self::pictures::Pictures;
use self::report::Report;
use self::table::table;
use super::arguments::{ModelArgs, PreprocessArgs, positive};
use super::images::{Batch, Image, ImageArgs, Progress, exit_code};
use super::interruption::{INTERRUPTED, interruption};
use super::print::{is_broken_pipe, print, print_and_go_on, to_json};
use crate::error;
use crate::network::{Classifier, Explanation};

/// Say what is in pictures
///
/// Prints the most likely classes of every image with their probabilities. An image that cannot be
/// read is reported and the others are still classified; the exit code is then 1.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Classify {
    /// How many classes to print for an image
    #[arg(short = 'k', long, default_value_t = 5, value_name = "K", value_parser = positive)]
    pub top_k: usize,
    /// Print a line of JSON for each image
    ///
    /// {"image", "model", "predictions": [{"index", "wnid", "label", "probability", "logit"}]}, "warning" if the file
    /// is damaged, "image_base64" if its name is not UTF-8. With --explain, each prediction has its "map", numbers in
    /// rows whose mean is the logit, and the image has the "picture" that was written.
    #[arg(long)]
    pub json: bool,
    /// Print CSV, a row for each class of each image
    ///
    /// The columns are image, rank, index, wnid, label, probability, logit and image_base64, which is empty unless the
    /// name of the image is not UTF-8.
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Say first what produced the results (--json, --csv)
    ///
    /// With --json in a line of its own before the others: {"qlnet", "model", "weights_sha256", "classes", "preprocess",
    /// "jpeg_decoder", "exif", "strict", "max_pixels", "dtype", "device", "instructions"}. With --csv the same JSON in a
    /// column `run` of the first row, as in eval's predictions.
    #[arg(long)]
    pub header: bool,
    /// Write pictures of where the network looked
    ///
    /// For each image DIR/NAME.png: what the network sees, and over it the map of each of the first classes (five at
    /// most). A map shows what each place adds to the class's logit, which is exactly their mean.
    #[arg(long, value_name = "DIR")]
    pub explain: Option<PathBuf>,
    /// Write a page to look through many images
    ///
    /// One HTML file with all images, their classes, and the maps of these on demand; to sort and to filter. The table
    /// of results is not printed then.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub images: ImageArgs,
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  qlnet classify photo.png                          its five most likely classes
  qlnet classify holidays --report sheet.html       a page of a folder, with maps on demand
  qlnet classify photo.png --explain maps           pictures of where the network looked
  qlnet classify holidays --json | jq -r '[.image, .predictions[0].label] | @tsv'
  find . -name '*.jpg' -print0 | qlnet classify --image-list - -0 --csv > classes.csv
  curl -s https://example.org/cat.jpg | qlnet classify -
  qlnet classify samples/digits/3-45.png --model qlnet-digits      no download";

/// Classifies the pictures that the arguments name.
pub fn run(args: &Classify) -> Result<ExitCode> {
    let preprocess = args.preprocess.resolve(args.model.registered())?;
    ensure!(!args.header || args.json || args.csv, "--header is for programs: it goes with --json or --csv");
    let report = args.report.as_deref().map(report::output).transpose()?;
    let Some(images) = args.images.find()? else { return Ok(ExitCode::FAILURE) };
    let read = [args.model.weights.as_deref(), args.images.list()];
    if let Some(path) = &args.report {
        report::ensure_nothing_is_lost(path, images.paths(), &read.into_iter().flatten().collect::<Vec<_>>())?;
    }
    let pictures = args.explain.as_deref().map(|directory| Pictures::create(directory, images.paths())).transpose()?;
    let (classifier, sha256) = args.model.load(preprocess)?;
    let model = args.model.shown_name();
    let provenance = Provenance::new(&classifier, &model, &sha256, images.options());
    let report = report.map(|output| Report::begin(output, args, &provenance, &classifier, &images)).transpose()?;
    let interrupted = (report.is_some() || pictures.is_some()).then(interruption).transpose()?;
    let provenance = args.header.then(|| to_json(&provenance)).transpose()?;
    let mut session = Session {
        args,
        classifier,
        model,
        provenance,
        pictures,
        report,
        rows: Rows::default(),
        interrupted,
        first: true,
    };
    if let (true, Some(provenance)) = (args.json, &session.provenance) {
        if session.interrupted.is_some() { print_and_go_on(provenance) } else { print(provenance) }?;
    }
    let count = images.paths().len();
    let outcome = images.run(&preprocess, |progress, batch| session.batch(progress, &batch));
    if outcome.is_err() && session.interrupted.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
        if let Some(report) = session.report {
            report.say_interrupted(count);
        }
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let failures = outcome?;
    if let (true, Some(names)) = (args.csv, session.rows.names(session.provenance.is_some())) {
        print_and_go_on(&names)?;
    }
    if let Some(report) = session.report {
        report.finish(&failures)?;
    }
    Ok(exit_code(&failures))
}

/// What all batches of a run have in common.
struct Session<'a> {
    args: &'a Classify,
    classifier: Classifier,
    /// What the model is called in results.
    model: String,
    /// What produces the results, if that is to be said.
    provenance: Option<String>,
    pictures: Option<Pictures>,
    report: Option<Report>,
    rows: Rows,
    /// Set when the program is asked to stop, if there are files that would be left half-written.
    interrupted: Option<Arc<AtomicBool>>,
    /// Whether nothing has been printed for people yet.
    first: bool,
}

impl Session<'_> {
    /// Runs images through the network together, prints what it says of each, and adds it to what is written.
    fn batch(&mut self, progress: &mut Progress, batch: &Batch) -> Result<()> {
        let mut explained = Vec::new();
        for (place, outcome) in self.explanations(batch)?.into_iter().enumerate() {
            match outcome {
                Ok(explanations) => explained.push((place, explanations)),
                Err(error) => progress.report_image(batch.images[place].path, error),
            }
        }
        let mut written = vec![None; batch.images.len()];
        if let Some(pictures) = &mut self.pictures {
            pictures.write(&self.model, batch, &explained, &mut written)?;
        }
        for (place, explanations) in &explained {
            let text = self.text(&batch.images[*place], explanations, written[*place].as_deref())?;
            let Some(text) = text else { continue };
            match progress.print(&text) {
                // Whoever reads has seen enough, but there are files to write.
                Err(error) if is_broken_pipe(&error) && (self.pictures.is_some() || self.report.is_some()) => {}
                printed => printed?,
            }
        }
        if let Some(report) = &mut self.report {
            report.append(batch, &explained)?;
        }
        let interrupted = self.interrupted.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed));
        ensure!(!interrupted, "interrupted");
        Ok(())
    }

    /// What the network says of each image; with maps only if these are asked for.
    fn explanations(&self, batch: &Batch) -> Result<Vec<error::Result<Vec<Explanation>>>> {
        let top_k = self.args.top_k;
        if batch.images.is_empty() {
            return Ok(Vec::new());
        }
        if self.pictures.is_some() || self.report.is_some() {
            return Ok(self.classifier.explain_crops(&batch.crops, top_k)?);
        }
        let without = |prediction| Explanation { prediction, map: Vec::new() };
        let outcomes = self.classifier.classify_crops(&batch.crops, top_k)?.into_iter();
        Ok(outcomes.map(|outcome| Ok(outcome?.into_iter().map(without).collect())).collect())
    }

    /// What is printed of an image. A page of all images replaces the table.
    fn text(&mut self, image: &Image, explanations: &[Explanation], picture: Option<&Path>) -> Result<Option<String>> {
        let Self { args, model, .. } = self;
        Ok(Some(match () {
            () if args.json => {
                let maps = args.explain.is_some();
                to_json(&Answer::new(image, model, explanations, maps, picture))?
            }
            () if args.csv => self.rows.of(image.path, explanations, self.provenance.as_deref())?,
            () if args.report.is_some() => return Ok(None),
            () => {
                let predictions = explanations.iter().map(|explanation| &explanation.prediction);
                let mut text = table(&image.path.display().to_string(), predictions, std::mem::take(&mut self.first));
                if let Some(picture) = picture {
                    text += &format!("\n  where it looked: {}", crate::text::printable(&picture.display().to_string()));
                }
                text
            }
        }))
    }
}
