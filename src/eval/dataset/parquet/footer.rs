//! The footer of a file: its columns, and where their values are.
//!
//! The crate `parquet` reads fields by their numbers, whatever type they are written with. It passes over lists of truth
//! values without reading any, so that a few bytes keep it busy for a second; it makes room for as many columns as it is
//! told; and it builds their tree by recursion, so that a few kilobytes can make the stack overflow, which ends the
//! program. So it is given a copy, with the fields that are used alone, of the types that they must have, and a tree that
//! is one.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::thrift::Type::{Binary, List, Number, Struct};
use super::thrift::{Compact, Fields};
use crate::error::{Context, Reason, Result, bail, ensure};

/// `FileMetaData`: version, columns, rows, row groups, and what writers add.
const FILE: Fields = &[
    (1, Number),
    (COLUMNS, List(&Struct(COLUMN))),
    (3, Number),
    (4, List(&Struct(ROW_GROUP))),
    (5, List(&Struct(&[(1, Binary), (2, Binary)]))),
];
const COLUMNS: i16 = 2;
/// `SchemaElement`: type, length, repetition, name and the number of children. They stand in the order of a walk through
/// the tree.
const COLUMN: Fields = &[(1, Number), (2, Number), (3, Number), (NAME, Binary), (CHILDREN, Number)];
const NAME: i16 = 4;
const CHILDREN: i16 = 5;
/// `RowGroup`: columns, bytes and rows.
const ROW_GROUP: Fields = &[(1, List(&Struct(CHUNK))), (2, Number), (3, Number)];
/// `ColumnChunk`: offset and metadata.
const CHUNK: Fields = &[(2, Number), (3, Struct(CHUNK_METADATA))];
/// `ColumnMetaData`: type, encodings, codec, values, sizes without compression and with it, and where pages and the
/// dictionary are.
const CHUNK_METADATA: Fields =
    &[(1, Number), (2, List(&Number)), (4, Number), (5, Number), (6, Number), (7, Number), (9, Number), (11, Number)];

/// Images are two levels deep, and what people keep beside them a few more: each list in a list has three.
const DEEPEST: usize = 32;
/// What the crate keeps of all columns takes no more than so many times the footer, where a column of a file with images
/// has 70 bytes or more: its name and type, and where its values are in each row group.
const MOST: usize = 32;
/// And this much in any case: a few thousand columns.
const ANYWAY: usize = 1 << 20;
/// What it keeps of a column, in bytes, beside its path: 210 were measured.
const OF_COLUMN: usize = 256;
/// What it keeps of each name in a column's path, of which it has a copy, beside the name's own bytes: a `String` of 24 and
/// the allocator's least.
const OF_NAME: usize = 56;

/// The footer of a file.
pub fn footer(file: &mut File) -> Result<Vec<u8>, Reason> {
    // Its length, and the mark of the format.
    let mut end = [0; 8];
    let position = file.seek(SeekFrom::End(-8)).ok().context("not a Parquet file, or cut short")?;
    file.read_exact(&mut end)?;
    match &end[4..] {
        b"PAR1" => {}
        b"PARE" => bail!("it is encrypted"),
        _ => bail!("not a Parquet file, or cut short"),
    }
    let length = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    file.seek(SeekFrom::Start(position.checked_sub(length).context("its footer is longer than the file")?))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    let mut footer = Vec::new();
    Compact { bytes: &bytes }.copy_struct(FILE, &mut footer).context("its footer is damaged")?;
    let Tree { depth, size } = Tree::of(&footer).context("its footer is damaged")?;
    ensure!(depth <= DEEPEST, "its columns are nested {depth} levels deep, and {DEEPEST} is the most");
    let most = ANYWAY.max(MOST.saturating_mul(footer.len()));
    ensure!(size <= most, "its columns are too many, or their names too long, for a footer of {} bytes", footer.len());
    Ok(footer)
}

/// The tree of columns.
struct Tree {
    /// The number of levels.
    depth: usize,
    /// What the crate keeps of all of its nodes, in bytes.
    size: usize,
}

impl Tree {
    /// Walks through the columns of a footer that has been copied, if they are a tree.
    fn of(footer: &[u8]) -> Option<Self> {
        let mut reader = Compact { bytes: footer };
        reader.find(&[COLUMNS])?;
        let (_, count) = reader.list()?;
        let mut tree = Self { depth: 0, size: 0 };
        // Of each level above the next node, the number of its children that are still to come, and what its
        // name takes.
        let mut open: Vec<(u64, usize)> = Vec::new();
        let (mut path, mut all) = (0, 0u64);
        for _ in 0..count {
            let (mut last, mut children, mut name) = (0, 0, 0);
            while let Some((kind, id)) = reader.field(last)? {
                match id {
                    CHILDREN => children = u64::try_from(reader.signed()?).ok()?,
                    NAME => name = reader.binary()?.len(),
                    _ => reader.skip(kind)?,
                }
                last = id;
            }
            all = all.checked_add(children).filter(|all| *all < count)?;
            if let Some((left, _)) = open.last_mut() {
                *left -= 1;
            }
            let name = name + OF_NAME;
            open.push((children, name));
            path += name;
            tree.depth = tree.depth.max(open.len());
            tree.size = tree.size.checked_add(OF_COLUMN + path)?;
            while let Some((_, name)) = open.pop_if(|(left, _)| *left == 0) {
                path -= name;
            }
        }
        Some(tree)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::thrift::varint;
    use super::*;

    /// A footer whose list of columns has elements with so many children.
    fn of_columns(children: &[u8]) -> Vec<u8> {
        // The version; a list of structs, each with a name and the number of children.
        let mut bytes = [&[0x15, 2, 0x19, 0xfc][..], &varint(children.len() as u64)].concat();
        for count in children {
            bytes.extend([0x48, 1, b'x', 0x15, 2 * count, 0]);
        }
        [bytes, vec![0]].concat()
    }

    /// What is given to the crate of a file with that footer.
    fn copied(bytes: &[u8]) -> Result<Vec<u8>, Reason> {
        let mut file = tempfile::tempfile().unwrap();
        let length = (bytes.len() as u32).to_le_bytes();
        file.write_all(&[b"PAR1", bytes, &length, b"PAR1"].concat()).unwrap();
        footer(&mut file)
    }

    #[test]
    fn columns_that_are_nested_deeply_are_refused() {
        let depth = |children: &[u8]| Tree::of(&of_columns(children)).map(|tree| tree.depth);
        assert_eq!(depth(&[2, 2, 0, 0, 0]), Some(3));
        assert_eq!(depth(&[3, 0, 0, 0]), Some(2));
        let chain = |length: usize| [vec![1; length - 1], vec![0]].concat();
        assert!(copied(&of_columns(&chain(DEEPEST))).is_ok());
        let error = copied(&of_columns(&chain(DEEPEST + 1))).unwrap_err().to_string();
        assert_eq!(error, "its columns are nested 33 levels deep, and 32 is the most");
        let error = copied(&of_columns(&chain(10_000))).unwrap_err().to_string();
        assert!(error.contains("10000 levels deep"), "{error}");
    }

    #[test]
    fn columns_are_as_many_as_they_say() {
        // The second has more children than there are columns: as a number of 31 bits, and as one of 33 of which the crate
        // would take 32, which are 1.
        let of = |children: &[u8]| {
            let first = [0x48, 1, b'x', 0x15, 2, 0];
            let second = [&[0x48, 1, b'x', 0x15][..], children, &[0]].concat();
            copied(&[&[0x15, 2, 0x19, 0x2c][..], &first, &second, &[0]].concat())
        };
        assert!(of(&[0]).is_ok());
        for children in [&[2][..], &[0xfe, 0xff, 0xff, 0xff, 0x0f], &[0xfd, 0xff, 0xff, 0xff, 0x1f]] {
            assert_eq!(of(children).unwrap_err().to_string(), "its footer is damaged", "{children:?}");
        }
    }

    #[test]
    fn a_long_name_around_many_columns_is_refused() {
        let named = |length: u64, children: u64| {
            let group =
                [&[0x48][..], &varint(length), &vec![b'x'; length as usize], &[0x15], &varint(2 * children), &[0]];
            let columns = [0x48, 1, b'y', 0].repeat(children as usize);
            copied(&[&[0x15, 2, 0x19, 0xfc][..], &varint(children + 1), &group.concat(), &columns, &[0]].concat())
        };
        assert!(named(100, 1000).is_ok());
        let error = named(4000, 1000).unwrap_err().to_string();
        assert_eq!(error, "its columns are too many, or their names too long, for a footer of 8014 bytes");
    }

    #[test]
    fn many_columns_in_many_others_are_refused() {
        // Each column has a copy of the names around it, whatever their length: 29 of one byte.
        let deep = |columns: u64| {
            let around = [0x48, 1, b'x', 0x15, 2, 0].repeat(28);
            let last = [&[0x48, 1, b'x', 0x15][..], &varint(2 * columns), &[0]].concat();
            let count = varint(29 + columns);
            let columns = [0x48, 1, b'y', 0].repeat(columns as usize);
            copied(&[&[0x15, 2, 0x19, 0xfc][..], &count, &around, &last, &columns, &[0]].concat())
        };
        assert!(deep(300).is_ok());
        assert!(deep(3000).unwrap_err().to_string().starts_with("its columns are too many"));
    }

    #[test]
    fn only_what_is_used_is_copied() {
        let whole = of_columns(&[2, 2, 0, 0, 0]);
        assert_eq!(copied(&whole).unwrap(), whole);
        for length in 0..whole.len() {
            assert!(copied(&whole[..length]).is_err(), "{length}");
        }
        // Field 6 is text, field 9 a list of 2^31 - 1 truth values, the version is text, and the columns are a number.
        let [start, truths] = [&whole[..whole.len() - 1], &[0x79, 0xf1, 0xff, 0xff, 0xff, 0xff, 7, 0]];
        assert_eq!(copied(&[start, &[0x48, 1, b'x', 0]].concat()).unwrap(), whole);
        for bytes in [[start, truths].concat(), vec![0x18, 1, b'x', 0], vec![0x25, 2, 0]] {
            assert!(copied(&bytes).unwrap_err().to_string().contains("its footer is damaged"));
        }
    }
}
