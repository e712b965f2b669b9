//! Convolution, max-pool and sigmoid of sixteen images in one: no convolution output is stored.
//!
//! A tile of accumulators holds some of the window's four positions times some channels. A step of the sum loads one
//! vector of the input for each position and multiplies it by one broadcast weight for each channel. Layouts are
//! chosen so that a kernel's row is one run of memory, in the input and in the weights.

use super::sigmoid::sigmoid;
use super::simd::{Kernel, LANES, Lanes, Simd};
use lenet_core::arch::{K, conv_out, pooled};

/// The forward pass of one convolution with its pool.
///
/// # Numerics
/// Each sum starts from the bias and takes its terms by row, column, channel of the kernel, fused. Of equal values in
/// a window the first in row order wins.
pub(super) struct ConvPoolSigmoid<
    'a,
    const C_IN: usize,
    const C_OUT: usize,
    const SIDE: usize,
    const ROW: usize,
    const OUT: usize,
> {
    /// `(SIDE, SIDE, C_IN, LANES)`
    pub input: &'a [[[Lanes; C_IN]; SIDE]; SIDE],
    /// `(K, C_OUT, ROW)`, `ROW` being a row of the kernel, `(K, C_IN)`: made by [`kernel_rows`].
    pub weight: &'a [[[f32; ROW]; C_OUT]; K],
    /// `(C_OUT)`
    pub bias: &'a [f32; C_OUT],
    /// `(POOLED, POOLED, C_OUT, LANES)`, or `(C_OUT, POOLED, POOLED, LANES)` if `channels_first`; overwritten.
    pub out: &'a mut [Lanes; OUT],
    /// Which position of its window won, 0 to 3 in row order; laid out as `out`; overwritten.
    pub winner: &'a mut [[u8; LANES]; OUT],
    /// Whether the output's channels are its outermost dimension.
    pub channels_first: bool,
}

impl<const C_IN: usize, const C_OUT: usize, const SIDE: usize, const ROW: usize, const OUT: usize>
    ConvPoolSigmoid<'_, C_IN, C_OUT, SIDE, ROW, OUT>
{
    const POOLED: usize = pooled(conv_out(SIDE, K));

    /// All windows with tiles of `P` positions times `T` channels.
    #[inline(always)]
    fn tiled<S: Simd, const P: usize, const T: usize>(self, s: S) {
        const { assert!(ROW == K * C_IN && OUT == C_OUT * Self::POOLED * Self::POOLED) }
        assert!(C_OUT.is_multiple_of(T) && 4 % P == 0);
        let (by_position, by_channel) = if self.channels_first {
            (1, Self::POOLED * Self::POOLED)
        } else {
            (C_OUT, 1)
        };
        for y in 0..Self::POOLED {
            for x in 0..Self::POOLED {
                for (tile, bias) in self.bias.as_chunks::<T>().0.iter().enumerate() {
                    let bias: [S::V; T] = std::array::from_fn(|t| s.splat(bias[t]));
                    let (mut best, mut winner) = (bias, bias);
                    for first in (0..4).step_by(P) {
                        let mut sums = [bias; P];
                        for i in 0..K {
                            let weight = &self.weight[i].as_chunks::<T>().0[tile];
                            let input: [&[Lanes; ROW]; P] = std::array::from_fn(|p| {
                                let (dy, dx) = ((first + p) / 2, (first + p) % 2);
                                self.input[2 * y + dy + i][2 * x + dx..][..K]
                                    .as_flattened()
                                    .first_chunk()
                                    .expect("a row of the kernel is ROW values")
                            });
                            for k in 0..ROW {
                                let input: [S::V; P] =
                                    std::array::from_fn(|p| s.load(&input[p][k]));
                                for t in 0..T {
                                    let weight = s.splat(weight[t][k]);
                                    for p in 0..P {
                                        sums[p][t] = s.mul_add(input[p], weight, sums[p][t]);
                                    }
                                }
                            }
                        }
                        for (p, sums) in sums.into_iter().enumerate() {
                            let position = s.splat((first + p) as f32);
                            for t in 0..T {
                                if first + p == 0 {
                                    (best[t], winner[t]) = (sums[t], position);
                                } else {
                                    winner[t] = s.select_gt(sums[t], best[t], position, winner[t]);
                                    best[t] = s.max(sums[t], best[t]);
                                }
                            }
                        }
                    }
                    for t in 0..T {
                        let at = (y * Self::POOLED + x) * by_position + (tile * T + t) * by_channel;
                        s.store(sigmoid(s, best[t]), &mut self.out[at]);
                        s.store_bytes(winner[t], &mut self.winner[at]);
                    }
                }
            }
        }
    }
}

impl<const C_IN: usize, const C_OUT: usize, const SIDE: usize, const ROW: usize, const OUT: usize>
    Kernel for ConvPoolSigmoid<'_, C_IN, C_OUT, SIDE, ROW, OUT>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match (S::WIDE, C_OUT.is_multiple_of(6)) {
            (true, true) => self.tiled::<S, 4, 6>(s),
            (true, false) => self.tiled::<S, 4, 4>(s),
            (false, true) => self.tiled::<S, 1, 6>(s),
            (false, false) => self.tiled::<S, 1, 4>(s),
        }
    }
}

/// A convolution's weights, `(C_OUT, C_IN, K, K)`, as `(K, C_OUT, K·C_IN)`: each row of a kernel in one run, channels
/// innermost as in the input.
pub(super) fn kernel_rows<const C_IN: usize, const C_OUT: usize, const ROW: usize>(
    weight: &[[[[f32; K]; K]; C_IN]; C_OUT],
    out: &mut [[[f32; ROW]; C_OUT]; K],
) {
    const { assert!(ROW == K * C_IN) }
    for (i, out) in out.iter_mut().enumerate() {
        for (out, weight) in out.iter_mut().zip(weight) {
            for (k, out) in out.iter_mut().enumerate() {
                *out = weight[k % C_IN][i][k / C_IN];
            }
        }
    }
}
