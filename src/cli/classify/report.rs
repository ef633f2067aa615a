//! The page of all images.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Classify;
use super::answers::Provenance;
use crate::cli::images::{Batch, ImageName, Images};
use crate::cli::output::{ensure_distinct, ensure_ending, ensure_images_stay};
use crate::cli::print::say;
use crate::network::{Classifier, Explanation};
use crate::output::Output;
use crate::page::{Fact, Origin, address};
use crate::sheet::{About, Entry, Failures, Sheet};
use crate::text::{printable, size, thousands};

/// So many classes of each image are on the page, with a map each.
const CLASSES: usize = 10;

/// A page that is being written.
pub struct Report {
    path: PathBuf,
    sheet: Sheet,
}

/// Finds out whether the page can be written.
///
/// # Errors
/// If it cannot, or its name is not that of a page.
pub fn output(path: &Path) -> Result<Output> {
    ensure_ending(&Some(path.to_path_buf()), &["html", "htm"], "the name of a report")?;
    Ok(Output::create(path)?)
}

/// Refuses to write the page over a file that is read.
///
/// # Errors
/// If it would be.
pub fn ensure_nothing_is_lost(path: &Path, images: &[PathBuf], others: &[&Path]) -> Result<()> {
    let page = [path.to_path_buf()];
    ensure_distinct(&page, &others.iter().map(|other| other.to_path_buf()).collect::<Vec<_>>())?;
    ensure_images_stay(&page, images)
}

impl Report {
    /// Begins the page.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(
        output: Output,
        args: &Classify,
        provenance: &Provenance,
        classifier: &Classifier,
        images: &Images,
    ) -> Result<Self> {
        let count = images.paths().len();
        let title = match args.images.only().and_then(Path::file_name) {
            Some(name) => printable(&name.to_string_lossy()),
            None => format!("{} images", thousands(count as u64)),
        };
        let about = About {
            title,
            model: provenance.model.to_string(),
            facts: facts(provenance),
            labels: classifier.labels().to_vec(),
            images: count,
        };
        let path = args.report.clone().unwrap_or_default();
        Ok(Self { path, sheet: Sheet::begin(output, about)? })
    }

    /// Adds the images of a batch.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn append(&mut self, batch: &Batch, explained: &[(usize, Vec<Explanation>)]) -> Result<()> {
        let entries: Vec<_> = explained
            .iter()
            .map(|(place, explanations)| {
                let image = &batch.images[*place];
                let ImageName { image: name, image_base64: bytes } = image.path.into();
                let address = address(image.path, &self.path);
                let warning = image.warning.as_deref();
                let explanations = &explanations[..explanations.len().min(CLASSES)];
                Entry { name, bytes, address, warning, crop: &batch.crops[*place], explanations }
            })
            .collect();
        Ok(self.sheet.append(&entries)?)
    }

    /// Says that the page is not written.
    pub fn say_interrupted(&self, of: usize) {
        let [images, of] = [self.sheet.images(), of].map(|count| thousands(count as u64));
        let path = printable(&self.path.display().to_string());
        say("interrupted", &format!("{path} is not written, after {images} of {of} images"));
    }

    /// Ends the page, and says how large it is.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self, failures: &Failures) -> Result<()> {
        let images = thousands(self.sheet.images() as u64);
        let size = size(self.sheet.finish(failures)?);
        say("note", &printable(&format!("{}: {images} images, {size}", self.path.display())));
        Ok(())
    }
}

/// What produced the page.
fn facts(provenance: &Provenance) -> Vec<Fact> {
    let Provenance { qlnet, model, weights_sha256, preprocess, jpeg_decoder, exif, strict, dtype, device, .. } =
        provenance;
    let exif = if *exif { "turned as the camera noted" } else { "as stored" };
    let strict = if *strict { "refused" } else { "taken, and marked" };
    let instructions = provenance.instructions.as_ref().map_or(String::new(), |name| format!(", {name}"));
    let mut facts = vec![
        Fact::new("model", *model),
        Fact::with_code("weights", "SHA-256", *weights_sha256),
        Fact::new(
            "preprocessing",
            format!("{preprocess}; JPEG by {jpeg_decoder}; pictures {exif}, damaged ones {strict}"),
        ),
        Fact::new("device, dtype", format!("{device}, {dtype}{instructions}")),
        Fact::new("program", format!("qlnet {qlnet}")),
    ];
    facts.extend(Origin::now().facts());
    facts
}
