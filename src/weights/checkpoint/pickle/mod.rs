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

mod call;
mod machine;
mod opcode;
mod value;

use self::machine::Machine;
pub use self::value::{Heap, Object, TensorRef, Value};
use crate::error::Reason;

/// Runs a pickle to its end.
///
/// # Errors
/// If it is cut short or malformed, or names a callable that is not known to be harmless.
pub fn load(bytes: &[u8]) -> Result<(Heap, Value), Reason> {
    let mut machine = Machine::new(bytes);
    let value = machine.run()?;
    Ok((machine.into_heap(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bytes: &[u8]) -> String {
        load(bytes).err().expect("must be refused").to_string()
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
    fn every_protocol_describes_the_same() {
        // x = ["again"]
        // {"a": [1, -2, 300, 70000, 2**40, True, 2.5, None, b"x"], "t": (1, 2, 3, 4), "s": {1},
        //  "f": frozenset([1]), "x": x, "y": x, "p": (1,), "q": (1, 2), "r": (1, 2, 3), "e": [], "d": {}, "n": ()}
        let pickles: [&[u8]; 4] = [
            // Protocol 2.
            b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01\x88G@\x04\x00\x00\x00\x00\x00\x00Nc_codecs\x0aencode\x0aq\x03X\x01\x00\x00\x00xq\x04X\x06\x00\x00\x00latin1q\x05\x86q\x06Rq\x07eX\x01\x00\x00\x00tq\x08(K\x01K\x02K\x03K\x04tq\x09X\x01\x00\x00\x00sq\x0ac__builtin__\x0aset\x0aq\x0b]q\x0cK\x01a\x85q\x0dRq\x0eX\x01\x00\x00\x00fq\x0fc__builtin__\x0afrozenset\x0aq\x10]q\x11K\x01a\x85q\x12Rq\x13X\x01\x00\x00\x00xq\x14]q\x15X\x05\x00\x00\x00againq\x16aX\x01\x00\x00\x00yq\x17h\x15X\x01\x00\x00\x00pq\x18K\x01\x85q\x19X\x01\x00\x00\x00qq\x1aK\x01K\x02\x86q\x1bX\x01\x00\x00\x00rq\x1cK\x01K\x02K\x03\x87q\x1dX\x01\x00\x00\x00eq\x1e]q\x1fX\x01\x00\x00\x00dq }q!X\x01\x00\x00\x00nq\")u.",
            // Protocol 3.
            b"\x80\x03}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01\x88G@\x04\x00\x00\x00\x00\x00\x00NC\x01xq\x03eX\x01\x00\x00\x00tq\x04(K\x01K\x02K\x03K\x04tq\x05X\x01\x00\x00\x00sq\x06cbuiltins\x0aset\x0aq\x07]q\x08K\x01a\x85q\x09Rq\x0aX\x01\x00\x00\x00fq\x0bcbuiltins\x0afrozenset\x0aq\x0c]q\x0dK\x01a\x85q\x0eRq\x0fX\x01\x00\x00\x00xq\x10]q\x11X\x05\x00\x00\x00againq\x12aX\x01\x00\x00\x00yq\x13h\x11X\x01\x00\x00\x00pq\x14K\x01\x85q\x15X\x01\x00\x00\x00qq\x16K\x01K\x02\x86q\x17X\x01\x00\x00\x00rq\x18K\x01K\x02K\x03\x87q\x19X\x01\x00\x00\x00eq\x1a]q\x1bX\x01\x00\x00\x00dq\x1c}q\x1dX\x01\x00\x00\x00nq\x1e)u.",
            // Protocol 4.
            b"\x80\x04\x95\x99\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01\x88G@\x04\x00\x00\x00\x00\x00\x00NC\x01x\x94e\x8c\x01t\x94(K\x01K\x02K\x03K\x04t\x94\x8c\x01s\x94\x8f\x94(K\x01\x90\x8c\x01f\x94(K\x01\x91\x94\x8c\x01x\x94]\x94\x8c\x05again\x94a\x8c\x01y\x94h\x0b\x8c\x01p\x94K\x01\x85\x94\x8c\x01q\x94K\x01K\x02\x86\x94\x8c\x01r\x94K\x01K\x02K\x03\x87\x94\x8c\x01e\x94]\x94\x8c\x01d\x94}\x94\x8c\x01n\x94)u.",
            // Protocol 5.
            b"\x80\x05\x95\x99\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01\x88G@\x04\x00\x00\x00\x00\x00\x00NC\x01x\x94e\x8c\x01t\x94(K\x01K\x02K\x03K\x04t\x94\x8c\x01s\x94\x8f\x94(K\x01\x90\x8c\x01f\x94(K\x01\x91\x94\x8c\x01x\x94]\x94\x8c\x05again\x94a\x8c\x01y\x94h\x0b\x8c\x01p\x94K\x01\x85\x94\x8c\x01q\x94K\x01K\x02\x86\x94\x8c\x01r\x94K\x01K\x02K\x03\x87\x94\x8c\x01e\x94]\x94\x8c\x01d\x94}\x94\x8c\x01n\x94)u.",
        ];
        for pickle in pickles {
            let (heap, value) = load(pickle).unwrap();
            let items = heap.dict(&value).unwrap();
            let of =
                |name: &str| &items.iter().find(|(key, _)| matches!(key, Value::Str(s) if **s == *name)).unwrap().1;
            let ints = |value: &Value| -> Vec<i64> {
                let (Object::List(items) | Object::Tuple(items)) = heap.get(value).unwrap() else {
                    panic!("{value:?}")
                };
                items.iter().filter_map(|item| if let Value::Int(int) = item { Some(*int) } else { None }).collect()
            };
            assert_eq!(items.len(), 12);
            assert_eq!(ints(of("a")), [1, -2, 300, 70_000, 1 << 40]);
            for (name, expected) in
                [("t", &[1, 2, 3, 4][..]), ("p", &[1]), ("q", &[1, 2]), ("r", &[1, 2, 3]), ("e", &[])]
            {
                assert_eq!(ints(of(name)), expected, "{name}");
            }
            assert!(
                matches!(heap.get(of("s")), Some(Object::Opaque)) && matches!(heap.get(of("f")), Some(Object::Opaque))
            );
            assert!(matches!((of("x"), of("y")), (Value::Object(x), Value::Object(y)) if x == y));
            assert!(heap.dict(of("d")).unwrap().is_empty());
            for end in 0..pickle.len() {
                error(&pickle[..end]);
            }
        }
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let mut bytes = vec![b']'];
        bytes.resize(1_000_000, b'\x85');
        bytes.push(b'.');
        load(&bytes).unwrap();
    }

    #[test]
    fn small_files_do_not_fill_the_memory() {
        let many =
            |start: &[u8], operation: &[u8], count: usize| error(&[start, &operation.repeat(count), b"."].concat());
        assert!(many(b"", b"]", 1_100_000).contains("over 1048576 objects"));
        // Nothing; which is put on the stack once more, or into the memo.
        assert!(many(b"N", b"2", 5_000_000).contains("over 4194304 operations"));
        assert!(many(b"N", b"\x94", 5_000_000).contains("over 4194304 operations"));
    }
}
