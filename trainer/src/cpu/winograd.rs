//! Conv2, max-pool and sigmoid of sixteen images in one, with six products where the definition has ten.
//!
//! A window of the pool has two neighbours in each of its rows. Two outputs side by side of a filter with five taps are
//! two coefficients of a product of polynomials, found from its values at six points instead of from its coefficients
//! (Winograd: Arithmetic complexity of computations, 1980; Lavin and Gray: Fast algorithms for convolutional neural
//! networks, 2016). Along a row, and for the points 0, 1, -1, 2, -2 and infinity:
//!
//! ```text
//! values of the input     d: six values from a pair's first column on -> one at each point
//! values of the kernel    g: five taps                                -> one at each point, once a step
//! product                 m = Σ d · g over the kernel's rows and the input's channels, at each point
//! outputs                 left  = m0 + (m1 + m2) + (m3 + m4)
//!                         right = m5 + (m1 - m2) + 2 (m3 - m4)
//! ```
//!
//! The sums are a fifth as long as those of the definition, so that the result is no less exact: its error is that of
//! the direct sum within a few percent. Equal inputs still give equal outputs: of a row that does not change from
//! column to column, all values but the one at 1 are exactly zero, so that a pool's ties stay ties.

use super::conv_pool_sigmoid::Largest;
use super::simd::{Kernel, LANES, Lanes, Simd};
use bytemuck::Zeroable;
use lenet_core::arch::{C1, C2, FLAT, K, POOL1_SIDE, POOL2_SIDE};

/// Points of evaluation: as many as two outputs have inputs.
const POINTS: usize = K + 1;

/// The kernels at each point, `(POINTS, C2, (K, C1))`: made by [`transform_kernels`].
pub(super) type Kernels = [[[f32; K * C1]; C2]; POINTS];

/// Pairs of columns that are done together: what a point needs of them stays in the fastest cache for all channels.
const PAIRS: usize = 2;

/// Of a row of pool1, at each point, for some pairs of columns: `(POINTS, C1, PAIRS, LANES)`.
type Row = [[[Lanes; PAIRS]; C1]; POINTS];

/// What the kernel keeps on its way.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Scratch {
    rows: [[Row; POOL1_SIDE]; POOL2_SIDE / PAIRS],
    /// Of the two rows of some windows.
    products: [[[[Lanes; PAIRS]; C2]; POINTS]; 2],
}

/// The forward pass; with `WINNER` it tells who won each window, as the way back needs.
///
/// # Numerics
/// Each sum takes its terms by row and channel of the kernel, fused; the bias is added to m0 and m5. Of equal values in
/// a window the first in row order wins.
pub(super) struct Conv2PoolSigmoid<'a, const WINNER: bool> {
    /// `(POOL1_SIDE, POOL1_SIDE, C1, LANES)`
    pub input: &'a [[[Lanes; C1]; POOL1_SIDE]; POOL1_SIDE],
    pub kernels: &'a Kernels,
    /// `(C2)`
    pub bias: &'a [f32; C2],
    /// `(C2, POOL2_SIDE, POOL2_SIDE, LANES)`; overwritten.
    pub out: &'a mut [Lanes; FLAT],
    /// Which position of its window won, 0 to 3 in row order; laid out as `out`; overwritten with `WINNER`, else left.
    pub winner: &'a mut [[u8; LANES]; FLAT],
    /// Overwritten.
    pub scratch: &'a mut Scratch,
}

impl<const WINNER: bool> Kernel for Conv2PoolSigmoid<'_, WINNER> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Scratch { rows, products } = self.scratch;
        for (y, input) in self.input.iter().enumerate() {
            for x in 0..POOL2_SIDE {
                for c in 0..C1 {
                    let values = transform(s, std::array::from_fn(|j| &input[2 * x + j][c]));
                    let row = &mut rows[x / PAIRS][y];
                    for (value, row) in values.into_iter().zip(row) {
                        s.store(value, &mut row[c][x % PAIRS]);
                    }
                }
            }
        }
        for (part, rows) in rows.iter().enumerate() {
            for y in 0..POOL2_SIDE {
                for (p, kernels) in self.kernels.iter().enumerate() {
                    for (dy, products) in products.iter_mut().enumerate() {
                        let rows = rows[2 * y + dy..].first_chunk().expect("K rows");
                        if S::WIDE {
                            multiply::<S, 8, 2>(s, kernels, rows, p, &mut products[p]);
                        } else {
                            multiply::<S, 2, 2>(s, kernels, rows, p, &mut products[p]);
                        }
                    }
                }
                for o in 0..C2 {
                    let bias = s.splat(self.bias[o]);
                    for x in 0..PAIRS {
                        let [upper, lower] = products.each_ref();
                        let [a, b] = outputs(s, upper.each_ref().map(|m| &m[o][x]), bias);
                        let [c, d] = outputs(s, lower.each_ref().map(|m| &m[o][x]), bias);
                        let mut largest = Largest::<_, WINNER>::first(s, a);
                        for (value, position) in [b, c, d].into_iter().zip(1..) {
                            largest.take(s, value, position);
                        }
                        let at = (o * POOL2_SIDE + y) * POOL2_SIDE + part * PAIRS + x;
                        largest.store(s, &mut self.out[at], &mut self.winner[at]);
                    }
                }
            }
        }
    }
}

/// The sums over rows and channels at the point `p`, tiles of `T` channels times `X` pairs of columns.
#[inline(always)]
fn multiply<S: Simd, const T: usize, const X: usize>(
    s: S,
    kernels: &[[f32; K * C1]; C2],
    rows: &[Row; K],
    p: usize,
    products: &mut [[Lanes; PAIRS]; C2],
) {
    for (kernels, products) in kernels
        .as_chunks::<T>()
        .0
        .iter()
        .zip(products.as_chunks_mut::<T>().0)
    {
        for x in 0..PAIRS / X {
            let mut sums = [[s.splat(0.0); X]; T];
            for i in 0..K {
                for c in 0..C1 {
                    let input = &rows[i][p][c].as_chunks::<X>().0[x];
                    let mut values = [s.splat(0.0); X];
                    for n in 0..X {
                        values[n] = s.load(&input[n]);
                    }
                    for t in 0..T {
                        let kernel = s.splat(kernels[t][i * C1 + c]);
                        for n in 0..X {
                            sums[t][n] = s.mul_add(values[n], kernel, sums[t][n]);
                        }
                    }
                }
            }
            for t in 0..T {
                let to = &mut products[t].as_chunks_mut::<X>().0[x];
                for n in 0..X {
                    s.store(sums[t][n], &mut to[n]);
                }
            }
        }
    }
}

/// The values at the points of six inputs in a row.
#[inline(always)]
fn transform<S: Simd>(s: S, input: [&Lanes; POINTS]) -> [S::V; POINTS] {
    let [d0, d1, d2, d3, d4, d5] = input;
    let [d0, d1, d2] = [s.load(d0), s.load(d1), s.load(d2)];
    let [d3, d4, d5] = [s.load(d3), s.load(d4), s.load(d5)];
    let [two, four] = [s.splat(2.0), s.splat(4.0)];
    let [minus_two, minus_four, minus_five] = [s.splat(-2.0), s.splat(-4.0), s.splat(-5.0)];
    let (even1, odd1) = (s.mul_add(minus_four, d2, d4), s.mul_add(minus_four, d1, d3));
    let (even2, odd2) = (s.sub(d4, d2), s.sub(d3, d1));
    [
        s.mul_add(four, d0, s.mul_add(minus_five, d2, d4)),
        s.add(even1, odd1),
        s.sub(even1, odd1),
        s.mul_add(two, odd2, even2),
        s.mul_add(minus_two, odd2, even2),
        s.mul_add(four, d1, s.mul_add(minus_five, d3, d5)),
    ]
}

/// A pair of outputs from its products.
#[inline(always)]
fn outputs<S: Simd>(s: S, products: [&Lanes; POINTS], bias: S::V) -> [S::V; 2] {
    let [m0, m1, m2, m3, m4, m5] = products;
    let [m0, m1, m2] = [s.load(m0), s.load(m1), s.load(m2)];
    let [m3, m4, m5] = [s.load(m3), s.load(m4), s.load(m5)];
    let left = s.add(s.add(s.add(m0, bias), s.add(m1, m2)), s.add(m3, m4));
    let right = s.add(s.add(m5, bias), s.sub(m1, m2));
    [left, s.mul_add(s.splat(2.0), s.sub(m3, m4), right)]
}

/// The kernels at each point: in f64, rounded once.
pub(super) fn transform_kernels(weight: &[[[[f32; K]; K]; C1]; C2], kernels: &mut Kernels) {
    for (o, weight) in weight.iter().enumerate() {
        for (c, weight) in weight.iter().enumerate() {
            for (i, taps) in weight.iter().enumerate() {
                let [g0, g1, g2, g3, g4] = taps.map(f64::from);
                let (even1, odd1) = (g0 + g2 + g4, g1 + g3);
                let (even2, odd2) = (g0 + 4.0 * g2 + 16.0 * g4, 2.0 * g1 + 8.0 * g3);
                let values = [
                    g0 / 4.0,
                    -(even1 + odd1) / 6.0,
                    -(even1 - odd1) / 6.0,
                    (even2 + odd2) / 24.0,
                    (even2 - odd2) / 24.0,
                    g4,
                ];
                for (value, kernels) in values.into_iter().zip(&mut *kernels) {
                    kernels[o][i * C1 + c] = value as f32;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Isa;
    use super::*;
    use crate::dataset::generator;
    use crate::init::initial_params;
    use rand_chacha::rand_core::Rng;

    type Input = [[[Lanes; C1]; POOL1_SIDE]; POOL1_SIDE];
    type Output = ([Lanes; FLAT], [[u8; LANES]; FLAT]);

    fn run(isa: Isa, input: &Input) -> Output {
        let params = initial_params(0);
        let mut kernels: Box<Kernels> = bytemuck::zeroed_box();
        transform_kernels(&params.conv2_weight, &mut kernels);
        let mut scratch: Box<Scratch> = bytemuck::zeroed_box();
        let (mut out, mut winner) = ([[0.0; LANES]; FLAT], [[0; LANES]; FLAT]);
        isa.run(Conv2PoolSigmoid::<true> {
            input,
            kernels: &kernels,
            bias: &params.conv2_bias,
            out: &mut out,
            winner: &mut winner,
            scratch: &mut scratch,
        });
        (out, winner)
    }

    /// By the definition, in f64: the four values of the window `at` for one lane.
    fn window(input: &Input, at: usize, lane: usize) -> [f64; 4] {
        let params = initial_params(0);
        let (o, y, x) = (
            at / (POOL2_SIDE * POOL2_SIDE),
            at / POOL2_SIDE % POOL2_SIDE,
            at % POOL2_SIDE,
        );
        std::array::from_fn(|position| {
            let (top, left) = (2 * y + position / 2, 2 * x + position % 2);
            let mut sum = f64::from(params.conv2_bias[o]);
            for (c, kernel) in params.conv2_weight[o].iter().enumerate() {
                for (i, row) in kernel.iter().enumerate() {
                    for (j, &weight) in row.iter().enumerate() {
                        let value = input[top + i][left + j][c][lane];
                        sum += f64::from(weight) * f64::from(value);
                    }
                }
            }
            sum
        })
    }

    #[test]
    fn is_the_convolution_by_its_definition() {
        let mut rng = generator(0, 0);
        let mut input: Input = [[[[0.0; LANES]; C1]; POOL1_SIDE]; POOL1_SIDE];
        for value in input
            .as_flattened_mut()
            .as_flattened_mut()
            .as_flattened_mut()
        {
            *value = rng.next_u32() as f32 / u32::MAX as f32;
        }
        for isa in Isa::available() {
            let (out, winner) = run(isa, &input);
            for (at, lane) in [(0, 0), (3, 15), (77, 8), (130, 1), (255, 15)] {
                let values = window(&input, at, lane);
                let largest = values.into_iter().fold(f64::NEG_INFINITY, f64::max);
                let error = f64::from(out[at][lane]) - 1.0 / (1.0 + (-largest).exp());
                assert!(error.abs() < 4e-7, "{isa:?}, {at}, {lane}: {error:e}");
                let chosen = values[usize::from(winner[at][lane])];
                assert!(largest - chosen < 2e-6, "{isa:?}, {at}, {lane}: {values:?}");
            }
        }
    }

    /// On flat pictures, and those that change along one side only, the first of equal values wins.
    #[test]
    fn ties_stay_ties() {
        let pictures: [fn(usize, usize) -> f32; 3] = [
            |_, _| 0.377,
            |y, _| (y as f32 * 0.7).sin().abs(),
            |_, x| (x as f32 * 0.7).sin().abs(),
        ];
        let may_win: [&[u8]; 3] = [&[0], &[0, 2], &[0, 1]];
        for (picture, may_win) in pictures.into_iter().zip(may_win) {
            let input: Input =
                std::array::from_fn(|y| std::array::from_fn(|x| [[picture(y, x); LANES]; C1]));
            for isa in Isa::available() {
                let (_, winner) = run(isa, &input);
                let mut winners = winner.as_flattened().iter();
                assert!(winners.all(|winner| may_win.contains(winner)), "{isa:?}");
            }
        }
    }
}
