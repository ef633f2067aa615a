//! Begins a file of predictions, or continues it, and writes rows.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Error as IoError, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::reader::{LONGEST_LINE, Position, Reader};
use super::record::{COLUMNS, Record};
use super::{Format, partial, without_partial};
use crate::error::{Error, PredictionsProblem, Reason, Result, ensure};
use crate::eval::dataset::Dataset;
use crate::eval::{Row, Run};
use crate::output::{TRIES, has_name, sync_directory, target};

/// Writes a file of predictions. Dropped before there is a byte in it, it leaves none.
pub struct Writer {
    file: File,
    format: Format,
    /// Where the file is now.
    path: PathBuf,
    /// Where it is when it is complete.
    target: PathBuf,
    run: Run,
    rows: usize,
}

impl Writer {
    /// Begins a file. What has its name is replaced when it is complete.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written; [`Error::Predictions`] if the rows of an interrupted run are
    /// there, or the name says no format.
    pub fn create(path: &Path, run: Run) -> Result<Self> {
        let format = Format::of(path)?;
        if let Some(words) = run.too_many_classes() {
            return Err(
                PredictionsProblem::Format.error(format!("cannot write {}: the network has {words}", path.display()))
            );
        }
        let target = target(&without_partial(path))?;
        let path = partial(&target);
        let file = open(&path, true)?;
        // What cannot be read is not written over.
        let holds_rows = |file| Reader::open(&path, file).map_or(true, |begun| begun.is_some());
        let is_empty = file.metadata().is_ok_and(|metadata| metadata.len() == 0);
        if !is_empty && holds_rows(try_clone(&file, &path)?) {
            return Err(PredictionsProblem::Interrupted { file: target }
                .error(format!("{} holds predictions of a run that was interrupted", path.display())));
        }
        let mut writer = Self { file, format, path, target, run, rows: 0 };
        writer.truncate(0)?;
        Ok(writer)
    }

    /// Continues a file, and hands the rows that are kept to `each`. Except in float32 on the CPU, rows
    /// that were not written to the end of a batch are thrown away, since they depend on the batch.
    /// Returns how many rows are kept. If there is no file, begins it, and returns `None`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written; [`Error::Predictions`] if the file is of another run, or
    /// damaged.
    pub fn resume(
        path: &Path,
        run: Run,
        dataset: &Dataset,
        batch_size: usize,
        each: impl FnMut(Row),
    ) -> Result<(Self, Option<usize>)> {
        let target = target(&without_partial(path))?;
        let at = partial(&target);
        // Complete under its name, or as far as it got.
        let at = if at.exists() || !target.exists() { at } else { target.clone() };
        if !at.exists() {
            return Ok((Self::create(path, run)?, None));
        }
        let file = open(&at, false)?;
        let Some((reader, theirs)) = Reader::open(&at, try_clone(&file, &at)?)? else {
            drop(file);
            return Ok((Self::create(path, run)?, Some(0)));
        };
        ensure_same(&theirs, &run, &at)?;
        let (rows, kept) = keep(reader, &run, dataset, batch_size, each)?;
        let complete = rows == run.shard.images(dataset.images()).count();
        let mut writer = Self { file, format: Format::of(path)?, path: at, target, run, rows };
        if !complete {
            if writer.path == writer.target {
                let path = partial(&writer.target);
                std::fs::rename(&writer.target, &path).map_err(Error::io("rename", &writer.target))?;
                writer.path = path;
            }
            writer.truncate(kept.bytes)?;
        }
        Ok((writer, Some(rows)))
    }

    /// Cuts the file, to nothing or after a whole row, to go on from there.
    fn truncate(&mut self, length: u64) -> Result<()> {
        let cut = self.file.set_len(length).and_then(|()| self.file.seek(SeekFrom::Start(length)));
        cut.map(drop).map_err(|error| self.not_written(error))
    }

    /// Writes the rows of a batch, so that they are there even if the program is killed.
    ///
    /// # Errors
    /// [`Error::Predictions`] if they cannot be written, as on a full disk.
    pub fn append(&mut self, rows: &[Row]) -> Result<()> {
        let text = self.lines_of(rows).map_err(|error| self.not_written(error))?;
        self.rows += rows.len();
        self.file.write_all(&text).map_err(|error| self.not_written(error))
    }

    /// The lines to be written for these rows.
    fn lines_of(&self, rows: &[Row]) -> Result<Vec<u8>, Reason> {
        let mut text = Vec::new();
        for (index, row) in (self.rows..).zip(rows) {
            let mut run = None;
            if index == 0 {
                run = Some(serde_json::to_string(&self.run)?);
                if let Format::Csv = self.format {
                    writeln!(text, "{COLUMNS}")?;
                }
            }
            let line = Record::new(row, run).to_line(self.format)?;
            // As a path in an archive may be, and nothing would read it.
            ensure!(line.len() as u64 <= LONGEST_LINE, "the row of {} is longer than 1 MiB", row.path);
            text.extend(line);
        }
        Ok(text)
    }

    /// Gives the file its name: it is complete.
    ///
    /// # Errors
    /// If the disk or the directory does not take it.
    pub fn finish(self) -> Result<()> {
        self.file.sync_all().map_err(|error| self.not_written(error))?;
        if self.path != self.target {
            std::fs::rename(&self.path, &self.target).map_err(Error::io("write", &self.target))?;
        }
        sync_directory(&self.target);
        Ok(())
    }

    fn not_written(&self, error: impl Into<Reason>) -> Error {
        PredictionsProblem::NotWritten.error(format!("cannot write {}: {}", self.path.display(), error.into()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let is_empty = || self.file.metadata().is_ok_and(|metadata| metadata.len() == 0);
        if self.path != self.target && is_empty() && has_name(&self.file, &self.path) {
            // Under the lock.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Refuses to continue the file of another run.
fn ensure_same(theirs: &Run, ours: &Run, path: &Path) -> Result<()> {
    let differs = |what: &str, there: &str, here: &str| {
        (there != here).then(|| format!("another {what} ({there} there, {here} here)"))
    };
    let difference = theirs
        .difference(ours)
        .or_else(|| differs("shard", &theirs.shard.to_string(), &ours.shard.to_string()))
        .or_else(|| differs("device", &theirs.device, &ours.device));
    match difference {
        Some(difference) => Err(PredictionsProblem::OtherRun.error(format!("{} is of {difference}", path.display()))),
        None => Ok(()),
    }
}

/// Hands the rows that are kept to `each`. Returns how many they are, and where the last one ends.
fn keep(
    mut reader: Reader,
    run: &Run,
    dataset: &Dataset,
    batch_size: usize,
    mut each: impl FnMut(Row),
) -> Result<(usize, Position)> {
    // One by one where an image's numbers do not depend on its batch.
    let batch_size = if run.dtype == "f32" && run.device == "cpu" { 1 } else { batch_size };
    let (mut rows, mut kept) = (0, Position::default());
    let mut batch = Vec::new();
    let mut images = run.shard.images(dataset.images()).peekable();
    while let Some(row) = reader.row(run)? {
        let fits = |image| dataset.path(image) == row.path && dataset.label(image) == row.label;
        if !images.next().is_some_and(fits) {
            return Err(reader.damaged(Reason::new("the row is not that of the image in its place")));
        }
        batch.push(row);
        if batch.len() == batch_size || images.peek().is_none() {
            rows += batch.len();
            kept = reader.position();
            batch.drain(..).for_each(&mut each);
        }
    }
    Ok((rows, kept))
}

/// Opens a regular file to read and write it, so that no other process does. It is no link: a link that was meant has
/// been followed to what it leads to, and one that has the name of an unfinished file leads to a file that nobody named.
fn open(path: &Path, create: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false);
    // One that is put there after it was looked for is not followed either.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW);
    let mut tries = 0;
    loop {
        if path.is_symlink() {
            let words = "it is a symbolic link, which is not followed: remove it";
            return Err(Error::io("write", path)(IoError::new(ErrorKind::InvalidInput, words)));
        }
        target(path)?;
        let file = options.open(path).map_err(Error::io("write", &without_partial(path)))?;
        tries += 1;
        match file.try_lock() {
            // Whoever had it may have completed or removed it in between.
            Ok(()) if tries < TRIES && !has_name(&file, path) => {}
            Err(TryLockError::WouldBlock) => {
                let words = format!("{} is being written by another process", path.display());
                return Err(PredictionsProblem::InUse.error(words));
            }
            // Some network file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
}

/// Another handle of an open file, under the same lock.
fn try_clone(file: &File, path: &Path) -> Result<File> {
    file.try_clone().map_err(Error::io("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_link_in_place_of_an_unfinished_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let [partial, elsewhere] = ["rows.csv.partial", "elsewhere"].map(|name| dir.path().join(name));
        std::os::unix::fs::symlink(&elsewhere, &partial).unwrap();
        let refused = |create| {
            let error = open(&partial, create).unwrap_err().to_string();
            assert!(error.ends_with("rows.csv.partial: it is a symbolic link, which is not followed: remove it"));
        };
        refused(true);
        assert!(!elsewhere.exists(), "a file that nobody named");
        std::fs::write(&elsewhere, "of somebody else").unwrap();
        refused(true);
        refused(false);
        assert_eq!(std::fs::read(&elsewhere).unwrap(), b"of somebody else");
        std::fs::remove_file(&partial).unwrap();
        open(&partial, true).unwrap();
    }

    /// Between the moments when a file is opened and when it is locked, another process may complete or remove it.
    #[test]
    fn what_is_opened_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.csv.partial");
        let had: usize = std::thread::scope(|scope| {
            let open_and_remove = || {
                let opened = (0..5_000).filter_map(|_| open(&path, true).ok());
                opened
                    .map(|file| {
                        assert!(has_name(&file, &path), "a file that nobody finds");
                        std::fs::remove_file(&path).unwrap();
                    })
                    .count()
            };
            let threads = [(); 3].map(|()| scope.spawn(open_and_remove));
            threads.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert!(had > 0);
    }
}
