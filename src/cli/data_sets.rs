//! Data sets that are named as on the hub, and what a person sees while they are downloaded.

use std::path::Path;

use anyhow::Result;

use super::loading::{Download, note_beside, say_if_it_takes_long};
use super::print::say;
use crate::eval::dataset::{Layout, Listing};
use crate::hub::{DatasetEvent, DatasetFiles, DatasetName, Hub, PREFIX};
use crate::text::{bytes, printable};

/// The images that a path stands for, or a name such as `hf:OWNER/NAME[@REVISION][:SPLIT]`: of these, the files are
/// downloaded as far as they are not here.
pub fn listing(images: &Path, layout: &Layout) -> Result<Listing> {
    let Some(name) = name_on_hub(images)? else { return Ok(Listing::open(images, layout)?) };
    let found = fetched(&name, layout.split.as_deref())?;
    Ok(Listing::of_files(images, found.files, layout)?)
}

/// Whether a data set is named as on the hub.
pub fn is_on_hub(images: &Path) -> bool {
    images.to_str().is_some_and(|text| text.starts_with(PREFIX))
}

/// The data set that is named as on the hub, if one is.
///
/// # Errors
/// If it cannot be the name of one.
pub fn name_on_hub(images: &Path) -> Result<Option<DatasetName>> {
    let text = images.to_str().filter(|_| is_on_hub(images));
    Ok(text.map(str::parse).transpose()?)
}

/// Downloads the files of a split, as far as they are not here.
fn fetched(name: &DatasetName, split: Option<&str>) -> Result<DatasetFiles> {
    let shown = printable(&name.to_string());
    let mut download: Option<Download> = None;
    // Dropped at the end, which ends the waiting.
    let mut checking = None;
    let result = Hub::from_env().dataset(name, split, &mut |event| match event {
        DatasetEvent::Checking(size) => {
            let text = format!("checking the {} of {shown} that are here, which is done once", bytes(size));
            checking = Some(say_if_it_takes_long(text));
        }
        DatasetEvent::Progress { file, files, bytes, size } => {
            checking = None;
            let download = download.get_or_insert_with(|| Download::new(&shown, size, bytes));
            download.name(format!("{shown}, file {file} of {files}"));
            download.at(bytes);
        }
        DatasetEvent::Notice(text) => {
            checking = None;
            note_beside(download.as_ref(), text);
        }
    });
    drop(checking);
    if let Some(download) = &download {
        download.finish();
    }
    let found = result?;
    if download.is_some() {
        say("note", &format!("{shown} is here now, {}", found.dir.display()));
    }
    if let Some(note) = &found.note {
        say("note", &format!("{shown}: {note}"));
    }
    Ok(found)
}
