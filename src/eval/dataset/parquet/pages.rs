//! The pages of a file, which hold the values of its columns.
//!
//! The crate `parquet` makes room for what a page's header says: 200 bytes can ask for gigabytes, and where the system has
//! not so many the program ends. So pages are read and decompressed here, never to more than what the file makes likely,
//! and their numbers are compared with the rows before the crate decodes them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use ::parquet::basic::{Compression, Encoding};
use ::parquet::column::page::{Page, PageMetadata, PageReader};
use ::parquet::data_type::ByteArray;
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::metadata::ColumnChunkMetaData;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::lengths::{common_bytes, length_of_levels};
use super::thrift::{Compact, STRUCT};
use crate::error::{Context, Reason, Result, bail, ensure};
use crate::text::thousands;

/// The pages of a column in a row group may have so many times its bytes in the file: images do not compress so well. Or so
/// many bytes for each row, which labels and their dictionary have.
pub const MOST_COMPRESSED: usize = 64;
/// Where rows are few, a mebibyte in all, they may have a kilobyte each: paths that are numbered compress better.
const OF_ROW: usize = 1 << 10;
const FEW: usize = 1 << 20;
/// Whatever they are, each may have this, but all together no more than this or 64 times the file, in equal shares: else each
/// could have it, in a kilobyte of the file.
const LARGE: usize = 32 << 20;
/// What the crate keeps for each value of a dictionary beside the page, in bytes.
const IN_DICTIONARY: usize = size_of::<ByteArray>();

/// The pages of a column that has at most one value in a row, in a row group.
pub struct Pages {
    file: File,
    compression: Compression,
    /// Whether there may be nulls, so that pages begin with levels of definition.
    has_levels: bool,
    /// Of the row group.
    rows: usize,
    /// Where the next page begins, or its data if its header has been read.
    position: u64,
    end: u64,
    next: Option<Header>,
    /// The bytes that pages may take when they are decompressed, and those that are left of them.
    most: usize,
    left: usize,
}

/// What the header of a page says, `PageHeader` of
/// [parquet.thrift](https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift).
struct Header {
    /// In bytes: in the file, and decompressed.
    stored: usize,
    size: usize,
    kind: Kind,
}

/// What pages of a kind have.
#[derive(Clone, Copy)]
enum Kind {
    Dictionary {
        values: u32,
        encoding: Encoding,
    },
    Values {
        values: u32,
        encoding: Encoding,
        level_encoding: Encoding,
    },
    /// In the format's second version, where the levels of repetition and definition are not compressed; their lengths
    /// are in bytes.
    Values2 {
        values: u32,
        encoding: Encoding,
        levels: [u32; 2],
        nulls: u32,
        rows: u32,
        is_compressed: bool,
    },
    /// Indices.
    Other,
}

impl Pages {
    /// The pages of that column in one of so many row groups of a file, which is opened anew: readers of one open file
    /// would move its position for each other.
    pub fn open(path: &Path, column: &ColumnChunkMetaData, rows: usize, groups: usize) -> Result<Self, Reason> {
        let file = File::open(path)?;
        let (start, length) = column.byte_range();
        let size = file.metadata()?.len();
        let end = start.checked_add(length).filter(|end| *end <= size);
        let end = end.context("a column ends behind the file")?;
        let has_levels = column.column_descr().max_def_level() > 0;
        let most = most_bytes(usize::try_from(length)?, rows, groups, usize::try_from(size).unwrap_or(usize::MAX));
        let compression = column.compression();
        Ok(Self { file, compression, has_levels, rows, position: start, end, next: None, most, left: most })
    }

    /// The header of the next page of values, if there is one. The position is then that of the page's data.
    fn peek(&mut self) -> Result<Option<&Header>, Reason> {
        while self.next.is_none() && self.position < self.end {
            let (header, length) = self.read_header()?;
            self.position += length as u64;
            ensure!(header.stored as u64 <= self.end - self.position, "a page ends behind its column");
            match header.kind {
                Kind::Other => self.position += header.stored as u64,
                _ => self.next = Some(header),
            }
        }
        Ok(self.next.as_ref())
    }

    /// The header that begins at the position, and its length.
    fn read_header(&mut self) -> Result<(Header, usize), Reason> {
        // Most have a few dozen bytes; those with the least and greatest image as statistics, images.
        let mut most = 1 << 12;
        loop {
            let bytes = self.read_bytes((self.end - self.position).min(most))?;
            let mut rest = Compact { bytes: &bytes };
            if rest.skip(STRUCT).is_some() {
                return Ok((Header::of(&bytes)?, bytes.len() - rest.bytes.len()));
            }
            ensure!(bytes.len() as u64 == most, "{DAMAGED_HEADER}");
            most <<= 6;
        }
    }

    /// So many bytes at the position.
    fn read_bytes(&mut self, count: u64) -> Result<Vec<u8>, Reason> {
        self.file.seek(SeekFrom::Start(self.position))?;
        let mut bytes = Vec::with_capacity(usize::try_from(count)?);
        (&self.file).take(count).read_to_end(&mut bytes)?;
        ensure!(bytes.len() as u64 == count, "the file has become shorter");
        Ok(bytes)
    }

    /// Counts what a page of so many bytes in the file takes in memory.
    fn take(&mut self, stored: usize, taken: usize) -> Result<(), Reason> {
        self.left = self.left.checked_sub(taken).with_context(|| {
            let [stored, taken, most] = [stored, taken, self.most].map(|size| thousands(size as u64));
            format!("a page of {stored} bytes takes {taken} in memory, and its column in the row group may take {most}")
        })?;
        Ok(())
    }

    /// The next page.
    fn page(&mut self) -> Result<Option<Page>, Reason> {
        self.peek()?;
        let Some(Header { stored, size, kind }) = self.next.take() else { return Ok(None) };
        if let Kind::Values { values, .. } | Kind::Values2 { values, .. } = kind {
            ensure!(values as usize <= self.rows, "a page of {values} values in {} rows", self.rows);
        }
        let entries = if let Kind::Dictionary { values, .. } = kind { values as usize } else { 0 };
        self.take(stored, entries.saturating_mul(IN_DICTIONARY).saturating_add(size))?;
        let length = stored;
        let stored = self.read_bytes(stored as u64)?;
        self.position += stored.len() as u64;
        let decompress = |levels, compression| decompress(stored, levels, size, compression);
        let page = match kind {
            Kind::Dictionary { values: num_values, encoding } => {
                let buf = decompress(0, self.compression)?;
                let size = buf.len();
                ensure!(num_values as usize <= size / 4, "a dictionary of {num_values} values in {size} bytes");
                return Ok(Some(Page::DictionaryPage { buf, num_values, encoding, is_sorted: false }));
            }
            Kind::Values { values: num_values, encoding, level_encoding } => {
                let buf = decompress(0, self.compression)?;
                let levels = if self.has_levels { length_of_levels(&buf, level_encoding) } else { Some(0) };
                self.take(length, common_bytes(&buf, levels, encoding, num_values)?.try_into()?)?;
                Page::DataPage {
                    buf,
                    num_values,
                    encoding,
                    def_level_encoding: level_encoding,
                    rep_level_encoding: Encoding::RLE,
                    statistics: None,
                }
            }
            Kind::Values2 { values: num_values, encoding, levels, nulls, rows, is_compressed } => {
                let [repetition, definition] = levels;
                let levels = (repetition as usize).saturating_add(definition as usize);
                let compression = if is_compressed { self.compression } else { Compression::UNCOMPRESSED };
                let buf = decompress(levels, compression)?;
                self.take(length, common_bytes(&buf, Some(levels), encoding, num_values)?.try_into()?)?;
                Page::DataPageV2 {
                    buf,
                    num_values,
                    encoding,
                    num_nulls: nulls,
                    num_rows: rows,
                    def_levels_byte_len: definition,
                    rep_levels_byte_len: repetition,
                    is_compressed,
                    statistics: None,
                }
            }
            Kind::Other => bail!("a page without values"),
        };
        Ok(Some(page))
    }
}

impl Header {
    /// Reads the header that begins with these bytes.
    fn of(bytes: &[u8]) -> Result<Self, Reason> {
        let number = |path: &[i16]| Compact { bytes }.number(path).context(DAMAGED_HEADER);
        let count = |path: &[i16]| number(path)?.try_into().ok().context(DAMAGED_HEADER);
        let encoding = |path: &[i16]| encoding(number(path)?);
        let kind = match number(&[1])? {
            0 => Kind::Values {
                values: count(&[5, 1])?,
                encoding: encoding(&[5, 2])?,
                level_encoding: encoding(&[5, 3])?,
            },
            2 => Kind::Dictionary { values: count(&[7, 1])?, encoding: encoding(&[7, 2])? },
            3 => Kind::Values2 {
                values: count(&[8, 1])?,
                encoding: encoding(&[8, 4])?,
                levels: [count(&[8, 6])?, count(&[8, 5])?],
                nulls: count(&[8, 2])?,
                rows: count(&[8, 3])?,
                // Unless it is said.
                is_compressed: Compact { bytes }.truth(&[8, 7]).unwrap_or(true),
            },
            _ => Kind::Other,
        };
        Ok(Self { stored: count(&[3])? as usize, size: count(&[2])? as usize, kind })
    }
}

const DAMAGED_HEADER: &str = "the header of a page is damaged";

#[expect(deprecated, reason = "old files have levels that are packed")]
fn encoding(number: i64) -> Result<Encoding, Reason> {
    Ok(match number {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        4 => Encoding::BIT_PACKED,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        7 => Encoding::DELTA_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        other => bail!("a page is encoded in way {other}, which is not read"),
    })
}

/// The bytes that the pages of a column with so many in the file may take, in one of so many row groups of
/// a file of that size.
fn most_bytes(stored: usize, rows: usize, groups: usize, file: usize) -> usize {
    let few = OF_ROW.saturating_mul(rows).min(FEW);
    let share = LARGE.max(MOST_COMPRESSED.saturating_mul(file)) / groups.max(1);
    MOST_COMPRESSED.saturating_mul(stored.max(rows)).max(few).max(share.min(LARGE))
}

/// A page's bytes, of which those behind the levels are compressed; together they are so many.
fn decompress(stored: Vec<u8>, levels: usize, size: usize, compression: Compression) -> Result<Bytes, Reason> {
    if compression == Compression::UNCOMPRESSED {
        return Ok(stored.into());
    }
    let short = "a page is shorter than its levels";
    let (levels, compressed) = stored.split_at_checked(levels).context(short)?;
    let mut page = levels.to_vec();
    ensure!(levels.len() <= size, "{short}");
    page.resize(size, 0);
    let values = &mut page[levels.len()..];
    let count = match compression {
        // Without values there may be nothing.
        _ if values.is_empty() => 0,
        Compression::SNAPPY => snap::raw::Decoder::new().decompress(compressed, values)?,
        Compression::GZIP(_) => {
            let mut decoder = MultiGzDecoder::new(compressed);
            decoder.read_exact(values)?;
            values.len() + decoder.read(&mut [0])?
        }
        Compression::ZSTD(_) => zstd::bulk::decompress_to_buffer(compressed, values)?,
        other => bail!("compressed by {other}"),
    };
    ensure!(count == values.len(), "a page of another size than it says");
    Ok(page.into())
}

impl Iterator for Pages {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        self.page().map_err(of_parquet)
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        let header = self.peek().map_err(of_parquet)?;
        Ok(header.map(|header| {
            let (num_rows, num_levels) = match header.kind {
                Kind::Values { values, .. } => (None, Some(values as usize)),
                Kind::Values2 { values, rows, .. } => (Some(rows as usize), Some(values as usize)),
                Kind::Dictionary { .. } | Kind::Other => (None, None),
            };
            PageMetadata { num_rows, num_levels, is_dict: matches!(header.kind, Kind::Dictionary { .. }) }
        }))
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.peek().map_err(of_parquet)?;
        self.position += self.next.take().map_or(0, |header| header.stored as u64);
        Ok(())
    }
}

fn of_parquet(reason: Reason) -> ParquetError {
    ParquetError::General(reason.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn headers_are_read() {
        // A page of values with statistics of 300 bytes (field 5 of field 5), then one of the second version, with fields
        // that nobody knows, and one that is not compressed; and a dictionary.
        let long = [&[0x15, 0, 0x15, 40, 0x15, 20, 0x2c, 0x15, 6, 0x15, 0, 0x15, 6, 0x15, 6, 0x1c, 0x18, 0xac, 2][..]];
        let values = [&long.concat()[..], &[1; 300], &[0, 0, 0]].concat();
        let header = Header::of(&values).unwrap();
        assert_eq!((header.size, header.stored), (20, 10));
        assert!(matches!(
            header.kind,
            Kind::Values { values: 3, encoding: Encoding::PLAIN, level_encoding: Encoding::RLE }
        ));
        let second = |more: &[u8]| {
            let start = [0x15, 6, 0x15, 40, 0x15, 20, 0x5c, 0x15, 6, 0x15, 2, 0x15, 8, 0x15, 0x10, 0x15, 10, 0x15, 12];
            Header::of(&[&start, more, &[0, 0]].concat()).unwrap().kind
        };
        for (more, compressed) in [(&[0x79, 0x15, 2, 2][..], true), (&[0x11], true), (&[0x12], false)] {
            let Kind::Values2 {
                values: 3,
                encoding: Encoding::RLE_DICTIONARY,
                levels: [6, 5],
                nulls: 1,
                rows: 4,
                is_compressed,
            } = second(more)
            else {
                panic!("{more:?}")
            };
            assert_eq!(is_compressed, compressed);
        }
        let dictionary = [0x15, 4, 0x15, 40, 0x15, 20, 0x4c, 0x15, 6, 0x15, 4, 0, 0];
        let header = Header::of(&dictionary).unwrap();
        assert!(matches!(header.kind, Kind::Dictionary { values: 3, encoding: Encoding::PLAIN_DICTIONARY }));
        // Sizes that are text, negative, or missing.
        for bytes in [&[0x15, 4, 0x18, 0, 0x15, 20, 0][..], &[0x15, 2, 0x15, 39, 0x15, 20, 0], &[0x15, 2, 0x15, 40, 0]]
        {
            assert!(Header::of(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_page_is_as_large_as_it_says_and_no_larger() {
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&[7; 1 << 20]).unwrap();
        let gzip = gzip.finish().unwrap();
        let gzip = |levels: &[u8], size| {
            decompress([levels, &gzip].concat(), levels.len(), size, Compression::GZIP(Default::default()))
        };
        assert_eq!(gzip(b"", 1 << 20).unwrap(), vec![7; 1 << 20]);
        let with_levels = gzip(b"levels", (1 << 20) + 6).unwrap();
        assert!(with_levels.starts_with(b"levels\x07") && with_levels.len() == (1 << 20) + 6);
        for size in [5, 1000, (1 << 20) - 1, (1 << 20) + 1] {
            assert!(gzip(b"levels", size).is_err(), "{size}");
        }
        for compression in [Compression::SNAPPY, Compression::ZSTD(Default::default())] {
            assert!(decompress(vec![0xff, 0xff, 0xff, 0xff, 7, 0], 0, 1000, compression).is_err());
            assert!(decompress(vec![], 0, 0, compression).unwrap().is_empty());
        }
        assert_eq!(decompress(vec![1, 2, 3], 1, 3, Compression::UNCOMPRESSED).unwrap(), vec![1, 2, 3]);
    }

    #[test]
    fn row_groups_share_what_is_more_than_their_bytes_make_likely() {
        let most = |stored, rows, groups| most_bytes(stored, rows, groups, 1 << 10);
        assert_eq!([most(1000, 1, 1), most(1000, 1, 1024), most(1 << 20, 1, 1)], [32 << 20, 64_000, 64 << 20]);
        assert_eq!([1, 100, 100_000].map(|rows| most(50, rows, 1 << 20)), [3200, 102_400, 6_400_000]);
        assert_eq!((most_bytes(50, 1, 64, 1 << 25), most_bytes(50, 1, 128, 1 << 25)), (32 << 20, 16 << 20));
    }
}
