//! Draws a path as SVG or PNG.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::combinators::LogCoord;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::path::Step;
use crate::error::{Context, Error, Reason, Result, bail};

const SIZE: (u32, u32) = (960, 600);
const BLUE: RGBColor = RGBColor(31, 90, 190);
const GREEN: RGBColor = RGBColor(20, 130, 70);
const RED: RGBColor = RGBColor(200, 60, 20);
const GREY: RGBColor = RGBColor(120, 120, 120);

/// A picture of a path, 960 x 600 pixels, in the format that the file's name asks for; the file is not
/// written. `tolerance` is how far rounding may move the logits.
///
/// # Errors
/// [`Error::Plot`] if the name ends in neither `.svg` nor `.png`, or the path does not go anywhere.
pub fn draw(path: &[Step], title: &str, tolerance: f64, file: &Path) -> Result<Vec<u8>> {
    let format = format(file)?;
    picture(path, title, tolerance, format).map_err(Error::Plot)
}

/// What a picture can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines and letters, sharp at any size.
    Svg,
    /// Pixels.
    Png,
}

/// The format that a file's name asks for.
///
/// # Errors
/// [`Error::Plot`] if the name ends in neither `.svg` nor `.png`.
pub fn format(file: &Path) -> Result<Format> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => Ok(Format::Svg),
        Some("png") => Ok(Format::Png),
        _ => {
            let message = format!("{}: the name of a picture ends in .svg or .png", file.display());
            Err(Error::Plot(Reason::new(message)))
        }
    }
}

fn picture(path: &[Step], title: &str, tolerance: f64, format: Format) -> Result<Vec<u8>, Reason> {
    // A font of our own: a machine without a screen often has none.
    if register_font("sans-serif", FontStyle::Normal, include_bytes!("../../data/dejavu-sans-ascii.ttf")).is_err() {
        bail!("the font is damaged");
    }
    match format {
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

/// One line of the picture.
struct Curve {
    label: &'static str,
    colour: RGBColor,
    /// Whether its points are filled: so the curves can be told apart in black and white too.
    filled: bool,
    value: fn(&Step) -> f64,
}

const CURVES: [Curve; 3] = [
    Curve { label: "weights: distance from the start", colour: BLUE, filled: true, value: |step| step.weight_change },
    Curve {
        label: "logits under half of the move (control)",
        colour: RED,
        filled: false,
        value: |step| step.control_logit_change,
    },
    Curve { label: "logits under the symmetry", colour: GREEN, filled: true, value: |step| step.logit_change },
];

/// Linear along the path, logarithmic in what changes.
type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, LogCoord<f64>>>;

fn paint<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    path: &[Step],
    title: &str,
    tolerance: f64,
) -> Result<(), Reason> {
    let end = path.last().map_or(0.0, |step| step.t);
    if !end.is_finite() || end <= 0.0 {
        bail!("the path goes nowhere");
    }
    area.fill(&WHITE).map_err(failed)?;
    let mut chart: Chart<B> = ChartBuilder::on(area)
        .caption(caption(title), ("sans-serif", 22))
        .margin(16)
        .margin_right(32)
        .x_label_area_size(48)
        .y_label_area_size(84)
        .build_cartesian_2d(0.0..end, decades(path, tolerance).log_scale())
        .map_err(failed)?;
    paint_axes(&mut chart, end).map_err(failed)?;
    paint_tolerance(&mut chart, end, tolerance).map_err(failed)?;
    CURVES.iter().try_for_each(|curve| paint_curve(&mut chart, path, curve)).map_err(failed)?;
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

fn failed(error: impl std::error::Error) -> Reason {
    Reason::new(format!("cannot draw: {error}"))
}

/// The title without what the font does not have and there is no room for.
fn caption(title: &str) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let title: String = title.chars().map(printable).collect();
    if title.len() > 80 { format!("{}...", &title[..77]) } else { title }
}

/// Whole powers of ten around all positive values, and some room above.
fn decades(path: &[Step], tolerance: f64) -> std::ops::Range<f64> {
    let values = || CURVES.iter().flat_map(|curve| path.iter().map(curve.value)).chain([tolerance]);
    let positive = || values().filter(|value| *value > 0.0 && value.is_finite());
    let power = |exponent: f64| 10f64.powf(exponent);
    let low = power(positive().fold(f64::INFINITY, f64::min).log10().floor());
    low..power(positive().fold(0.0, f64::max).log10().ceil().max(0.0) + 0.3)
}

fn paint_axes<B: DrawingBackend>(chart: &mut Chart<B>, end: f64) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let decimals = (2.0 - end.log10().floor()).max(2.0) as usize;
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
}

fn paint_tolerance<B: DrawingBackend>(
    chart: &mut Chart<B>,
    end: f64,
    tolerance: f64,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let line = [(0.0, tolerance), (end, tolerance)];
    chart
        .draw_series(DashedLineSeries::new(line, 6, 6, GREY.stroke_width(2)))?
        .label("tolerance for rounding")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 26, y)], GREY.stroke_width(2)));
    Ok(())
}

fn paint_curve<B: DrawingBackend>(
    chart: &mut Chart<B>,
    path: &[Step],
    &Curve { label, colour, filled, value }: &Curve,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    // Zero has no place on a logarithmic axis.
    let points: Vec<_> =
        path.iter().map(|step| (step.t, value(step))).filter(|(_, v)| *v > 0.0 && v.is_finite()).collect();
    // Each piece by itself: where thick lines are joined, the bitmap has spikes.
    let pieces = points.windows(2).map(|ends| PathElement::new(ends.to_vec(), colour.stroke_width(3)));
    chart.draw_series(pieces)?;
    let fill = if filled { colour } else { WHITE };
    chart
        .draw_series(points.iter().map(|point| {
            EmptyElement::at(*point)
                + Circle::new((0, 0), 5, fill.filled())
                + Circle::new((0, 0), 5, colour.stroke_width(2))
        }))?
        .label(label)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 26, y)], colour.stroke_width(3)));
    Ok(())
}
