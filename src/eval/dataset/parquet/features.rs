//! What the library `datasets` says of a file's columns, which it writes into the footer as JSON.

use std::collections::BTreeMap;

use serde::de::{MapAccess, SeqAccess};

use crate::eval::dataset::json::{Kept, Part, parts, put};

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
    let Document(Info(features)) = parts(text.as_bytes());
    features
}

/// A list of nothing but text.
impl Part for Option<Vec<String>> {
    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut names = Some(Vec::new());
        while let Some(Kept(name)) = list.next_element::<Kept<Option<String>>>()? {
            names = names.zip(name).map(|(mut names, name)| {
                names.push(name);
                names
            });
        }
        Ok(names)
    }
}

impl Part for Feature {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        if key == "_type" {
            let Kept(kind) = map.next_value::<Kept<Option<String>>>()?;
            self.is_class = kind.is_some_and(|kind| kind == "ClassLabel");
            return Ok(());
        }
        put(&mut self.names, key == "names", map)
    }
}

#[derive(Default)]
struct Info(Features);

impl Part for Info {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        put(&mut self.0, key == "features", map)
    }
}

#[derive(Default)]
struct Document(Info);

impl Part for Document {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        put(&mut self.0, key == "info", map)
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
