//! A picture of where the network looked: an image, and the maps of its first classes over it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use image::{Rgb, RgbImage};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use crate::error::{Context, Error, Reason, Result, bail};
use crate::network::Explanation;
use crate::page::colour::diverging;

/// So many maps are drawn at most: beside the image itself they make two rows.
pub const MAPS: usize = 5;
/// How much of a colour is the map's; the rest is the image, in grey.
pub const OPACITY: f32 = 0.65;

const MARGIN: u32 = 20;
const GAP: u32 = 16;
const TITLE: u32 = 34;
/// Below each image: the class, and its numbers.
const CAPTION: u32 = 46;
const LEGEND: u32 = 92;
const COLUMNS: u32 = 3;
/// Images are enlarged, each pixel to a square, as long as they have no more pixels a side.
const PANEL: u32 = 320;

const INK: RGBColor = RGBColor(28, 36, 48);
const SOFT: RGBColor = RGBColor(92, 102, 117);

/// What is drawn: an image, and what its places say of some classes.
pub struct MapPicture<'a> {
    /// What the image is called.
    pub name: &'a str,
    /// What the network is called.
    pub model: &'a str,
    /// What the network sees of the image.
    pub crop: &'a RgbImage,
    /// The first classes, of which [`MAPS`] are drawn.
    pub explanations: &'a [Explanation],
}

impl MapPicture<'_> {
    /// The picture as a PNG file: the image as the network sees it, and for each class the image in grey with the
    /// class's map over it, all maps in one scale, and a legend. The places are drawn as they are, without steps
    /// between them that nobody computed.
    ///
    /// # Errors
    /// [`Error::Plot`] if it cannot be drawn.
    pub fn png(&self) -> Result<Vec<u8>> {
        self.draw().map_err(Error::Plot)
    }

    fn draw(&self) -> Result<Vec<u8>, Reason> {
        let zoom = (PANEL / self.crop.width().max(1)).max(1);
        let side = zoom * self.crop.width();
        let maps = &self.explanations[..self.explanations.len().min(MAPS)];
        let largest = largest(maps);
        let panels = 1 + maps.len() as u32;
        let (columns, rows) = (panels.min(COLUMNS), panels.div_ceil(COLUMNS));
        let width = 2 * MARGIN + (columns * (side + GAP) - GAP).max(2 * PANEL);
        let height = 2 * MARGIN + TITLE + rows * (side + CAPTION) + LEGEND;
        let corner =
            |panel: u32| (MARGIN + panel % COLUMNS * (side + GAP), MARGIN + TITLE + panel / COLUMNS * (side + CAPTION));
        let mut canvas = RgbImage::from_pixel(width, height, Rgb([255; 3]));
        for panel in 0..panels {
            let (x, y) = corner(panel);
            let map = panel.checked_sub(1).map(|map| &maps[map as usize].map);
            for (from_x, from_y) in (0..side).flat_map(|y| (0..side).map(move |x| (x, y))) {
                let (column, row) = (from_x / zoom, from_y / zoom);
                let pixel = self.crop.get_pixel(column, row).0;
                let pixel = map.map_or(pixel, |map| blend(pixel, self.value(map, column, row) / largest));
                canvas.put_pixel(x + from_x, y + from_y, Rgb(pixel));
            }
        }
        let legend = Legend { largest, left: MARGIN, top: height - MARGIN - LEGEND + 22, width: width - 2 * MARGIN };
        legend.paint(&mut canvas);
        let mut pixels = canvas.into_raw();
        {
            register()?;
            let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
            let title = format!("{}   {}", self.name, self.model);
            write(&area, (MARGIN, MARGIN), width - 2 * MARGIN, &title, 17, INK, HPos::Left)?;
            for panel in 0..panels {
                let (x, y) = corner(panel);
                let map = panel.checked_sub(1).map(|map| &maps[map as usize]);
                let [first, second] = self.caption(map);
                write(&area, (x, y + side + 5), side, &first, 15, INK, HPos::Left)?;
                write(&area, (x, y + side + 23), side, &second, 13, SOFT, HPos::Left)?;
            }
            legend.letter(&area)?;
            area.present().map_err(failed)?;
        }
        let canvas = RgbImage::from_raw(width, height, pixels).context("three values per pixel")?;
        encode(&canvas)
    }

    /// What the place says to which a pixel of the crop belongs: the places are equal parts.
    fn value(&self, map: &[Vec<f32>], column: u32, row: u32) -> f32 {
        let (width, height) = self.crop.dimensions();
        let of = |pixel: u32, side: u32, places: usize| pixel as usize * places / side as usize;
        let row = map.get(of(row, height, map.len()));
        row.and_then(|values| values.get(of(column, width, values.len()))).copied().unwrap_or(f32::NAN)
    }

    /// What is written below the image itself, or below that of a class.
    fn caption(&self, explanation: Option<&Explanation>) -> [String; 2] {
        let Some(Explanation { prediction, .. }) = explanation else {
            let (width, height) = self.crop.dimensions();
            return ["what the network sees".into(), format!("{width} x {height} pixels")];
        };
        let wnid = prediction.wnid.as_ref().map_or(String::new(), |wnid| format!("{wnid}   "));
        let numbers = format!("{wnid}{:.2} %   logit {:.3}", 100.0 * prediction.probability, prediction.logit);
        [prediction.label.clone(), numbers]
    }
}

/// Who wrote a picture, in an entry of the file.
const SOFTWARE: &str = "qlnet classify --explain";

/// As a PNG file that says who wrote it.
fn encode(canvas: &RgbImage) -> Result<Vec<u8>, Reason> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, canvas.width(), canvas.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.add_text_chunk("Software".into(), SOFTWARE.into())?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(canvas)?;
    writer.finish()?;
    Ok(file)
}

/// Whether a file is a picture that was written here.
pub fn is_map_picture(path: &Path) -> bool {
    // The entry follows the header.
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(128).read_to_end(&mut start));
    read.is_ok() && start.windows(SOFTWARE.len()).any(|bytes| bytes == SOFTWARE.as_bytes())
}

/// The largest absolute value of all maps, which has the strongest colour.
fn largest(maps: &[Explanation]) -> f32 {
    let values = maps.iter().flat_map(|explanation| explanation.map.iter().flatten());
    let largest = values.fold(0.0, |largest: f32, value| largest.max(value.abs()));
    if largest > 0.0 { largest } else { 1.0 }
}

/// A pixel in grey, under the colour of a value from -1 to 1.
fn blend(pixel: [u8; 3], value: f32) -> [u8; 3] {
    let [r, g, b] = pixel.map(f32::from);
    let grey = 0.299 * r + 0.587 * g + 0.114 * b;
    diverging(value).map(|colour| (OPACITY * f32::from(colour) + (1.0 - OPACITY) * grey).round() as u8)
}

/// What the colours mean: a bar of all of them, over black at its upper edge and over white at its lower one, as
/// they lie over dark and light parts of an image.
struct Legend {
    largest: f32,
    left: u32,
    top: u32,
    width: u32,
}

impl Legend {
    const HEIGHT: u32 = 22;

    fn paint(&self, canvas: &mut RgbImage) {
        for (x, y) in (0..Self::HEIGHT).flat_map(|y| (0..self.width).map(move |x| (x, y))) {
            let value = 2.0 * x as f32 / (self.width - 1) as f32 - 1.0;
            let grey = (255 * y / (Self::HEIGHT - 1)) as u8;
            canvas.put_pixel(self.left + x, self.top + y, Rgb(blend([grey; 3], value)));
        }
    }

    fn letter(&self, area: &DrawingArea<BitMapBackend, Shift>) -> Result<(), Reason> {
        let (half, right) = (self.width / 2, self.left + self.width);
        let (above, below) = (self.top - 19, self.top + Self::HEIGHT + 5);
        let places = [(self.left, HPos::Left), (self.left + half, HPos::Center), (right, HPos::Right)];
        let words = ["- speaks against the class", "", "speaks for the class +"];
        let numbers = [format!("{:+.2}", -self.largest), "0".into(), format!("{:+.2}", self.largest)];
        for (((x, side), words), number) in places.into_iter().zip(words).zip(numbers) {
            write(area, (x, above), half, words, 13, INK, side)?;
            write(area, (x, below), half, &number, 13, INK, side)?;
        }
        let words = "What each place adds to the logit, which is the mean of its places.";
        write(area, (self.left, below + 20), self.width, words, 13, SOFT, HPos::Left)
    }
}

/// A font of our own: a machine without a screen often has none.
fn register() -> Result<(), Reason> {
    if register_font("sans-serif", FontStyle::Normal, include_bytes!("../../data/dejavu-sans-ascii.ttf")).is_err() {
        bail!("the font is damaged");
    }
    Ok(())
}

/// Writes as much of a text as there is room for, in the letters that the font has.
fn write(
    area: &DrawingArea<BitMapBackend, Shift>,
    (x, y): (u32, u32),
    room: u32,
    text: &str,
    size: u32,
    colour: RGBColor,
    side: HPos,
) -> Result<(), Reason> {
    let style = ("sans-serif", size).into_font().color(&colour).pos(Pos::new(side, VPos::Top));
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let letters: String = text.chars().map(printable).collect();
    let mut shown = letters.clone();
    for kept in (0..letters.len().saturating_sub(2)).rev() {
        if area.estimate_text_size(&shown, &style).map_err(failed)?.0 <= room {
            break;
        }
        shown = format!("{}...", &letters[..kept]);
    }
    area.draw_text(&shown, &style, (x as i32, y as i32)).map_err(failed)
}

fn failed(error: impl std::error::Error) -> Reason {
    Reason::new(format!("cannot draw: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Prediction;

    fn explanation(map: [[f32; 2]; 2], label: &str) -> Explanation {
        let logit = map.iter().flatten().sum::<f32>() / 4.0;
        let prediction = Prediction { index: 0, wnid: None, label: label.into(), probability: 0.5, logit };
        Explanation { prediction, map: map.map(Vec::from).to_vec() }
    }

    #[test]
    fn places_have_the_colours_of_their_values_in_one_scale() {
        let crop = RgbImage::from_pixel(64, 64, Rgb([100, 100, 100]));
        let long = "a name that is so long that there is no room for all of it below such a small image, \u{e9}";
        let explanations =
            [explanation([[4.0, -4.0], [0.0, 2.0]], "one"), explanation([[-2.0, 0.0], [1.0, -1.0]], long)];
        let picture = MapPicture { name: "a.png", model: "m", crop: &crop, explanations: &explanations };
        let png = image::load_from_memory(&picture.png().unwrap()).unwrap().into_rgb8();
        let side = 5 * 64;
        assert_eq!(png.width(), 2 * MARGIN + 3 * side + 2 * GAP);
        assert_eq!(png.height(), 2 * MARGIN + TITLE + side + CAPTION + LEGEND);
        let at =
            |panel: u32, x: u32, y: u32| png.get_pixel(MARGIN + panel * (side + GAP) + 5 * x, MARGIN + TITLE + 5 * y).0;
        assert_eq!(at(0, 3, 3), [100; 3], "the image itself");
        for (panel, values) in [(1, [1.0, -1.0, 0.0, 0.5]), (2, [-0.5, 0.0, 0.25, -0.25])] {
            let corners = [(0, 0), (32, 31), (31, 32), (63, 63)];
            for ((x, y), value) in corners.into_iter().zip(values) {
                assert_eq!(at(panel, x, y), blend([100; 3], value), "panel {panel}, {x}, {y}");
            }
        }
        // The caption of the long name stays below its image.
        let right = MARGIN + 3 * side + 2 * GAP;
        let below = MARGIN + TITLE + side;
        let beside = (right + 1..png.width()).flat_map(|x| (below..below + CAPTION).map(move |y| (x, y)));
        assert!(beside.into_iter().all(|(x, y)| png.get_pixel(x, y).0 == [255; 3]));
        let caption = (right - side..right).flat_map(|x| (below..below + CAPTION).map(move |y| (x, y)));
        assert!(caption.into_iter().any(|(x, y)| png.get_pixel(x, y).0[0] < 100), "it is written");
    }

    #[test]
    fn not_more_maps_are_drawn_than_fit() {
        let crop = RgbImage::new(224, 224);
        let explanations = vec![explanation([[0.0; 2]; 2], "none"); 9];
        let picture = |count: usize| {
            let explanations = &explanations[..count];
            let picture = MapPicture { name: "-", model: "m", crop: &crop, explanations };
            image::load_from_memory(&picture.png().unwrap()).unwrap().into_rgb8().dimensions()
        };
        assert_eq!(picture(9), picture(MAPS));
        assert!(picture(1).1 < picture(MAPS).1);
    }
}
