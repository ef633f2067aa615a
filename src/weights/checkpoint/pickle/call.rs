//! Calls that a pickle asks for. None is made: those that rebuild tensors and containers are understood, and
//! of harmless ones no more is kept than that there was one.

use std::rc::Rc;

use candle_core::DType;

use super::machine::Machine;
use super::value::{Object, Storage, TensorRef, Value};
use crate::error::{Context, Reason, bail, ensure};

impl Machine<'_> {
    /// Pushes a function or class by its name, unless it may do harm.
    pub(super) fn global(&mut self, module: Rc<str>, name: Rc<str>) -> Result<(), Reason> {
        ensure!(
            is_harmless(&module, &name),
            "the pickle asks for `{module}.{name}`, which a checkpoint does not need and which is never \
             executed here; if you trust the file, re-save its weights with torch.save(state_dict, FILE)"
        );
        self.push_object(Object::Global { module, name })
    }

    /// Pushes what a call would give.
    pub(super) fn call(&mut self, callable: Value, arguments: Value) -> Result<(), Reason> {
        let (Value::Object(callable), Value::Object(arguments)) = (callable, arguments) else {
            bail!("malformed pickle: a call of something that cannot be called");
        };
        let Object::Tuple(arguments) = &self.heap[arguments] else {
            bail!("malformed pickle: a call without arguments");
        };
        let Object::Global { module, name } = &self.heap[callable] else {
            return self.push_object(Object::Opaque);
        };
        match (&**module, &**name) {
            // Their items follow as SETITEMS.
            ("collections", "OrderedDict" | "defaultdict") => self.push_object(Object::Dict(Vec::new())),
            ("torch._utils", "_rebuild_tensor_v2") => {
                let tensor = self.tensor(arguments)?;
                self.push_object(Object::Tensor(tensor))
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                let data = arguments.first().context("malformed pickle: a parameter without data")?.clone();
                self.push(data)
            }
            _ => self.push_object(Object::Opaque),
        }
    }

    /// The persistent id of a storage: `("storage", type, key, location, number of elements)`.
    pub(super) fn storage(&self, id: &Value) -> Result<Storage, Reason> {
        let malformed = "malformed pickle: a storage without type, key and size";
        let Value::Object(index) = id else { bail!("{malformed}") };
        let Object::Tuple(fields) = &self.heap[*index] else { bail!("{malformed}") };
        let [_, Value::Object(class), Value::Str(key), _, Value::Int(len)] = &fields[..] else { bail!("{malformed}") };
        let Object::Global { name, .. } = &self.heap[*class] else { bail!("{malformed}") };
        let dtype = match &**name {
            "FloatStorage" => Some(DType::F32),
            "DoubleStorage" => Some(DType::F64),
            "HalfStorage" => Some(DType::F16),
            "BFloat16Storage" => Some(DType::BF16),
            "LongStorage" => Some(DType::I64),
            _ => None,
        };
        Ok(Storage { dtype, key: key.clone(), len: usize::try_from(*len)? })
    }

    /// The arguments of `_rebuild_tensor_v2`: storage, offset, shape, strides, and more.
    fn tensor(&self, arguments: &[Value]) -> Result<TensorRef, Reason> {
        let malformed = "malformed pickle: a tensor without storage, offset, shape and strides";
        let [Value::Object(storage), Value::Int(offset), shape, stride, ..] = arguments else { bail!("{malformed}") };
        let Object::Storage(storage) = &self.heap[*storage] else { bail!("{malformed}") };
        let (shape, stride) = (self.sizes(shape)?, self.sizes(stride)?);
        ensure!(shape.len() == stride.len(), "{malformed}");
        Ok(TensorRef { storage: storage.clone(), offset: usize::try_from(*offset)?, shape, stride })
    }

    /// A shape or strides.
    fn sizes(&self, tuple: &Value) -> Result<Vec<usize>, Reason> {
        let malformed = "malformed pickle: a shape that is not a tuple of sizes";
        let Value::Object(index) = tuple else { bail!("{malformed}") };
        let Object::Tuple(sizes) = &self.heap[*index] else { bail!("{malformed}") };
        ensure!(sizes.len() <= 8, "a tensor of {} dimensions, which no network has", sizes.len());
        sizes
            .iter()
            .map(|size| match size {
                Value::Int(size) => usize::try_from(*size).context(malformed),
                _ => bail!("{malformed}"),
            })
            .collect()
    }
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
