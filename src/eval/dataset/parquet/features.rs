//! What the library `datasets` says of a file's columns, which it writes into the footer as JSON.
//!
//! Only what is used is kept: a value of JSON with all that is in it takes more than a hundred times its text.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The columns by their names.
pub type Features = BTreeMap<String, Feature>;

/// What is said of a column.
#[derive(Default)]
pub struct Feature {
    /// Whether its values are classes.
    pub is_class: bool,
    /// What these are called.
    pub names: Option<Vec<String>>,
}

/// Reads `{"info": {"features": {"label": {"_type": "ClassLabel", "names": [...]}, ...}}}`. What is not as here is passed
/// over, since others may write there what they like.
pub fn features(text: &str) -> Features {
    serde_json::from_str(text).map_or_else(|_| Features::new(), |Read(Info(Columns(features)))| features)
}

/// What is kept of a value of JSON: nothing, if it is of another kind.
trait Part: Default {
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

/// Text.
#[derive(Default)]
struct Text(Option<String>);

impl Part for Text {
    fn text(text: &str) -> Self {
        Self(Some(text.to_string()))
    }
}

/// A list of nothing but text.
#[derive(Default)]
struct Names(Option<Vec<String>>);

impl Part for Names {
    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut names = Some(Vec::new());
        while let Some(Read(Text(name))) = list.next_element()? {
            names = names.zip(name).map(|(mut names, name)| {
                names.push(name);
                names
            });
        }
        Ok(Self(names))
    }
}

impl Part for Feature {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        match key.as_str() {
            "_type" => {
                let Read(Text(kind)) = map.next_value()?;
                self.is_class = kind.is_some_and(|kind| kind == "ClassLabel");
            }
            "names" => {
                let Read(Names(names)) = map.next_value()?;
                self.names = names;
            }
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// A map of columns.
#[derive(Default)]
struct Columns(Features);

impl Part for Columns {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        let Read(feature) = map.next_value()?;
        self.0.insert(key, feature);
        Ok(())
    }
}

/// What is under a key, and in it under another.
#[derive(Default)]
struct Info(Columns);

impl Part for Info {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        if key != "info" {
            return map.next_value::<IgnoredAny>().map(drop);
        }
        let Read(Inner(columns)) = map.next_value()?;
        self.0 = columns;
        Ok(())
    }
}

#[derive(Default)]
struct Inner(Columns);

impl Part for Inner {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        if key != "features" {
            return map.next_value::<IgnoredAny>().map(drop);
        }
        let Read(columns) = map.next_value()?;
        self.0 = columns;
        Ok(())
    }
}

/// A part that can be read from JSON.
struct Read<T>(T);

impl<'de, T: Part> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader(PhantomData)).map(Read)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_used_is_passed_over() {
        // A value with all that is in it could not be read: more than 128 levels.
        let deep = [r#"{"":"#.repeat(1000), "0".into(), "}".repeat(1000)].concat();
        let others = format!(r#""deep": {deep}, "list": [{deep}, 1], "more": [-1, 2.5e3, true, null, "x"]"#);
        let class = format!(r#"{{"names": ["zero", "one"], "_type": "ClassLabel", "id": null, {others}}}"#);
        let columns = format!(r#"{{"label": {class}, "image": {{"_type": "Image"}}, {others}}}"#);
        let found = features(&format!(r#"{{{others}, "info": {{{others}, "features": {columns}}}, "x": 1}}"#));
        assert_eq!(found["label"].names.as_deref(), Some(&["zero".to_string(), "one".to_string()][..]));
        let classes: Vec<&String> =
            found.iter().filter(|(_, feature)| feature.is_class).map(|(name, _)| name).collect();
        assert_eq!(classes, ["label"]);
        assert!(found["image"].names.is_none() && found["list"].names.is_none());
    }

    #[test]
    fn values_of_other_kinds_say_nothing() {
        for odd in
            ["", "{", "1", "[]", r#"{"info": 3}"#, r#"{"info": {"features": [1]}}"#, r#"{"features": {"a": {}}}"#]
        {
            assert!(features(odd).is_empty(), "{odd}");
        }
        let names = |names: &str| {
            let mut found =
                features(&format!(r#"{{"info": {{"features": {{"a": {{"names": {names}, "_type": 3}}}}}}}}"#));
            let feature = found.remove("a").unwrap();
            assert!(!feature.is_class);
            feature.names
        };
        assert_eq!(names("[]"), Some(vec![]));
        assert_eq!(names(r#"["a\n", "b"]"#), Some(vec!["a\n".to_string(), "b".to_string()]));
        for odd in [r#"["a", 1, "b"]"#, r#"{"0": "a"}"#, "null", r#""a""#] {
            assert_eq!(names(odd), None, "{odd}");
        }
    }
}
