//! The files that are written when an evaluation is done.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use anyhow::Result;
use image::RgbImage;

use super::arguments::{Eval, LabelArgs};
use super::sets::Files;
use crate::cli::output::{create, ensure_distinct, ensure_ending, to_csv};
use crate::cli::print::say;
use crate::eval::dataset::Listing;
use crate::eval::per_class::class_rows;
use crate::eval::report::Report;
use crate::eval::{Run, Summary, Tally};
use crate::output::Output;
use crate::weights::registry::Label;

/// What to call images that were named alone.
pub fn title(data: &Path) -> String {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_path_buf());
    data.file_name().map_or_else(String::new, |name| name.to_string_lossy().into())
}

/// The files that are written at the end, opened at the beginning.
pub struct Outputs {
    per_class: Option<Output>,
    report: Option<Output>,
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
        let of_set = |files: &&Files| Ok(Self { per_class: create(&files.per_class)?, report: create(&files.report)? });
        sets.iter().map(of_set).collect()
    }

    /// Writes them. `data` is what to call the images; without `images`, the report has no pictures.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(
        self,
        data: &str,
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
            let pictures = Pictures::new(images, summary.run);
            let crop = |path: &str| pictures.crop(&[path]);
            let report = Report { run: summary.run, tally, labels, data, part: summary.part(), crop: &crop };
            output.write(report.html().as_bytes())?;
            pictures.say_what_is_missing();
        }
        Ok(())
    }
}

/// The pictures of a report.
pub struct Pictures<'a> {
    images: Option<&'a Listing>,
    /// The run whose network saw them.
    run: &'a Run,
    /// How many were asked for that are not there.
    missing: Cell<usize>,
}

impl<'a> Pictures<'a> {
    /// From these images, if there are any.
    pub fn new(images: Option<&'a Listing>, run: &'a Run) -> Self {
        Self { images, run, missing: Cell::new(0) }
    }

    /// What the network saw of the image at one of these paths, if that can still be read.
    pub fn crop(&self, paths: &[&str]) -> Option<RgbImage> {
        let images = self.images?;
        let found = paths.iter().find_map(|path| Some((*path, images.find(path)?)));
        self.missing.set(self.missing.get() + usize::from(found.is_none()));
        let (path, image) = found?;
        let bytes = images.read(image).ok()?;
        let crop = self.run.preprocess.crop_of(&bytes, path.as_ref(), self.run.pictures());
        crop.ok().map(|crop| crop.pixels)
    }

    /// Says so if there are none, or if some were missing.
    pub fn say_what_is_missing(&self) {
        if self.images.is_none() {
            say("note", "the report has no pictures; give --imagenet-val too");
        } else if self.missing.get() > 0 {
            say("note", "the report lacks pictures: --imagenet-val does not hold all images that were evaluated");
        }
    }
}
