//! Two proportions of the same images: how far they are apart, and how sure that is.

use serde::Serialize;

use crate::eval::Accuracy;
use crate::eval::accuracy::Z;

/// How many images each of two networks gets right, with the other or without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Paired {
    /// Right in both.
    pub both: u64,
    /// Right in the first, wrong in the second.
    pub only_a: u64,
    /// Wrong in the first, right in the second.
    pub only_b: u64,
    /// Wrong in both.
    pub neither: u64,
}

impl Paired {
    /// Counts an image.
    pub(super) fn add(&mut self, a: bool, b: bool) {
        *match (a, b) {
            (true, true) => &mut self.both,
            (true, false) => &mut self.only_a,
            (false, true) => &mut self.only_b,
            (false, false) => &mut self.neither,
        } += 1;
    }

    /// All images.
    pub fn images(&self) -> u64 {
        self.both + self.only_a + self.only_b + self.neither
    }

    /// Images that the first gets right.
    pub fn right_a(&self) -> u64 {
        self.both + self.only_a
    }

    /// Images that the second gets right.
    pub fn right_b(&self) -> u64 {
        self.both + self.only_b
    }

    /// How far the second's accuracy is above the first's, in -1..1, with a 95 % interval; `None` if there is no
    /// image.
    ///
    /// The interval is Tango's, of all differences that the score test does not reject ("Equivalence test and
    /// confidence interval for the difference in proportions for the paired-sample design", 1998). Of no
    /// difference that test is McNemar's. It has a width also where the two never differ.
    pub fn difference(&self) -> Option<Accuracy> {
        if self.images() == 0 {
            return None;
        }
        let value = (self.only_b as f64 - self.only_a as f64) / self.images() as f64;
        // The score falls as the difference grows: it is 0 at the value itself.
        let end = |mut inside: f64, mut outside: f64| {
            // As often as a number can be halved; less than the last bit is left then.
            for _ in 0..64 {
                let middle = 0.5 * (inside + outside);
                let rejected = self.score(middle).abs() > Z;
                *if rejected { &mut outside } else { &mut inside } = middle;
            }
            inside
        };
        Some(Accuracy { value, low: end(value, -1.0), high: end(value, 1.0) })
    }

    /// How many standard errors the difference that was found is above `difference`, if that is the true one:
    /// Tango's equation 11.
    fn score(&self, difference: f64) -> f64 {
        let (n, up, down) = (self.images() as f64, self.only_b as f64, self.only_a as f64);
        let excess = up - down - n * difference;
        // The likeliest share of images that only the first gets right, given the difference.
        let half = (2.0 * n - up + down) * difference - up - down;
        let root = half * half + 8.0 * n * down * difference * (1.0 - difference);
        let share = (root.max(0.0).sqrt() - half) / (4.0 * n);
        let variance = n * (2.0 * share + difference * (1.0 - difference));
        if excess == 0.0 { 0.0 } else { excess / variance.max(0.0).sqrt() }
    }

    /// McNemar's test, exact and two-sided: how likely the images that only one of the two gets right are shared
    /// out at least as unevenly if each is as likely to be the one's as the other's. Twice the smaller tail of a
    /// binomial distribution, at most 1. What is below 1e-308 is 0.
    pub fn mcnemar(&self) -> f64 {
        let (n, less) = (self.only_a + self.only_b, self.only_a.min(self.only_b));
        let middle = n / 2;
        // Binomial coefficients relative to that in the middle, which is the largest: none overflows, and those
        // that become 0 add nothing to the others. They are the same on both sides.
        let (mut coefficient, mut tail, mut side) = (1.0, 0.0, 0.0);
        for k in (0..=middle).rev() {
            if k <= less {
                tail += coefficient;
            }
            side += coefficient;
            coefficient *= k as f64 / (n - k + 1) as f64;
            if coefficient == 0.0 {
                break;
            }
        }
        // With an even number there is one in the middle, which both sides have.
        let all = if n % 2 == 0 { 2.0 * side - 1.0 } else { 2.0 * side };
        (2.0 * tail / all).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `scipy.stats.binomtest(only_a, only_a + only_b).pvalue`, scipy 1.17.
    #[test]
    fn p_values_are_those_of_scipy() {
        for (only_a, only_b, p) in [
            (0, 0, 1.0),
            (0, 1, 1.0),
            (2, 1, 1.0),
            (5, 0, 0.0625),
            (6, 16, 0.052478790283203125),
            (59, 6, 4.964650327128616e-12),
            (10, 10, 1.0),
            (150, 86, 3.7159361395713866e-05),
            (1234, 1001, 9.032941155930886e-07),
            (12_000, 12_500, 0.0014321425048026506),
            (25_000, 25_000, 1.0),
            (24_000, 26_000, 3.857469951030655e-19),
            (40, 1200, 3.869208433985362e-298),
            (0, 50_000, 0.0),
        ] {
            let found = Paired { only_a, only_b, ..Paired::default() }.mcnemar();
            assert!((found - p).abs() <= 1e-9 * p, "{only_a}, {only_b}: {found:e}, not {p:e}");
        }
    }

    /// From Tango's score solved by `scipy.optimize.brentq` with the likelihood maximised by
    /// `scipy.optimize.minimize_scalar`, not by the closed form.
    #[test]
    fn intervals_are_tangos() {
        assert_eq!(Paired::default().difference(), None);
        for ((both, only_a, only_b, neither), low, high) in [
            ((1, 7, 1, 12), -0.517_232_3, -0.026_003_0),
            ((43, 0, 1, 0), -0.059_393_2, 0.118_077_1),
            ((300, 12, 5, 43), -0.045_301_3, 0.003_352_6),
            ((38_000, 1200, 1100, 9700), -0.003_882_7, -0.000_120_2),
            ((350, 0, 0, 10), -0.010_558_1, 0.010_558_1),
            ((39_200, 0, 0, 10_800), -0.000_076_8, 0.000_076_8),
            ((20, 30, 5, 10), -0.527_085_4, -0.221_733_2),
            ((0, 1, 3, 2), -0.311_073_8, 0.753_956_7),
        ] {
            let found = Paired { both, only_a, only_b, neither }.difference().unwrap();
            assert!(
                (found.low - low).abs() < 1e-7 && (found.high - high).abs() < 1e-7,
                "{found:?}, not {low} to {high}"
            );
        }
        // Where every image is decided in the same way, the interval ends there.
        let one = Paired { only_b: 5, ..Paired::default() }.difference().unwrap();
        assert!(one.value == 1.0 && one.high == 1.0 && (0.0..1.0).contains(&one.low), "{one:?}");
    }
}
