//! What all pages are made of.

use std::io::Cursor;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;

use crate::eval::Run;
use crate::input::resample::{Interpolation, Rect, resize_crop};
use crate::text::thousands;
use crate::weights::registry::Label;

/// Side of a thumbnail, in pixels.
const THUMBNAIL: u32 = 160;

/// A page of that title, which is text, and that body, which is HTML.
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        escape(title),
        include_str!("report.css"),
    )
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
    let Some(crop) = crop else {
        return format!("<div class=\"missing\" title=\"{text}\">no picture</div>");
    };
    let side = THUMBNAIL.min(crop.width());
    let small =
        resize_crop(&crop, (side, side), Interpolation::Bicubic, Rect { x: 0, y: 0, width: side, height: side });
    let mut jpeg = Cursor::new(Vec::new());
    if JpegEncoder::new_with_quality(&mut jpeg, 82).encode_image(&small).is_err() {
        return String::new();
    }
    format!(
        "<img src=\"data:image/jpeg;base64,{}\" alt=\"{text}\" title=\"{text}\">",
        BASE64_STANDARD.encode(jpeg.into_inner())
    )
}

/// The first of several synonyms.
pub fn first_synonym(label: &str) -> &str {
    label.split(',').next().unwrap_or(label)
}

/// Text as HTML shows it, also in an attribute.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
