//! Values for a page's scripts.

use std::fmt;

use serde::Serialize;

/// A value in JSON, to be filled in between `<script type="application/json" id="...">` and `</script>`: it holds no
/// `<`, so that nothing in it ends the element.
pub struct Json(String);

impl Json {
    /// That value, `null` if it has no form in JSON: a map whose keys are no texts, or an error of its own.
    pub fn new(value: &(impl Serialize + ?Sized)) -> Self {
        Self(serde_json::to_string(value).unwrap_or_else(|_| "null".into()).replace('<', "\\u003c"))
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// Not escaped: in a script, `&#34;` is no quotation mark.
impl askama::filters::HtmlSafe for Json {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_the_script() {
        let text = "</script><!--<script> & \"'\u{2028}";
        let json = Json::new(&vec![text]).to_string();
        assert!(!json.contains('<'), "{json}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [text]);
    }
}
