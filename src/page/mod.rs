//! What all HTML pages are made of.
//!
//! In come what a page says, pictures and data; out goes a page that is one file: it needs nothing else, no network
//! and no server. May use `input`.
//!
//! ```text
//! base.html     what every page begins and ends with: a template to extend
//! macros.html   tiles, facts and pictures: templates to call
//! page.css      how pages look, in the light and in the dark
//! page.js       what pages do alike: tables that are sorted, searched and filtered
//! data          values for a page's scripts
//! origin        the command that makes a page, and the date
//! colour        colours for values with a sign
//! link          addresses of files that a page names
//! thumbnail     small pictures in the page itself
//! ```
//!
//! A page is a template beside the code that fills it in, which says what differs:
//!
//! ```text
//! {% extends "page/base.html" %}
//! {% import "page/macros.html" as page %}
//! {% block title %}{{ title }}{% endblock %}
//! {% block body %}<h1>{{ title }}</h1>{% for tile in tiles %}{{ page::tile(tile) }}{% endfor %}{% endblock %}
//! {% block script %}<script type="application/json" id="rows">{{ rows }}</script><script>...</script>{% endblock %}
//! ```
//!
//! ```text
//! #[derive(askama::Template)]
//! #[template(path = "eval/report/report.html")]
//! struct Page { title: String, tiles: Vec<Tile>, rows: Json }
//! ```
//!
//! `to_string` makes the page. Everything that is filled in is escaped, but for [`Json`], which scripts read with
//! `page.data("rows")`. Of a page that is too large for the memory, [`halves`] are what comes before and after what is
//! written one by one.

pub mod colour;
mod data;
mod link;
mod origin;
mod thumbnail;

use std::fmt::Display;

pub use self::data::Json;
pub use self::link::address;
pub use self::origin::{Origin, date};
pub use self::thumbnail::Thumbnail;

/// A number that is to be seen first.
pub struct Tile {
    /// What it is.
    pub name: String,
    /// The number, in words.
    pub value: String,
    /// What is to be said of it.
    pub note: String,
}

impl Tile {
    /// A tile of that name.
    pub fn new(name: impl Into<String>, value: impl Into<String>, note: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), note: note.into() }
    }
}

/// A line of a table of facts.
pub struct Fact {
    /// What it is.
    pub name: String,
    /// How it is, in words.
    pub text: String,
    /// What follows the words in a typewriter's letters, such as a hash; may be empty.
    pub code: String,
}

impl Fact {
    /// A fact in words.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), code: String::new() }
    }

    /// Words that end in a hash, a path or a command.
    pub fn with_code(name: impl Into<String>, text: impl Into<String>, code: impl Into<String>) -> Self {
        Self { code: code.into(), ..Self::new(name, text) }
    }
}

/// Where a page stands open: a template has this comment in its place.
const OPEN: &str = "<!-- one by one -->";

/// What comes before and after the parts of a page that are written one by one. Its template has the comment
/// `<!-- one by one -->` in their place.
pub fn halves(page: &impl Display) -> (String, String) {
    let page = page.to_string();
    let (before, after) = page.split_once(OPEN).unwrap_or((&page, ""));
    (before.into(), after.into())
}

/// The first of several synonyms: what a class is called where there is little room.
pub fn first_synonym(label: &str) -> &str {
    label.split(',').next().unwrap_or(label)
}

#[cfg(test)]
mod tests {
    use askama::Template;

    use super::*;

    #[derive(Template)]
    #[template(
        ext = "html",
        source = "{% extends \"page/base.html\" %}{% import \"page/macros.html\" as page %}\
                  {% block title %}{{ title }}{% endblock %}\
                  {% block body %}{{ page::tile(tile) }}{{ page::facts(facts) }}{{ page::picture(picture, title) }}\
                  <!-- one by one -->{% endblock %}\
                  {% block script %}<script type=\"application/json\" id=\"x\">{{ data }}</script>{% endblock %}"
    )]
    struct Page {
        title: &'static str,
        tile: Tile,
        facts: Vec<Fact>,
        picture: Thumbnail,
        data: Json,
    }

    #[test]
    fn what_is_filled_in_is_escaped() {
        let bad = "</title><script>alert(\"'&\")";
        let page = Page {
            title: bad,
            tile: Tile::new(bad, bad, bad),
            facts: vec![Fact::new(bad, bad), Fact::with_code(bad, bad, bad)],
            picture: Thumbnail::missing(),
            data: Json::new(&[bad]),
        };
        let html = page.to_string();
        assert!(!html.contains("<script>alert") && !html.contains("</title><script"), "{html}");
        // Once in the title, three times in the tile, five in the facts, once at the picture that is missing.
        assert_eq!(html.matches("&#60;script&#62;alert(&#34;&#39;&#38;&#34;)").count(), 10, "{html}");
        assert!(
            html.contains("no picture") && html.contains(r#"["\u003c/title>\u003cscript>alert(\"'&\")"]"#),
            "{html}"
        );
        let (before, after) = halves(&page);
        assert_eq!(format!("{before}{OPEN}{after}"), html);
        assert!(before.contains("no picture") && after.contains("id=\"x\"") && after.ends_with("</html>"));
    }
}
