//! The head: a linear map of each image's features, in float32.

use std::io::{self, Write};

use rayon::prelude::*;

use super::matmul::accumulate_part;
use super::operand::{Format, Rows};
use super::packed::{Packed, Sections};
use super::panels::Panels;
use super::segments::{Place, evenly};
use super::volume;

/// A linear map with its weight packed.
#[derive(Clone, Debug)]
pub struct PackedLinear {
    inputs: usize,
    outputs: usize,
    weight: Panels,
    bias: Packed,
}

impl PackedLinear {
    /// Packs a weight `[outputs, inputs]` and a bias `[outputs]`.
    ///
    /// # Panics
    /// If there are no outputs or no inputs, or the weight does not have as many values.
    pub fn new(inputs: usize, weight: &[f32], bias: &[f32]) -> Self {
        let outputs = bias.len();
        assert!(weight.len() == outputs * inputs, "another number of weights than the map has");
        let weight = Panels::new(Format::Float, inputs, outputs, |i, j| weight[j * inputs + i]);
        Self { inputs, outputs, weight, bias: Packed::copy_of(bias) }
    }

    /// [`Self::new`] with what [`Self::write`] has written of a map of the same size, if there is so much.
    pub fn restore(inputs: usize, outputs: usize, sections: &mut Sections) -> Option<Self> {
        let weight = Panels::restore(Format::Float, inputs, outputs, sections)?;
        Some(Self { inputs, outputs, weight, bias: sections.take::<f32>(outputs)? })
    }

    /// Writes all weights as they are in memory.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.weight.write(out)?;
        self.bias.write(out)
    }

    /// Values that it reads of an image.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Values that it makes of an image.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `[n, inputs]` to `[n, outputs]`, on rayon's threads. The bits of an image do not depend on the others.
    ///
    /// # Panics
    /// If `x` does not have so many values.
    pub fn forward(&self, x: &[f32], n: usize) -> Vec<f32> {
        assert_eq!(x.len(), volume([n, self.inputs]), "another number of values than the images have");
        let len = volume([n, self.outputs]);
        let mut y = Vec::with_capacity(len);
        let place = Place::new(y.spare_capacity_mut().as_mut_ptr().cast());
        evenly(self.weight.count(), rayon::current_num_threads()).for_each(|panels| {
            let columns = self.weight.columns_of(&panels);
            for image in 0..n {
                // SAFETY: the image has these columns, and no other thread writes to them.
                let y = unsafe { place.values(image * self.outputs + columns.start, columns.len()) };
                y.write_copy_of_slice(&self.bias.as_slice()[columns.clone()]);
            }
            // SAFETY: the columns have been written, and no other thread writes to them.
            unsafe {
                let x = Rows::floats(x, self.inputs);
                accumulate_part(n, x, &self.weight, panels, place.at(columns.start), self.outputs);
            }
        });
        // SAFETY: every panel's columns have been written, of every image.
        unsafe { y.set_len(len) };
        y
    }
}

#[cfg(test)]
mod tests {
    use super::super::packed::mapped;
    use super::*;
    use crate::random::tests::{test_stream, uniform};

    /// As many as make the number of values wrap around to zero.
    #[test]
    #[should_panic(expected = "more values than the memory has")]
    fn more_images_than_memory_are_refused() {
        PackedLinear::new(4, &[1.0; 8], &[0.0; 2]).forward(&[], 1 << (usize::BITS - 2));
    }

    #[test]
    fn every_image_has_its_sums_whatever_the_others() {
        let rng = &mut test_stream(1);
        for (inputs, outputs) in [(1, 1), (48, 10), (130, 1000)] {
            let mut draw = |len| uniform(len, -1.0..1.0, rng);
            let (x, weight, bias) = (draw(5 * inputs), draw(inputs * outputs), draw(outputs));
            let linear = PackedLinear::new(inputs, &weight, &bias);
            let y = linear.forward(&x, 5);
            for (i, (x, y)) in x.chunks_exact(inputs).zip(y.chunks_exact(outputs)).enumerate() {
                for (output, found) in y.iter().enumerate() {
                    let weight = &weight[output * inputs..][..inputs];
                    let sum: f64 = x.iter().zip(weight).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                    let difference = f64::from(*found) - sum - f64::from(bias[output]);
                    assert!(difference.abs() < 1e-5, "{inputs}x{outputs}, image {i}: {difference:e}");
                }
                assert_eq!(linear.forward(x, 1), y);
            }
            let mut written = Vec::new();
            linear.write(&mut written).unwrap();
            let restored = PackedLinear::restore(inputs, outputs, &mut mapped(&written)).unwrap();
            assert_eq!(restored.forward(&x, 5), y);
        }
    }
}
