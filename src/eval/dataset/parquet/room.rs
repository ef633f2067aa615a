//! How much room the rows of a file may take, of which it can say in a few bytes that it has millions.

use std::path::Path;

use ::parquet::file::metadata::ParquetMetaData;

use super::pages::MOST_COMPRESSED;
use super::schema::Columns;
use crate::error::{Context, Reason, Result, ensure};
use crate::eval::dataset::listing::Entry;
use crate::text::thousands;

/// A file without as many bytes may have so many rows all the same: its images may all be one.
const FEW_ROWS: u64 = 1 << 16;
/// What the rows of any file may take; of a large one 64 times its bytes more.
const ANYWAY: u64 = 64 << 20;
/// What a row takes, in bytes, besides its entry and its path: its label, and what is made of it to sort and to evaluate.
const OF_ROW: u64 = 64;
/// Of the longest number of a row, with the marks around it.
const DIGITS: u64 = 22;
/// Entries and paths are counted so often: while files are checked, there are two listings of them.
const COPIES: u64 = 2;

/// The room that is left for the rows of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Room {
    /// That the file says it has.
    pub rows: usize,
    /// In bytes.
    left: u64,
    /// Of the file.
    bytes: u64,
}

impl Room {
    /// Room for the rows of a file that is called so in their paths. Refused is one that says that it has far more than
    /// images could be in its bytes, or that its columns have more bytes than it has itself: row groups that are the same
    /// bytes would be read again and again.
    pub fn of(path: &Path, name: &str, metadata: &ParquetMetaData, columns: &Columns) -> Result<Self, Reason> {
        let (bytes, groups) = (path.metadata()?.len(), metadata.row_groups());
        let sum = |numbers: &mut dyn Iterator<Item = i64>| {
            numbers.fold(0, |sum: u64, number| sum.saturating_add(number.max(0).unsigned_abs()))
        };
        let room = Self::new(bytes, sum(&mut groups.iter().map(|group| group.num_rows())), name)?;
        let stored = sum(&mut groups
            .iter()
            .flat_map(|group| columns.used().map(|column| group.column(column).compressed_size())));
        let [shown, all] = [stored, bytes].map(thousands);
        ensure!(stored <= bytes, "damaged Parquet data: columns of {shown} bytes in a file of {all}");
        Ok(room)
    }

    /// Room for so many rows in a file of so many bytes.
    fn new(bytes: u64, rows: u64, name: &str) -> Result<Self, Reason> {
        let entry = size_of::<Entry>() as u64 + name.len() as u64 + DIGITS;
        let most = bytes.saturating_mul(MOST_COMPRESSED as u64).saturating_add(ANYWAY);
        let left = most.checked_sub(rows.saturating_mul(COPIES * entry + OF_ROW));
        let left = left.filter(|_| rows <= bytes.max(FEW_ROWS));
        let left = left.with_context(|| format!("damaged: {} rows in {} bytes", thousands(rows), thousands(bytes)))?;
        Ok(Self { rows: usize::try_from(rows)?, left, bytes })
    }

    /// Takes the room of an image's own name.
    pub fn take(&mut self, own: &str) -> Result<(), Reason> {
        let left = self.left.checked_sub(COPIES * own.len() as u64);
        self.left =
            left.with_context(|| format!("the names of its images are too long for {} bytes", thousands(self.bytes)))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_take_no_more_room_than_a_file_has() {
        let name = "validation-00000-of-00014.parquet";
        let ok = |bytes, rows, name: &str| Room::new(bytes, rows, name).is_ok();
        // Tiny pictures, and files of a few bytes whose rows are one picture.
        assert!(ok(50_000_000, 700_000, name) && ok(1000, 65_536, name));
        assert!(ok(0, 0, name) && !ok(1000, 65_537, name) && !ok(1000, u64::MAX, name));
        // A row a byte, and a name of 200 bytes.
        assert!(!ok(2_000_000, 2_000_000, "a.parquet") && !ok(8_000_000, 8_000_000, "a.parquet"));
        assert!(ok(300_000, 200_000, "a.parquet") && !ok(300_000, 200_000, &"a".repeat(200)));
    }

    #[test]
    fn names_take_of_the_same_room() {
        let mut room = Room::new(1000, 60_000, "a").unwrap();
        let own = "n".repeat(255);
        let taken = (0..200_000).take_while(|_| room.take(&own).is_ok()).count();
        assert!((60_000..120_000).contains(&taken), "{taken}");
        assert_eq!(room.take(&own).unwrap_err().to_string(), "the names of its images are too long for 1,000 bytes");
    }
}
