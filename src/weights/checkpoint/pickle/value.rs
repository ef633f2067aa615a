//! What a pickle describes: values, and objects that they refer to.

use std::rc::Rc;

use candle_core::DType;

/// A value: plain, or the index of an [`Object`] in the [`Heap`].
#[derive(Clone, Debug)]
pub enum Value {
    /// Python's `None`.
    None,
    /// Which one is not kept, as with all that weights do not need.
    Bool,
    Int(i64),
    Float,
    Str(Rc<str>),
    Bytes,
    /// The index of an object.
    Object(usize),
}

/// What values can refer to.
#[derive(Debug)]
pub enum Object {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// A function or class that the pickle names.
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
    /// `None` for element types that no weight and no count has.
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
pub struct Heap(pub(super) Vec<Object>);

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
