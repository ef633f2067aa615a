//! JSON that others write beside their data: of it little is used, and the rest may be anything.
//!
//! Only what is used is kept: a value of JSON with all that is in it takes more than a hundred times its text.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What is kept of a text of JSON: nothing, if it is none.
pub fn parts<T: Part>(text: &[u8]) -> T {
    serde_json::from_slice(text).map_or_else(|_| T::default(), |Kept(part)| part)
}

/// What is kept of a value of JSON: nothing, if it is of another kind.
pub trait Part: Default {
    fn text(_: &str) -> Self {
        Self::default()
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }

    /// Takes the value of that key of a map.
    fn field<'de, A: MapAccess<'de>>(&mut self, _: String, map: &mut A) -> Result<(), A::Error> {
        map.next_value::<IgnoredAny>().map(drop)
    }
}

impl Part for Option<String> {
    fn text(text: &str) -> Self {
        Some(text.to_string())
    }
}

impl<T: Part> Part for BTreeMap<String, T> {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        let Kept(part) = map.next_value()?;
        self.insert(key, part);
        Ok(())
    }
}

/// Puts the value that comes next in its place, if it is wanted.
pub fn put<'de, T: Part, A: MapAccess<'de>>(place: &mut T, is_wanted: bool, map: &mut A) -> Result<(), A::Error> {
    if !is_wanted {
        return map.next_value::<IgnoredAny>().map(drop);
    }
    let Kept(part) = map.next_value()?;
    *place = part;
    Ok(())
}

/// What is kept of a value, as serde reads it.
pub struct Kept<T>(pub T);

impl<'de, T: Part> Deserialize<'de> for Kept<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader(PhantomData)).map(Kept)
    }
}

struct Reader<T>(PhantomData<T>);

impl<'de, T: Part> Visitor<'de> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        T::list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut part = T::default();
        while let Some(key) = map.next_key()? {
            part.field(key, &mut map)?;
        }
        Ok(part)
    }
}
