//! The page of two files of predictions, image by image.

use askama::Template;

use super::charts::{Bar, hundredths};
use super::classes::Share;
use super::facts;
use super::names::ClassName;
use super::pictures::{Picture, Pictures};
use crate::eval::compare::{Change, Comparison, Guess, Pair, Paired, Side};
use crate::eval::{Accuracy, Tally};
use crate::page::{Fact, Origin, Tile};
use crate::text::{p_value, percent, points, thousands};
use crate::weights::registry::Label;

/// Images that are shown of those that only one gets right.
const SHOWN: usize = 60;
/// Classes that are drawn.
const DRAWN: usize = 20;

/// A comparison, and what is needed to show it.
pub struct ComparisonReport<'a> {
    /// Its result.
    pub comparison: &'a Comparison,
    /// What the models' outputs mean.
    pub labels: &'a [Label],
    /// Which command makes the page, and when.
    pub origin: &'a Origin,
    /// Where pictures come from: what A's network sees, of an image by its path in A or in B.
    pub pictures: Pictures<'a>,
}

#[derive(Template)]
#[template(path = "eval/report/comparison.html")]
struct Page {
    a: String,
    b: String,
    images: String,
    class_count: String,
    tiles: Vec<Tile>,
    differences: Vec<(&'static str, String, String)>,
    counts: Vec<Count>,
    numbers: Vec<Fact>,
    moved: Vec<Moved>,
    moved_count: String,
    bars: Vec<Bar>,
    /// How many classes are drawn, if not all.
    drawn: Option<usize>,
    only: Vec<Only>,
    sides: [(&'static str, Vec<Fact>); 2],
    origin: [Fact; 2],
}

/// A kind of images, and how many there are by top-1 and by top-5.
struct Count {
    name: &'static str,
    cells: [String; 4],
}

/// A class whose accuracy is another in B.
struct Moved {
    class: ClassName,
    images: u64,
    a: Share,
    b: Share,
    points: String,
    difference: f64,
    only_a: u64,
    only_b: u64,
    /// The three numbers of images, in words.
    texts: [String; 3],
}

/// The images that only one gets right.
struct Only {
    /// What the one is called, and the other.
    one: &'static str,
    other: &'static str,
    which: String,
    cards: Vec<Card>,
}

struct Card {
    picture: Picture,
    label: ClassName,
    sure: String,
    wrong: ClassName,
    mistaken: String,
    label_probability: String,
    path: String,
}

impl ComparisonReport<'_> {
    /// The page.
    pub fn html(&self) -> String {
        let Comparison { a, b, only_a, only_b, top1, .. } = self.comparison;
        let moved = self.comparison.moved_classes();
        let page = Page {
            a: file_name(a),
            b: file_name(b),
            images: thousands(self.comparison.images()),
            class_count: thousands(self.comparison.classes.len() as u64),
            tiles: self.tiles(),
            differences: self.comparison.differences(),
            counts: self.counts(),
            numbers: self.numbers(),
            moved_count: thousands(moved.len() as u64),
            bars: self.bars(&moved),
            drawn: (moved.len() > DRAWN).then_some(DRAWN),
            moved: moved.iter().map(|(class, paired)| self.moved(*class, paired)).collect(),
            only: vec![
                self.only(["A", "B"], only_a, top1.only_a, |pair| [pair.a, pair.b]),
                self.only(["B", "A"], only_b, top1.only_b, |pair| [pair.b, pair.a]),
            ],
            sides: [("A", side_facts(a)), ("B", side_facts(b))],
            origin: self.origin.facts(),
        };
        page.to_string()
    }

    fn name(&self, class: u32) -> ClassName {
        ClassName::new(self.labels, class)
    }

    fn tiles(&self) -> Vec<Tile> {
        let Comparison { a, b, top1, left_out, .. } = self.comparison;
        let mut tiles = Vec::new();
        for (name, side) in [("top-1 of A", a), ("top-1 of B", b)] {
            let Some(Accuracy { value, low, high }) = side.tally.top1() else { continue };
            let interval = format!("95 % interval {} to {}", percent(low), percent(high));
            tiles.push(Tile::new(name, percent(value), interval));
        }
        if let Some(Accuracy { value, low, high }) = top1.difference() {
            let interval = format!("points; 95 % interval {} to {}", points(low), points(high));
            tiles.push(Tile::new("B - A", points(value), interval));
        }
        tiles.push(Tile::new(
            "McNemar's exact p",
            p_value(top1.mcnemar()),
            "how likely the images that only one gets right are shared out so unevenly, or more, by chance",
        ));
        if *left_out > 0 {
            tiles.push(Tile::new("left out", thousands(*left_out), "images without scores in A or B"));
        }
        tiles
    }

    fn counts(&self) -> Vec<Count> {
        let Comparison { top1, top5, .. } = self.comparison;
        let images = self.comparison.images() as f64;
        let count = |name, of: fn(&Paired) -> u64| {
            let [one, five] = [of(top1), of(top5)].map(|count| (thousands(count), percent(count as f64 / images)));
            Count { name, cells: [one.0, one.1, five.0, five.1] }
        };
        vec![
            count("right in both", |paired| paired.both),
            count("only A is right", |paired| paired.only_a),
            count("only B is right", |paired| paired.only_b),
            count("wrong in both", |paired| paired.neither),
        ]
    }

    fn numbers(&self) -> Vec<Fact> {
        let Comparison { a, b, top5, same_prediction, largest_change, .. } = self.comparison;
        let number = |of: fn(&Tally) -> Option<f64>, words: fn(f64) -> String| {
            let [a, b] = [a, b].map(|side| of(&side.tally).map_or("-".into(), words));
            format!("A {a}, B {b}")
        };
        let change = "largest change of a probability";
        vec![
            Fact::new("same most likely class", format!("{} images", thousands(*same_prediction))),
            Fact::new("cross-entropy", number(Tally::loss, |loss| format!("{loss:.4}"))),
            Fact::new("calibration error", number(Tally::calibration_error, percent)),
            match largest_change {
                Some(found) => Fact::with_code(change, self.change(found), &found.path),
                None => Fact::new(change, "none"),
            },
            Fact::new("McNemar's exact p for top-5", p_value(top5.mcnemar())),
        ]
    }

    /// A change of a probability, up to the image's path.
    fn change(&self, change: &Change) -> String {
        let [a, b] = change.words();
        format!("A {a}, B {b} for {} in", self.name(change.class).text())
    }

    /// The classes that moved most.
    fn bars(&self, moved: &[(u32, Paired)]) -> Vec<Bar> {
        let most = moved.first().map_or(1.0, |(_, paired)| difference(paired).abs());
        let bar = |(class, paired): &(u32, Paired)| {
            let (class, by) = (self.name(*class), difference(paired));
            let width = 50.0 * by.abs() / most;
            let [a, b] = [share_a(paired), share_b(paired)].map(|share| share.text);
            let images = thousands(paired.images());
            Bar {
                title: format!("{}: {images} images, {a} in A, {b} in B", class.title()),
                class,
                left: hundredths(if by > 0.0 { 50.0 } else { 50.0 - width }),
                width: hundredths(width),
                is_lost: by < 0.0,
                value: points(by),
            }
        };
        moved.iter().take(DRAWN).map(bar).collect()
    }

    fn moved(&self, class: u32, paired: &Paired) -> Moved {
        let by = difference(paired);
        Moved {
            class: self.name(class),
            images: paired.images(),
            a: share_a(paired),
            b: share_b(paired),
            points: points(by),
            difference: 100.0 * by,
            only_a: paired.only_a,
            only_b: paired.only_b,
            texts: [paired.images(), paired.only_a, paired.only_b].map(thousands),
        }
    }

    /// The images that only one gets right, of which there are `all`.
    fn only(
        &self,
        [one, other]: [&'static str; 2],
        pairs: &[Pair],
        all: u64,
        guesses: fn(&Pair) -> [Guess; 2],
    ) -> Only {
        let shown = &pairs[..pairs.len().min(SHOWN)];
        let path = |pair: &Pair| {
            let also = if pair.path == pair.path_b { String::new() } else { format!(", {}", pair.path_b) };
            format!("{}{also}", pair.path)
        };
        let paths: Vec<_> = shown.iter().map(|pair| (vec![&*pair.path, &*pair.path_b], path(pair))).collect();
        let cards = shown.iter().zip(self.pictures.get(&paths)).map(|(pair, picture)| {
            let [right, wrong] = guesses(pair);
            let [sure, mistaken, label_probability] = [right.probability, wrong.probability, wrong.label_probability]
                .map(|probability| percent(f64::from(probability)));
            let (label, wrong) = (self.name(right.class), self.name(wrong.class));
            Card { picture, label, sure, wrong, mistaken, label_probability, path: path(pair) }
        });
        let which = match (shown.len() as u64, all) {
            (1, 1) => "One image.".into(),
            (shown, all) if shown < all => {
                format!("The {shown} of {} images of which {one} is surest.", thousands(all))
            }
            (_, all) => format!("{} images; those of which {one} is surest come first.", thousands(all)),
        };
        Only { one, other, which, cards: cards.collect() }
    }
}

fn difference(paired: &Paired) -> f64 {
    paired.difference().map_or(0.0, |difference| difference.value)
}

fn share_a(paired: &Paired) -> Share {
    Share::new(paired.right_a() as f64 / paired.images() as f64)
}

fn share_b(paired: &Paired) -> Share {
    Share::new(paired.right_b() as f64 / paired.images() as f64)
}

fn side_facts(side: &Side) -> Vec<Fact> {
    let mut facts = vec![Fact::with_code("file", "", side.file.display().to_string())];
    facts.extend(facts::of_run(&side.run));
    facts.push(Fact::new("without scores", format!("{} images", thousands(side.errors))));
    facts
}

/// What to call a file.
fn file_name(side: &Side) -> String {
    side.file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into())
}
