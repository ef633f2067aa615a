//! The files that are written when an evaluation is done.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

use super::arguments::{Eval, LabelArgs};
use super::sets::Files;
use crate::cli::output::{create, ensure_distinct, ensure_ending, to_csv};
use crate::cli::print::say;
use crate::eval::dataset::Listing;
use crate::eval::per_class::class_rows;
use crate::eval::report::{Origin, Pictures, Process, Report};
use crate::eval::{Run, Summary, Tally};
use crate::output::Output;
use crate::page::address;
use crate::weights::registry::Label;

/// What to call images that were named alone.
pub fn title(data: &Path) -> String {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_path_buf());
    data.file_name().map_or_else(String::new, |name| name.to_string_lossy().into())
}

/// The files that are written at the end, opened at the beginning.
pub struct Outputs {
    per_class: Option<Output>,
    report: Option<Page>,
}

/// A page that is to be written.
pub struct Page {
    output: Output,
    /// Where it is: its links begin there.
    path: PathBuf,
    /// When the work for it began.
    origin: Origin,
}

/// What is written.
pub struct Outcome<'a> {
    /// What to call the images.
    pub data: &'a str,
    pub summary: &'a Summary<'a>,
    pub tally: &'a Tally,
    pub labels: &'a [Label],
    /// Without them, a report has no pictures.
    pub images: Option<&'a Listing>,
    /// How they were computed, if just now.
    pub process: Option<Process>,
}

impl Page {
    /// A page of that name, if there is to be one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(path: &Option<PathBuf>) -> Result<Option<Self>> {
        let page = create(path)?.zip(path.clone());
        Ok(page.map(|(output, path)| Self { output, path, origin: Origin::now() }))
    }

    /// Writes it, with pictures of these images as that run's network saw them.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(
        self,
        images: Option<&Listing>,
        run: &Run,
        html: impl FnOnce(&Origin, Pictures) -> String,
    ) -> Result<()> {
        let missing = AtomicUsize::new(0);
        let find = |paths: &[&str]| paths.iter().find_map(|path| Some((path.to_string(), images?.find(path)?)));
        let crop = |paths: &[&str]| {
            let found = find(paths);
            missing.fetch_add(usize::from(found.is_none()), Ordering::Relaxed);
            let (path, image) = found?;
            let bytes = images?.read(image).ok()?;
            let crop = run.preprocess.crop_of(&bytes, path.as_ref(), run.pictures());
            crop.ok().map(|crop| crop.pixels)
        };
        let link = |paths: &[&str]| address(&images?.root()?.join(find(paths)?.0), &self.path);
        let html = html(&self.origin, Pictures { crop: &crop, link: &link });
        self.output.write(html.as_bytes())?;
        if images.is_none() {
            say("note", "the report has no pictures; name the images too, with --imagenet-val");
        } else if missing.into_inner() > 0 {
            say("note", "the report lacks pictures: --imagenet-val does not hold all images that were evaluated");
        }
        Ok(())
    }
}

impl Outputs {
    /// Those of each set. Checks their names, and that they can be written.
    ///
    /// # Errors
    /// If one cannot, or would be written over another file of this run.
    pub fn create(args: &Eval, sets: &[&Files]) -> Result<Vec<Self>> {
        ensure_ending(&args.results.per_class, &["csv"], "the name of the file for --per-class")?;
        ensure_ending(&args.results.report, &["html", "htm"], "the name of a report")?;
        let outputs: Vec<PathBuf> = sets.iter().flat_map(|files| files.paths()).collect();
        let LabelArgs { labels, class_map, valid_labels, real_labels, .. } = &args.labels;
        let inputs = [labels, class_map, valid_labels, real_labels, &args.model.weights].into_iter().flatten();
        ensure_distinct(&outputs, &inputs.chain(&args.results.merge).cloned().collect::<Vec<_>>())?;
        let of_set =
            |files: &&Files| Ok(Self { per_class: create(&files.per_class)?, report: Page::create(&files.report)? });
        sets.iter().map(of_set).collect()
    }

    /// Writes them.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(self, outcome: Outcome) -> Result<()> {
        let Outcome { data, summary, tally, labels, images, process } = outcome;
        if tally.images == 0 {
            return Ok(());
        }
        if let Some(output) = self.per_class {
            output.write(&to_csv(&class_rows(tally, labels))?)?;
        }
        if let Some(page) = self.report {
            page.write(images, summary.run, |origin, pictures| {
                Report { summary, tally, labels, data, origin, process, pictures }.html()
            })?;
        }
        Ok(())
    }
}
