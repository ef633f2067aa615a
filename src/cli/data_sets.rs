//! Data sets that are named as on the hub, and what a person sees while they are downloaded.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::loading::{Download, say_if_it_takes_long};
use super::print::say;
use crate::hub::{DatasetEvent, DatasetFiles, DatasetName, Hub, PREFIX};
use crate::text::{bytes, printable};

/// Where images are on this machine that are named by a path, or as `hf:OWNER/NAME[@REVISION][:SPLIT]`: these are
/// downloaded. Returns their folder or their only file, and the split whose files are meant, if one is named or was
/// chosen.
pub fn here(images: &Path, split: Option<&str>) -> Result<(PathBuf, Option<String>)> {
    match images.to_str().filter(|text| text.starts_with(PREFIX)) {
        Some(text) => {
            let name: DatasetName = text.parse()?;
            let split = name.split.clone().or(split.map(String::from));
            let found = fetched(&name, split.as_deref())?;
            let path = if let [file] = &*found.files { file.clone() } else { found.dir };
            Ok((path, split.or(found.split)))
        }
        None => Ok((images.into(), split.map(String::from))),
    }
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
