//! The images of a table, for threads that ask for them in the order of rows, or nearly so.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::thread;

use ::parquet::data_type::ByteArray;

use super::column::Values;
use super::{Group, Rows, guarded};
use crate::error::{Context, Reason, Result, bail, ensure};
use crate::input::files::LARGEST_FILE;

/// Rows between the last one that was read and the one that is asked for are read too and kept, if they are no more
/// than these, and so many are kept: threads ask in order, but each for its own image. Beyond, they are skipped.
const WINDOW: u64 = 256;

/// Images that were passed over are no larger than this together.
const MOST_PASSED: usize = 64 << 20;

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
    group: Option<(Group, Values)>,
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
            let value = guarded(|| self.value(rows, passed));
            self.passed.push_back((passed, value));
            while self.passed.len() as u64 > WINDOW || self.passed_bytes() > MOST_PASSED {
                self.passed.pop_front();
            }
        }
        guarded(|| self.value(rows, row))
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
        // After an error it is not known where the column's decoder stands, so it is not put back.
        let mut values = match self.group.take() {
            Some((open, values)) if open == group && values.position() <= row - group.start => values,
            _ => rows.open_group(group)?,
        };
        values.skip_to(row - group.start)?;
        let value = values.next_bytes()?;
        self.group = Some((group, values));
        let length = value.as_ref().map_or(0, ByteArray::len);
        ensure!(length as u64 <= LARGEST_FILE, "larger than 256 MiB, which no image should be");
        // It is a part of its page, which would stay in memory with it.
        Ok(value.map(|value| value.data().to_vec()))
    }
}
