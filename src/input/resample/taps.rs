//! The weights of a resize along one axis.

use super::Interpolation;

/// Fractional bits of the weights: with the 8 bits of a value, and 2 for sums beyond it, they fill 32.
pub(super) const PRECISION: u32 = 32 - 8 - 2;

impl Interpolation {
    /// Half the kernel's width, in output pixels where the image shrinks.
    fn support(self) -> f64 {
        match self {
            Interpolation::Bilinear => 1.0,
            Interpolation::Bicubic => 2.0,
        }
    }

    /// The weight of an input at distance `x` from the output, before the weights are scaled to the sum 1.
    fn kernel(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Interpolation::Bilinear => (1.0 - x).max(0.0),
            // Cubic convolution with a = -1/2, in Pillow's order of operations.
            Interpolation::Bicubic => {
                const A: f64 = -0.5;
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
        }
    }
}

/// For each output position along an axis, the input positions that it reads, and their weights.
pub(super) struct Taps {
    /// The first input that each output reads.
    pub(super) first: Vec<usize>,
    /// `[outputs, count]`, padded with zeros: fixed-point numbers with [`PRECISION`] fractional bits.
    pub(super) weights: Vec<i32>,
    /// The number of inputs that each output reads.
    pub(super) count: usize,
}

impl Taps {
    /// The outputs `start..start + length` of a resize from `input` to `output` positions, both more than 0.
    pub(super) fn new(input: u32, output: u32, start: u32, length: u32, interpolation: Interpolation) -> Self {
        let scale = f64::from(input) / f64::from(output);
        let stretch = scale.max(1.0);
        let support = interpolation.support() * stretch;
        let count = (support.ceil() as usize * 2 + 1).min(input as usize);
        let mut taps = Self { first: Vec::new(), weights: Vec::new(), count };
        for i in start..start + length {
            let centre = (f64::from(i) + 0.5) * scale;
            let from = ((centre - support + 0.5) as i64).max(0) as usize;
            let to = ((centre + support + 0.5) as i64).min(i64::from(input)) as usize;
            let mut weights: Vec<f64> =
                (from..to).map(|x| interpolation.kernel((x as f64 - centre + 0.5) * (1.0 / stretch))).collect();
            let sum: f64 = weights.iter().sum();
            if sum != 0.0 {
                weights.iter_mut().for_each(|w| *w /= sum);
            }
            // The padding reads inputs too, with weight zero: they must exist.
            let padding = (from + count).saturating_sub(input as usize);
            taps.first.push(from - padding);
            let end = taps.weights.len() + count;
            taps.weights.extend(std::iter::repeat_n(0, padding));
            // `f64::round` rounds half away from zero, as Pillow does.
            taps.weights.extend(weights.iter().map(|w| (w * f64::from(1 << PRECISION)).round() as i32));
            taps.weights.resize(end, 0);
        }
        taps
    }

    /// The weights of the inputs that an output reads.
    pub(super) fn weights(&self, output: usize) -> &[i32] {
        &self.weights[output * self.count..][..self.count]
    }

    /// The range of inputs that any output reads: the first, and one past the last.
    pub(super) fn reach(&self) -> (usize, usize) {
        let from = self.first.iter().copied().min().unwrap_or(0);
        let to = self.first.iter().map(|first| first + self.count).max().unwrap_or(0);
        (from, to)
    }
}
