//! Paths as a page with a slider: the weights change, the answers do not, and those of half the move do.
//!
//! ```text
//! walks        the paths, and what the network answers on the way
//! views        parts of the weights, drawn
//! page.html    the page, with page.css and page.js
//! ```

mod views;
mod walks;

use std::collections::BTreeMap;

use askama::Template;
use image::RgbImage;
use serde::Serialize;

use self::views::{View, pack_film, pack_start, scale};
use self::walks::{Answer, steady_decimals};
pub use self::walks::{Course, Walk};
use super::path::Step;
use crate::error::Result;
use crate::page::colour::diverging_table;
use crate::page::{Fact, Json, Thumbnail, first_synonym};
use crate::text::thousands;
use crate::weights::registry::Label;

/// Side of a picture on the page, in pixels.
const PICTURE: u32 = 224;

/// A picture that the network is asked about.
pub struct Picture {
    /// Its name.
    pub name: String,
    /// What the network sees of it.
    pub crop: RgbImage,
}

/// The page.
#[derive(Template)]
#[template(path = "symmetry/page/page.html")]
struct Page<'a> {
    title: String,
    walks: &'a [Walk],
    steps: usize,
    facts: &'a [Fact],
    data: Json,
    /// What all views show of the weights as they were given.
    start: String,
    /// What they show on each path.
    films: Vec<String>,
}

/// What the page's script reads.
#[derive(Serialize)]
struct Data<'a> {
    /// Digits after the point of what is shown.
    decimals: usize,
    tolerance: f64,
    colours: String,
    /// The names of the classes that occur.
    labels: BTreeMap<usize, String>,
    pictures: Vec<PictureData<'a>>,
    views: Vec<ViewData>,
    walks: Vec<WalkData<'a>>,
}

#[derive(Serialize)]
struct PictureData<'a> {
    name: &'a str,
    address: Option<String>,
    /// Of the network's input.
    side: u32,
}

#[derive(Serialize)]
struct ViewData {
    #[serde(flatten)]
    view: View,
    /// The value of the strongest colour.
    scale: f32,
}

#[derive(Serialize)]
struct WalkData<'a> {
    family: &'a str,
    words: &'a str,
    dimensions: String,
    /// The views that change on this path.
    changing: Vec<usize>,
    steps: Vec<Step>,
    /// Place by place and image by image, index, probability and logit of the most likely classes.
    top: Vec<Vec<Vec<(usize, f64, f64)>>>,
    control: Vec<Vec<Vec<(usize, f64, f64)>>>,
}

/// A page of walks from the same course, of which the first is shown first. `model` is what the network is called, and
/// `facts` are said at the end.
///
/// # Errors
/// If there is no memory.
pub fn page(course: &Course, walks: &[Walk], pictures: &[Picture], model: &str, facts: &[Fact]) -> Result<String> {
    let views = course.views();
    let start: Vec<Vec<f32>> = views.iter().map(|view| view.values(course.subject.weights())).collect::<Result<_>>()?;
    let everywhere = |view: usize| walks.iter().flat_map(move |walk| walk.film.iter().map(move |place| &place[view]));
    let scales: Vec<f32> = (0..views.len()).map(|view| scale(everywhere(view).chain([&start[view]]))).collect();
    let films: Vec<_> = walks.iter().map(|walk| pack_film(&walk.film, &start, &scales)).collect::<Result<_>>()?;
    let (changing, films): (Vec<_>, Vec<_>) = films.into_iter().unzip();
    let answers = |walk: &Walk| -> Vec<(usize, String)> {
        let places = walk.path.iter().flat_map(|place| place.top.iter().chain(&place.control_top).flatten());
        places.map(|answer| (answer.index, class_name(answer, course.labels))).collect()
    };
    let data = Data {
        decimals: steady_decimals(walks),
        tolerance: course.subject.tolerance(),
        colours: diverging_table(),
        labels: walks.iter().flat_map(answers).collect(),
        pictures: pictures.iter().map(PictureData::new).collect(),
        views: views.into_iter().zip(&scales).map(|(view, scale)| ViewData { view, scale: *scale }).collect(),
        walks: walks.iter().zip(changing).map(|(walk, changing)| WalkData::new(walk, changing)).collect(),
    };
    let page = Page {
        title: format!("{model}: its weights move, its answer stays"),
        walks,
        steps: course.steps,
        facts,
        data: Json::new(&data),
        start: pack_start(&start, &scales)?,
        films,
    };
    Ok(page.to_string())
}

/// The first name of a class, with its index where another class has the same name.
fn class_name(answer: &Answer, labels: &[Label]) -> String {
    let name = first_synonym(&answer.label);
    match labels.iter().filter(|label| first_synonym(&label.text) == name).count() {
        0 | 1 => name.into(),
        _ => format!("{name} ({})", answer.index),
    }
}

impl<'a> PictureData<'a> {
    fn new(picture: &'a Picture) -> Self {
        let thumbnail = Thumbnail::new(&picture.crop, PICTURE, 88);
        Self { name: &picture.name, address: thumbnail.address, side: picture.crop.width() }
    }
}

impl<'a> WalkData<'a> {
    fn new(walk: &'a Walk, changing: Vec<usize>) -> Self {
        let short = |answers: &[Vec<Answer>]| -> Vec<Vec<_>> {
            let short = |answer: &Answer| (answer.index, answer.probability, answer.logit);
            answers.iter().map(|answers| answers.iter().map(short).collect()).collect()
        };
        Self {
            family: &walk.family,
            words: &walk.words,
            dimensions: thousands(walk.dimensions as u64),
            changing,
            steps: walk.path.iter().map(|place| place.step).collect(),
            top: walk.path.iter().map(|place| short(&place.top)).collect(),
            control: walk.path.iter().map(|place| short(&place.control_top)).collect(),
        }
    }
}
