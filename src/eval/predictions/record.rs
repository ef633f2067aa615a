//! A row as it is in a file, and as a line of text.

use std::io::{Cursor, SeekFrom};

use serde::{Deserialize, Serialize};

use super::Format;
use crate::error::{Context, Reason, Result, bail, ensure};
use crate::eval::{Row, Run, Scores, TOP};

/// A row as it is in a file. A row without scores has an error.
#[derive(Serialize, Deserialize)]
pub struct Record {
    path: String,
    label: Option<u32>,
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
    /// A [`Run`](crate::eval::Run) in JSON, in the first row.
    pub run: Option<String>,
}

/// The names of the columns, as the first line of a CSV file.
pub const COLUMNS: &str = "path,label,top1,top2,top3,top4,top5,p1,p2,p3,p4,p5,rank,loss,error,warning,run";

impl Record {
    pub fn new(row: &Row, run: Option<String>) -> Self {
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

    /// The row of a run, if the record can be one.
    pub fn into_row(self, run: &Run) -> Result<Row, Reason> {
        let Self { path, label, error, warning, .. } = self;
        let (known, outputs) = (|class: u32| run.scores_output(class), run.scored_outputs());
        if let Some(label) = label.filter(|label| !known(*label)) {
            match run.part_of_outputs() {
                Some(part) => bail!("class {label} is none of the outputs that are scored, {part}"),
                None => bail!("class {label} is none of the model's {outputs}"),
            }
        }
        let scores = match (self.rank, self.loss, error) {
            (None, None, Some(error)) => Err(error),
            (Some(rank), Some(loss), None) => {
                let of = [self.top1, self.top2, self.top3, self.top4, self.top5];
                let p = [self.p1, self.p2, self.p3, self.p4, self.p5];
                let top: Vec<(u32, f32)> = of.into_iter().zip(p).filter_map(|(class, p)| Some((class?, p?))).collect();
                let whole = label.is_some()
                    && top.len() == outputs.min(TOP)
                    && top.iter().all(|(class, p)| known(*class) && (0.0..=1.0).contains(p))
                    && (1..=outputs as u32).contains(&rank)
                    && (rank as usize > TOP
                        || top.get(rank as usize - 1).is_some_and(|(class, _)| Some(*class) == label))
                    && loss.is_finite();
                ensure!(whole, "the numbers do not belong together");
                Ok(Scores { top, rank, loss })
            }
            _ => bail!("a row has either scores or an error"),
        };
        Ok(Row { path, label, scores, warning })
    }

    /// The record as a line. Neither paths nor errors have line breaks, so no field goes over several.
    pub fn to_line(&self, format: Format) -> Result<Vec<u8>, Reason> {
        match format {
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
                writer.serialize(self)?;
                Ok(writer.into_inner()?)
            }
            Format::JsonLines => {
                let mut value = serde_json::to_value(self)?;
                if let Some(fields) = value.as_object_mut() {
                    fields.retain(|_, value| !value.is_null());
                }
                let mut line = serde_json::to_vec(&value)?;
                line.push(b'\n');
                Ok(line)
            }
        }
    }

    /// The record that a line of CSV holds. The reader is used again for each line: to make one takes longer than
    /// to read a line.
    pub fn from_csv(line: Vec<u8>, reader: &mut LineReader) -> Result<Self, Reason> {
        *reader.get_mut() = Cursor::new(line);
        reader.seek_raw(SeekFrom::Start(0), csv::Position::new())?;
        reader.deserialize().next().context("an empty line")?.map_err(|_| unlike())
    }

    /// The record that a line of JSON holds.
    pub fn from_json(line: &[u8]) -> Result<Self, Reason> {
        serde_json::from_slice(line).map_err(|_| unlike())
    }
}

/// Reads CSV a line at a time, for [`Record::from_csv`].
pub type LineReader = csv::Reader<Cursor<Vec<u8>>>;

/// A reader that has no line yet.
pub fn line_reader() -> LineReader {
    csv::ReaderBuilder::new().has_headers(false).from_reader(Cursor::default())
}

fn unlike() -> Reason {
    Reason::new("not a row of predictions")
}
