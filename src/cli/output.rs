//! The files that a command writes: which may be named, and how rows become CSV.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use serde::Serialize;

use crate::output::{Output, directory};

/// [`Output::create`] for a file that may not have been asked for.
///
/// # Errors
/// If it was, and cannot be written.
pub fn create(path: &Option<PathBuf>) -> Result<Option<Output>> {
    Ok(path.as_deref().map(Output::create).transpose()?)
}

/// Refuses a file whose name ends in none of `endings`. `what` names it in the message, such as `the name of
/// a report`.
///
/// # Errors
/// If the name ends in something else.
pub fn ensure_ending(path: &Option<PathBuf>, endings: &[&str], what: &str) -> Result<()> {
    match path {
        Some(path) if !path.extension().is_some_and(|found| endings.iter().any(|ending| found == *ending)) => {
            bail!("{}: {what} ends in .{}", path.display(), endings[0])
        }
        _ => Ok(()),
    }
}

/// Refuses to write two files under one name, or over a file that is read.
///
/// # Errors
/// If two of `outputs`, or one of them and one of `inputs`, are the same file.
pub fn ensure_distinct(outputs: &[PathBuf], inputs: &[PathBuf]) -> Result<()> {
    // A file that is not there yet is known by its directory.
    let absolute = |path: &Path| {
        path.canonicalize().ok().or_else(|| Some(directory(path).canonicalize().ok()?.join(path.file_name()?)))
    };
    let known = |paths: &[PathBuf]| paths.iter().map(|path| (path.clone(), absolute(path))).collect::<Vec<_>>();
    let (outputs, inputs) = (known(outputs), known(inputs));
    for (place, (output, own)) in outputs.iter().enumerate() {
        let mut others = inputs.iter().chain(&outputs[..place]);
        if let Some((other, _)) = others.find(|(_, other)| other.is_some() && other == own) {
            bail!("{} would be written over {}; give it another name", output.display(), other.display());
        }
    }
    Ok(())
}

/// Refuses to write a file over an image that is read. There may be very many images, and few have its name.
///
/// # Errors
/// If it would be.
pub fn ensure_images_stay(outputs: &[PathBuf], images: &[PathBuf]) -> Result<()> {
    for output in outputs {
        let real = output.canonicalize().unwrap_or_else(|_| output.clone());
        // Through a link, it may be any of them.
        let linked = real.file_name() != output.file_name();
        let named = |image: &&PathBuf| linked || image.file_name() == output.file_name() || image.is_symlink();
        ensure_distinct(std::slice::from_ref(output), &images.iter().filter(named).cloned().collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Rows as CSV with a header.
///
/// # Errors
/// If they have no fixed columns.
pub fn to_csv(rows: &[impl Serialize]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|row| writer.serialize(row))?;
    writer.into_inner().map_err(|error| anyhow!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn no_image_is_written_over_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("photo.png"), "").unwrap();
        std::os::unix::fs::symlink("photo.png", path("page.html")).unwrap();
        std::os::unix::fs::symlink("photo.png", path("link.png")).unwrap();
        let stay = |output: &str, image: &str| ensure_images_stay(&[path(output)], &[path(image)]).is_ok();
        assert!(!stay("page.html", "photo.png") && !stay("photo.png", "photo.png") && !stay("photo.png", "link.png"));
        assert!(stay("new.html", "photo.png") && stay("new.html", "link.png"));
    }

    #[test]
    fn no_file_is_written_twice_or_over_another() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("report.html"), "old").unwrap();
        let distinct = |outputs: &[&str], inputs: &[&str]| {
            let paths = |names: &[&str]| names.iter().map(|name| dir.path().join(name)).collect::<Vec<_>>();
            ensure_distinct(&paths(outputs), &paths(inputs)).is_ok()
        };
        assert!(distinct(&["report.html", "other"], &["labels"]));
        assert!(!distinct(&["report.html", "./report.html"], &[]) && !distinct(&["new"], &["new"]));
        assert!(!distinct(&["report.html"], &["./report.html"]));
    }
}
