//! Reads the rows of a file of predictions.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::Format;
use super::record::{COLUMNS, LineReader, Record, line_reader};
use crate::error::{Error, PredictionsProblem, Reason, Result};
use crate::eval::{Row, Run};

/// The most bytes of a line, its end included. A path has some thousands at most, and a run that scores 100,000 outputs
/// lists them in 700 kB. Without a limit, a file without line breaks that has no end, as `/dev/zero`, fills the memory.
pub(super) const LONGEST_LINE: u64 = 1 << 20;

/// Reads the rows of a file, one after the other, up to where it ends or a row was not written to its
/// end.
pub struct Reader {
    path: PathBuf,
    format: Format,
    file: BufReader<File>,
    position: Position,
    csv: LineReader,
}

/// How far a file was read.
#[derive(Clone, Copy, Default)]
pub struct Position {
    lines: usize,
    pub bytes: u64,
}

impl Reader {
    /// Reads of which run the file is; `None` if not even the first row is there.
    pub fn open(path: &Path, file: File) -> Result<Option<(Self, Run)>> {
        let mut reader = Self::at(Position::default(), path, file)?;
        if let Format::Csv = reader.format {
            let Some(header) = reader.line()? else { return Ok(None) };
            if header != COLUMNS.as_bytes() {
                return Err(PredictionsProblem::Format
                    .error(format!("{}: not a file of predictions: other columns", path.display())));
            }
        }
        let rows = reader.position;
        let Some(first) = reader.record()? else { return Ok(None) };
        let run: Option<Run> = first.run.as_deref().and_then(|run| serde_json::from_str(run).ok());
        if let Some(words) = run.as_ref().and_then(Run::too_many_classes) {
            return Err(PredictionsProblem::Format.error(format!("{}: it says {words}", path.display())));
        }
        let run = run.filter(Run::is_valid).ok_or_else(|| {
            PredictionsProblem::Format.error(format!("{}: its first row does not say what it is of", path.display()))
        })?;
        reader.seek(rows)?;
        Ok(Some((reader, run)))
    }

    /// Goes on reading where another reader of the file was.
    pub fn at(position: Position, path: &Path, file: File) -> Result<Self> {
        let (format, file) = (Format::of(path)?, BufReader::new(file));
        let mut reader = Self { path: path.to_path_buf(), format, file, position, csv: line_reader() };
        reader.seek(position)?;
        Ok(reader)
    }

    /// Where the next row begins.
    pub fn position(&self) -> Position {
        self.position
    }

    fn seek(&mut self, position: Position) -> Result<()> {
        self.file.seek(SeekFrom::Start(position.bytes)).map_err(Error::io("read", &self.path))?;
        self.position = position;
        Ok(())
    }

    /// The next line, without its end; `None` if it has none. A row with zeros is as one that was not written to its
    /// end: after a power cut a file may have its length and not all of its bytes, be it megabytes of them.
    pub fn line(&mut self) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let read = self.file.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
        let length = read.map_err(Error::io("read", &self.path))? as u64;
        if length == LONGEST_LINE && !line.ends_with(b"\n") && !line.contains(&0) {
            self.position.lines += 1;
            return Err(self.damaged(Reason::new("it is longer than 1 MiB")));
        }
        if line.pop() != Some(b'\n') || (self.position.lines > 0 && line.contains(&0)) {
            return Ok(None);
        }
        self.position.lines += 1;
        self.position.bytes += line.len() as u64 + 1;
        Ok(Some(line))
    }

    fn record(&mut self) -> Result<Option<Record>> {
        let Some(line) = self.line()? else { return Ok(None) };
        let record = match self.format {
            Format::Csv => Record::from_csv(line, &mut self.csv),
            Format::JsonLines => Record::from_json(&line),
        };
        record.map(Some).map_err(|reason| self.damaged(reason))
    }

    /// The next row, which is one of this run.
    pub fn row(&mut self, run: &Run) -> Result<Option<Row>> {
        let Some(record) = self.record()? else { return Ok(None) };
        record.into_row(run).map(Some).map_err(|reason| self.damaged(reason))
    }

    /// The error of the line that was read last.
    pub fn damaged(&self, reason: Reason) -> Error {
        let place = format!("{}, line {}: damaged", self.path.display(), self.position.lines);
        PredictionsProblem::Damaged.error(format!("{place}: {reason}"))
    }
}
