//! The files of all shards of a run, read as one.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::partial;
use super::reader::{Position, Reader};
use super::writer::Writer;
use crate::digest::hexadecimal;
use crate::error::{Error, PredictionsProblem, Reason, Result, bail, ensure};
use crate::eval::dataset::{Fingerprint, RealLabels};
use crate::eval::{Row, Run, Shard, Tally};

/// The files of all shards of a run.
pub struct Shards {
    /// One file a shard, in the order of the shards.
    paths: Vec<PathBuf>,
    run: Run,
}

impl Shards {
    /// Checks that the files are all parts of one run.
    ///
    /// # Errors
    /// [`Error::Predictions`] if they are of different runs, one is there twice or missing, or is not
    /// complete; [`Error::Io`] if one cannot be read.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut shards: Vec<(Run, &Path)> = Vec::new();
        for path in paths {
            let (_, run) = open(path)?;
            shards.push((run, path));
        }
        shards.sort_by_key(|(run, _)| run.shard.index);
        let run = whole(&shards).map_err(PredictionsProblem::Mixture.because())?;
        let shards = Self { paths: shards.iter().map(|(_, path)| path.to_path_buf()).collect(), run };
        shards.verify()?;
        Ok(shards)
    }

    /// The file of a whole run, or of shards that were put together.
    ///
    /// # Errors
    /// [`Error::Predictions`] if it is of one of several shards, is not complete, or its rows are not those that
    /// the run wrote; [`Error::Io`] if it cannot be read.
    pub fn open_whole(path: &Path) -> Result<Self> {
        let (_, run) = open(path)?;
        if run.shard != Shard::WHOLE {
            let words = format!("{} is shard {} of its run", path.display(), run.shard);
            return Err(PredictionsProblem::Part.error(words));
        }
        Self::open(&[path.to_path_buf()])
    }

    /// The run that the shards make up, as if it had been one.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Checks that the rows are those of all images, each once.
    fn verify(&self) -> Result<()> {
        let mut hasher = Sha256::new();
        self.for_each(|row| {
            hasher.update(Fingerprint::line(&row.path, row.label));
            Ok::<_, Error>(())
        })?;
        if hexadecimal(hasher) != self.run.data.sha256 {
            let file = match &self.paths[..] {
                [file] => format!("{}: ", file.display()),
                _ => String::new(),
            };
            let words = "the rows are not those of the images that were evaluated: a file was changed, or put \
                         together by hand";
            return Err(PredictionsProblem::Mixture.error(file + words));
        }
        Ok(())
    }

    /// The sums of all rows, which are written to `writer` too.
    ///
    /// # Errors
    /// As [`Self::for_each`], and if a row cannot be written.
    pub fn tally(&self, real: Option<&RealLabels>, mut writer: Option<&mut Writer>) -> Result<Tally> {
        let mut tally = Tally::default();
        self.for_each(|row| {
            tally.add(&row, real);
            writer.as_mut().map_or(Ok(()), |writer| writer.append(&[row]))
        })?;
        Ok(tally)
    }

    /// Hands the rows of all files to `each`, in the order that a single run would have written them in.
    ///
    /// # Errors
    /// What `each` returns; and as [`Self::rows`].
    pub fn for_each<E: From<Error>>(&self, mut each: impl FnMut(Row) -> Result<(), E>) -> Result<(), E> {
        self.rows()?.try_for_each(|row| each(row?))
    }

    /// The rows of all files, in that order.
    ///
    /// # Errors
    /// If a file cannot be read; each row, [`Error::Predictions`] if a file is damaged, or is too short or too
    /// long.
    pub fn rows(&self) -> Result<impl Iterator<Item = Result<Row>>> {
        let (images, of) = (self.run.data.images, self.paths.len());
        let block = (Part::HELD / of).max(1);
        let mut parts = self.paths.iter().map(|path| Part::open(path)).collect::<Result<Vec<_>>>()?;
        let row = move |position: usize| {
            let shard = position % of;
            let row = parts[shard].next(&self.run, block)?.ok_or_else(|| {
                let path = self.paths[shard].display();
                let expected = Shard { index: shard + 1, of }.images(images).count();
                let words = format!("there is a gap: {path} has {} of {expected} images", position / of);
                PredictionsProblem::Incomplete.error(words)
            })?;
            if position + 1 == images {
                parts.iter().try_for_each(Part::ensure_end)?;
            }
            Ok(row)
        };
        Ok((0..images).map(row))
    }
}

/// The run that shards make up, which are given in their order with the files that they are in.
fn whole(shards: &[(Run, &Path)]) -> Result<Run, Reason> {
    let Some(((first, first_path), others)) = shards.split_first() else { bail!("no file of predictions is named") };
    for (run, path) in others {
        if let Some(difference) = run.difference(first) {
            bail!("{} is of {difference} than {}", path.display(), first_path.display());
        }
        let (theirs, ours) = (run.shard.of, first.shard.of);
        ensure!(theirs == ours, "{} is one of {theirs} shards, {} of {ours}", path.display(), first_path.display());
    }
    for pair in shards.windows(2) {
        let [(one, a), (other, b)] = pair else { continue };
        let shard = one.shard;
        ensure!(shard != other.shard, "{} and {} overlap: both are shard {shard}", a.display(), b.display());
    }
    let of = first.shard.of;
    if let Some(missing) = (1..=of).find(|index| shards.iter().all(|(run, _)| run.shard.index != *index)) {
        bail!("there is a gap: shard {missing}/{of} is missing");
    }
    let devices: BTreeSet<&str> = shards.iter().map(|(run, _)| run.device.as_str()).collect();
    let device = devices.into_iter().collect::<Vec<_>>().join(", ");
    Ok(Run { shard: Shard::WHOLE, device, ..first.clone() })
}

/// A shard's file. It is opened for a block of rows at a time: systems limit how many files a program has
/// open at once, often to 256, and there may be a thousand shards.
struct Part<'a> {
    path: &'a Path,
    /// Where reading continues.
    next: Position,
    /// Rows that were read but not yet handed out.
    rows: VecDeque<Row>,
}

impl<'a> Part<'a> {
    /// The most rows that all parts together hold in memory, some megabytes.
    const HELD: usize = 1 << 14;

    fn open(path: &'a Path) -> Result<Self> {
        let (reader, _) = open(path)?;
        Ok(Self { path, next: reader.position(), rows: VecDeque::new() })
    }

    /// The next row, which is one of this run. Reads a block of that many rows where none is left.
    fn next(&mut self, run: &Run, block: usize) -> Result<Option<Row>> {
        if self.rows.is_empty() {
            let mut reader = self.reader()?;
            while self.rows.len() < block
                && let Some(row) = reader.row(run)?
            {
                self.rows.push_back(row);
            }
            self.next = reader.position();
        }
        Ok(self.rows.pop_front())
    }

    /// Checks that no row is left.
    fn ensure_end(&self) -> Result<()> {
        if !self.rows.is_empty() || self.reader()?.line()?.is_some() {
            return Err(PredictionsProblem::Mixture.error(format!("{}: more rows than images", self.path.display())));
        }
        Ok(())
    }

    fn reader(&self) -> Result<Reader> {
        Reader::at(self.next, self.path, File::open(self.path).map_err(Error::io("read", self.path))?)
    }
}

/// Opens the complete file of a shard, and reads of which run it is.
fn open(path: &Path) -> Result<(Reader, Run)> {
    let shown = path.display();
    let gap = |words: &str| PredictionsProblem::Incomplete.error(format!("there is a gap: {shown} {words}"));
    let file = File::open(path).map_err(|error| match (error.kind(), partial(path)) {
        (ErrorKind::NotFound, partial) if partial.exists() => gap("is not complete"),
        _ => Error::io("read", path)(error),
    })?;
    Reader::open(path, file)?.ok_or_else(|| gap("has no predictions"))
}
