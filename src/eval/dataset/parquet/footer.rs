//! The footer of a file: its columns, and where their values are.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::thrift::Kind::{Binary, List, Number, Struct};
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
const COLUMN: Fields = &[(1, Number), (2, Number), (3, Number), (4, Binary), (CHILDREN, Number)];
const CHILDREN: i16 = 5;
/// `RowGroup`: columns, bytes and rows.
const ROW_GROUP: Fields = &[(1, List(&Struct(CHUNK))), (2, Number), (3, Number)];
/// `ColumnChunk`: offset and metadata.
const CHUNK: Fields = &[(2, Number), (3, Struct(CHUNK_METADATA))];
/// `ColumnMetaData`: type, encodings, codec, values, sizes without compression and with it, and where pages and the
/// dictionary are.
const CHUNK_METADATA: Fields =
    &[(1, Number), (2, List(&Number)), (4, Number), (5, Number), (6, Number), (7, Number), (9, Number), (11, Number)];

/// Images are two levels deep, and what people keep beside them a few more.
const DEEPEST: usize = 100;

/// The footer of a file.
pub fn footer(file: &mut File) -> Result<Vec<u8>, Reason> {
    // Its length, and the mark of the format.
    let mut end = [0; 8];
    let position = file.seek(SeekFrom::End(-8)).context("not a Parquet file, or cut short")?;
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
    let depth = depth(&footer).context("its footer is damaged")?;
    ensure!(depth <= DEEPEST, "its columns are nested {depth} levels deep, and {DEEPEST} is the most");
    Ok(footer)
}

/// The number of levels of the columns, in a footer that has been copied.
fn depth(footer: &[u8]) -> Option<usize> {
    let mut reader = Compact { bytes: footer };
    let mut last = 0;
    while let Some((kind, id)) = reader.field(last)? {
        if id == COLUMNS {
            return depth_of_list(&mut reader);
        }
        reader.skip(kind)?;
        last = id;
    }
    // The crate says that there are none.
    Some(0)
}

fn depth_of_list(reader: &mut Compact) -> Option<usize> {
    let (_, count) = reader.list()?;
    // Of each level above the next element, the number of its children that are still to come.
    let (mut open, mut deepest): (Vec<i64>, usize) = (Vec::new(), 0);
    for _ in 0..count {
        let (mut last, mut children) = (0, 0);
        while let Some((kind, id)) = reader.field(last)? {
            match id {
                CHILDREN => children = reader.signed()?,
                _ => reader.skip(kind)?,
            }
            last = id;
        }
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        open.push(children);
        deepest = deepest.max(open.len());
        while open.pop_if(|left| *left <= 0).is_some() {}
    }
    Some(deepest)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A footer whose list of columns has elements with so many children.
    fn of_columns(children: &[u8]) -> Vec<u8> {
        // The version; a list of structs, each with a name and the number of children.
        let mut bytes = vec![0x15, 2, 0x19, 0xfc];
        bytes.extend([0x80 | (children.len() as u8 & 0x7f), (children.len() >> 7) as u8]);
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
        assert_eq!(depth(&of_columns(&[2, 2, 0, 0, 0])), Some(3));
        assert_eq!(depth(&of_columns(&[3, 0, 0, 0])), Some(2));
        assert!(copied(&of_columns(&[1; 100])).is_ok());
        let error = copied(&of_columns(&[1; 10_000])).unwrap_err().to_string();
        assert!(error.contains("10000 levels deep"), "{error}");
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
