//! The pictures of pages.

use std::collections::HashMap;

use image::RgbImage;
use rayon::prelude::*;
use serde::Serialize;

use crate::eval::Tally;
use crate::page::Thumbnail;

/// Mistakes that are listed class by class.
const LISTED: usize = 10_000;
/// Those of them that have a picture: where they are many, one takes some 3 kB.
const PICTURED: usize = 1800;
/// With more of them than this, pictures are smaller.
const MANY: usize = 600;

/// Where pictures come from. An image may be known by several paths.
#[derive(Clone, Copy)]
pub struct Pictures<'a> {
    /// What the network sees of an image, if that can still be read.
    pub crop: &'a (dyn Fn(&[&str]) -> Option<RgbImage> + Sync),
    /// Where a browser finds the file, if the image is one.
    pub link: &'a (dyn Fn(&[&str]) -> Option<String> + Sync),
}

/// A picture of a page.
pub struct Picture {
    /// The picture.
    pub thumbnail: Thumbnail,
    /// Where its file is, if it is one.
    pub link: Option<String>,
    /// What is read where the picture is not seen.
    pub text: String,
}

impl Pictures<'_> {
    /// The pictures at these paths, with their texts, small.
    pub fn get(&self, paths: &[(Vec<&str>, String)]) -> Vec<Picture> {
        let picture = |(paths, text): &(Vec<&str>, String)| Picture {
            thumbnail: thumbnail((self.crop)(paths), 160, 82),
            link: (self.link)(paths),
            text: text.clone(),
        };
        paths.par_iter().map(picture).collect()
    }

    /// The mistakes that a page can hold, the most confident first. Which they are, and which of them have pictures, is
    /// shared out: of each class, the images that show it and those that are taken for it come by turns.
    pub fn examples(&self, tally: &Tally) -> Vec<Example> {
        let mut examples: Vec<Example> = Vec::new();
        for ((label, predicted), confusion) in tally.most_confused() {
            for (confidence, path) in &confusion.examples {
                let (path, confidence) = (path.clone(), *confidence);
                examples.push(Example { label, predicted, path, confidence, picture: None, link: None });
            }
        }
        // Stable: of equally confident ones, that of the more frequent pair is the first.
        examples.sort_by(|one, other| other.confidence.total_cmp(&one.confidence));
        let (mut of_label, mut of_prediction) = (HashMap::<u32, usize>::new(), HashMap::<u32, usize>::new());
        let mut turn = |example: &Example| {
            let shown = of_label.entry(example.label).or_default();
            let found = of_prediction.entry(example.predicted).or_default();
            let turn = (*shown).min(*found);
            *shown += 1;
            *found += 1;
            turn
        };
        let mut examples: Vec<_> = examples.into_iter().map(|example| (turn(&example), example)).collect();
        examples.sort_by_key(|(turn, _)| *turn);
        let mut examples: Vec<Example> = examples.into_iter().take(LISTED).map(|(_, example)| example).collect();
        let pictured = examples.len().min(PICTURED);
        let (side, quality) = if pictured > MANY { (80, 70) } else { (128, 80) };
        // In the order of the data set: a table is read from its beginning to its end.
        let mut in_order: Vec<&mut Example> = examples[..pictured].iter_mut().collect();
        in_order.sort_by(|one, other| one.path.cmp(&other.path));
        in_order.into_iter().par_bridge().for_each(|example| {
            example.picture = thumbnail((self.crop)(&[&example.path]), side, quality).address;
        });
        examples.iter_mut().for_each(|example| example.link = (self.link)(&[&example.path]));
        examples.sort_by(|one, other| other.confidence.total_cmp(&one.confidence));
        examples
    }
}

/// A mistake, as a page's script takes it.
#[derive(Serialize)]
pub struct Example {
    #[serde(skip)]
    pub label: u32,
    #[serde(skip)]
    pub predicted: u32,
    path: String,
    confidence: f32,
    /// The address of the picture, if it can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<String>,
    /// The address of the file, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
}

fn thumbnail(crop: Option<RgbImage>, side: u32, quality: u8) -> Thumbnail {
    crop.map_or_else(Thumbnail::missing, |crop| Thumbnail::new(&crop, side, quality))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::eval::{Row, Scores};

    #[test]
    fn every_class_has_its_share_of_what_a_page_holds() {
        let mut tally = Tally::default();
        for number in 0..13_200u32 {
            let (label, predicted) = (number % 100, number % 100 + 1 + number / 100 % 11);
            // Those of the first classes are the most confident.
            let confidence = 0.5 + 0.4 * (1.0 - label as f32 / 100.0) + number as f32 * 1e-7;
            let scores = Ok(Scores { top: vec![(predicted, confidence), (label, 0.1)], rank: 2, loss: 2.0 });
            tally.add(&Row { path: format!("{number}.png"), label: Some(label), scores, warning: None }, None);
        }
        let crop = |paths: &[&str]| (paths != ["13.png"]).then(|| RgbImage::new(8, 8));
        let link = |paths: &[&str]| Some(format!("./{}", paths[0]));
        let examples = Pictures { crop: &crop, link: &link }.examples(&tally);
        assert_eq!(examples.len(), LISTED);
        assert!(examples.is_sorted_by(|one, other| one.confidence >= other.confidence));
        assert!(examples.iter().all(|example| example.link.as_ref() == Some(&format!("./{}", example.path))));
        let pictured: Vec<_> = examples.iter().filter(|example| example.picture.is_some()).collect();
        assert!((PICTURED - 1..=PICTURED).contains(&pictured.len()), "{}", pictured.len());
        let labels: BTreeSet<u32> = pictured.iter().map(|example| example.label).collect();
        let predicted: BTreeSet<u32> = pictured.iter().map(|example| example.predicted).collect();
        assert_eq!((labels.len(), predicted.len()), (100, 110));
    }
}
