//! The values of a column in a row group.

use std::path::Path;

use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use ::parquet::data_type::{ByteArray, DataType};
use ::parquet::file::metadata::ParquetMetaData;

use super::pages::Pages;
use crate::error::{Context, Reason, Result, bail, ensure};

/// Reads the values of a column that holds one or none in each row.
pub struct Values {
    reader: ColumnReader,
    /// The level of definition of a value that is there: one less where it is null, or what is around it.
    present: i16,
    /// Of the row group.
    rows: usize,
}

impl Values {
    /// The values of that column in that row group of a file, which is opened anew: readers of one open file would
    /// move its position for each other.
    pub fn open(path: &Path, metadata: &ParquetMetaData, group: usize, column: usize) -> Result<Self, Reason> {
        let (group, groups) = (metadata.row_group(group), metadata.num_row_groups());
        let rows = usize::try_from(group.num_rows())?;
        let pages = Pages::open(path, group.column(column), rows, groups)?;
        let description = group.column(column).column_descr_ptr();
        let present = description.max_def_level();
        Ok(Self { reader: get_column_reader(description, Box::new(pages)), present, rows })
    }

    /// Passes over so many rows, and over whole pages without a look at them.
    pub fn skip(&mut self, rows: u64) -> Result<(), Reason> {
        let ColumnReader::ByteArrayColumnReader(reader) = &mut self.reader else { bail!("not a column of bytes") };
        let skipped = reader.skip_records(usize::try_from(rows)?)? as u64;
        ensure!(skipped == rows, "the column ends before its last row");
        Ok(())
    }

    /// The bytes of the next row.
    pub fn next_bytes(&mut self) -> Result<Option<ByteArray>, Reason> {
        let ColumnReader::ByteArrayColumnReader(reader) = &mut self.reader else { bail!("not a column of bytes") };
        next(reader, self.present, 1)?.pop().context("the column ends before its last row")
    }

    /// All values of a column of integers that fit 32 bits.
    pub fn integers(self) -> Result<Vec<Option<i32>>, Reason> {
        let mut values = Vec::with_capacity(self.rows);
        match self.reader {
            ColumnReader::Int32ColumnReader(mut reader) => each(&mut reader, self.present, self.rows, |value| {
                values.push(value);
                Ok(())
            })?,
            ColumnReader::Int64ColumnReader(mut reader) => each(&mut reader, self.present, self.rows, |value| {
                let fits = |value: i64| {
                    i32::try_from(value).with_context(|| format!("there is a label {value}, which is no class index"))
                };
                values.push(value.map(fits).transpose()?);
                Ok(())
            })?,
            _ => bail!("not a column of integers"),
        }
        Ok(values)
    }

    /// Hands the path of each row to `take`, in the order of rows: none where it is null, no UTF-8, or longer than paths
    /// may be.
    pub fn paths(self, mut take: impl FnMut(Option<&str>) -> Result<(), Reason>) -> Result<(), Reason> {
        let ColumnReader::ByteArrayColumnReader(mut reader) = self.reader else { bail!("not a column of text") };
        each(&mut reader, self.present, self.rows, |value| {
            let path = value.as_ref().map(ByteArray::data).filter(|path| path.len() <= LONGEST_PATH);
            take(path.and_then(|path| std::str::from_utf8(path).ok()))
        })
    }
}

/// As Linux has it, in bytes.
const LONGEST_PATH: usize = 4096;

/// Hands all values of so many rows to `take`: null where a row, or a struct around the value, is null. Few are in memory
/// at once: values can be far larger than what is kept of them.
fn each<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    present: i16,
    rows: usize,
    mut take: impl FnMut(Option<T::T>) -> Result<(), Reason>,
) -> Result<(), Reason> {
    // Room is made for as many as are asked for, whatever a damaged page says it has.
    const AT_ONCE: usize = 4096;
    let mut count = 0;
    loop {
        let values = next(reader, present, AT_ONCE)?;
        if values.is_empty() {
            return Ok(());
        }
        count += values.len();
        ensure!(count <= rows, "more values than the {rows} rows");
        values.into_iter().try_for_each(&mut take)?;
    }
}

/// The next values, at most so many; fewer only at the end.
fn next<T: DataType>(reader: &mut ColumnReaderImpl<T>, present: i16, most: usize) -> Result<Vec<Option<T::T>>, Reason> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    reader.read_records(most, Some(&mut levels), None, &mut values)?;
    let mut values = values.into_iter();
    if present == 0 {
        return Ok(values.map(Some).collect());
    }
    Ok(levels.into_iter().map(|level| if level == present { values.next() } else { None }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::dataset::parquet::metadata;

    #[test]
    fn a_page_may_not_have_more_values_than_there_are_rows() {
        let file = "tests/fixtures/sets/parquet-zstd/validation-00000-of-00002.parquet";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let metadata = metadata(&path).unwrap();
        let columns = metadata.file_metadata().schema_descr().columns();
        let label = columns.iter().position(|column| column.name() == "label").unwrap();
        let labels = || Values::open(&path, &metadata, 0, label).unwrap();
        let rows = labels().rows;
        assert_eq!(labels().integers().unwrap().len(), rows);
        let error = Values { rows: rows - 1, ..labels() }.integers().unwrap_err();
        assert_eq!(error.to_string(), format!("more values than the {} rows", rows - 1));
    }
}
