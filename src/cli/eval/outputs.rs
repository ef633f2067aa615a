//! The files that are written when an evaluation is done.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::arguments::{Eval, LabelArgs};
use super::sets::Files;
use crate::cli::output::{create, ensure_distinct, ensure_ending, to_csv};
use crate::cli::print::say;
use crate::eval::dataset::Listing;
use crate::eval::per_class::class_rows;
use crate::eval::report::Report;
use crate::eval::{Summary, Tally};
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
        let LabelArgs { labels, class_map, valid_labels, real_labels, restrict_to_present: _ } = &args.labels;
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
            let missing = Cell::new(0);
            let crop = |path: &str| {
                let images = images?;
                let image = images.find(path);
                missing.set(missing.get() + usize::from(image.is_none()));
                let bytes = images.read(image?).ok()?;
                let crop = summary.run.preprocess.crop_of(&bytes, path.as_ref(), summary.run.pictures());
                crop.ok().map(|crop| crop.pixels)
            };
            let report = Report { run: summary.run, tally, labels, data, part: summary.part(), crop: &crop };
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
