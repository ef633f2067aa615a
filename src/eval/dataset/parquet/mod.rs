//! Parquet files as the hub's `datasets` library writes images: a column of structs `{bytes, path}`, and one of
//! classes.
//!
//! In come files that nobody has checked; out go entries with their labels, and later the bytes of an image. Files are
//! read column by column and page by page: in memory are the pages that the images at hand are in. The crate `parquet`
//! is used without arrow, whose arrays would copy what is read here only once.
//!
//! ```text
//! thrift     the protocol of footers and of the headers of pages
//! footer     a copy of what is used of a file's footer
//! pages      the pages that a column's values are in, decompressed
//! lengths    refuses pages whose values would take far more room than the page
//! schema     which columns hold images and labels, and what the classes are called
//! features   what the library `datasets` says of columns
//! room       refuses files that say they have far more rows than bytes
//! column     the values of a column
//! images     the images of a table, for threads that ask in order, or nearly so
//! ```

mod column;
mod features;
mod footer;
mod images;
mod lengths;
mod pages;
mod room;
mod schema;
mod thrift;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use self::column::Values;
use self::footer::footer;
use self::images::Images;
use self::room::Room;
use self::schema::Columns;
use super::listing::{Entry, Kind};
use super::{IS_LFS_POINTER, LFS_POINTER, Layout};
use crate::error::{Context, DatasetProblem, Reason, Result, ensure};
use crate::panics::without_panic;
use crate::text::thousands;

/// The rows of several files, one after the other.
pub struct Table {
    rows: Arc<Rows>,
    images: OnceLock<Images>,
}

/// Where the rows are.
#[derive(Default)]
struct Rows {
    files: Vec<TableFile>,
    groups: Vec<Group>,
}

struct TableFile {
    path: PathBuf,
    metadata: ParquetMetaData,
    /// Number of the column with the images' bytes.
    bytes: usize,
    /// Whether images have paths too.
    has_paths: bool,
}

/// A row group.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Group {
    file: usize,
    /// Among the groups of its file.
    index: usize,
    /// Number of its first row, in the table.
    start: u64,
    rows: u64,
}

/// What a table holds besides images.
#[derive(Default)]
pub struct Listed {
    /// In the order of the files and of their rows; an entry's place is its row in the table, and its size its share
    /// of the row group's images, as they are compressed.
    pub entries: Vec<Entry>,
    /// The names of the classes, where the files tell them.
    pub class_names: Option<Vec<String>>,
    /// Why there are no labels, where there are none.
    pub unlabelled: Option<Reason>,
}

/// More rows than this are in no set of images: ImageNet-21k has 14 million. A file of a few bytes can say that it has
/// more.
const MOST_ROWS: u64 = 20_000_000;

/// What `work` returns, or an error where the crate panics.
fn guarded<T>(work: impl FnOnce() -> Result<T, Reason>) -> Result<T, Reason> {
    without_panic(work).unwrap_or_else(|| Err(Reason::new("a damaged Parquet file")))
}

impl Table {
    /// Reads labels and names of all rows. `names` are what the files are called in the paths of their images.
    ///
    /// # Errors
    /// [`Error::Dataset`](crate::Error::Dataset) if a file is no Parquet file, is damaged, or does not have the columns.
    pub fn open(files: &[PathBuf], names: &[String], layout: &Layout) -> Result<(Self, Listed)> {
        let mut table = Rows::default();
        let mut listed = Listed::default();
        for (path, name) in files.iter().zip(names) {
            let shown = path.display();
            let metadata = metadata(path).map_err(|error| what_else(path).map_or(error, Reason::new)).context(&shown);
            let metadata = metadata.map_err(DatasetProblem::Table.because())?;
            let columns = guarded(|| Columns::of(&metadata, layout));
            let mut columns = columns.context(&shown).map_err(DatasetProblem::Columns.because())?;
            let same = table.files.is_empty() || columns.class_names == listed.class_names;
            if !same {
                let words = format!("{shown}: its classes have other names than those of {}", files[0].display());
                return Err(DatasetProblem::Table.error(words));
            }
            listed.class_names = columns.class_names.take();
            let rows = listed.entries.len() as u64 + metadata.file_metadata().num_rows().max(0) as u64;
            if rows > MOST_ROWS {
                let words = format!("{shown}: more than {} rows, with those before", thousands(MOST_ROWS));
                return Err(DatasetProblem::Table.error(words));
            }
            let room = guarded(|| Room::of(path, name, &metadata, &columns));
            let room = room.context(&shown).map_err(DatasetProblem::Table.because())?;
            columns.ensure_codecs(&metadata).context(&shown).map_err(DatasetProblem::Table.because())?;
            if let Err(reason) = &columns.label {
                listed.unlabelled.get_or_insert_with(|| Reason::new(format!("{shown}: {reason}")));
            }
            let added = guarded(|| table.add((path, name), metadata, columns, room, &mut listed));
            added.context("damaged Parquet data").context(&shown).map_err(DatasetProblem::Table.because())?;
        }
        Ok((Self { rows: Arc::new(table), images: OnceLock::new() }, listed))
    }

    /// The bytes of the image in that row.
    pub fn read(&self, row: u64) -> Result<Vec<u8>, Reason> {
        self.images.get_or_init(|| Images::of(self.rows.clone())).read(row)
    }
}

impl Rows {
    /// Adds the rows of a file, which is called so in their paths.
    fn add(
        &mut self,
        (path, name): (&Path, &str),
        metadata: ParquetMetaData,
        columns: Columns,
        mut room: Room,
        listed: &mut Listed,
    ) -> Result<(), Reason> {
        let file = self.files.len();
        let width = metadata.file_metadata().num_rows().saturating_sub(1).max(0).to_string().len();
        let mut row_of_file = 0;
        listed.entries.reserve(room.rows);
        for (index, group) in metadata.row_groups().iter().enumerate() {
            let expected = group.num_rows();
            let labels = match columns.label {
                Ok(column) => Values::open(path, &metadata, index, column)?.integers()?,
                Err(_) => vec![None; usize::try_from(expected)?],
            };
            let (start, rows) = (listed.entries.len() as u64, labels.len() as u64);
            ensure!(rows as i64 == expected, "row group {index} has {expected} rows and {rows} labels");
            let size = group.column(columns.bytes).compressed_size().max(0) as u64 / rows.max(1);
            let mut labels = (start..).zip(labels);
            // Adds a row whose image has that path of its own; `false` if there is none left.
            let mut add = |own: Option<&str>| {
                let Some((place, label)) = labels.next() else { return Ok(false) };
                let own = own.and_then(file_name).map_or(String::new(), |own| format!("/{own}"));
                room.take(&own)?;
                let path = format!("{name}/{row_of_file:0width$}{own}").into();
                listed.entries.push(Entry { path, size, place, file: file as u32, kind: Kind::File, label });
                row_of_file += 1;
                Ok::<_, Reason>(true)
            };
            if let Some(column) = columns.path {
                Values::open(path, &metadata, index, column)?.paths(|own| add(own).map(drop))?;
            }
            while add(None)? {}
            self.groups.push(Group { file, index, start, rows });
        }
        self.files.push(TableFile {
            path: path.to_path_buf(),
            metadata,
            bytes: columns.bytes,
            has_paths: columns.path.is_some(),
        });
        Ok(())
    }

    /// The group of a row.
    fn group_of(&self, row: u64) -> Option<Group> {
        // Groups without rows begin where the next one does, and come before it.
        let after = self.groups.partition_point(|group| group.start <= row);
        self.groups[..after].last().copied().filter(|group| row < group.start + group.rows)
    }

    /// The bytes of a group's images in the file.
    fn stored_bytes(&self, group: Group) -> u64 {
        let TableFile { metadata, bytes, .. } = &self.files[group.file];
        metadata.row_group(group.index).column(*bytes).compressed_size().max(0).unsigned_abs()
    }

    /// The images of a group.
    fn open_group(&self, group: Group) -> Result<Values, Reason> {
        let TableFile { path, metadata, bytes, .. } = &self.files[group.file];
        Values::open(path, metadata, group.index, *bytes).with_context(|| path.display())
    }
}

fn metadata(path: &Path) -> Result<ParquetMetaData, Reason> {
    let footer = footer(&mut File::open(path)?)?;
    guarded(|| Ok(ParquetMetaDataReader::decode_metadata(&footer)?)).context("its footer is damaged")
}

/// Whether a file has a column of images, or cannot be read, which is to be said.
pub fn may_hold_images(path: &Path, layout: &Layout) -> bool {
    metadata(path).map_or(true, |metadata| guarded(|| Columns::of(&metadata, layout)).is_ok())
}

/// What a file is that is no Parquet file, where its first bytes say so.
fn what_else(path: &Path) -> Option<&'static str> {
    let mut start = Vec::new();
    File::open(path).and_then(|file| file.take(64).read_to_end(&mut start)).ok()?;
    match &*start {
        start if start.starts_with(LFS_POINTER) => Some(IS_LFS_POINTER),
        start if start.starts_with(b"<") => Some("a web page in place of a Parquet file: download it again"),
        _ => None,
    }
}

/// The last part of an image's own path, if it can be part of a line and a file can have that name.
fn file_name(path: &str) -> Option<&str> {
    const LONGEST: usize = 255;
    let name = path.rsplit(['/', '\\']).next()?;
    (!name.is_empty() && name.len() <= LONGEST && !name.contains(char::is_control)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why a file is refused.
    fn refusal(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/found/parquet").join(name);
        Table::open(&[path], &["a".into()], &Layout::default()).err().unwrap().to_string()
    }

    #[test]
    fn a_few_bytes_are_no_table_of_many_images() {
        let words = refusal("more-rows-than-bytes.parquet");
        assert!(words.contains("damaged: 100,000 rows in "), "{words}");
    }

    #[test]
    fn row_groups_and_pages_do_not_add_up_to_far_more_than_the_file() {
        for (name, part) in [
            // 12 pages, each with 30 MB that its values have in common.
            ("prefixes-in-many-pages.parquet", "in memory, and its column in the row group may take 33,554,432"),
            // 60 row groups with the same columns, of which one has 30 MiB; and six with their own.
            ("row-groups-in-the-same-bytes.parquet", "damaged Parquet data: columns of "),
            (
                "row-groups-of-30-megabytes-each.parquet",
                "in memory, and its column in the row group may take 5,592,405",
            ),
        ] {
            let words = refusal(name);
            assert!(words.contains(part), "{name}: {words}");
        }
    }
}
