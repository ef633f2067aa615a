//! Files that are there whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use tempfile::NamedTempFile;

/// A file that is to be written later, as a whole.
pub struct Output {
    path: PathBuf,
}

impl Output {
    /// Finds out whether the file can be written, before work is done for it.
    ///
    /// # Errors
    /// If its directory is missing or cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let path = target(path)?;
        temporary(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path })
    }

    /// Writes the content under another name beside it, and then gives it its name.
    ///
    /// # Errors
    /// If it cannot be written, as on a full disk.
    pub fn write(self, content: &[u8]) -> Result<()> {
        let write = || {
            let mut file = temporary(&self.path)?;
            file.write_all(content)?;
            file.as_file().sync_all()?;
            file.persist(&self.path).map_err(|error| error.error)
        };
        write().map(drop).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// The file that is meant: where a link leads, and nothing that is no file.
///
/// # Errors
/// If there is a directory or a device of that name.
pub fn target(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(path.canonicalize()?),
        Ok(metadata) if metadata.is_dir() => bail!("cannot write {shown}: it is a directory"),
        Ok(_) => bail!("cannot write {shown}: it is not a regular file"),
        Err(_) => Ok(path.to_path_buf()),
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
    let others = |place: usize| inputs.iter().chain(&outputs[..place]);
    for (place, output) in outputs.iter().enumerate() {
        let same = |other: &Path| absolute(other).is_some_and(|other| Some(other) == absolute(output));
        if let Some(other) = others(place).find(|other| same(other)) {
            bail!("{} would be written over {}; give it another name", output.display(), other.display());
        }
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

/// A file in the same directory, which is removed when it is dropped.
fn temporary(path: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".qlnet-");
    #[cfg(unix)]
    {
        // As any file that is created, less what the umask takes away.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(directory(path)).map_err(|error| {
        // Without the temporary name, which says nothing to anybody.
        let text = error.to_string();
        std::io::Error::new(error.kind(), text.split(" at path ").next().unwrap_or_default().to_string())
    })
}

/// The directory that a file is in.
fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.html");
        let output = Output::create(&path).unwrap();
        assert!(!path.exists());
        drop(output);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing temporary is left");
        std::fs::write(&path, "old").unwrap();
        Output::create(&path).unwrap().write(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(Output::create(dir.path()).is_err());
        assert!(Output::create(&dir.path().join("missing/report.html")).is_err());
        let distinct = |outputs: &[&str], inputs: &[&str]| {
            let paths = |names: &[&str]| names.iter().map(|name| dir.path().join(name)).collect::<Vec<_>>();
            ensure_distinct(&paths(outputs), &paths(inputs)).is_ok()
        };
        assert!(distinct(&["report.html", "other"], &["labels"]));
        assert!(!distinct(&["report.html", "./report.html"], &[]) && !distinct(&["new"], &["new"]));
        #[cfg(unix)]
        {
            // A link is followed; a device stays one.
            let link = dir.path().join("link.html");
            std::os::unix::fs::symlink(&path, &link).unwrap();
            Output::create(&link).unwrap().write(b"through").unwrap();
            assert!(link.is_symlink() && std::fs::read(&path).unwrap() == b"through");
            assert!(Output::create(Path::new("/dev/null")).is_err());
        }
    }
}
