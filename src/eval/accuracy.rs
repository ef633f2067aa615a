//! How sure a proportion is.

use serde::Serialize;

/// The normal distribution's 97.5th percentile.
pub(super) const Z: f64 = 1.959_963_984_540_054;

/// A proportion with its 95 % interval, all in 0..1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// The proportion itself.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Accuracy {
    /// The proportion of `right` among `all` images; `None` if there is no image.
    ///
    /// The interval is Wilson's: it stays within 0..1 and is right for few images too (Brown, Cai,
    /// DasGupta, "Interval Estimation for a Binomial Proportion", 2001).
    pub fn new(right: u64, all: u64) -> Option<Self> {
        if all == 0 {
            return None;
        }
        let n = all as f64;
        let value = right as f64 / n;
        let scale = 1.0 + Z * Z / n;
        let centre = (value + Z * Z / (2.0 * n)) / scale;
        let half = Z / scale * (value * (1.0 - value) / n + Z * Z / (4.0 * n * n)).sqrt();
        // Exact at the ends, where the last bits of the formula are not.
        let low = if right == 0 { 0.0 } else { (centre - half).max(0.0) };
        let high = if right == all { 1.0 } else { (centre + half).min(1.0) };
        Some(Self { value, low, high })
    }

    /// Lower and upper end of the interval.
    pub fn interval(&self) -> [f64; 2] {
        [self.low, self.high]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_wilsons() {
        assert_eq!(Accuracy::new(0, 0), None);
        assert_eq!(Accuracy::new(0, 35).unwrap().low, 0.0);
        assert_eq!(Accuracy::new(35, 35).unwrap().high, 1.0);
        // From the same formula in Python.
        for (right, all, low, high) in [
            (39_200, 50_000, 0.780_371_2, 0.787_585_1),
            (0, 10, 0.0, 0.277_532_8),
            (357, 360, 0.975_789_3, 0.997_161_9),
        ] {
            let accuracy = Accuracy::new(right, all).unwrap();
            assert!((accuracy.low - low).abs() < 1e-6 && (accuracy.high - high).abs() < 1e-6, "{accuracy:?}");
        }
    }
}
