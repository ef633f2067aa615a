//! The header of a safetensors file with one tensor, which is longer where there are more paths.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::{Error, Reason, Result, ensure};

/// What its readers allow.
const LONGEST: usize = 100_000_000;

#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<&'a str, &'a str>,
    features: Tensor<'a>,
}

#[derive(Serialize)]
struct Tensor<'a> {
    dtype: &'static str,
    shape: &'a [usize],
    data_offsets: [usize; 2],
}

/// The header of a tensor of float32 in a file whose metadata are these, with spaces at its end up to `room` bytes.
///
/// # Errors
/// [`Error::Features`] if it is longer than readers allow.
pub fn header(shape: &[usize], metadata: &[(&'static str, &str)], room: usize) -> Result<Vec<u8>> {
    let bytes = shape.iter().product::<usize>() * size_of::<f32>();
    let header = Header {
        metadata: metadata.iter().copied().collect(),
        features: Tensor { dtype: "F32", shape, data_offsets: [0, bytes] },
    };
    let compose = || -> Result<_, Reason> {
        let mut text = serde_json::to_vec(&header)?;
        // Elements begin at a multiple of eight bytes.
        let length = (text.len() + 8).max(room).next_multiple_of(8) - 8;
        ensure!(
            length <= LONGEST,
            "the paths do not fit into the header of a safetensors file, which may have 100 MB; write .npy or .csv"
        );
        text.resize(length, b' ');
        Ok([&(length as u64).to_le_bytes()[..], &text].concat())
    };
    compose().map_err(Error::Features)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_header_fills_the_room_of_a_longer() {
        let paths = |count: usize| serde_json::to_string(&vec!["\"quoted\"\n.png"; count]).unwrap();
        let long = header(&[10, 3], &[("paths", &paths(10)), ("model", "m")], 0).unwrap();
        for count in [1, 9, 10] {
            let short = header(&[count, 3], &[("paths", &paths(count)), ("model", "m")], long.len()).unwrap();
            assert_eq!((short.len(), short.len() % 8), (long.len(), 0));
            let file = [short, vec![0; count * 3 * 4]].concat();
            let (_, metadata) = safetensors::SafeTensors::read_metadata(&file).unwrap();
            assert_eq!(metadata.metadata().as_ref().unwrap()["paths"], paths(count));
            let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
            assert_eq!(tensors.tensor("features").unwrap().shape(), [count, 3]);
        }
        let long = "a".repeat(LONGEST);
        assert!(matches!(header(&[1, 1], &[("paths", &long)], 0), Err(Error::Features(_))));
    }
}
