//! The stack machine that runs a pickle.

use std::collections::HashMap;
use std::rc::Rc;

use super::opcode::*;
use super::value::{Heap, Object, Value};
use crate::error::{Context, Reason, bail, ensure};

/// More objects and operations than any checkpoint has: of a network of a thousand tensors, with its optimizer's,
/// there are some ten thousand. An operation of one byte makes an object of a hundred, so that a file of no great size
/// could fill the memory.
const MOST_OBJECTS: usize = 1 << 20;
const MOST_OPERATIONS: usize = 1 << 22;

/// A pickle that runs.
pub(super) struct Machine<'a> {
    /// What has not run yet.
    input: &'a [u8],
    pub(super) heap: Vec<Object>,
    stack: Vec<Value>,
    /// How high the stack was at each mark.
    marks: Vec<usize>,
    /// Values that the pickle refers to again, by their slots.
    memo: HashMap<u32, Value>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(pickle: &'a [u8]) -> Self {
        Self { input: pickle, heap: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    pub(super) fn into_heap(self) -> Heap {
        Heap(self.heap)
    }

    /// Runs up to the end, and returns the value that the pickle describes.
    pub(super) fn run(&mut self) -> Result<Value, Reason> {
        for _ in 0..MOST_OPERATIONS {
            match self.byte()? {
                STOP => return self.pop(),
                opcode => self.step(opcode)?,
            }
        }
        bail!("the pickle has over {MOST_OPERATIONS} operations, more than a checkpoint needs");
    }

    /// Runs one operation.
    fn step(&mut self, opcode: u8) -> Result<(), Reason> {
        match opcode {
            PROTO => self.skip(1),
            FRAME => self.skip(8),

            MARK => self.mark(),
            POP => self.pop().map(drop),
            POP_MARK => self.pop_mark().map(drop),
            DUP => self.top().cloned().and_then(|top| self.push(top)),

            NONE => self.push(Value::None),
            NEWTRUE | NEWFALSE => self.push(Value::Bool),
            BININT => self.array().and_then(|bytes| self.push_int(i32::from_le_bytes(bytes))),
            BININT1 => self.byte().and_then(|byte| self.push_int(byte)),
            BININT2 => self.array().and_then(|bytes| self.push_int(u16::from_le_bytes(bytes))),
            LONG1 => self.long(1),
            LONG4 => self.long(4),
            BINFLOAT => self.skip(8).and_then(|()| self.push(Value::Float)),
            // Python 2's byte strings stand for text where they stand for anything.
            SHORT_BINUNICODE | SHORT_BINSTRING => self.string(1),
            BINUNICODE | BINSTRING => self.string(4),
            BINUNICODE8 => self.string(8),
            SHORT_BINBYTES => self.bytes(1),
            BINBYTES => self.bytes(4),
            BINBYTES8 | BYTEARRAY8 => self.bytes(8),

            EMPTY_LIST => self.push_object(Object::List(Vec::new())),
            EMPTY_TUPLE => self.push_object(Object::Tuple(Vec::new())),
            EMPTY_DICT => self.push_object(Object::Dict(Vec::new())),
            EMPTY_SET => self.push_object(Object::Opaque),
            TUPLE => self.pop_mark().and_then(|items| self.push_object(Object::Tuple(items))),
            TUPLE1 => self.tuple(1),
            TUPLE2 => self.tuple(2),
            TUPLE3 => self.tuple(3),
            LIST => self.pop_mark().and_then(|items| self.push_object(Object::List(items))),
            DICT => self.pop_mark().and_then(|items| self.push_object(Object::Dict(pairs(items)))),
            FROZENSET => self.pop_mark().and_then(|_| self.push_object(Object::Opaque)),
            APPEND => self.pop().and_then(|item| self.append(vec![item])),
            APPENDS => self.pop_mark().and_then(|items| self.append(items)),
            ADDITEMS => self.pop_mark().map(drop),
            SETITEM => self.pop_two().and_then(|item| self.set(vec![item])),
            SETITEMS => self.pop_mark().and_then(|items| self.set(pairs(items))),

            BINPUT => self.byte().and_then(|slot| self.put(slot.into())),
            LONG_BINPUT => self.array().and_then(|slot| self.put(u32::from_le_bytes(slot))),
            MEMOIZE => self.put(self.memo.len() as u32),
            BINGET => self.byte().and_then(|slot| self.fetch(slot.into())),
            LONG_BINGET => self.array().and_then(|slot| self.fetch(u32::from_le_bytes(slot))),

            GLOBAL => self.named_global(),
            STACK_GLOBAL => self.stack_global(),
            REDUCE | NEWOBJ => self.pop_two().and_then(|(callable, arguments)| self.call(callable, arguments)),
            NEWOBJ_EX => self.call_with_keywords(),
            // The state of the object below: attributes, of which none is needed.
            BUILD => self.pop().map(drop),
            BINPERSID => self.persistent(),
            other => bail!(
                "the pickle uses opcode 0x{other:02x}, which checkpoints do not need; \
                 re-save the weights with torch.save(state_dict, FILE)"
            ),
        }
    }

    fn take(&mut self, n: usize) -> Result<&[u8], Reason> {
        let (taken, rest) = self.input.split_at_checked(n).context("the pickle ends too early")?;
        self.input = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        Ok(self.take(N)?.try_into()?)
    }

    fn byte(&mut self) -> Result<u8, Reason> {
        Ok(self.take(1)?[0])
    }

    fn skip(&mut self, n: usize) -> Result<(), Reason> {
        self.take(n).map(drop)
    }

    /// A length of `width` little-endian bytes, then as many bytes.
    fn counted(&mut self, width: usize) -> Result<&[u8], Reason> {
        let mut len = [0; 8];
        len[..width].copy_from_slice(self.take(width)?);
        self.take(usize::try_from(u64::from_le_bytes(len))?)
    }

    fn string(&mut self, width: usize) -> Result<(), Reason> {
        let text = Value::Str(String::from_utf8_lossy(self.counted(width)?).into());
        self.push(text)
    }

    fn bytes(&mut self, width: usize) -> Result<(), Reason> {
        self.counted(width)?;
        self.push(Value::Bytes)
    }

    /// A length of `width` bytes, then a little-endian two's complement integer of as many. None that matters
    /// here exceeds 64 bits.
    fn long(&mut self, width: usize) -> Result<(), Reason> {
        let digits = self.counted(width)?;
        let negative = digits.last().is_some_and(|b| b & 0x80 != 0);
        let mut bytes = if negative { [0xff; 8] } else { [0; 8] };
        let n = digits.len().min(8);
        bytes[..n].copy_from_slice(&digits[..n]);
        self.push_int(i64::from_le_bytes(bytes))
    }

    /// Text up to the end of the line.
    fn line(&mut self) -> Result<Rc<str>, Reason> {
        let end = self.input.iter().position(|b| *b == b'\n').context("the pickle ends too early")?;
        let text = String::from_utf8_lossy(&self.input[..end]).into();
        self.input = &self.input[end + 1..];
        Ok(text)
    }

    /// Pushes a value. Never fails; the result is that of all operations.
    pub(super) fn push(&mut self, value: Value) -> Result<(), Reason> {
        self.stack.push(value);
        Ok(())
    }

    fn push_int(&mut self, value: impl Into<i64>) -> Result<(), Reason> {
        self.push(Value::Int(value.into()))
    }

    /// Adds an object to the heap, and pushes a reference to it.
    ///
    /// # Errors
    /// If there are too many.
    pub(super) fn push_object(&mut self, object: Object) -> Result<(), Reason> {
        ensure!(
            self.heap.len() < MOST_OBJECTS,
            "the pickle has over {MOST_OBJECTS} objects, more than a checkpoint needs"
        );
        self.heap.push(object);
        self.push(Value::Object(self.heap.len() - 1))
    }

    /// The last `count` values as a tuple.
    fn tuple(&mut self, count: usize) -> Result<(), Reason> {
        ensure!(self.stack.len() >= count, "malformed pickle: the stack is empty");
        let items = self.stack.split_off(self.stack.len() - count);
        self.push_object(Object::Tuple(items))
    }

    fn pop(&mut self) -> Result<Value, Reason> {
        self.stack.pop().context("malformed pickle: the stack is empty")
    }

    /// The value below the top, and the top.
    fn pop_two(&mut self) -> Result<(Value, Value), Reason> {
        let top = self.pop()?;
        Ok((self.pop()?, top))
    }

    fn top(&self) -> Result<&Value, Reason> {
        self.stack.last().context("malformed pickle: the stack is empty")
    }

    fn mark(&mut self) -> Result<(), Reason> {
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// All values above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Value>, Reason> {
        let mark = self.marks.pop().context("malformed pickle: no mark")?;
        ensure!(mark <= self.stack.len(), "malformed pickle: the stack is empty");
        Ok(self.stack.split_off(mark))
    }

    /// Keeps the top of the stack in a slot of the memo.
    fn put(&mut self, slot: u32) -> Result<(), Reason> {
        let value = self.top()?.clone();
        self.memo.insert(slot, value);
        Ok(())
    }

    /// Pushes what a slot of the memo holds.
    fn fetch(&mut self, slot: u32) -> Result<(), Reason> {
        let value = self.memo.get(&slot).context("malformed pickle: an empty memo slot")?.clone();
        self.push(value)
    }

    /// The container that items are added to. Items of an opaque one are dropped.
    fn top_object(&mut self) -> Result<&mut Object, Reason> {
        let Value::Object(index) = *self.top()? else { bail!("malformed pickle: not a container") };
        Ok(&mut self.heap[index])
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), Reason> {
        if let Object::List(list) = self.top_object()? {
            list.extend(items);
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<(Value, Value)>) -> Result<(), Reason> {
        if let Object::Dict(dict) = self.top_object()? {
            dict.extend(items);
        }
        Ok(())
    }

    fn named_global(&mut self) -> Result<(), Reason> {
        let (module, name) = (self.line()?, self.line()?);
        self.global(module, name)
    }

    fn stack_global(&mut self) -> Result<(), Reason> {
        let (Value::Str(module), Value::Str(name)) = self.pop_two()? else {
            bail!("malformed pickle: a global without a name");
        };
        self.global(module, name)
    }

    fn call_with_keywords(&mut self) -> Result<(), Reason> {
        let _keywords = self.pop()?;
        let (callable, arguments) = self.pop_two()?;
        self.call(callable, arguments)
    }

    /// Pushes the storage that a persistent id names.
    fn persistent(&mut self) -> Result<(), Reason> {
        let id = self.pop()?;
        let storage = self.storage(&id)?;
        self.push_object(Object::Storage(storage))
    }
}

/// Keys and values by turns, as pairs.
fn pairs(items: Vec<Value>) -> Vec<(Value, Value)> {
    let mut items = items.into_iter();
    std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
}
