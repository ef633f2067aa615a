//! Thrift's [compact protocol](https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md), in which
//! footers and the headers of pages are written.

use self::Type::{Binary, List, Number, Struct};

/// What a value must be.
pub enum Type {
    /// Of 16, 32 or 64 bits.
    Number,
    /// Or text.
    Binary,
    List(&'static Type),
    Struct(Fields),
}

/// Fields of a struct by their numbers, as
/// [parquet.thrift](https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift) has them.
pub type Fields = &'static [(i16, Type)];

/// What is passed over is nested no deeper.
const DEEPEST_VALUE: usize = 100;

const LIST: u8 = 9;
pub const STRUCT: u8 = 12;

/// A reader of the compact protocol.
pub struct Compact<'a> {
    pub bytes: &'a [u8],
}

impl<'a> Compact<'a> {
    /// So many bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    pub fn varint(&mut self) -> Option<u64> {
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

    pub fn signed(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Bytes, or text.
    pub fn binary(&mut self) -> Option<&'a [u8]> {
        let length = self.varint()?;
        self.take(usize::try_from(length).ok()?)
    }

    /// Type and number of the next field of a struct, whose last field had that number; nothing at its end.
    pub fn field(&mut self, last: i16) -> Option<Option<(u8, i16)>> {
        let head = self.byte()?;
        match (head & 15, i16::from(head >> 4)) {
            (0, _) => Some(None),
            (kind, 0) => Some(Some((kind, self.signed()?.try_into().ok()?))),
            (kind, step) => Some(Some((kind, last.checked_add(step)?))),
        }
    }

    /// Type and number of the elements of a list or set.
    pub fn list(&mut self) -> Option<(u8, u64)> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        Some((head & 15, count))
    }

    /// Passes over a value.
    pub fn skip(&mut self, kind: u8) -> Option<()> {
        self.skip_at(kind, 0)
    }

    fn skip_at(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > DEEPEST_VALUE {
            return None;
        }
        match kind {
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.varint()?),
            7 => drop(self.take(8)?),
            8 => drop(self.binary()?),
            LIST | 10 => {
                let (kind, count) = self.list()?;
                // In a list, a truth value is a byte.
                let kind = if kind <= 2 { 3 } else { kind };
                (0..count).try_for_each(|_| self.skip_at(kind, depth + 1))?;
            }
            STRUCT => {
                let mut id = 0;
                while let Some((kind, field)) = self.field(id)? {
                    self.skip_at(kind, depth + 1)?;
                    id = field;
                }
            }
            // Maps are in no footer.
            _ => return None,
        }
        Some(())
    }

    /// The number that is at that place of a struct: the numbers of fields, from the outermost on.
    pub fn number(&mut self, path: &[i16]) -> Option<i64> {
        let kind = self.find(path)?;
        (4..=6).contains(&kind).then(|| self.signed())?
    }

    /// The truth value that is at that place.
    pub fn truth(&mut self, path: &[i16]) -> Option<bool> {
        self.find(path).filter(|kind| *kind <= 2).map(|kind| kind == 1)
    }

    /// Goes to the value at that place, and returns its type.
    pub fn find(&mut self, path: &[i16]) -> Option<u8> {
        let (first, rest) = path.split_first()?;
        let mut last = 0;
        while let Some((kind, id)) = self.field(last)? {
            match rest {
                [] if id == *first => return Some(kind),
                _ if id == *first && kind == STRUCT => return self.find(rest),
                _ => self.skip(kind)?,
            }
            last = id;
        }
        None
    }

    /// Copies those fields of a struct.
    pub fn copy_struct(&mut self, fields: Fields, to: &mut Vec<u8>) -> Option<()> {
        let (mut last, mut copied) = (0, 0);
        while let Some((kind, id)) = self.field(last)? {
            last = id;
            let Some((_, expected)) = fields.iter().find(|(known, _)| *known == id) else {
                self.skip(kind)?;
                continue;
            };
            // In their order, each once.
            let step = u8::try_from(id - copied).ok().filter(|step| (1..=15).contains(step))?;
            to.push(step << 4 | kind);
            copied = id;
            self.copy(kind, expected, to)?;
        }
        to.push(0);
        Some(())
    }

    /// Copies a value of that type, if it is what is expected.
    fn copy(&mut self, kind: u8, expected: &Type, to: &mut Vec<u8>) -> Option<()> {
        let from = self.bytes;
        match (expected, kind) {
            (Number, 4..=6) | (Binary, 8) => self.skip(kind)?,
            (List(element), LIST) => {
                let (kind, count) = self.list()?;
                to.extend(&from[..from.len() - self.bytes.len()]);
                return (0..count).try_for_each(|_| self.copy(kind, element, to));
            }
            (Struct(fields), STRUCT) => return self.copy_struct(fields, to),
            _ => return None,
        }
        to.extend(&from[..from.len() - self.bytes.len()]);
        Some(())
    }
}

/// A number as it is written, in tests.
#[cfg(test)]
pub fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
