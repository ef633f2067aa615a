//! Files of predictions: one row an image, as CSV or as JSON lines, by the file's name.
//!
//! A file is written as `NAME.partial` and gets its name when it is complete. The first row says in
//! its field `run` what it is a part of, so that a file that was interrupted can be continued, and
//! files of several shards put together, without anything else.
//!
//! ```text
//! record     a row as it is in a file, and as a line of text
//! writer     begins a file, or continues it, and writes rows
//! reader     reads rows
//! shards     the files of all shards of a run, read as one
//! ```

mod reader;
mod record;
mod shards;
mod writer;

use std::path::{Path, PathBuf};

pub(crate) use reader::Reader;
pub use shards::Shards;
pub use writer::Writer;

use crate::error::{Error, PredictionsProblem, Reason, Result};

/// How rows are written.
#[derive(Clone, Copy)]
enum Format {
    Csv,
    JsonLines,
}

impl Format {
    /// The format that a file's name says.
    fn of(path: &Path) -> Result<Self> {
        let name = without_partial(path);
        match name.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase).as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("jsonl") => Ok(Self::JsonLines),
            _ => Err(PredictionsProblem::Name
                .error(format!("{}: the name of a file of predictions ends in .csv or .jsonl", path.display()))),
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

/// The name that a file has when it is complete.
pub(crate) fn without_partial(path: &Path) -> PathBuf {
    path.to_str().and_then(|path| path.strip_suffix(PARTIAL)).map_or_else(|| path.to_path_buf(), PathBuf::from)
}

impl PredictionsProblem {
    /// This problem in words.
    pub(in crate::eval) fn error(self, words: String) -> Error {
        self.because()(Reason::new(words))
    }

    /// Makes an error of this problem, for `map_err`.
    pub(in crate::eval) fn because(self) -> impl FnOnce(Reason) -> Error {
        move |reason| Error::Predictions { problem: self, reason }
    }
}
