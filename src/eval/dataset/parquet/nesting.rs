//! How deeply the columns of a Parquet file are nested.
//!
//! The crate `parquet` builds the tree of columns by recursion, and a file of a few kilobytes can nest them so deeply
//! that the stack overflows, which ends the program. So the list of columns is looked at first, in the compact protocol
//! of [Thrift](https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use crate::error::{Reason, Result, ensure};

/// Images are two levels deep, and what people keep beside them a few more.
const DEEPEST: usize = 100;

/// Refuses a file whose columns are nested too deeply. What is wrong with it otherwise is left to its reader.
pub fn ensure_shallow(file: &mut File) -> Result<(), Reason> {
    if let Some(depth) = footer(file).and_then(|footer| depth(&footer)) {
        ensure!(depth <= DEEPEST, "its columns are nested {depth} levels deep, and {DEEPEST} is the most");
    }
    Ok(())
}

/// What stands at the end of a file, before its length and the mark.
fn footer(file: &mut File) -> Option<Vec<u8>> {
    let mut end = [0; 8];
    let length = file.seek(SeekFrom::End(-8)).ok()?;
    file.read_exact(&mut end).ok()?;
    let size = u64::from(u32::from_le_bytes(end[..4].try_into().ok()?));
    file.seek(SeekFrom::Start(length.checked_sub(size)?)).ok()?;
    let mut footer = Vec::new();
    file.take(size).read_to_end(&mut footer).ok()?;
    Some(footer)
}

/// The number of levels of the columns, which are field 2 of the footer, a list of elements in the order of a walk
/// through the tree; field 5 of each is the number of its children.
fn depth(footer: &[u8]) -> Option<usize> {
    let mut reader = Compact { bytes: footer };
    let mut id = 0;
    while let Some((kind, field)) = reader.field(id)? {
        if field == 2 && kind == LIST {
            return reader.depth_of_list();
        }
        reader.skip(kind, 0)?;
        id = field;
    }
    None
}

const LIST: u8 = 9;
const STRUCT: u8 = 12;

struct Compact<'a> {
    bytes: &'a [u8],
}

impl Compact<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Type and number of the next field of a struct, whose last field had that number; nothing at its end.
    fn field(&mut self, last: i64) -> Option<Option<(u8, i64)>> {
        let head = self.byte()?;
        match (head & 15, i64::from(head >> 4)) {
            (0, _) => Some(None),
            (kind, 0) => Some(Some((kind, self.signed()?))),
            (kind, step) => Some(Some((kind, last + step))),
        }
    }

    /// Type and number of the elements of a list or set.
    fn list(&mut self) -> Option<(u8, u64)> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        Some((head & 15, count))
    }

    /// Passes over a value.
    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        match kind {
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.varint()?),
            7 => drop(self.take(8)?),
            8 => {
                let length = self.varint()?;
                self.take(usize::try_from(length).ok()?)?;
            }
            LIST | 10 => {
                let (kind, count) = self.list()?;
                // In a list, a truth value is a byte.
                let kind = if kind <= 2 { 3 } else { kind };
                (0..count).try_for_each(|_| self.skip(kind, depth + 1))?;
            }
            STRUCT => {
                let mut id = 0;
                while let Some((kind, field)) = self.field(id)? {
                    self.skip(kind, depth + 1)?;
                    id = field;
                }
            }
            // Maps are in no footer.
            _ => return None,
        }
        Some(())
    }

    fn depth_of_list(&mut self) -> Option<usize> {
        let (kind, count) = self.list()?;
        // Of each level above the next element, the number of its children that are still to come.
        let (mut open, mut deepest): (Vec<i64>, usize) = (Vec::new(), 0);
        for _ in 0..count {
            let (mut id, mut children) = (0, 0);
            while let Some((kind, field)) = (kind == STRUCT).then(|| self.field(id))?? {
                if field == 5 && (4..=6).contains(&kind) {
                    children = self.signed()?;
                } else {
                    self.skip(kind, 0)?;
                }
                id = field;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer whose list of columns has elements with so many children.
    fn footer(children: &[u8]) -> Vec<u8> {
        // Field 1, the version; field 2, a list of structs; of each, field 4 is a name and field 5 the number.
        let mut bytes = vec![0x15, 2, 0x19, 0xf0 | STRUCT];
        bytes.extend([0x80 | (children.len() as u8 & 0x7f), (children.len() >> 7) as u8]);
        for count in children {
            bytes.extend([0x48, 1, b'x', 0x15, 2 * count, 0]);
        }
        bytes
    }

    #[test]
    fn levels_are_counted() {
        assert_eq!(depth(&footer(&[2, 2, 0, 0, 0])), Some(3));
        assert_eq!(depth(&footer(&[3, 0, 0, 0])), Some(2));
        assert_eq!(depth(&footer(&[1; 1000])), Some(1000));
        let whole = footer(&[2, 2, 0, 0, 0]);
        for length in 0..whole.len() {
            assert_eq!(depth(&whole[..length]), None, "{length}");
        }
    }

    #[test]
    fn real_files_are_shallow_and_nested_ones_refused() {
        for name in
            ["parquet-hf/data/validation-00000-of-00003", "broken/image-list", "parquet-zstd/validation-00000-of-00002"]
        {
            let path = format!("{}/tests/fixtures/sets/{name}.parquet", env!("CARGO_MANIFEST_DIR"));
            let mut file = File::open(path).unwrap();
            let levels = super::footer(&mut file).and_then(|footer| depth(&footer)).unwrap();
            assert!((2..=6).contains(&levels), "{name}: {levels}");
            assert!(ensure_shallow(&mut file).is_ok());
        }
        let dir = tempfile::tempdir().unwrap();
        let footer = footer(&[1; 10_000]);
        let bytes = [b"PAR1", &*footer, &(footer.len() as u32).to_le_bytes(), b"PAR1"].concat();
        std::fs::write(dir.path().join("deep"), bytes).unwrap();
        let error = ensure_shallow(&mut File::open(dir.path().join("deep")).unwrap()).unwrap_err();
        assert!(error.to_string().contains("10000 levels deep"), "{error}");
    }
}
