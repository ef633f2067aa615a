//! Draws a path as SVG or PNG.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::path::Step;

const SIZE: (u32, u32) = (960, 600);
const BLUE: RGBColor = RGBColor(31, 90, 190);
const GREEN: RGBColor = RGBColor(20, 130, 70);
const RED: RGBColor = RGBColor(200, 60, 20);
const GREY: RGBColor = RGBColor(120, 120, 120);

/// A picture of a path, in the format that the file's name asks for. `tolerance` is how far rounding may
/// move the logits.
///
/// # Errors
/// If the name ends in neither `.svg` nor `.png`, or the path does not go anywhere.
pub fn draw(path: &[Step], title: &str, tolerance: f64, file: &Path) -> Result<Vec<u8>> {
    // A font of our own: a machine without a screen often has none.
    register_font("sans-serif", FontStyle::Normal, include_bytes!("../../data/dejavu-sans-ascii.ttf"))
        .map_err(|_| anyhow!("the font is damaged"))?;
    match format(file)? {
        Format::Svg => {
            let mut svg = String::new();
            paint(&SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(), path, title, tolerance)?;
            Ok(svg.into_bytes())
        }
        Format::Png => {
            let mut pixels = vec![255; 3 * SIZE.0 as usize * SIZE.1 as usize];
            paint(&BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area(), path, title, tolerance)?;
            let image = image::RgbImage::from_raw(SIZE.0, SIZE.1, pixels).context("three values per pixel")?;
            let mut png = std::io::Cursor::new(Vec::new());
            image.write_to(&mut png, image::ImageFormat::Png)?;
            Ok(png.into_inner())
        }
    }
}

/// What a picture can be.
pub enum Format {
    Svg,
    Png,
}

/// The format that a file's name asks for.
///
/// # Errors
/// If it is another.
pub fn format(file: &Path) -> Result<Format> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => Ok(Format::Svg),
        Some("png") => Ok(Format::Png),
        _ => bail!("{}: the name of a picture ends in .svg or .png", file.display()),
    }
}

fn paint<B: DrawingBackend>(area: &DrawingArea<B, Shift>, path: &[Step], title: &str, tolerance: f64) -> Result<()> {
    let failed = |error: DrawingAreaErrorKind<B::ErrorType>| anyhow!("cannot draw: {error}");
    type Curve = (&'static str, RGBColor, fn(&Step) -> f64);
    let curves: [Curve; 3] = [
        ("weights: distance from the start", BLUE, |step| step.weight_change),
        ("logits under half of the move (control)", RED, |step| step.control_logit_change),
        ("logits under the symmetry", GREEN, |step| step.logit_change),
    ];
    let values = || curves.iter().flat_map(|(_, _, value)| path.iter().map(value)).chain([tolerance]);
    let positive = || values().filter(|value| *value > 0.0 && value.is_finite());
    let decade = |value: f64| 10f64.powf(value);
    let low = decade(positive().fold(f64::INFINITY, f64::min).log10().floor());
    let high = decade(positive().fold(0.0, f64::max).log10().ceil().max(0.0) + 0.3);
    let end = path.last().map_or(0.0, |step| step.t);
    ensure!(end > 0.0, "the path goes nowhere");

    let decimals = (2.0 - end.log10().floor()).max(2.0) as usize;
    // What the font does not have, and what there is no room for.
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let title: String = title.chars().map(printable).collect();
    let title = if title.len() > 80 { format!("{}...", &title[..77]) } else { title };

    area.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 22))
        .margin(16)
        .margin_right(32)
        .x_label_area_size(48)
        .y_label_area_size(84)
        .build_cartesian_2d(0.0..end, (low..high).log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GREY.mix(0.25))
        .label_style(("sans-serif", 17))
        .axis_desc_style(("sans-serif", 18))
        .x_desc("t, along exp(t A)")
        .y_desc("relative change")
        .y_labels(9)
        .y_label_formatter(&|value| format!("{value:.0e}"))
        .x_label_formatter(&|t| format!("{t:.decimals$}"))
        .draw()
        .map_err(failed)?;
    let line = [(0.0, tolerance), (end, tolerance)];
    chart
        .draw_series(DashedLineSeries::new(line, 6, 6, GREY.stroke_width(2)))
        .map_err(failed)?
        .label("tolerance for rounding")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 26, y)], GREY.stroke_width(2)));
    for (place, (label, colour, value)) in curves.into_iter().enumerate() {
        // Zero has no place on a logarithmic axis.
        let points: Vec<_> =
            path.iter().map(|step| (step.t, value(step))).filter(|(_, v)| *v > 0.0 && v.is_finite()).collect();
        // Each by itself: where thick lines are joined, the bitmap has spikes.
        let pieces = points.windows(2).map(|ends| PathElement::new(ends.to_vec(), colour.stroke_width(3)));
        chart.draw_series(pieces).map_err(failed)?;
        // Open or filled: told apart in black and white too.
        let fill = if place == 1 { WHITE } else { colour };
        chart
            .draw_series(points.iter().map(|point| {
                EmptyElement::at(*point)
                    + Circle::new((0, 0), 5, fill.filled())
                    + Circle::new((0, 0), 5, colour.stroke_width(2))
            }))
            .map_err(failed)?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 26, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE.mix(0.85))
        .border_style(GREY.mix(0.5))
        .label_font(("sans-serif", 17))
        .legend_area_size(36)
        .draw()
        .map_err(failed)?;
    area.present().map_err(failed)
}
