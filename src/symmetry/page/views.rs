//! Parts of the weights as pictures: which are shown, how they become bytes, and how a film of them is packed.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde::Serialize;

use crate::error::Result;
use crate::symmetry::element::tensor;
use crate::symmetry::structure::blocks;
use crate::weights::Weights;
use crate::weights::config::Config;

/// Of a matrix, no more rows and columns are shown than these.
const MATRIX: (usize, usize) = (24, 32);
/// No more 3x3 kernels.
const KERNELS: usize = 128;
/// No more kernels of the stem.
const STEM_KERNELS: usize = 64;
/// The share of the values that lie within the scale; those beyond have the colour of its end.
const WITHIN_SCALE: f64 = 0.99;

/// A part of a tensor that is shown.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// The part of the network: `stem`, `layer 1`, ...
    pub part: String,
    /// What it is, such as `conv1, first factor`.
    pub name: String,
    /// How it is drawn.
    pub kind: Kind,
    /// The convolution's name in the weights, such as `layer1.2.conv1`.
    pub conv: String,
    /// Rows of the tensor that come before those of which it is a part.
    #[serde(skip)]
    before: usize,
    /// Rows that are shown, and all of which they are the first.
    pub rows: [usize; 2],
    /// Columns that are shown, and all of which they are the first.
    pub columns: [usize; 2],
}

/// How values are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Outputs below each other, inputs beside each other.
    Matrix,
    /// A square of 3x3 for each output.
    Kernels,
    /// A coloured square for each output: red, green and blue are its three inputs.
    Colours,
    /// A number for each output.
    Bias,
}

impl View {
    /// A view of `outputs` rows after `before`, with their biases below it.
    fn with_bias(
        (part, conv, name): (&str, &str, &str),
        kind: Kind,
        before: usize,
        (outputs, most_rows): (usize, usize),
        (inputs, most_columns): (usize, usize),
    ) -> [Self; 2] {
        let rows = [outputs.min(most_rows), outputs];
        let columns = [inputs.min(most_columns), inputs];
        let view = Self { part: part.into(), name: name.into(), kind, conv: conv.into(), before, rows, columns };
        let bias = Self { kind: Kind::Bias, columns: [1, 1], ..view.clone() };
        [view, bias]
    }

    /// The values that it shows, row by row.
    ///
    /// # Errors
    /// If the weights are those of another network.
    pub fn values(&self, weights: &Weights) -> Result<Vec<f32>> {
        let tensor = tensor(weights, &self.conv, if self.kind == Kind::Bias { "bias" } else { "weight" })?;
        let rows = tensor.reshape((tensor.dim(0)?, ()))?.narrow(0, self.before, self.rows[0])?;
        let values = rows.narrow(1, 0, self.columns[0])?.flatten_all()?.to_vec1::<f64>()?;
        Ok(values.into_iter().map(|value| value as f32).collect())
    }
}

/// What is shown of a network: the stem, the last block of each layer, and the head.
pub fn views(config: &Config) -> Vec<View> {
    let stem = ("stem", "stem", "kernels of 7x7 pixels");
    let mut views = View::with_bias(stem, Kind::Colours, 0, (config.stem_channels, STEM_KERNELS), (147, 147)).to_vec();
    for layer in 1..=config.layers.len() {
        let Some(block) = blocks(config, Some(layer)).last() else { continue };
        let part = format!("layer {layer}");
        let (input, hidden, filters) = (block.config.in_channels, block.config.hidden_channels, block.config.filters);
        let [conv1, conv2, conv3] = ["conv1", "conv2", "conv3"].map(|conv| block.conv(conv));
        let matrix = |conv: &str, name: &str, before: usize, rows: usize, columns: usize| {
            View::with_bias((&part, conv, name), Kind::Matrix, before, (rows, MATRIX.0), (columns, MATRIX.1))
        };
        views.extend(matrix(&conv1, "conv1, first factor", 0, hidden, input));
        views.extend(matrix(&conv1, "conv1, second factor", hidden, hidden, input));
        let kernels = (part.as_str(), conv2.as_str(), "conv2, kernels of 3x3 pixels");
        views.extend(View::with_bias(kernels, Kind::Kernels, 0, (filters * hidden, KERNELS), (9, 9)));
        views.extend(matrix(&conv3, "conv3", 0, block.config.out_channels, filters * hidden));
    }
    let head = ("head", "fc", "the map from features to outputs");
    let (outputs, features) = (config.num_classes, config.num_features());
    views.extend(View::with_bias(head, Kind::Matrix, 0, (outputs, MATRIX.0), (features, MATRIX.1)));
    views
}

/// What all views show, one place of a path after the other.
pub type Film = Vec<Vec<Vec<f32>>>;

/// The value that has the strongest colour in a view, over all films and at the start; greater than zero.
pub fn scale<'a>(values: impl Iterator<Item = &'a Vec<f32>>) -> f32 {
    let mut sizes: Vec<f32> = values.flatten().map(|value| value.abs()).filter(|size| size.is_finite()).collect();
    if sizes.is_empty() {
        return 1.0;
    }
    let place = ((sizes.len() - 1) as f64 * WITHIN_SCALE).ceil() as usize;
    let (_, found, _) = sizes.select_nth_unstable_by(place, f32::total_cmp);
    if *found > 0.0 { *found } else { 1.0 }
}

/// A value in 127 steps of either sign. What is no number is zero.
fn to_byte(value: f32, scale: f32) -> i8 {
    (127.0 * (value / scale).clamp(-1.0, 1.0)).round() as i8
}

/// Values of views as bytes, compressed, in letters.
pub fn pack_start(start: &[Vec<f32>], scales: &[f32]) -> Result<String> {
    let bytes = start.iter().zip(scales).flat_map(|(values, scale)| values.iter().map(|v| to_byte(*v, *scale) as u8));
    packed(&bytes.collect::<Vec<_>>())
}

/// The views that change in a film; then, one after the other and place by place, by how many steps their bytes differ
/// from those before, the first from the start: bytes, compressed, in letters.
pub fn pack_film(film: &Film, start: &[Vec<f32>], scales: &[f32]) -> Result<(Vec<usize>, String)> {
    let changes = |view: &usize| film.iter().any(|place| place[*view] != start[*view]);
    let changing: Vec<usize> = (0..start.len()).filter(changes).collect();
    let mut bytes = Vec::new();
    for view in &changing {
        let mut before = &start[*view];
        for place in film {
            let byte = |value: &f32| to_byte(*value, scales[*view]);
            bytes.extend(place[*view].iter().zip(before).map(|(now, then)| byte(now).wrapping_sub(byte(then)) as u8));
            before = &place[*view];
        }
    }
    Ok((changing, packed(&bytes)?))
}

fn packed(bytes: &[u8]) -> Result<String> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    Ok(BASE64_STANDARD.encode(written.map_err(candle_core::Error::from)?))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use candle_core::DType;
    use flate2::read::ZlibDecoder;

    use super::*;

    #[test]
    fn a_view_shows_the_first_values_of_its_part() {
        let config = Config::new(3, &[(3, 2), (50, 1)], 3, 2, 3);
        let weights = Weights::random(&config, 1).unwrap().to_dtype(DType::F64).unwrap();
        let views = views(&config);
        let of = |part: &str, name: &str, kind: Kind| {
            let found = |view: &&View| view.part == part && view.name.starts_with(name) && view.kind == kind;
            views.iter().find(found).unwrap()
        };
        let rows = |name: &str| -> Vec<Vec<f64>> {
            let tensor = &weights.tensors()[name];
            tensor.reshape((tensor.dim(0).unwrap(), ())).unwrap().to_vec2().unwrap()
        };
        let second = of("layer 2", "conv1, second", Kind::Matrix);
        assert_eq!((second.rows, second.columns, second.conv.as_str()), ([12, 12], [3, 3], "layer2.0.conv1"));
        let expected: Vec<f32> = rows("layer2.0.conv1.weight")[12..].concat().iter().map(|v| *v as f32).collect();
        assert_eq!(second.values(&weights).unwrap(), expected);
        let third = of("layer 2", "conv3", Kind::Matrix);
        assert_eq!((third.rows, third.columns), ([24, 50], [24, 24]));
        let bias = of("layer 1", "conv1, second", Kind::Bias);
        assert_eq!(bias.conv, "layer1.1.conv1");
        let expected: Vec<f32> = rows("layer1.1.conv1.bias")[12..].concat().iter().map(|v| *v as f32).collect();
        assert_eq!(bias.values(&weights).unwrap(), expected);
        assert_eq!(of("stem", "kernels", Kind::Colours).values(&weights).unwrap().len(), 3 * 147);
    }

    #[test]
    fn films_are_unpacked_to_what_they_showed() {
        let start = vec![vec![0.5, -1.0], vec![0.25]];
        let film = vec![start.clone(), vec![vec![1.0, 2.0], vec![0.25]], vec![vec![-4.0, f32::NAN], vec![0.25]]];
        let scales = [scale([vec![1.0, -1.0]].iter()), scale([vec![0.0]].iter())];
        assert_eq!(scales, [1.0, 1.0]);
        let unpacked = |text: &str| -> Vec<i8> {
            let mut bytes = Vec::new();
            ZlibDecoder::new(&BASE64_STANDARD.decode(text).unwrap()[..]).read_to_end(&mut bytes).unwrap();
            bytes.into_iter().map(|byte| byte as i8).collect()
        };
        assert_eq!(unpacked(&pack_start(&start, &scales).unwrap()), [64, -127, 32]);
        let (changing, text) = pack_film(&film, &start, &scales).unwrap();
        assert_eq!(changing, [0]);
        let mut shown = vec![64i8, -127];
        let mut places = Vec::new();
        for changes in unpacked(&text).chunks(2) {
            shown.iter_mut().zip(changes).for_each(|(shown, change)| *shown = shown.wrapping_add(*change));
            places.push(shown.clone());
        }
        assert_eq!(places, [[64, -127], [127, 127], [-127, 0]]);
    }

    #[test]
    fn few_values_are_beyond_the_scale() {
        let values: Vec<f32> = (0..1000).map(|n| -(n as f32)).collect();
        assert!((980.0..999.0).contains(&scale([values, vec![f32::INFINITY]].iter())));
        assert_eq!(scale([].iter()), 1.0);
    }
}
