//! What the network says of images, to look at.
//!
//! In come images with their predictions and maps; out come pictures and pages, each of which is one file. May use
//! `input`, `network` and `page`.
//!
//! ```text
//! picture       an image and the maps of its first classes, as a PNG file
//! sheet.html    a page of many images: to sort and to filter, with the maps on demand
//! sheet.css     how it looks
//! sheet.js      what it does
//! ```

pub mod picture;

use askama::Template;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::RgbImage;
use rayon::prelude::*;
use serde::Serialize;

use crate::error::Result;
use crate::network::Explanation;
use crate::output::{Growing, Output};
use crate::page::colour::diverging_table;
use crate::page::{Fact, Json, Thumbnail, halves};
use crate::text::thousands;
use crate::weights::registry::Label;

/// Images in one of the page's scripts: the page reads their pictures together.
const CHUNK: usize = 64;

/// What is said of all images of a sheet.
pub struct About {
    /// What the images are called.
    pub title: String,
    /// What the network is called.
    pub model: String,
    /// What made the sheet.
    pub facts: Vec<Fact>,
    /// The network's outputs.
    pub labels: Vec<Label>,
    /// How many images there are, about; the more, the smaller they are kept.
    pub images: usize,
}

/// An image of a sheet.
pub struct Entry<'a> {
    /// Its path, as far as it can be shown.
    pub name: String,
    /// The very bytes of a path that is not UTF-8.
    pub bytes: Option<String>,
    /// The address of its file from the page, if it has one.
    pub address: Option<String>,
    /// What is wrong with it all the same.
    pub warning: Option<&'a str>,
    /// What the network sees of it.
    pub crop: &'a RgbImage,
    /// What the network says of it, the most likely class first.
    pub explanations: &'a [Explanation],
}

/// What has no answer: images that cannot be read, above all.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    /// How many there are.
    pub count: usize,
    /// What is wrong with the first of them, which begins with the path.
    pub first: Vec<String>,
}

impl Failures {
    /// How many there are.
    fn count_in_words(&self) -> String {
        thousands(self.count as u64)
    }
}

/// A page that is being written, image by image.
pub struct Sheet {
    file: Growing,
    about: About,
    thumbnail: (u32, u8),
    /// Those that are not written yet.
    rows: Vec<String>,
    pictures: Vec<String>,
    images: usize,
    bytes: u64,
}

#[derive(Template)]
#[template(path = "sheet/sheet.html")]
struct Page<'a> {
    about: &'a About,
    failures: &'a Failures,
    data: Json,
}

/// What the page's script has to know.
#[derive(Serialize)]
struct Data<'a> {
    /// WordNet id and name of each output.
    classes: Vec<(Option<&'a str>, &'a str)>,
    colours: String,
    opacity: f32,
    chunk: usize,
}

/// What the page knows of an image before its picture is seen.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    /// Index, probability and logit of each class.
    top: Vec<(usize, f64, f32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'a str>,
}

/// An image's picture, and its maps.
#[derive(Serialize)]
struct Picture {
    /// `data:image/jpeg;base64,...`
    address: Option<String>,
    /// Rows and columns of each map.
    size: (usize, usize),
    /// The maps of all classes, one after the other, row by row: float32, little-endian, in base64.
    maps: String,
}

impl Sheet {
    /// Begins a page.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(output: Output, about: About) -> Result<Self> {
        let (file, thumbnail) = (output.begin()?, thumbnail_of(about.images));
        let start = page(&about, &Failures::default()).0;
        let mut sheet = Self { file, about, thumbnail, rows: Vec::new(), pictures: Vec::new(), images: 0, bytes: 0 };
        sheet.put(&start)?;
        Ok(sheet)
    }

    /// Adds images, after those that are there.
    ///
    /// # Errors
    /// If they cannot be written, as on a full disk.
    pub fn append(&mut self, entries: &[Entry]) -> Result<()> {
        let (side, quality) = self.thumbnail;
        let pictures: Vec<_> = entries.par_iter().map(|entry| picture(entry, side, quality)).collect();
        for (entry, picture) in entries.iter().zip(pictures) {
            self.rows.push(Json::new(&row(entry)).to_string());
            self.pictures.push(picture);
            if self.rows.len() == CHUNK {
                self.write()?;
            }
        }
        self.images += entries.len();
        Ok(())
    }

    /// Writes what is left and the end of the page, and gives it its name. Returns its size in bytes.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self, failures: &Failures) -> Result<u64> {
        self.write()?;
        let end = page(&self.about, failures).1;
        self.put(&end)?;
        self.file.finish()?;
        Ok(self.bytes)
    }

    /// How many images have been added.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Writes the images that wait for it, as two scripts: what is read at once, and what is read when it is seen.
    fn write(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let script = |class: &str, values: &[String]| {
            format!("<script type=\"application/json\" class=\"{class}\">[{}]</script>\n", values.join(","))
        };
        let scripts = script("rows", &self.rows) + &script("pictures", &self.pictures);
        self.put(&scripts)?;
        self.rows.clear();
        self.pictures.clear();
        Ok(())
    }

    fn put(&mut self, text: &str) -> Result<()> {
        self.bytes += text.len() as u64;
        self.file.append(text.as_bytes())
    }
}

/// What comes before and after the images.
fn page(about: &About, failures: &Failures) -> (String, String) {
    let classes = about.labels.iter().map(|label| (label.wnid.as_deref(), &*label.text)).collect();
    let (colours, opacity) = (diverging_table(), picture::OPACITY);
    let data = Json::new(&Data { classes, colours, opacity, chunk: CHUNK });
    halves(&Page { about, failures, data })
}

/// Side and quality of the pictures, so that the page stays one that a browser opens gladly: about 6 MB of pictures for
/// 500 images, and 30 MB for 10,000.
fn thumbnail_of(images: usize) -> (u32, u8) {
    match images {
        0..=500 => (224, 85),
        501..=2000 => (160, 80),
        2001..=20_000 => (112, 72),
        _ => (80, 65),
    }
}

fn row<'a>(entry: &'a Entry) -> Row<'a> {
    let top = entry
        .explanations
        .iter()
        .map(|Explanation { prediction, .. }| (prediction.index, prediction.probability, prediction.logit));
    Row {
        name: &entry.name,
        top: top.collect(),
        bytes: entry.bytes.as_deref(),
        address: entry.address.as_deref(),
        warning: entry.warning,
    }
}

/// The picture as JSON.
fn picture(entry: &Entry, side: u32, quality: u8) -> String {
    let maps = || entry.explanations.iter().map(|explanation| &explanation.map);
    let size = maps().next().map_or((0, 0), |map| (map.len(), map.first().map_or(0, Vec::len)));
    let bytes: Vec<u8> = maps().flatten().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let address = Thumbnail::new(entry.crop, side, quality).address;
    Json::new(&Picture { address, size, maps: BASE64_STANDARD.encode(bytes) }).to_string()
}
