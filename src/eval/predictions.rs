//! Files of predictions: one row an image, as CSV or as JSON lines, by the file's name.
//!
//! A file is written as `NAME.partial` and gets its name when it is complete. The first row says in
//! its field `run` what it is a part of, so that a file that was interrupted can be continued, and
//! files of several shards put together, without anything else.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::run::{Run, Shard};
use super::{Row, Scores, TOP, Tally};
use crate::eval::dataset::{Dataset, Fingerprint, RealLabels};
use crate::output::target;
use crate::weights::digest::hexadecimal;

#[derive(Clone, Copy)]
enum Format {
    Csv,
    JsonLines,
}

impl Format {
    fn of(path: &Path) -> Result<Self> {
        let name = without_partial(path);
        match name.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase).as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("jsonl") => Ok(Self::JsonLines),
            _ => bail!("{}: the name of a file of predictions ends in .csv or .jsonl", path.display()),
        }
    }
}

const PARTIAL: &str = ".partial";

/// Where a file is while it is not complete.
pub fn partial(path: &Path) -> PathBuf {
    let mut name = without_partial(path).into_os_string();
    name.push(PARTIAL);
    name.into()
}

fn without_partial(path: &Path) -> PathBuf {
    path.to_str().and_then(|path| path.strip_suffix(PARTIAL)).map_or_else(|| path.to_path_buf(), PathBuf::from)
}

/// A row as it is in the file. A row without scores has an error.
#[derive(Serialize, Deserialize)]
struct Record {
    path: String,
    label: u32,
    top1: Option<u32>,
    top2: Option<u32>,
    top3: Option<u32>,
    top4: Option<u32>,
    top5: Option<u32>,
    p1: Option<f32>,
    p2: Option<f32>,
    p3: Option<f32>,
    p4: Option<f32>,
    p5: Option<f32>,
    rank: Option<u32>,
    loss: Option<f32>,
    error: Option<String>,
    warning: Option<String>,
    /// A [`Run`] in JSON, in the first row.
    run: Option<String>,
}

impl Record {
    fn new(row: &Row, run: Option<String>) -> Self {
        let scores = row.scores.as_ref().ok();
        let top = |place: usize| scores.and_then(|scores| scores.top.get(place));
        let class = |place| top(place).map(|(class, _)| *class);
        let p = |place| top(place).map(|(_, p)| *p);
        Self {
            path: row.path.clone(),
            label: row.label,
            top1: class(0),
            top2: class(1),
            top3: class(2),
            top4: class(3),
            top5: class(4),
            p1: p(0),
            p2: p(1),
            p3: p(2),
            p4: p(3),
            p5: p(4),
            rank: scores.map(|scores| scores.rank),
            loss: scores.map(|scores| scores.loss),
            error: row.scores.as_ref().err().cloned(),
            warning: row.warning.clone(),
            run,
        }
    }

    fn row(self, classes: usize) -> Result<Row> {
        let Self { path, label, error, warning, .. } = self;
        let known = |class: u32| (class as usize) < classes;
        ensure!(known(label), "class {label} is none of the model's {classes}");
        let scores = match (self.rank, self.loss, error) {
            (None, None, Some(error)) => Err(error),
            (Some(rank), Some(loss), None) => {
                let of = [self.top1, self.top2, self.top3, self.top4, self.top5];
                let p = [self.p1, self.p2, self.p3, self.p4, self.p5];
                let top: Vec<(u32, f32)> = of.into_iter().zip(p).filter_map(|(class, p)| Some((class?, p?))).collect();
                let whole = top.len() == classes.min(TOP)
                    && top.iter().all(|(class, p)| known(*class) && (0.0..=1.0).contains(p))
                    && (1..=classes as u32).contains(&rank)
                    && (rank as usize > TOP || top.get(rank as usize - 1).is_some_and(|(class, _)| *class == label))
                    && loss.is_finite();
                ensure!(whole, "the numbers do not belong together");
                Ok(Scores { top, rank, loss })
            }
            _ => bail!("a row has either scores or an error"),
        };
        Ok(Row { path, label, scores, warning })
    }
}

/// The names of the columns, as the first line of a CSV file.
const COLUMNS: &str = "path,label,top1,top2,top3,top4,top5,p1,p2,p3,p4,p5,rank,loss,error,warning,run";

impl Format {
    /// A row as a line. Neither paths nor errors have line breaks, so no field goes over several.
    fn encode(self, record: &Record) -> Result<Vec<u8>> {
        match self {
            Self::Csv => {
                let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
                writer.serialize(record)?;
                Ok(writer.into_inner().map_err(|error| anyhow!("{error}"))?)
            }
            Self::JsonLines => {
                let mut value = serde_json::to_value(record)?;
                if let Some(fields) = value.as_object_mut() {
                    fields.retain(|_, value| !value.is_null());
                }
                let mut line = serde_json::to_vec(&value)?;
                line.push(b'\n');
                Ok(line)
            }
        }
    }

    fn decode(self, line: &[u8]) -> Result<Record> {
        match self {
            Self::Csv => {
                let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line);
                reader.deserialize().next().context("an empty line")?.map_err(|_| anyhow!("not a row of predictions"))
            }
            Self::JsonLines => serde_json::from_slice(line).map_err(|_| anyhow!("not a row of predictions")),
        }
    }
}

/// Reads the rows of a file, one after the other, up to where it ends or a row was not written to its
/// end.
struct Reader {
    path: PathBuf,
    format: Format,
    file: BufReader<File>,
    /// Lines and bytes that were read.
    line: usize,
    position: u64,
}

impl Reader {
    /// Reads what the file is of; `None` if not even the first row is there.
    fn open(path: &Path, file: File) -> Result<Option<(Self, Run)>> {
        let mut reader = Self {
            path: path.to_path_buf(),
            format: Format::of(path)?,
            file: BufReader::new(file),
            line: 0,
            position: 0,
        };
        if let Format::Csv = reader.format {
            let Some(header) = reader.line()? else { return Ok(None) };
            ensure!(header == COLUMNS.as_bytes(), "{}: not a file of predictions: other columns", path.display());
        }
        let (line, position) = (reader.line, reader.position);
        let Some(first) = reader.record()? else { return Ok(None) };
        let run = first.run.as_deref().and_then(|run| serde_json::from_str(run).ok());
        let run: Option<Run> = run;
        let run = run.filter(|run| run.validate().is_ok());
        let run = run.with_context(|| format!("{}: its first row does not say what it is of", path.display()))?;
        reader.file.seek(SeekFrom::Start(position))?;
        (reader.line, reader.position) = (line, position);
        Ok(Some((reader, run)))
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let read = self.file.read_until(b'\n', &mut line);
        read.with_context(|| format!("cannot read {}", self.path.display()))?;
        if line.pop() != Some(b'\n') {
            return Ok(None);
        }
        self.line += 1;
        self.position += line.len() as u64 + 1;
        Ok(Some(line))
    }

    fn record(&mut self) -> Result<Option<Record>> {
        let Some(line) = self.line()? else { return Ok(None) };
        self.format.decode(&line).map(Some).with_context(|| self.here())
    }

    fn row(&mut self, classes: usize) -> Result<Option<Row>> {
        let Some(record) = self.record()? else { return Ok(None) };
        record.row(classes).map(Some).with_context(|| self.here())
    }

    fn here(&self) -> String {
        format!(
            "{}, line {}: damaged (without it and what follows, --resume can go on)",
            self.path.display(),
            self.line
        )
    }
}

/// Writes a file of predictions.
pub struct Writer {
    file: File,
    format: Format,
    /// Where it is, and where it will be.
    at: PathBuf,
    target: PathBuf,
    run: Run,
    rows: usize,
}

impl Writer {
    /// Begins a file. What has its name is replaced when it is complete.
    ///
    /// # Errors
    /// If it cannot be written, or the rows of an interrupted run are there.
    pub fn create(path: &Path, run: Run) -> Result<Self> {
        let format = Format::of(path)?;
        let target = target(&without_partial(path))?;
        let at = partial(&target);
        let file = open(&at, true)?;
        let begun = match Reader::open(&at, file.try_clone()?) {
            Ok(begun) => begun.is_some(),
            Err(_) => true,
        };
        ensure!(
            !begun,
            "{} holds predictions of a run that was interrupted; go on with it by --resume {}, or delete it",
            at.display(),
            target.display()
        );
        let mut writer = Self { file, format, at, target, run, rows: 0 };
        writer.truncate(0)?;
        Ok(writer)
    }

    /// Goes on with a file, and hands the rows that are kept to `each`. Except in float32 on the CPU, what
    /// was not written to the end of a batch is thrown away: it depends on the batch. Returns how many rows are there; without a file, begins it.
    ///
    /// # Errors
    /// If the file is of another run, or damaged.
    pub fn resume(
        path: &Path,
        run: Run,
        dataset: &Dataset,
        batch_size: usize,
        each: &mut dyn FnMut(Row),
    ) -> Result<(Self, Option<usize>)> {
        let target = target(&without_partial(path))?;
        let at = partial(&target);
        // One by one where an image's numbers do not depend on its batch.
        let batch_size = if run.dtype == "f32" && run.device == "cpu" { 1 } else { batch_size };
        // Complete under its name, or as far as it got.
        let at = if at.exists() || !target.exists() { at } else { target.clone() };
        if !at.exists() {
            return Ok((Self::create(path, run)?, None));
        }
        let shown = at.display().to_string();
        let file = open(&at, false)?;
        let Some((mut reader, theirs)) = Reader::open(&at, file.try_clone()?)? else {
            drop(file);
            return Ok((Self::create(path, run)?, Some(0)));
        };
        let differs = |what: &str, there: &str, here: &str| {
            (there != here).then(|| format!("another {what} ({there} there, {here} here)"))
        };
        let difference = theirs
            .difference(&run)
            .or_else(|| differs("shard", &theirs.shard.to_string(), &run.shard.to_string()))
            .or_else(|| differs("device", &theirs.device, &run.device));
        if let Some(difference) = difference {
            bail!(
                "{shown} is of {difference}: give the same options as before, or begin another file with --predictions"
            );
        }
        let (mut rows, mut kept) = (0, 0);
        let mut batch = Vec::new();
        let mut images = run.shard.images(dataset.images()).peekable();
        while let Some(row) = reader.row(run.classes)? {
            let fits = |image| dataset.path(image) == row.path && dataset.label(image) == row.label;
            let fits = images.next().is_some_and(fits);
            ensure!(fits, "{}: the row is not that of the image in its place", reader.here());
            batch.push(row);
            if batch.len() == batch_size || images.peek().is_none() {
                rows += batch.len();
                kept = reader.position;
                batch.drain(..).for_each(&mut *each);
            }
        }
        let mut writer = Self { file, format: Format::of(path)?, at, target, run, rows };
        if images.peek().is_some() {
            if writer.at == writer.target {
                let at = partial(&writer.target);
                std::fs::rename(&writer.target, &at).with_context(|| format!("cannot rename {shown}"))?;
                writer.at = at;
            }
            writer.truncate(kept)?;
        }
        Ok((writer, Some(rows)))
    }

    /// Cuts the file, to nothing or after a whole row, to go on from there.
    fn truncate(&mut self, length: u64) -> Result<()> {
        let cut = self.file.set_len(length).and_then(|()| self.file.seek(SeekFrom::Start(length)));
        cut.map(drop).with_context(|| self.failed())
    }

    /// Writes the rows of a batch, so that they are there even if the program is killed.
    ///
    /// # Errors
    /// If they cannot be written, as on a full disk.
    pub fn append(&mut self, rows: &[Row]) -> Result<()> {
        let mut text = Vec::new();
        for row in rows {
            let mut run = None;
            if self.rows == 0 {
                run = Some(serde_json::to_string(&self.run)?);
                if let Format::Csv = self.format {
                    writeln!(text, "{COLUMNS}")?;
                }
            }
            text.extend(self.format.encode(&Record::new(row, run))?);
            self.rows += 1;
        }
        self.file.write_all(&text).with_context(|| self.failed())
    }

    /// Gives the file its name: it is complete.
    ///
    /// # Errors
    /// If the disk or the directory does not take it.
    pub fn finish(self) -> Result<()> {
        self.file.sync_all().with_context(|| self.failed())?;
        if self.at != self.target {
            std::fs::rename(&self.at, &self.target)
                .with_context(|| format!("cannot write {}", self.target.display()))?;
        }
        Ok(())
    }

    fn failed(&self) -> String {
        format!("cannot write {}, which --resume can continue", self.at.display())
    }
}

/// Opens a regular file to read and write it, so that no other process does.
fn open(path: &Path, create: bool) -> Result<File> {
    let shown = path.display();
    target(path)?;
    let opened = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path);
    let file = opened.with_context(|| format!("cannot write {}", without_partial(path).display()))?;
    // Some network file systems have no locks.
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        bail!("{shown} is being written by another process");
    }
    Ok(file)
}

/// The files of all shards of a run.
pub struct Shards {
    /// In the order of the shards.
    paths: Vec<PathBuf>,
    /// As if it had been one run.
    pub run: Run,
}

impl Shards {
    /// Checks that the files are all parts of one run.
    ///
    /// # Errors
    /// If they are of different runs, one is there twice or missing, or is not complete.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut shards: Vec<(Run, &PathBuf)> = Vec::new();
        for path in paths {
            let (_, run) = reader(path)?;
            shards.push((run, path));
        }
        shards.sort_by_key(|(run, _)| run.shard.index);
        let Some(((first, first_path), others)) = shards.split_first() else {
            bail!("no file of predictions is named")
        };
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
        let run = Run { shard: Shard::WHOLE, device, ..first.clone() };
        let shards = Self { paths: shards.iter().map(|(_, path)| (*path).clone()).collect(), run };
        shards.verify()?;
        Ok(shards)
    }

    /// Checks that the rows are those of all images, each once.
    fn verify(&self) -> Result<()> {
        let mut hasher = Sha256::new();
        self.for_each(&mut |row| {
            hasher.update(Fingerprint::line(&row.path, row.label));
            Ok(())
        })?;
        ensure!(
            hexadecimal(hasher) == self.run.data.sha256,
            "the rows are not those of the images that were evaluated: a file was changed, or put together by hand"
        );
        Ok(())
    }

    /// The sums of all rows, which are written to `writer` too.
    ///
    /// # Errors
    /// As [`Self::for_each`].
    pub fn tally(&self, real: Option<&RealLabels>, mut writer: Option<&mut Writer>) -> Result<Tally> {
        let mut tally = Tally::default();
        self.for_each(&mut |row| {
            tally.add(&row, real);
            writer.as_mut().map_or(Ok(()), |writer| writer.append(&[row]))
        })?;
        Ok(tally)
    }

    /// The rows of all files, in the order that a single run would have written them in.
    ///
    /// # Errors
    /// If `each` fails, or a file is damaged, or is too short or too long.
    pub fn for_each(&self, each: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        let mut readers = self.paths.iter().map(|path| Ok(reader(path)?.0)).collect::<Result<Vec<_>>>()?;
        let (images, of) = (self.run.data.images, readers.len());
        for position in 0..images {
            let shard = position % of;
            let row = readers[shard].row(self.run.classes)?.with_context(|| {
                let path = self.paths[shard].display();
                let expected = Shard { index: shard + 1, of }.images(images).count();
                format!("there is a gap: {path} has {} of {expected} images; finish it with --resume", position / of)
            })?;
            each(row)?;
        }
        for reader in &mut readers {
            ensure!(reader.line()?.is_none(), "{}: more rows than images", reader.path.display());
        }
        Ok(())
    }
}

fn reader(path: &Path) -> Result<(Reader, Run)> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| match (error.kind(), partial(path)) {
        (ErrorKind::NotFound, at) if at.exists() => {
            anyhow!("there is a gap: {shown} is not complete; finish it with --resume")
        }
        _ => anyhow!("cannot read {shown}: {error}"),
    })?;
    Reader::open(path, file)?.with_context(|| format!("there is a gap: {shown} has no predictions"))
}
