//! The pages of a file, which hold the values of its columns.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};

use ::parquet::errors::Result as ParquetResult;
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::Bytes;

use super::thrift::Kind::{Number, Struct, Truth};
use super::thrift::{Compact, Fields};

/// `PageHeader`: type, sizes without compression and with it, and what only pages of one type have: those of values,
/// indices, dictionaries, and values in the format's second version.
const PAGE: Fields = &[
    (1, Number),
    (2, Number),
    (3, Number),
    (5, Struct(&[(1, Number), (2, Number), (3, Number), (4, Number)])),
    (6, Struct(&[])),
    (7, Struct(&[(1, Number), (2, Number), (3, Truth)])),
    (8, Struct(&[(1, Number), (2, Number), (3, Number), (4, Number), (5, Number), (6, Number), (7, Truth)])),
];

/// A file that pages are read from.
pub struct Pages(pub File);

impl Length for Pages {
    fn len(&self) -> u64 {
        Length::len(&self.0)
    }
}

impl ChunkReader for Pages {
    type T = Header;

    fn get_read(&self, start: u64) -> ParquetResult<Header> {
        Ok(Header { file: self.0.try_clone()?, start, bytes: None })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        // Room is made for as many as are asked for.
        let left = self.len().saturating_sub(start);
        if length as u64 > left {
            return Err(io::Error::other(format!("a page of {length} bytes where {left} are left")).into());
        }
        self.0.get_bytes(start, length)
    }
}

/// The header of a page, which is looked for when it is read: the crate asks for one too where none is.
pub struct Header {
    file: File,
    start: u64,
    bytes: Option<Cursor<Vec<u8>>>,
}

impl Read for Header {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = match &mut self.bytes {
            Some(bytes) => bytes,
            none => none.insert(Cursor::new(header(&mut self.file, self.start)?)),
        };
        bytes.read(buffer)
    }
}

/// The header of the page that begins there, as long as it is in the file.
fn header(file: &mut File, start: u64) -> io::Result<Vec<u8>> {
    // Most have a few dozen bytes; those with the least and greatest image as statistics, images.
    const SIZES: [u64; 3] = [1 << 12, 1 << 18, 1 << 24];
    for most in SIZES {
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        let (mut from, mut header) = (Compact { bytes: &bytes }, Vec::new());
        if from.copy_struct(PAGE, &mut header).is_some() {
            fill(&mut header, bytes.len() - from.bytes.len());
            return Ok(header);
        }
        if (bytes.len() as u64) < most {
            break;
        }
    }
    Err(io::Error::other("the header of a page is damaged"))
}

/// Makes a struct as long as it was before fields were left out: the page's data are where its header ends.
fn fill(bytes: &mut Vec<u8>, length: usize) {
    // Of fields that nobody knows: truth values have one byte, which is for type and number.
    const STRING: u8 = 15 << 4 | 8;
    const TRUTH: u8 = 15 << 4 | 1;
    let end = bytes.pop();
    let missing = length - bytes.len() - 1;
    match missing.checked_sub(6) {
        Some(zeros) => {
            bytes.push(STRING);
            bytes.extend([0, 7, 14, 21].map(|shift| (zeros >> shift) as u8 | 0x80));
            bytes.push((zeros >> 28) as u8);
            bytes.resize(bytes.len() + zeros, 0);
        }
        None => bytes.resize(bytes.len() + missing, TRUTH),
    }
    bytes.extend(end);
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What is given to the crate of a header that is followed by other bytes.
    fn copied(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut file = tempfile::tempfile()?;
        file.write_all(&[b"page", bytes, &[0xff; 100]].concat())?;
        header(&mut file, 4)
    }

    #[test]
    fn a_header_keeps_its_length() {
        // A page of values, with statistics (field 5 of field 5) of so many bytes.
        for length in (0..20).chain([127, 128, 5000, 300_000]) {
            let size = [0, 7, 14].map(|shift| (length >> shift) as u8 | 0x80);
            let statistics = [&[0x1c, 0x18][..], &size, &[0], &vec![1; length], &[0]].concat();
            let start = [0x15, 0, 0x15, 2, 0x15, 2, 0x2c, 0x15, 2, 0x15, 0, 0x15, 6, 0x15, 6];
            let bytes = [&start[..], &statistics, &[0, 0]].concat();
            let header = copied(&bytes).unwrap();
            assert_eq!(header.len(), bytes.len());
            assert_eq!(header[..start.len() + 1], [&start[..], &[0]].concat());
            let mut reader = Compact { bytes: &header };
            assert!(reader.skip(12).is_some() && reader.bytes.is_empty(), "{length}: {header:?}");
        }
        for missing in 0..20 {
            let mut bytes = vec![0x15, 0, 0];
            fill(&mut bytes, 3 + missing);
            let mut reader = Compact { bytes: &bytes };
            assert!(bytes.len() == 3 + missing && reader.skip(12).is_some() && reader.bytes.is_empty());
        }
    }

    #[test]
    fn what_would_take_long_is_damage() {
        // A list of 2^31 - 1 truth values where nobody looks, and one that a size is read from.
        for bytes in [&[0x15, 0, 0xf9, 0xf1, 0xff, 0xff, 0xff, 0xff, 7, 0][..], &[0x19, 0x01, 0]] {
            assert_eq!(copied(bytes).unwrap_err().to_string(), "the header of a page is damaged");
        }
    }
}
