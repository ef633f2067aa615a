//! What classify prints for people.

use std::fmt::Write;

use crate::cli::manner::has_blocks;
use crate::cli::print::strong;
use crate::network::Prediction;
use crate::text::printable;

/// Cells of a bar that means certainty.
const BAR: usize = 20;

/// One image's predictions for people, after an empty line unless it is the first:
///
/// ```text
/// photo.png
///    87.31 %  █████████████████▍    n02123045  tabby, tabby cat
/// ```
pub fn table<'a>(image: &str, predictions: impl Iterator<Item = &'a Prediction>, first: bool) -> String {
    let mut text = if first { String::new() } else { "\n".to_string() };
    text.push_str(&strong(&printable(image)));
    for p in predictions {
        let wnid = p.wnid.as_ref().map_or(String::new(), |wnid| format!("{wnid}  "));
        let bar = bar(p.probability, has_blocks());
        let _ = write!(text, "\n  {:6.2} %  {bar}  {wnid}{}", 100.0 * p.probability, p.label);
    }
    text
}

/// A bar of [`BAR`] cells, drawn in eighths where there are blocks.
fn bar(probability: f64, blocks: bool) -> String {
    if !blocks {
        let cells = (probability * BAR as f64).round() as usize;
        return format!("{:BAR$}", "#".repeat(cells));
    }
    let eighths = (probability * 8.0 * BAR as f64).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    bar.push_str(["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8]);
    let cells = eighths.div_ceil(8);
    bar + &" ".repeat(BAR.saturating_sub(cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_one_width() {
        for i in 0..=1000 {
            for blocks in [true, false] {
                assert_eq!(bar(f64::from(i) / 1000.0, blocks).chars().count(), BAR);
            }
        }
        assert_eq!(bar(0.5, true), format!("{}{}", "█".repeat(10), " ".repeat(10)));
        assert_eq!(bar(0.52, false), format!("{}{}", "#".repeat(10), " ".repeat(10)));
    }
}
