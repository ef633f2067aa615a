//! The page of two files of predictions, image by image.

use std::fmt::Write;

use image::RgbImage;

use super::page::{class_name, escape, facts_of, facts_table, page, thumbnail, tile};
use crate::eval::compare::{Change, Comparison, Guess, Pair, Paired, Side};
use crate::eval::{Accuracy, Tally};
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
    /// What A's network sees of an image, if that can still be read.
    pub crop: &'a dyn Fn(&Pair) -> Option<RgbImage>,
}

impl ComparisonReport<'_> {
    /// The page.
    pub fn html(&self) -> String {
        let Comparison { a, b, only_a, only_b, top1, .. } = self.comparison;
        let sections = [
            self.summary(),
            self.differences(),
            self.counts(),
            self.classes(),
            self.images(["A", "B"], only_a, top1.only_a, |pair| [pair.a, pair.b]),
            self.images(["B", "A"], only_b, top1.only_b, |pair| [pair.b, pair.a]),
            self.facts(),
        ];
        page(&format!("{} and {}", file_name(a), file_name(b)), &sections.concat())
    }

    fn summary(&self) -> String {
        let Comparison { a, b, top1, left_out, .. } = self.comparison;
        let accuracy = |accuracy: Option<Accuracy>| {
            accuracy.map_or(Default::default(), |Accuracy { value, low, high }| {
                (percent(value), format!("95 % interval {} to {}", percent(low), percent(high)))
            })
        };
        let mut tiles = String::new();
        for (name, side) in [("top-1 of A", a), ("top-1 of B", b)] {
            let (value, note) = accuracy(side.tally.top1());
            tiles += &tile(name, &value, &note);
        }
        if let Some(Accuracy { value, low, high }) = top1.difference() {
            tiles +=
                &tile("B - A", &points(value), &format!("points; 95 % interval {} to {}", points(low), points(high)));
        }
        tiles += &tile(
            "McNemar's exact p",
            &p_value(top1.mcnemar()),
            "how likely the images that only one gets right are shared out so unevenly, or more, by chance",
        );
        if *left_out > 0 {
            tiles += &tile("left out", &thousands(*left_out), "images without scores in A or B");
        }
        format!(
            "<header>\n<h1>A and B <small>image by image</small></h1>\n\
             <p>A is <code>{}</code>, B is <code>{}</code>: {} images of {} classes.</p>\n\
             <div class=\"tiles\">\n{tiles}</div>\n</header>\n",
            escape(&file_name(a)),
            escape(&file_name(b)),
            thousands(self.comparison.images()),
            thousands(self.comparison.classes.len() as u64)
        )
    }

    fn differences(&self) -> String {
        let differences = self.comparison.differences();
        if differences.is_empty() {
            return "<section>\n<h2>What differs</h2>\n<p>Nothing: weights, options and images are the same.</p>\n\
                    </section>\n"
                .into();
        }
        let row = |(name, a, b): &(&str, String, String)| {
            format!("<tr><th>{name}</th><td>{}</td><td>{}</td></tr>\n", escape(a), escape(b))
        };
        let rows: String = differences.iter().map(row).collect();
        format!(
            "<section>\n<h2>What differs</h2>\n<div class=\"scroll\"><table>\n\
             <tr><th></th><th>A</th><th>B</th></tr>\n{rows}</table></div>\n</section>\n"
        )
    }

    fn counts(&self) -> String {
        let Comparison { a, b, top1, top5, same_prediction, largest_change, .. } = self.comparison;
        let images = self.comparison.images();
        let share = |count: u64| {
            let percent = percent(count as f64 / images as f64);
            format!("<td class=\"n\">{}</td><td class=\"n\">{percent}</td>", thousands(count))
        };
        let row = |name: &str, count: fn(&Paired) -> u64| {
            format!("<tr><th>{name}</th>{}{}</tr>\n", share(count(top1)), share(count(top5)))
        };
        let rows = [
            row("right in both", |paired| paired.both),
            row("only A is right", |paired| paired.only_a),
            row("only B is right", |paired| paired.only_b),
            row("wrong in both", |paired| paired.neither),
        ];
        let number = |of: fn(&Tally) -> Option<f64>, words: fn(f64) -> String| {
            let [a, b] = [a, b].map(|side| of(&side.tally).map_or("-".into(), words));
            format!("A {a}, B {b}")
        };
        let largest = largest_change.as_ref().map_or("none".into(), |change| self.change(change));
        let facts = [
            ("same most likely class", format!("{} images", thousands(*same_prediction))),
            ("cross-entropy", number(Tally::loss, |loss| format!("{loss:.4}"))),
            ("calibration error", number(Tally::calibration_error, percent)),
            ("largest change of a probability", largest),
            ("McNemar's exact p for top-5", p_value(top5.mcnemar())),
        ];
        format!(
            "<section>\n<h2>Which images</h2>\n<div class=\"scroll\"><table>\n\
             <tr><th></th><th colspan=\"2\">by top-1</th><th colspan=\"2\">by top-5</th></tr>\n{}</table></div>\n{}\
             </section>\n",
            rows.concat(),
            facts_table(&facts)
        )
    }

    /// A change of a probability, as HTML.
    fn change(&self, change: &Change) -> String {
        let [a, b] = change.words();
        let class = class_name(self.labels, change.class);
        format!("A {a}, B {b} for {class} in <span class=\"path\">{}</span>", escape(&change.path))
    }

    fn classes(&self) -> String {
        let moved = self.comparison.moved_classes();
        let by = |paired: &Paired| paired.difference().map_or(0.0, |difference| difference.value);
        let Some(most) = moved.first().map(|(_, paired)| by(paired).abs()) else { return String::new() };
        let (mut bars, mut rows) = (String::new(), String::new());
        for (place, (class, paired)) in moved.iter().enumerate() {
            let (name, moved, images) = (class_name(self.labels, *class), by(paired), paired.images());
            let [a, b] = [paired.right_a(), paired.right_b()].map(|right| percent(right as f64 / images as f64));
            if place < DRAWN {
                let (edge, kind) = if moved > 0.0 { ("left", "") } else { ("right", " class=\"lost\"") };
                let _ = writeln!(
                    bars,
                    "<div class=\"bar move\" title=\"{name}: {images} images, {a} in A, {b} in B\"><span>{name}</span>\
                     <i><u{kind} style=\"{edge}:50%;width:{:.2}%\"></u></i><em>{}</em></div>",
                    50.0 * moved.abs() / most,
                    points(moved)
                );
            }
            let _ = writeln!(
                rows,
                "<tr><td>{class}</td><td>{name}</td><td class=\"n\">{images}</td><td class=\"n\">{a}</td>\
                 <td class=\"n\">{b}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                points(moved),
                paired.only_a,
                paired.only_b
            );
        }
        let drawn =
            if moved.len() > DRAWN { format!("; the {DRAWN} that moved most are drawn") } else { String::new() };
        format!(
            "<section>\n<h2>Classes that moved</h2>\n<p>{} of {} classes have another accuracy in B{drawn}. To the \
             right is better.</p>\n<div class=\"bars\">\n{bars}</div>\n\
             <details><summary>As a table</summary>\n<div class=\"scroll\"><table>\n<tr><th>index</th><th>class</th>\
             <th>images</th><th>top-1 of A</th><th>top-1 of B</th><th>points</th><th>only A</th><th>only B</th></tr>\n\
             {rows}</table></div></details>\n</section>\n",
            moved.len(),
            self.comparison.classes.len()
        )
    }

    /// The images that only one gets right, of which there are `all`.
    fn images(&self, [one, other]: [&str; 2], pairs: &[Pair], all: u64, guesses: fn(&Pair) -> [Guess; 2]) -> String {
        if pairs.is_empty() {
            return String::new();
        }
        let card = |pair: &Pair| {
            let [right, wrong] = guesses(pair);
            let [sure, mistaken, label] = [right.probability, wrong.probability, wrong.label_probability]
                .map(|probability| percent(f64::from(probability)));
            let also = if pair.path == pair.path_b { String::new() } else { format!(", {}", pair.path_b) };
            let path = format!("{}{also}", pair.path);
            let name = class_name(self.labels, right.class);
            format!(
                "<figure class=\"card\">{}<figcaption>{one}: <b>{name}</b> {sure}<br>{other}: <b class=\"wrong\">{}</b> \
                 {mistaken}, <b>{name}</b> {label}<span class=\"path\">{}</span></figcaption></figure>\n",
                thumbnail((self.crop)(pair), &path),
                class_name(self.labels, wrong.class),
                escape(&path)
            )
        };
        let shown = &pairs[..pairs.len().min(SHOWN)];
        let cards: String = shown.iter().map(card).collect();
        let which = match (shown.len() as u64, all) {
            (1, 1) => "One image.".into(),
            (shown, all) if shown < all => {
                format!("The {shown} of {} images of which {one} is surest.", thousands(all))
            }
            (_, all) => format!("{} images; those of which {one} is surest come first.", thousands(all)),
        };
        format!(
            "<section>\n<h2>Only {one} is right</h2>\n<p>{which}</p>\n<div class=\"cards\">\n{cards}</div>\n</section>\n"
        )
    }

    fn facts(&self) -> String {
        let Comparison { a, b, .. } = self.comparison;
        let facts = |side: &Side| {
            let mut facts = facts_of(&side.run);
            facts.insert(0, ("file", escape(&side.file.display().to_string())));
            facts.insert(facts.len() - 1, ("without scores", format!("{} images", thousands(side.errors))));
            facts
        };
        format!(
            "<section>\n<h2>How they were measured</h2>\n<div class=\"columns\"><div><h3>A</h3>\n{}</div>\
             <div><h3>B</h3>\n{}</div></div>\n</section>\n",
            facts_table(&facts(a)),
            facts_table(&facts(b))
        )
    }
}

/// What to call a file.
fn file_name(side: &Side) -> String {
    side.file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into())
}
