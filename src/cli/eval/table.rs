//! The result of an evaluation, as a table.

use std::fmt::Write;

use candle_core::Device;

use super::arguments::Eval;
use crate::eval::{Run, Summary};
use crate::text::{percent, printable, thousands};

/// A row for each number, and for what it was measured on.
pub fn table(args: &Eval, summary: &Summary) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<18} {value}");
    };
    let accuracy = |value: Option<f64>, interval: Option<[f64; 2]>| match (value, interval) {
        (Some(value), Some([low, high])) => {
            format!("{}   95 % interval {} to {}", percent(value), percent(low), percent(high))
        }
        _ => "-".to_string(),
    };
    let Run { model, weights_sha256, preprocess, jpeg_decoder, device, dtype, .. } = summary.run;
    let part = summary.part().map_or(String::new(), |part| format!("   {part}"));
    row("images", &format!("{}{part}", thousands(summary.images)));
    if summary.errors > 0 {
        row("not scored", &thousands(summary.errors));
    }
    if summary.warnings > 0 {
        row("damaged files", &thousands(summary.warnings));
    }
    row("top-1", &accuracy(summary.top1, summary.top1_interval));
    row("top-5", &accuracy(summary.top5, summary.top5_interval));
    if let Some(images) = summary.real_images {
        row("ReaL", &format!("{}, of {} images", accuracy(summary.real, summary.real_interval), thousands(images)));
    }
    row("cross-entropy", &summary.loss.map_or("-".into(), |loss| format!("{loss:.4}")));
    row("calibration error", &summary.calibration_error.map_or("-".into(), percent));
    if let Some(speed) = summary.images_per_second {
        row("images per second", &format!("{speed:.1}"));
    }
    row("model", model);
    let file = args.model.weights.as_ref().map_or(String::new(), |file| format!("{}, ", file.display()));
    row("weights", &printable(&format!("{file}SHA-256 {weights_sha256}")));
    row("preprocessing", &format!("{preprocess}, JPEG by {jpeg_decoder}"));
    let threads =
        summary.images_per_second.map_or(String::new(), |_| format!(", {} threads", rayon::current_num_threads()));
    row("device", &format!("{device}{threads}"));
    // Known only of what has just been computed here.
    let instructions = summary.images_per_second.and_then(|_| args.model.dtype.instructions(&Device::Cpu));
    let instructions = instructions.filter(|_| device == "cpu").map_or(String::new(), |name| format!(", {name}"));
    row("dtype", &format!("{dtype}{instructions}"));
    text.truncate(text.trim_end().len());
    text
}
