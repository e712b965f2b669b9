//! Conv1, max-pool and sigmoid of sixteen images in one: no convolution output is stored.
//!
//! A tile of accumulators holds some of the window's four positions times the channels. A step of the sum loads one
//! vector of the input for each position and multiplies it by one broadcast weight for each channel. (With [`winograd`]'s
//! fewer products it would be slower: the sums are short, and its values at the points have to be stored and loaded.)
//!
//! [`winograd`]: super::winograd

use super::sigmoid::sigmoid;
use super::simd::{Kernel, LANES, Lanes, Simd};
use lenet_core::arch::{C1, K, POOL1_SIDE, SIDE};

/// The forward pass of conv1 with its pool; with `WINNER` it tells who won each window, as the way back needs.
///
/// # Numerics
/// Each sum starts from the bias and takes its terms by row and column of the kernel, fused. Of equal values in a window
/// the first in row order wins.
pub(super) struct Conv1PoolSigmoid<'a, const WINNER: bool> {
    /// `(SIDE, SIDE, 1, LANES)`
    pub input: &'a [[[Lanes; 1]; SIDE]; SIDE],
    /// `(K, C1, K)`, rows of the kernels outermost: made by [`kernel_rows`].
    pub weight: &'a [[[f32; K]; C1]; K],
    /// `(C1)`
    pub bias: &'a [f32; C1],
    /// `(POOL1_SIDE, POOL1_SIDE, C1, LANES)`; overwritten.
    pub out: &'a mut [[[Lanes; C1]; POOL1_SIDE]; POOL1_SIDE],
    /// Which position of its window won, 0 to 3 in row order; laid out as `out`; overwritten with `WINNER`, else left.
    pub winner: &'a mut [[[[u8; LANES]; C1]; POOL1_SIDE]; POOL1_SIDE],
}

impl<const WINNER: bool> Conv1PoolSigmoid<'_, WINNER> {
    /// All windows, `P` positions at a time.
    #[inline(always)]
    fn tiled<S: Simd, const P: usize>(self, s: S) {
        const { assert!(4 % P == 0) }
        let rows = self.out.iter_mut().zip(self.winner);
        for (y, (out, winner)) in rows.enumerate() {
            for (x, (out, winner)) in out.iter_mut().zip(winner).enumerate() {
                let mut largest = [Largest::<_, WINNER>::first(s, s.splat(0.0)); C1];
                for first in (0..4).step_by(P) {
                    let mut sums = [[s.splat(0.0); P]; C1];
                    for (sums, &bias) in sums.iter_mut().zip(self.bias) {
                        *sums = [s.splat(bias); P];
                    }
                    for i in 0..K {
                        let input: [&[[Lanes; 1]; K]; P] = std::array::from_fn(|p| {
                            let (dy, dx) = ((first + p) / 2, (first + p) % 2);
                            self.input[2 * y + dy + i][2 * x + dx..]
                                .first_chunk()
                                .expect("a row of the kernel")
                        });
                        for j in 0..K {
                            let input: [S::V; P] = std::array::from_fn(|p| s.load(&input[p][j][0]));
                            for (sums, weight) in sums.iter_mut().zip(&self.weight[i]) {
                                let weight = s.splat(weight[j]);
                                for p in 0..P {
                                    sums[p] = s.mul_add(input[p], weight, sums[p]);
                                }
                            }
                        }
                    }
                    for (largest, sums) in largest.iter_mut().zip(sums) {
                        for (position, sum) in (first..).zip(sums) {
                            match position {
                                0 => *largest = Largest::first(s, sum),
                                _ => largest.take(s, sum, position),
                            }
                        }
                    }
                }
                for ((largest, out), winner) in largest.iter().zip(out).zip(winner) {
                    largest.store(s, out, winner);
                }
            }
        }
    }
}

impl<const WINNER: bool> Kernel for Conv1PoolSigmoid<'_, WINNER> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match S::WIDE {
            true => self.tiled::<S, 4>(s),
            false => self.tiled::<S, 1>(s),
        }
    }
}

/// The largest of the values of a pool's window so far; of equal ones the first. With `WINNER` it knows its position.
#[derive(Clone, Copy)]
pub(super) struct Largest<V, const WINNER: bool> {
    value: V,
    position: V,
}

impl<V: Copy, const WINNER: bool> Largest<V, WINNER> {
    /// Of the value at position 0.
    #[inline(always)]
    pub(super) fn first<S: Simd<V = V>>(s: S, value: V) -> Self {
        Self {
            value,
            position: s.splat(0.0),
        }
    }

    /// Of the value at `position` too, which is beyond those before it.
    #[inline(always)]
    pub(super) fn take<S: Simd<V = V>>(&mut self, s: S, value: V, position: usize) {
        if WINNER {
            let position = s.splat(position as f32);
            self.position = s.select_gt(value, self.value, position, self.position);
        }
        self.value = s.max(value, self.value);
    }

    /// Writes its sigmoid and, if known, its position.
    #[inline(always)]
    pub(super) fn store<S: Simd<V = V>>(self, s: S, out: &mut Lanes, winner: &mut [u8; LANES]) {
        s.store(sigmoid(s, self.value), out);
        if WINNER {
            s.store_bytes(self.position, winner);
        }
    }
}

/// Conv1's weight, `(C1, 1, K, K)`, as `(K, C1, K)`: each row of all kernels in one run.
pub(super) fn kernel_rows(weight: &[[[[f32; K]; K]; 1]; C1], out: &mut [[[f32; K]; C1]; K]) {
    for (i, out) in out.iter_mut().enumerate() {
        for (out, [weight]) in out.iter_mut().zip(weight) {
            *out = weight[i];
        }
    }
}
