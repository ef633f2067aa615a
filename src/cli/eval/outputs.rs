//! The files that are written when an evaluation is done.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::arguments::{Eval, LabelArgs};
use crate::cli::output::{create, ensure_distinct, ensure_ending, to_csv};
use crate::cli::print::say;
use crate::eval::dataset::Listing;
use crate::eval::per_class::class_rows;
use crate::eval::report::Report;
use crate::eval::{Summary, Tally};
use crate::output::Output;
use crate::weights::registry::Label;

/// The files that are written at the end, opened at the beginning.
pub struct Outputs {
    per_class: Option<Output>,
    report: Option<Output>,
}

impl Outputs {
    /// Checks their names, and that they can be written.
    ///
    /// # Errors
    /// If one cannot, or would be written over another file of this run.
    pub fn create(args: &Eval) -> Result<Self> {
        ensure_ending(&args.results.per_class, &["csv"], "the name of the file for --per-class")?;
        ensure_ending(&args.results.report, &["html", "htm"], "the name of a report")?;
        let results = &args.results;
        let paths = |paths: [&Option<PathBuf>; 4]| paths.into_iter().flatten().cloned().collect::<Vec<_>>();
        let outputs = paths([&results.predictions, &results.resume, &results.per_class, &results.report]);
        let LabelArgs { labels, class_map, real_labels } = &args.labels;
        let inputs = [paths([labels, class_map, real_labels, &args.model.weights]), results.merge.clone()].concat();
        ensure_distinct(&outputs, &inputs)?;
        Ok(Self { per_class: create(&args.results.per_class)?, report: create(&args.results.report)? })
    }

    /// Writes them. Without `images`, the report has no pictures.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(
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
