//! Pickles, opcode by opcode.

use super::{Chance, changed, number};

/// What follows an opcode.
#[derive(Clone, Copy, PartialEq)]
enum Argument {
    Bytes(usize),
    /// So many bytes say how many follow.
    Counted(usize),
    Lines(usize),
}

use Argument::{Bytes, Counted, Lines};

const OPCODES: &[(u8, Argument)] = &[
    (0x80, Bytes(1)),
    (0x95, Bytes(8)),
    (b'.', Bytes(0)),
    (b'(', Bytes(0)),
    (b'0', Bytes(0)),
    (b'1', Bytes(0)),
    (b'2', Bytes(0)),
    (b'N', Bytes(0)),
    (0x88, Bytes(0)),
    (0x89, Bytes(0)),
    (b'J', Bytes(4)),
    (b'K', Bytes(1)),
    (b'M', Bytes(2)),
    (0x8a, Counted(1)),
    (0x8b, Counted(4)),
    (b'G', Bytes(8)),
    (0x8c, Counted(1)),
    (b'X', Counted(4)),
    (0x8d, Counted(8)),
    (b'U', Counted(1)),
    (b'T', Counted(4)),
    (b'C', Counted(1)),
    (b'B', Counted(4)),
    (0x8e, Counted(8)),
    (0x96, Counted(8)),
    (b']', Bytes(0)),
    (b')', Bytes(0)),
    (b'}', Bytes(0)),
    (0x8f, Bytes(0)),
    (b't', Bytes(0)),
    (0x85, Bytes(0)),
    (0x86, Bytes(0)),
    (0x87, Bytes(0)),
    (b'l', Bytes(0)),
    (b'd', Bytes(0)),
    (0x91, Bytes(0)),
    (b'a', Bytes(0)),
    (b'e', Bytes(0)),
    (0x90, Bytes(0)),
    (b's', Bytes(0)),
    (b'u', Bytes(0)),
    (b'q', Bytes(1)),
    (b'r', Bytes(4)),
    (0x94, Bytes(0)),
    (b'h', Bytes(1)),
    (b'j', Bytes(4)),
    (b'c', Lines(2)),
    (0x93, Bytes(0)),
    (b'R', Bytes(0)),
    (0x81, Bytes(0)),
    (0x92, Bytes(0)),
    (b'b', Bytes(0)),
    (b'Q', Bytes(0)),
];

const GLOBALS: &[&str] = &[
    "torch\nFloatStorage\n",
    "torch\nHalfStorage\n",
    "torch\nDoubleStorage\n",
    "torch\nBFloat16Storage\n",
    "torch\nLongStorage\n",
    "torch._utils\n_rebuild_tensor_v2\n",
    "torch._utils\n_rebuild_parameter\n",
    "collections\nOrderedDict\n",
    "collections\ndefaultdict\n",
    "argparse\nNamespace\n",
    "os\nsystem\n",
];

/// Changes a pickle: its operations, in their order and number, and their arguments.
pub fn pickle(bytes: &[u8], chance: &mut Chance) -> Option<Vec<u8>> {
    let mut operations = split(bytes);
    if operations.is_empty() {
        return None;
    }
    for _ in 0..1 + chance.below(4) {
        let (at, other) = (chance.below(operations.len()), chance.below(operations.len()));
        match chance.below(8) {
            0 if operations.len() > 1 => drop(operations.remove(at)),
            1 => operations.insert(at, operations[other].clone()),
            2 => operations.swap(at, other),
            3 => operations.insert(at, any(chance)),
            4 => operations[at] = any(chance),
            5 => {
                let end = (at + 1 + chance.below(8)).min(operations.len());
                let part = operations[at..end].to_vec();
                operations.splice(other..other, part);
            }
            _ => operations[at] = with_other_argument(&operations[at], chance),
        }
        if operations.is_empty() {
            return None;
        }
    }
    Some(operations.concat())
}

/// The operations of a pickle, each with its argument. The last is whatever is no operation.
fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut operations = Vec::new();
    while !bytes.is_empty() {
        let length = length(bytes).filter(|length| *length <= bytes.len()).unwrap_or(bytes.len());
        operations.push(bytes[..length].to_vec());
        bytes = &bytes[length..];
    }
    operations
}

fn length(bytes: &[u8]) -> Option<usize> {
    let (_, argument) = OPCODES.iter().find(|(opcode, _)| *opcode == bytes[0])?;
    Some(match *argument {
        Bytes(count) => 1 + count,
        Counted(width) => {
            let mut count = [0; 8];
            count[..width].copy_from_slice(bytes.get(1..1 + width)?);
            usize::try_from(u64::from_le_bytes(count)).ok()?.checked_add(1 + width)?
        }
        Lines(count) => {
            let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            ends.map(|(at, _)| at + 1).nth(count - 1)?
        }
    })
}

fn any(chance: &mut Chance) -> Vec<u8> {
    let (opcode, argument) = chance.one_of(OPCODES);
    let mut operation = vec![opcode];
    match argument {
        Bytes(count) => operation.extend(&number(chance).to_le_bytes()[..count]),
        Counted(width) => {
            operation.extend(counted(width, chance.one_of(&[&b""[..], b"a", b"module.", b"storage", b"\xff", b"0"])))
        }
        Lines(_) => operation.extend(chance.one_of(GLOBALS).bytes()),
    }
    operation
}

fn with_other_argument(operation: &[u8], chance: &mut Chance) -> Vec<u8> {
    let opcode = operation[0];
    match OPCODES.iter().find(|(known, _)| *known == opcode) {
        Some((_, Bytes(count))) if *count > 0 => {
            // Of integers, any kind will do.
            let (opcode, count) = if b"JKM".contains(&opcode) {
                chance.one_of(&[(b'J', 4), (b'K', 1), (b'M', 2)])
            } else {
                (opcode, *count)
            };
            [&[opcode][..], &number(chance).to_le_bytes()[..count]].concat()
        }
        Some((_, Counted(width))) if operation.len() > *width => {
            let content = changed(&operation[1 + width..], chance);
            let content = if content.len() > 255 { &content[..255] } else { &content };
            [&[opcode][..], &counted(*width, content)].concat()
        }
        Some((_, Lines(_))) => [&[opcode][..], chance.one_of(GLOBALS).as_bytes()].concat(),
        _ => any(chance),
    }
}

fn counted(width: usize, content: &[u8]) -> Vec<u8> {
    [&(content.len() as u64).to_le_bytes()[..width], content].concat()
}
