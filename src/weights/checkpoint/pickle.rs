//! The part of Python's pickle that PyTorch checkpoints use, as a machine that cannot execute
//! anything.
//!
//! A pickle is a program for a stack machine that may name any Python callable and ask for it to
//! be called. Here a call is a value like any other: the few that rebuild tensors and containers
//! are understood, harmless ones that training scripts save beside the weights are kept as opaque
//! objects, and a file that names anything else is refused. Opcodes are those of Python's
//! `pickletools`, protocols 2 to 5; `torch.save` writes protocol 2.
//!
//! Values live in an arena and refer to each other by index, so deep or cyclic structures need
//! neither recursion nor reference counts.

use std::collections::HashMap;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use candle_core::DType;

/// A value: plain, or the index of an [`Object`] in the [`Heap`].
#[derive(Clone, Debug)]
pub enum Value {
    None,
    Bool,
    Int(i64),
    Float,
    Str(Rc<str>),
    Bytes,
    Object(usize),
}

/// What values can refer to.
#[derive(Debug)]
pub enum Object {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Global {
        module: Rc<str>,
        name: Rc<str>,
    },
    Storage(Storage),
    Tensor(TensorRef),
    /// An object that nothing here needs to look into.
    Opaque,
}

/// A storage: the elements of one or several tensors, in the zip entry `data/{key}`.
#[derive(Clone, Debug)]
pub struct Storage {
    /// `None` for element types that no weight has.
    pub dtype: Option<DType>,
    pub key: Rc<str>,
    /// Number of elements.
    pub len: usize,
}

/// A strided view of a storage. Offset and strides count elements.
#[derive(Clone, Debug)]
pub struct TensorRef {
    pub storage: Storage,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub stride: Vec<usize>,
}

/// The objects of a pickle.
pub struct Heap(Vec<Object>);

impl Heap {
    /// The object that `value` refers to, if it does.
    pub fn get(&self, value: &Value) -> Option<&Object> {
        match value {
            Value::Object(index) => self.0.get(*index),
            _ => None,
        }
    }

    /// The items of a dictionary.
    pub fn dict(&self, value: &Value) -> Option<&[(Value, Value)]> {
        match self.get(value) {
            Some(Object::Dict(items)) => Some(items),
            _ => None,
        }
    }
}

/// Runs a pickle to its end.
///
/// # Errors
/// If it is cut short or malformed, or names a callable that is not known to be harmless.
pub fn load(bytes: &[u8]) -> Result<(Heap, Value)> {
    let mut machine =
        Machine { input: bytes, heap: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    let value = machine.run()?;
    Ok((Heap(machine.heap), value))
}

struct Machine<'a> {
    input: &'a [u8],
    heap: Vec<Object>,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Value> {
        loop {
            let opcode = self.take(1)?[0];
            match opcode {
                // PROTO, FRAME: nothing to do but skip their argument.
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'.' => return self.pop(),

                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_mark()?),
                b'2' => {
                    let top = self.top()?.clone();
                    self.stack.push(top);
                }

                b'N' => self.stack.push(Value::None),
                0x88 | 0x89 => self.stack.push(Value::Bool),
                b'J' => {
                    let v = i32::from_le_bytes(self.array()?);
                    self.stack.push(Value::Int(v.into()));
                }
                b'K' => {
                    let v = self.take(1)?[0];
                    self.stack.push(Value::Int(v.into()));
                }
                b'M' => {
                    let v = u16::from_le_bytes(self.array()?);
                    self.stack.push(Value::Int(v.into()));
                }
                0x8a => {
                    let len = self.take(1)?[0];
                    self.long(len.into())?;
                }
                0x8b => {
                    let len = u32::from_le_bytes(self.array()?);
                    self.long(len as usize)?;
                }
                b'G' => {
                    self.take(8)?;
                    self.stack.push(Value::Float);
                }
                b'X' => self.string(4)?,
                0x8c => self.string(1)?,
                0x8d => self.string(8)?,
                // Python 2's byte strings stand for text where they stand for anything.
                b'U' => self.string(1)?,
                b'T' => self.string(4)?,
                b'B' => self.bytes(4)?,
                b'C' => self.bytes(1)?,
                0x8e | 0x96 => self.bytes(8)?,

                b']' => self.push(Object::List(Vec::new())),
                b')' => self.push(Object::Tuple(Vec::new())),
                b'}' => self.push(Object::Dict(Vec::new())),
                0x8f => self.push(Object::Opaque),
                b't' => {
                    let items = self.pop_mark()?;
                    self.push(Object::Tuple(items));
                }
                0x85..=0x87 => {
                    let count = (opcode - 0x84) as usize;
                    ensure!(self.stack.len() >= count, "malformed pickle: the stack is empty");
                    let items = self.stack.split_off(self.stack.len() - count);
                    self.push(Object::Tuple(items));
                }
                b'l' => {
                    let items = self.pop_mark()?;
                    self.push(Object::List(items));
                }
                b'd' => {
                    let items = pairs(self.pop_mark()?);
                    self.push(Object::Dict(items));
                }
                0x91 => {
                    self.pop_mark()?;
                    self.push(Object::Opaque);
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                0x90 => drop(self.pop_mark()?),
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set(vec![(key, value)])?;
                }
                b'u' => {
                    let items = pairs(self.pop_mark()?);
                    self.set(items)?;
                }

                b'q' => {
                    let slot = self.take(1)?[0];
                    self.put(slot.into())?;
                }
                b'r' => {
                    let slot = u32::from_le_bytes(self.array()?);
                    self.put(slot)?;
                }
                0x94 => self.put(self.memo.len() as u32)?,
                b'h' => {
                    let slot = self.take(1)?[0];
                    self.fetch(slot.into())?;
                }
                b'j' => {
                    let slot = u32::from_le_bytes(self.array()?);
                    self.fetch(slot)?;
                }

                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.global(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Str(module), Value::Str(name)) = (module, name) else {
                        bail!("malformed pickle: a global without a name");
                    };
                    self.global(module, name)?;
                }
                b'R' | 0x81 => {
                    let arguments = self.pop()?;
                    let callable = self.pop()?;
                    self.call(callable, arguments)?;
                }
                0x92 => {
                    let (_keywords, arguments) = (self.pop()?, self.pop()?);
                    let callable = self.pop()?;
                    self.call(callable, arguments)?;
                }
                // BUILD: an attribute state for the object below. None of it is needed.
                b'b' => drop(self.pop()?),
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(&id)?;
                    self.push(Object::Storage(storage));
                }
                other => bail!(
                    "the pickle uses opcode 0x{other:02x}, which checkpoints do not need; \
                     re-save the weights with torch.save(state_dict, FILE)"
                ),
            }
        }
    }

    fn take(&mut self, n: usize) -> Result<&[u8]> {
        let (taken, rest) = self.input.split_at_checked(n).context("the pickle ends too early")?;
        self.input = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    /// A length of `width` little-endian bytes, then as many bytes.
    fn counted(&mut self, width: usize) -> Result<&[u8]> {
        let mut len = [0; 8];
        len[..width].copy_from_slice(self.take(width)?);
        self.take(usize::try_from(u64::from_le_bytes(len))?)
    }

    fn string(&mut self, width: usize) -> Result<()> {
        let text = Value::Str(String::from_utf8_lossy(self.counted(width)?).into());
        self.stack.push(text);
        Ok(())
    }

    fn bytes(&mut self, width: usize) -> Result<()> {
        self.counted(width)?;
        self.stack.push(Value::Bytes);
        Ok(())
    }

    /// A little-endian two's complement integer. None that matters here exceeds 64 bits.
    fn long(&mut self, len: usize) -> Result<()> {
        let digits = self.take(len)?;
        let negative = digits.last().is_some_and(|b| b & 0x80 != 0);
        let mut bytes = if negative { [0xff; 8] } else { [0; 8] };
        let n = len.min(8);
        bytes[..n].copy_from_slice(&digits[..n]);
        self.stack.push(Value::Int(i64::from_le_bytes(bytes)));
        Ok(())
    }

    fn line(&mut self) -> Result<Rc<str>> {
        let end = self.input.iter().position(|b| *b == b'\n').context("the pickle ends too early")?;
        let text = String::from_utf8_lossy(&self.input[..end]).into();
        self.input = &self.input[end + 1..];
        Ok(text)
    }

    fn push(&mut self, object: Object) {
        self.heap.push(object);
        self.stack.push(Value::Object(self.heap.len() - 1));
    }

    fn pop(&mut self) -> Result<Value> {
        self.stack.pop().context("malformed pickle: the stack is empty")
    }

    fn top(&self) -> Result<&Value> {
        self.stack.last().context("malformed pickle: the stack is empty")
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().context("malformed pickle: no mark")?;
        ensure!(mark <= self.stack.len(), "malformed pickle: the stack is empty");
        Ok(self.stack.split_off(mark))
    }

    fn put(&mut self, slot: u32) -> Result<()> {
        let value = self.top()?.clone();
        self.memo.insert(slot, value);
        Ok(())
    }

    fn fetch(&mut self, slot: u32) -> Result<()> {
        let value = self.memo.get(&slot).context("malformed pickle: an empty memo slot")?.clone();
        self.stack.push(value);
        Ok(())
    }

    fn top_object(&mut self) -> Result<&mut Object> {
        let Value::Object(index) = *self.top()? else { bail!("malformed pickle: not a container") };
        Ok(&mut self.heap[index])
    }

    fn append(&mut self, items: Vec<Value>) -> Result<()> {
        if let Object::List(list) = self.top_object()? {
            list.extend(items);
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<(Value, Value)>) -> Result<()> {
        if let Object::Dict(dict) = self.top_object()? {
            dict.extend(items);
        }
        Ok(())
    }

    fn global(&mut self, module: Rc<str>, name: Rc<str>) -> Result<()> {
        ensure!(
            is_harmless(&module, &name),
            "the pickle asks for `{module}.{name}`, which a checkpoint does not need and which is never \
             executed here; if you trust the file, re-save its weights with torch.save(state_dict, FILE)"
        );
        self.push(Object::Global { module, name });
        Ok(())
    }

    fn call(&mut self, callable: Value, arguments: Value) -> Result<()> {
        let (Value::Object(callable), Value::Object(arguments)) = (callable, arguments) else {
            bail!("malformed pickle: a call of something that cannot be called");
        };
        let Object::Tuple(arguments) = &self.heap[arguments] else {
            bail!("malformed pickle: a call without arguments");
        };
        let Object::Global { module, name } = &self.heap[callable] else {
            self.push(Object::Opaque);
            return Ok(());
        };
        match (&**module, &**name) {
            // Their items follow as SETITEMS.
            ("collections", "OrderedDict" | "defaultdict") => self.push(Object::Dict(Vec::new())),
            ("torch._utils", "_rebuild_tensor_v2") => {
                let tensor = self.tensor(arguments)?;
                self.push(Object::Tensor(tensor));
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                let data = arguments.first().context("malformed pickle: a parameter without data")?.clone();
                self.stack.push(data);
            }
            _ => self.push(Object::Opaque),
        }
        Ok(())
    }

    /// The persistent id of a storage: `("storage", type, key, location, number of elements)`.
    fn storage(&self, id: &Value) -> Result<Storage> {
        let malformed = "malformed pickle: a storage without type, key and size";
        let Value::Object(index) = id else { bail!(malformed) };
        let Object::Tuple(fields) = &self.heap[*index] else { bail!(malformed) };
        let [_, Value::Object(class), Value::Str(key), _, Value::Int(len)] = &fields[..] else { bail!(malformed) };
        let Object::Global { name, .. } = &self.heap[*class] else { bail!(malformed) };
        let dtype = match &**name {
            "FloatStorage" => Some(DType::F32),
            "DoubleStorage" => Some(DType::F64),
            "HalfStorage" => Some(DType::F16),
            "BFloat16Storage" => Some(DType::BF16),
            _ => None,
        };
        Ok(Storage { dtype, key: key.clone(), len: usize::try_from(*len)? })
    }

    /// The arguments of `_rebuild_tensor_v2`: storage, offset, shape, strides, and more.
    fn tensor(&self, arguments: &[Value]) -> Result<TensorRef> {
        let malformed = "malformed pickle: a tensor without storage, offset, shape and strides";
        let [Value::Object(storage), Value::Int(offset), shape, stride, ..] = arguments else { bail!(malformed) };
        let Object::Storage(storage) = &self.heap[*storage] else { bail!(malformed) };
        let (shape, stride) = (self.sizes(shape)?, self.sizes(stride)?);
        ensure!(shape.len() == stride.len(), malformed);
        Ok(TensorRef { storage: storage.clone(), offset: usize::try_from(*offset)?, shape, stride })
    }

    fn sizes(&self, tuple: &Value) -> Result<Vec<usize>> {
        let malformed = "malformed pickle: a shape that is not a tuple of sizes";
        let Value::Object(index) = tuple else { bail!(malformed) };
        let Object::Tuple(sizes) = &self.heap[*index] else { bail!(malformed) };
        ensure!(sizes.len() <= 8, "a tensor of {} dimensions, which no network has", sizes.len());
        sizes
            .iter()
            .map(|size| match size {
                Value::Int(size) => usize::try_from(*size).context(malformed),
                _ => bail!(malformed),
            })
            .collect()
    }
}

fn pairs(items: Vec<Value>) -> Vec<(Value, Value)> {
    let mut items = items.into_iter();
    std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
}

/// What training scripts put into a checkpoint: tensors, containers, options, numbers and paths.
fn is_harmless(module: &str, name: &str) -> bool {
    match module {
        "torch" => name.ends_with("Storage") || matches!(name, "Size" | "device" | "float32" | "float16" | "bfloat16"),
        "torch._utils" => {
            matches!(name, "_rebuild_tensor_v2" | "_rebuild_parameter" | "_rebuild_parameter_with_state")
        }
        "torch.storage" => matches!(name, "TypedStorage" | "UntypedStorage"),
        "collections" => matches!(name, "OrderedDict" | "defaultdict" | "Counter" | "deque"),
        "argparse" => name == "Namespace",
        "copyreg" | "copy_reg" => name == "_reconstructor",
        "builtins" | "__builtin__" => matches!(
            name,
            "set"
                | "frozenset"
                | "list"
                | "dict"
                | "tuple"
                | "object"
                | "complex"
                | "bytearray"
                | "slice"
                | "int"
                | "float"
                | "str"
                | "bool"
        ),
        "_codecs" => name == "encode",
        "numpy.core.multiarray" | "numpy._core.multiarray" => matches!(name, "scalar" | "_reconstruct"),
        "numpy" => matches!(name, "dtype" | "ndarray" | "float64" | "float32" | "int64" | "bool_"),
        "pathlib" | "pathlib._local" => matches!(name, "PosixPath" | "WindowsPath" | "PurePosixPath" | "Path"),
        "datetime" => matches!(name, "datetime" | "date" | "timedelta"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bytes: &[u8]) -> String {
        format!("{:#}", load(bytes).err().expect("must be refused"))
    }

    #[test]
    fn a_call_of_anything_else_is_refused() {
        // pickletools.dis: GLOBAL 'os system', BINUNICODE 'id', TUPLE1, REDUCE, STOP
        let message = error(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.");
        assert!(message.contains("`os.system`") && message.contains("never"), "{message}");
        // The same by STACK_GLOBAL of protocol 4.
        let message = error(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.");
        assert!(message.contains("`os.system`"), "{message}");
    }

    #[test]
    fn every_prefix_is_an_error_and_none_panics() {
        // {"a": [1, (2.0, None)], "b": {...}} by pickle.dumps(..., 2), checked with pickletools.
        let whole: &[u8] = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01G@\x00\x00\x00\x00\x00\x00\x00N\x86q\x03eX\x01\x00\x00\x00bq\x04}q\x05X\x01\x00\x00\x00cq\x06M\x39\x30su.";
        let (heap, value) = load(whole).unwrap();
        let items = heap.dict(&value).unwrap();
        assert_eq!(items.len(), 2);
        assert!(matches!(heap.dict(&items[1].1).unwrap()[0].1, Value::Int(12345)));
        for end in 0..whole.len() {
            error(&whole[..end]);
        }
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let mut bytes = vec![b']'];
        bytes.resize(1_000_000, b'\x85');
        bytes.push(b'.');
        load(&bytes).unwrap();
    }
}
