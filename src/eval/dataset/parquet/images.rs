//! The images of a table, for threads that ask for them in the order of rows, or nearly so.

use std::collections::VecDeque;
use std::sync::PoisonError;

use ::parquet::data_type::ByteArray;

use super::column::Values;
use super::{Group, Table, guarded};
use crate::error::{Context, Reason, Result, bail, ensure};
use crate::input::files::LARGEST_FILE;

/// Rows between the last one that was read and the one that is asked for are read too and kept, if they are no more
/// than these, and so many are kept: threads ask in order, but each for its own image. Beyond, they are skipped.
const WINDOW: u64 = 256;

/// Where in a table its images are read.
#[derive(Default)]
pub struct Images {
    group: Option<(Group, Values)>,
    /// The row that is read next.
    next: u64,
    /// Images that were passed over. Each is a part of its page, which stays in memory with it.
    passed: VecDeque<(u64, Option<ByteArray>)>,
}

/// The bytes of the image in a row of a table.
pub fn read(table: &Table, row: u64) -> Result<Vec<u8>, Reason> {
    let mut images = table.images.lock().unwrap_or_else(PoisonError::into_inner);
    let value = guarded(|| images.get(table, row));
    if value.is_err() {
        // Where the columns' decoder stands is not known.
        images.group = None;
    }
    drop(images);
    let value = value.context("damaged Parquet data")?;
    let value = value.context("the row has no bytes of an image")?;
    ensure!(value.len() as u64 <= LARGEST_FILE, "larger than 256 MiB, which no image should be");
    Ok(value.data().to_vec())
}

impl Images {
    /// The value in a row, which may be null.
    fn get(&mut self, table: &Table, row: u64) -> Result<Option<ByteArray>, Reason> {
        if let Some(place) = self.passed.iter().position(|(passed, _)| *passed == row) {
            return Ok(self.passed.remove(place).and_then(|(_, value)| value));
        }
        if row < self.next {
            // Asked for out of order: others go on where they are.
            return Self { next: row, ..Self::default() }.value(table, row);
        }
        if row - self.next > WINDOW {
            self.next = row;
        }
        while self.next < row {
            let passed = self.next;
            let value = self.value(table, passed)?;
            self.passed.push_back((passed, value));
            if self.passed.len() as u64 > WINDOW {
                self.passed.pop_front();
            }
        }
        self.value(table, row)
    }

    /// The value in the next row, which is that one.
    fn value(&mut self, table: &Table, row: u64) -> Result<Option<ByteArray>, Reason> {
        self.next = row + 1;
        let Some(group) = table.group_of(row) else { bail!("the table has no row {row}") };
        let mut values = match self.group.take() {
            Some((open, values)) if open == group && values.position() <= row - group.start => values,
            _ => table.open_group(group)?,
        };
        values.skip_to(row - group.start)?;
        let value = values.next_bytes()?;
        self.group = Some((group, values));
        Ok(value)
    }
}
