//! The images of a table, for threads that ask for them in the order of rows, or nearly so.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::thread;

use ::parquet::data_type::ByteArray;

use super::column::Values;
use super::pages::MOST_COMPRESSED;
use super::{Group, Rows, guarded};
use crate::error::{Context, Reason, Result, bail, ensure};
use crate::input::files::LARGEST_FILE;

/// Rows between the last one that was read and the one that is asked for are read too and kept, if they are no more
/// than these, and so many are kept: threads ask in order, but each for its own image. Beyond, they are skipped.
const WINDOW: u64 = 256;

/// Images that were passed over are no larger than this together.
const MOST_PASSED: usize = 64 << 20;

/// The images of a row group may be so many bytes in all, besides 64 times its bytes in the file: a dictionary can say of
/// one image that it is in every row.
const LARGE_IMAGES: u64 = 16 << 20;
/// Of each image so many bytes are not counted: they are copied in less time than it takes to say what they show.
const NOT_COUNTED: u64 = 1 << 20;

/// A thread that reads images, and ends when this is dropped. Pages are large, and each thread that reads some keeps
/// room for them: with one, memory does not grow with the number of threads that decode pictures.
pub struct Images {
    requests: mpsc::Sender<Request>,
}

/// A row, and where its image is wanted.
type Request = (u64, mpsc::SyncSender<Result<Vec<u8>, Reason>>);

impl Images {
    /// The images in these rows.
    pub fn of(rows: Arc<Rows>) -> Self {
        let (requests, wanted) = mpsc::channel::<Request>();
        thread::spawn(move || {
            let mut reader = Reader::default();
            for (row, answer) in wanted {
                // Nobody waits for it if the evaluation has ended.
                drop(answer.send(reader.read(&rows, row)));
            }
        });
        Self { requests }
    }

    /// The bytes of the image in a row.
    pub fn read(&self, row: u64) -> Result<Vec<u8>, Reason> {
        let (answer, image) = mpsc::sync_channel(1);
        self.requests.send((row, answer))?;
        image.recv()?
    }
}

/// The bytes of an image; none where there is null.
type Image = Result<Option<Vec<u8>>, Reason>;

/// Where in a table images are read.
#[derive(Default)]
struct Reader {
    open: Option<Open>,
    /// The row that is read next.
    next: u64,
    /// Images that were passed over.
    passed: VecDeque<(u64, Image)>,
}

impl Reader {
    /// The bytes of the image in a row.
    fn read(&mut self, rows: &Rows, row: u64) -> Result<Vec<u8>, Reason> {
        let value = self.get(rows, row).context("damaged Parquet data")?;
        value.with_context(|| match rows.files[0].has_paths {
            true => "the row has no bytes of an image, at most its path: the file was written without embedding images",
            false => "the row has no bytes of an image",
        })
    }

    /// The value in a row, which may be null.
    fn get(&mut self, rows: &Rows, row: u64) -> Image {
        if let Some(place) = self.passed.iter().position(|(passed, _)| *passed == row) {
            return self.passed.remove(place).map_or(Ok(None), |(_, value)| value);
        }
        if row < self.next || row - self.next > WINDOW {
            // Another pass, or another part.
            self.next = row;
            self.passed.clear();
        }
        while self.next < row {
            let passed = self.next;
            let value = self.value(rows, passed);
            self.passed.push_back((passed, value));
            while self.passed.len() as u64 > WINDOW || self.passed_bytes() > MOST_PASSED {
                self.passed.pop_front();
            }
        }
        self.value(rows, row)
    }

    /// Of all images that were passed over.
    fn passed_bytes(&self) -> usize {
        let bytes = |value: &Image| value.iter().flatten().map(Vec::len).sum::<usize>();
        self.passed.iter().map(|(_, value)| bytes(value)).sum()
    }

    /// The value in the next row, which is that one.
    fn value(&mut self, rows: &Rows, row: u64) -> Image {
        self.next = row + 1;
        let Some(group) = rows.group_of(row) else { bail!("the table has no row {row}") };
        let row = row - group.start;
        if !self.open.as_ref().is_some_and(|open| open.group == group && open.row <= row) {
            // The pages of the one before are not kept meanwhile.
            self.open = None;
            let left = rows.stored_bytes(group).saturating_mul(MOST_COMPRESSED as u64).saturating_add(LARGE_IMAGES);
            self.open = Some(Open { group, values: None, row: 0, left, errors: 0, last: None });
        }
        let value = self.open.as_mut().map_or(Ok(None), |open| open.value(rows, row))?;
        let length = value.as_ref().map_or(0, ByteArray::len);
        ensure!(length as u64 <= LARGEST_FILE, "larger than 256 MiB, which no image should be");
        // It is a part of its page, which would stay in memory with it.
        Ok(value.map(|value| value.data().to_vec()))
    }
}

/// So many rows of a row group are tried that cannot be read: for each the row group is opened again.
const MOST_ERRORS: usize = 64;

/// A row group, whose images are read one after the other.
struct Open {
    group: Group,
    /// Its images. After an error it is not known where the column's decoder stands, so it is not used again.
    values: Option<Values>,
    /// The row that is read next, in the row group.
    row: u64,
    /// The bytes that images which are read may still have.
    left: u64,
    errors: usize,
    /// The last error that is looked for, which is that of all rows behind it.
    last: Option<Reason>,
}

impl Open {
    /// The value in a row, which is the next one or behind it.
    fn value(&mut self, rows: &Rows, row: u64) -> Result<Option<ByteArray>, Reason> {
        if let Some(last) = &self.last {
            return Err(last.clone());
        }
        let value = guarded(|| self.read(rows, row));
        self.row = row + 1;
        if let Err(error) = &value {
            self.values = None;
            self.errors += 1;
            self.last = Some(error.clone()).filter(|_| self.errors == MOST_ERRORS);
        }
        value
    }

    fn read(&mut self, rows: &Rows, row: u64) -> Result<Option<ByteArray>, Reason> {
        let (values, begun) = match &mut self.values {
            Some(values) => (values, self.row),
            none => (none.insert(rows.open_group(self.group)?), 0),
        };
        values.skip(row - begun)?;
        let value = values.next_bytes()?;
        let length = value.as_ref().map_or(0, ByteArray::len) as u64;
        self.left = self.left.checked_sub(length.saturating_sub(NOT_COUNTED)).with_context(|| {
            format!("the images up to this one have more than {MOST_COMPRESSED} times the bytes of their row group")
        })?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::eval::dataset::Layout;
    use crate::eval::dataset::parquet::Table;

    fn rows(name: &str) -> Arc<Rows> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/found/parquet").join(name);
        Table::open(&[path], &["a".into()], &Layout::default()).unwrap().0.rows
    }

    /// What rows answer that are asked for in that order, by their numbers.
    fn answers(rows: &Rows, order: impl IntoIterator<Item = u64>) -> Vec<(u64, Result<Vec<u8>, String>)> {
        let mut reader = Reader::default();
        let read = |row| (row, reader.read(rows, row).map_err(|error| error.to_string()));
        let mut answers: Vec<_> = order.into_iter().map(read).collect();
        answers.sort();
        answers
    }

    #[test]
    fn an_error_is_that_of_its_rows() {
        // Row 4 is damaged, in a page of rows 3 to 5; rows 6 and 7 are in the next, and 8 and 9 in another row group.
        let rows = rows("error-in-the-middle-of-a-row-group.parquet");
        let in_order = answers(&rows, 0..10);
        for (row, answer) in &in_order {
            match row {
                4 | 5 => assert!(answer.as_ref().unwrap_err().starts_with("damaged Parquet data: "), "{row}"),
                _ => assert_eq!(answer, &Ok(format!("image {row}").into_bytes()), "{row}"),
            }
        }
        assert_eq!(answers(&rows, (0..10).rev()), in_order);
        assert_eq!(answers(&rows, [5, 0, 9, 7, 3, 6, 8, 1, 4, 2]), in_order);
        // As in another pass.
        let twice = in_order.iter().flat_map(|answer| [answer.clone(), answer.clone()]);
        assert_eq!(answers(&rows, (0..10).chain(0..10)), twice.collect::<Vec<_>>());
    }

    #[test]
    fn a_row_group_is_not_opened_for_each_of_its_rows() {
        // To open it takes 10 ms; for each of its rows that would be ten minutes.
        let rows = rows("page-that-is-damaged-behind-a-large-dictionary.parquet");
        let mut reader = Reader::default();
        assert!((0..65_000).all(|row| reader.read(&rows, row).is_err()));
        assert_eq!(reader.open.unwrap().errors, MOST_ERRORS);
    }

    #[test]
    fn images_are_not_far_larger_than_their_row_group() {
        // All rows are one image of 8 MiB.
        let rows = rows("large-image-in-every-row.parquet");
        let found = answers(&rows, 0..4);
        assert!(found[..2].iter().all(|(_, answer)| answer.as_ref().is_ok_and(|image| image.len() == 8 << 20)));
        let words =
            "damaged Parquet data: the images up to this one have more than 64 times the bytes of their row group";
        assert!(found[2..].iter().all(|(_, answer)| answer.as_ref().is_err_and(|error| error == words)));
    }
}
