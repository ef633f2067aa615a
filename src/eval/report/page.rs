//! What both reports are made of.

use askama::Template;
use image::RgbImage;

use crate::eval::Run;
use crate::page::{Thumbnail, first_synonym};
use crate::text::thousands;
use crate::weights::registry::Label;

/// Side of a thumbnail, in pixels.
const THUMBNAIL: u32 = 160;

/// A page of that title, which is text, and that body, which is HTML.
#[derive(Template)]
#[template(path = "eval/report/report.html")]
struct Page<'a> {
    title: &'a str,
    body: &'a str,
}

/// A page of that title, which is text, and that body, which is HTML.
pub fn page(title: &str, body: &str) -> String {
    Page { title, body }.to_string()
}

/// A number that is to be seen first, with its name and what is to be said of it.
pub fn tile(name: &str, value: &str, note: &str) -> String {
    format!("<div class=\"tile\"><h3>{name}</h3><b>{value}</b><span>{note}</span></div>\n")
}

/// Facts by their names, both in HTML.
pub fn facts_table(facts: &[(&str, String)]) -> String {
    let rows: String =
        facts.iter().map(|(name, value)| format!("<tr><th>{name}</th><td>{value}</td></tr>\n")).collect();
    format!("<div class=\"scroll\"><table class=\"facts\">\n{rows}</table></div>\n")
}

/// What was run: by their names, in HTML.
pub fn facts_of(run: &Run) -> Vec<(&'static str, String)> {
    let Run { qlnet, model, weights_sha256, preprocess, jpeg_decoder, dtype, device, data, .. } = run;
    vec![
        ("model", escape(model)),
        ("weights", format!("SHA-256 <code>{}</code>", escape(weights_sha256))),
        ("preprocessing", format!("{preprocess}; JPEG by {}", escape(jpeg_decoder))),
        ("device, dtype", format!("{}, {}", escape(device), escape(dtype))),
        (
            "data",
            format!(
                "{} images, {:.1} MB; paths and labels have SHA-256 <code>{}</code>",
                thousands(data.images as u64),
                data.bytes as f64 / 1e6,
                escape(&data.sha256)
            ),
        ),
        ("program", format!("qlnet {}", escape(qlnet))),
    ]
}

/// What a class is called, as HTML.
pub fn class_name(labels: &[Label], class: u32) -> String {
    labels.get(class as usize).map_or_else(|| class.to_string(), |label| escape(first_synonym(&label.text)))
}

/// What the network sees of an image, small, in the page itself; or that there is no picture. `text` is read where
/// the picture is not seen.
pub fn thumbnail(crop: Option<RgbImage>, text: &str) -> String {
    let text = escape(text);
    match crop.and_then(|crop| Thumbnail::new(&crop, THUMBNAIL, 82).address) {
        Some(address) => format!("<img src=\"{address}\" alt=\"{text}\" title=\"{text}\">"),
        None => format!("<div class=\"missing\" title=\"{text}\">no picture</div>"),
    }
}

/// Text as HTML shows it, also in an attribute.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
