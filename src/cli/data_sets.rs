//! Data sets that are named as on the hub, and what a person sees while they are downloaded.

use std::path::Path;

use anyhow::Result;

use super::loading::{Download, say_if_it_takes_long};
use super::print::say;
use crate::eval::dataset::{Layout, Listing};
use crate::hub::{DatasetEvent, DatasetFiles, DatasetName, Hub, PREFIX};
use crate::text::{bytes, printable};

/// The images that a path stands for, or a name such as `hf:OWNER/NAME[@REVISION][:SPLIT]`: of these, the files are
/// downloaded as far as they are not here.
pub fn listing(images: &Path, layout: &Layout) -> Result<Listing> {
    let Some(text) = images.to_str().filter(|text| text.starts_with(PREFIX)) else {
        return Ok(Listing::open(images, layout)?);
    };
    let name: DatasetName = text.parse()?;
    let split = name.split.clone().or_else(|| layout.split.clone());
    let found = fetched(&name, split.as_deref())?;
    Ok(Listing::of_files(images, found.files, layout)?)
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
            match &download {
                Some(download) => download.suspend(|| say("note", text)),
                None => say("note", text),
            }
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
