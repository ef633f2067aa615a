//! Random numbers, matrices and their exponentials, in float64.

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;
use rand::Rng;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::refused;
use crate::error::Result;

/// Normally distributed numbers with mean 0 and standard deviation 1.
pub(super) fn normal(shape: impl Into<candle_core::Shape>, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let shape = shape.into();
    let values: Vec<f64> = StandardNormal.sample_iter(rng).take(shape.elem_count()).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// Numbers that are 1 or -1, each half of the time.
pub(super) fn signs(count: usize, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let values: Vec<f64> = (0..count).map(|_| if rng.next_u32() & 1 == 0 { 1.0 } else { -1.0 }).collect();
    Ok(Tensor::from_vec(values, count, &Device::Cpu)?)
}

/// Logarithms of factors that are usually between 1/3 and 3, `[count]`.
pub(super) fn logarithms(count: usize, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    Ok((normal(count, rng)? * 0.5)?)
}

/// Such factors with a random sign, `[count]`.
pub(super) fn nonzero(count: usize, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    Ok((logarithms(count, rng)?.exp()? * signs(count, rng)?)?)
}

/// A shift `[count]` of a stream, whose values are of the order of one: a hardball keeps their mean square
/// at or below one.
pub(super) fn shift(count: usize, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    Ok((normal(count, rng)? * 0.5)?)
}

/// A skew-symmetric matrix `[1, n, n]` whose exponential turns by angles up to about 2.
pub(super) fn skew(n: usize, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let g = normal((1, n, n), rng)?;
    Ok(((&g - g.transpose(1, 2)?)? * (0.5 / n as f64).sqrt())?)
}

/// `exp(log)` of every matrix in `[blocks, n, n]`, its first row times that block's `sign` `[blocks]`, and
/// the inverse. With a sign of -1 the determinant is negative.
pub(super) fn exp_with_sign(log: &Tensor, sign: &Tensor) -> Result<(Tensor, Tensor)> {
    Exponential::new(log)?.with_sign(1.0, sign)
}

/// The exponentials `exp(t A)` of every matrix in `[blocks, n, n]`.
///
/// Scaling and squaring with the Taylor series of degree 16, by the scheme of Paterson and Stockmeyer: the powers
/// up to the fourth, which serve for every `t`, and three products more. The series is exact to float64 where the larger
/// of `|A^3|^(1/3)` and `|A^4|^(1/4)` is at most 1/2 (Al-Mohy and Higham, "A new scaling and squaring algorithm for the
/// matrix exponential", 2009). That is often far below `|A|`, by which one would square more often.
pub(super) struct Exponential {
    /// `A^0` to `A^4`.
    powers: [Tensor; 5],
    /// The larger of the two roots.
    size: f64,
}

impl Exponential {
    /// Prepares them.
    pub fn new(a: &Tensor) -> Result<Self> {
        let (blocks, n, _) = a.dims3()?;
        let identity = Tensor::eye(n, DType::F64, &Device::Cpu)?.unsqueeze(0)?;
        let identity = identity.broadcast_as((blocks, n, n))?.contiguous()?;
        let square = a.matmul(a)?;
        let (third, fourth) = (square.matmul(a)?, square.matmul(&square)?);
        let norm = |power: &Tensor| -> Result<f64> { Ok(power.abs()?.sum(2)?.max_all()?.to_scalar::<f64>()?) };
        let size = norm(&third)?.cbrt().max(norm(&fourth)?.sqrt().sqrt());
        Ok(Self { powers: [identity, a.clone(), square, third, fourth], size })
    }

    /// `exp(t A)`. Fails if that is out of the range of float64.
    pub fn at(&self, t: f64) -> Result<Tensor> {
        let size = self.size * t.abs();
        if !size.is_finite() {
            return Err(refused("so far along a subgroup, elements are out of the range of float64"));
        }
        let squarings = (2.0 * size).log2().ceil().max(0.0) as i32;
        let t = t / 2f64.powi(squarings);
        // t^k / k!
        let mut coefficients = [1.0; 17];
        (1..17).for_each(|k| coefficients[k] = coefficients[k - 1] * t / k as f64);
        let [identity, first, second, third, fourth] = &self.powers;
        let four = |k: usize| -> Result<Tensor> {
            let low = ((identity * coefficients[k])? + (first * coefficients[k + 1])?)?;
            let high = ((second * coefficients[k + 2])? + (third * coefficients[k + 3])?)?;
            Ok((low + high)?)
        };
        let mut sum = ((fourth * coefficients[16])? + four(12)?)?;
        for k in [8, 4, 0] {
            sum = (sum.matmul(fourth)? + four(k)?)?;
        }
        for _ in 0..squarings {
            sum = sum.matmul(&sum)?;
        }
        Ok(sum)
    }

    /// `exp(t A)`, the first row of each matrix times that block's `sign` `[blocks]`, and the inverse.
    pub fn with_sign(&self, t: f64, sign: &Tensor) -> Result<(Tensor, Tensor)> {
        let (blocks, n, _) = self.powers[0].dims3()?;
        let others = Tensor::ones((blocks, n - 1), DType::F64, &Device::Cpu)?;
        let signs = Tensor::cat(&[&sign.reshape((blocks, 1))?, &others], 1)?;
        let matrix = self.at(t)?.broadcast_mul(&signs.unsqueeze(2)?)?;
        let inverse = self.at(-t)?.broadcast_mul(&signs.unsqueeze(1)?)?;
        Ok((matrix, inverse))
    }
}

/// An orthogonal matrix `[1, n, n]` that is distributed by Haar's measure over O(n), reflections
/// included: the Q of a normally distributed matrix, with the signs of R's diagonal taken out
/// (Mezzadri, "How to generate random matrices from the classical compact groups", 2007).
pub(super) fn haar(n: usize, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let values: Vec<f64> = StandardNormal.sample_iter(rng).take(n * n).collect();
    let (q, r) = DMatrix::from_row_slice(n, n, &values).qr().unpack();
    let elements: Vec<f64> =
        (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| q[(i, j)] * r[(j, j)].signum()).collect();
    Ok(Tensor::from_vec(elements, (1, n, n), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    fn identity(n: usize) -> Tensor {
        Tensor::eye(n, DType::F64, &Device::Cpu).unwrap().unsqueeze(0).unwrap()
    }

    fn exp(a: &Tensor) -> Result<Tensor> {
        Exponential::new(a)?.at(1.0)
    }

    #[test]
    fn exponentials_are_exact() {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        // exp of a turn by an angle.
        let turn = Tensor::new(&[[[0.0, -3.0], [3.0, 0.0]]], &Device::Cpu).unwrap();
        let (sin, cos) = 3f64.sin_cos();
        let expected = Tensor::new(&[[[cos, -sin], [sin, cos]]], &Device::Cpu).unwrap();
        assert!(difference(&exp(&turn).unwrap(), &expected) < 1e-14);
        let a = normal((7, 3, 3), rng).unwrap();
        let product = exp(&a).unwrap().matmul(&exp(&a.neg().unwrap()).unwrap()).unwrap();
        let identities = identity(3).broadcast_as((7, 3, 3)).unwrap();
        assert!(difference(&product, &identities) < 1e-12);
        let sign = Tensor::new(&[1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0], &Device::Cpu).unwrap();
        let (matrix, inverse) = exp_with_sign(&a, &sign).unwrap();
        assert!(difference(&matrix.matmul(&inverse).unwrap(), &identities) < 1e-12);
        let exponential = Exponential::new(&a).unwrap();
        for t in [0.0, 1e-9, 0.3, 3.0, -2.0] {
            let (found, expected) = (exponential.at(t).unwrap(), exp(&(&a * t).unwrap()).unwrap());
            let size = expected.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            assert!(difference(&found, &expected) < 1e-13 * size, "{t}");
        }
        assert_eq!(difference(&exponential.at(0.0).unwrap(), &identities), 0.0);
        // A matrix whose square is nothing, however large it is.
        let shear = Tensor::new(&[[[0.0, 1e6], [0.0, 0.0]]], &Device::Cpu).unwrap();
        let expected = Tensor::new(&[[[1.0, 1e6], [0.0, 1.0]]], &Device::Cpu).unwrap();
        assert_eq!(difference(&exp(&shear).unwrap(), &expected), 0.0);
        let q = exp(&skew(40, rng).unwrap()).unwrap();
        assert!(difference(&q.matmul(&q.t().unwrap().contiguous().unwrap()).unwrap(), &identity(40)) < 1e-13);
    }

    #[test]
    fn haar_is_orthogonal_and_uniform() {
        let rng = &mut ChaCha8Rng::seed_from_u64(2);
        let q = haar(50, rng).unwrap();
        assert!(difference(&q.matmul(&q.t().unwrap().contiguous().unwrap()).unwrap(), &identity(50)) < 1e-13);
        // In O(2): as many turns as reflections, and the first column in every direction.
        let mut quadrants = [0; 4];
        let mut turns = 0;
        for _ in 0..2000 {
            let q = haar(2, rng).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            turns += u32::from(q[0] * q[3] - q[1] * q[2] > 0.0);
            quadrants[usize::from(q[0] > 0.0) + 2 * usize::from(q[2] > 0.0)] += 1;
        }
        assert!((900..1100).contains(&turns), "{turns}");
        assert!(quadrants.iter().all(|count| (400..600).contains(count)), "{quadrants:?}");
    }
}
