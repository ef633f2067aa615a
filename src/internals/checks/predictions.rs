//! Files of predictions.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{Outcome, file, one_line, twice};
use crate::digest::sha256_of;
use crate::error::Result;
use crate::eval::compare::Comparison;
use crate::eval::dataset::Fingerprint;
use crate::eval::predictions::{Reader, Shards, partial};
use crate::eval::{Row, Run};

/// What stands between the files of several shards.
const BETWEEN: &[u8] = b"\n====\n";

/// One file of predictions, or those of several shards, as `--merge` and `--resume` read them. The first byte says of
/// which form, C for CSV.
pub fn predictions(bytes: &[u8], scratch: &Path) -> Outcome {
    let Some((kind, mut rest)) = bytes.split_first() else { return Err("nothing".into()) };
    let ending = if *kind == b'C' { "csv" } else { "jsonl" };
    let mut files: Vec<PathBuf> = Vec::new();
    loop {
        let end = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN);
        // A file ends with a line break.
        let content = end.map_or(rest, |end| &rest[..end + 1]);
        files.push(file(scratch, &format!("{}.{ending}", files.len()), content));
        match end {
            Some(end) if files.len() < 4 => rest = &rest[end + BETWEEN.len()..],
            _ => break,
        }
    }
    resumed(&files[0], scratch, ending)?;
    mend(&files);
    let shards = twice(|| Shards::open(&files), |one, other| assert_eq!(one.run(), other.run()))?;
    let rows = |shards: &Shards| shards.rows()?.collect::<Result<Vec<Row>>>();
    let rows = twice(|| rows(&shards), |one, other| assert_eq!(one.len(), other.len()))?;
    assert_eq!(rows.len(), shards.run().data.images);
    let tally = shards.tally(None, None).map_err(|error| one_line(&error))?;
    assert_eq!(tally.images + tally.errors, rows.len() as u64);
    assert!(tally.top1 <= tally.top5 && tally.top5 <= tally.images);
    if let [file] = &files[..] {
        let compared = twice(|| Comparison::open(file, file), |one, other| assert_eq!(one.images(), other.images()))?;
        assert_eq!(compared.same_prediction, compared.images(), "a file differs from itself");
    }
    Ok(())
}

/// Reads what an interrupted run left: the rows that are whole.
fn resumed(file: &Path, scratch: &Path, ending: &str) -> Outcome {
    let part = partial(&scratch.join(format!("part.{ending}")));
    fs::copy(file, &part).expect("the folder for scratch files can be written");
    let rows = || -> Result<(usize, u64)> {
        let open = || File::open(&part).expect("it is there");
        let Some((mut reader, run)) = Reader::open(&part, open())? else { return Ok((0, 0)) };
        let mut count = 0;
        while reader.row(&run)?.is_some() {
            count += 1;
        }
        Ok((count, reader.position().bytes))
    };
    let (_, end) = twice(rows, |one, other| assert_eq!(one, other))?;
    assert!(end <= fs::metadata(&part).expect("it is there").len());
    Ok(())
}

/// Writes into files of predictions the hash of the rows that they have, so that more than that is checked.
fn mend(files: &[PathBuf]) {
    let mut shards: Vec<(Run, Vec<String>)> = Vec::new();
    for path in files {
        let open = File::open(path).expect("it is there");
        let Ok(Some((mut reader, run))) = Reader::open(path, open) else { return };
        let mut lines = Vec::new();
        while let Ok(Some(row)) = reader.row(&run) {
            lines.push(Fingerprint::line(&row.path, row.label));
        }
        shards.push((run, lines));
    }
    let old = shards[0].0.data.sha256.clone();
    let most = shards.iter().map(|(_, lines)| lines.len()).max().unwrap_or_default();
    let in_turn = (0..most).flat_map(|row| shards.iter().filter_map(move |(_, lines)| lines.get(row)));
    let new = sha256_of(in_turn.map(String::as_str).collect::<String>().as_bytes());
    if old.len() < 8 {
        return;
    }
    for path in files {
        let bytes = fs::read(path).expect("it is there");
        if let Some(at) = bytes.windows(old.len()).position(|window| window == old.as_bytes()) {
            let mended = [&bytes[..at], new.as_bytes(), &bytes[at + old.len()..]].concat();
            fs::write(path, mended).expect("the folder for scratch files can be written");
        }
    }
}
