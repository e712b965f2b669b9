//! The forward pass, and the copy of its input with a border of zeros.

use super::super::activation::activate;
use super::super::simd::{HALF, Kernel, LANES, Lanes, Lanewise, Simd, part, part_mut};
use super::{most_columns, sums_len, tile, winner_len, with_size};
use lenet_core::layer::{Layered, Pool};
use std::marker::PhantomData;

/// Returns the number of maps and columns of a tile in the forward pass.
const fn tiles(maps: usize, columns: usize, wide: bool) -> (usize, usize) {
    let maps = tile(maps, 6);
    (maps, tile(columns, most_columns(maps, wide)))
}

/// Copies an input into an array with a border of zeros.
pub(in crate::cpu) struct Pad<
    'a,
    const C: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const WP: usize,
> {
    pub input: &'a [[[Lanes; W]; H]; C],
    /// Overwritten.
    pub out: &'a mut [[[Lanes; WP]; HP]; C],
}

impl<const C: usize, const H: usize, const W: usize, const HP: usize, const WP: usize> Kernel
    for Pad<'_, C, H, W, HP, WP>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const { assert!(HP >= H && HP - H == WP - W && (HP - H).is_multiple_of(2)) }
        let padding = const { (HP - H) / 2 };
        for (input, out) in self.input.iter().zip(self.out) {
            for (y, row) in out.iter_mut().enumerate() {
                let Some(input) = input.get(y.wrapping_sub(padding)) else {
                    row.fill([0.0; LANES]);
                    continue;
                };
                let (left, row) = row.split_at_mut(padding);
                let (row, right) = row.split_at_mut(W);
                left.fill([0.0; LANES]);
                for (input, out) in input.iter().zip(row) {
                    s.store(s.load(input), out);
                }
                right.fill([0.0; LANES]);
            }
        }
    }
}

/// The forward pass. With `TRAIN` it writes what the backward pass needs.
///
/// Of equal values in a window, the first in row order wins.
pub(in crate::cpu) struct Forward<
    'a,
    L,
    const TRAIN: bool,
    const C: usize,
    const HP: usize,
    const WP: usize,
    const M: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
> {
    pub layer: PhantomData<L>,
    /// The input, with its border.
    pub input: &'a [[[Lanes; WP]; HP]; C],
    pub weight: &'a [[[[f32; K]; K]; C]; M],
    pub bias: &'a [f32; M],
    /// Overwritten.
    pub out: &'a mut [[[Lanes; PW]; PH]; M],
    /// The position of the maximum in each window, counted in row order. It has the layout of `out` and is [`winner_len`] long;
    /// overwritten with `TRAIN`, else unchanged.
    pub winner: &'a mut [[u8; LANES]],
    /// Values before the pool, [`sums_len`] long; overwritten. With mean pooling: the outputs of the activation, `(M, OH, OW)`,
    /// which the backward pass needs. Otherwise: scratch space for some rows.
    pub sums: &'a mut [Lanes],
}

impl<
    L: Layered,
    const TRAIN: bool,
    const C: usize,
    const HP: usize,
    const WP: usize,
    const M: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
> Kernel for Forward<'_, L, TRAIN, C, HP, WP, M, K, PH, PW>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const {
            let window = L::LAYER.pool.window();
            assert!(C > 0 && M > 0 && K > 0 && PH > 0 && PW > 0 && window >= 1 && window <= 3);
            assert!(PH * window + K == HP + 1 && PW * window + K == WP + 1);
        }
        let Self {
            layer: _,
            input,
            weight,
            bias,
            out,
            winner,
            sums,
        } = self;
        let window = const { L::LAYER.pool.window() };
        let (height, width) = const { (HP + 1 - K, WP + 1 - K) };
        assert!(sums.len() == const { sums_len(L::LAYER.pool, M, HP + 1 - K, WP + 1 - K) });
        assert!(winner.len() == const { winner_len(L::LAYER.pool, M, PH, PW) });
        for py in 0..PH {
            for y in 0..window {
                // Where the row begins, and the distance to the same row of the next map.
                let (sums, stride) = match const { L::LAYER.pool } {
                    Pool::Whole => (out.as_flattened_mut().as_flattened_mut(), height * width),
                    Pool::Max(_) => (&mut *sums, window * width),
                    Pool::Average(_) => (&mut *sums, height * width),
                };
                let first = match const { L::LAYER.pool } {
                    Pool::Max(_) => y * width,
                    Pool::Whole | Pool::Average(_) => (py * window + y) * width,
                };
                let sums = &mut sums[first..];
                let y = py * window + y;
                if S::WIDE {
                    with_size!(T = tiles(M, WP + 1 - K, true).0 => with_size!(Q = tiles(M, WP + 1 - K, true).1 =>
                        row::<LANES, S, C, HP, WP, M, K, T, Q>(s, 0, input, weight, bias, y, sums, stride)));
                } else {
                    for n in 0..2 {
                        with_size!(T = tiles(M, WP + 1 - K, false).0 => with_size!(Q = tiles(M, WP + 1 - K, false).1 =>
                            row::<HALF, S::Half, C, HP, WP, M, K, T, Q>(s.half(), n, input, weight, bias, y, sums, stride)));
                    }
                }
            }
            match const { L::LAYER.pool } {
                Pool::Whole => {
                    for map in out.iter_mut() {
                        for out in &mut map[py] {
                            s.store(activate(s, L::LAYER.activation, s.load(out)), out);
                        }
                    }
                }
                Pool::Max(_) => {
                    for (m, map) in out.iter_mut().enumerate() {
                        let rows = &sums[m * window * width..][..window * width];
                        let winner: &mut [_] = if TRAIN {
                            &mut winner[(m * PH + py) * PW..][..PW]
                        } else {
                            &mut []
                        };
                        for (px, out) in map[py].iter_mut().enumerate() {
                            let mut best = s.load(&rows[px * window]);
                            let mut index = s.splat(0.0);
                            for q in 1..window * window {
                                let value = &rows[q / window * width + px * window + q % window];
                                let value = s.load(value);
                                if TRAIN {
                                    index = s.select_gt(value, best, s.splat(q as f32), index);
                                }
                                best = s.max(value, best);
                            }
                            s.store(activate(s, L::LAYER.activation, best), out);
                            if TRAIN {
                                s.store_bytes(index, &mut winner[px]);
                            }
                        }
                    }
                }
                Pool::Average(_) => {
                    for (m, map) in out.iter_mut().enumerate() {
                        let rows = &mut sums[(m * height + py * window) * width..];
                        let rows = &mut rows[..window * width];
                        for sum in &mut *rows {
                            s.store(activate(s, L::LAYER.activation, s.load(sum)), sum);
                        }
                        for (px, out) in map[py].iter_mut().enumerate() {
                            let mut sum = s.load(&rows[px * window]);
                            for q in 1..window * window {
                                let value = &rows[q / window * width + px * window + q % window];
                                sum = s.add(sum, s.load(value));
                            }
                            let share = const { 1.0 / (L::LAYER.pool.window().pow(2)) as f32 };
                            s.store(s.mul(sum, s.splat(share)), out);
                        }
                    }
                }
            }
        }
    }
}

/// Computes a row of the sums of all maps, `stride` apart, for part `n` of the lanes.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn row<
    const N: usize,
    S: Lanewise<N>,
    const C: usize,
    const HP: usize,
    const WP: usize,
    const M: usize,
    const K: usize,
    const T: usize,
    const Q: usize,
>(
    s: S,
    n: usize,
    input: &[[[Lanes; WP]; HP]; C],
    weight: &[[[[f32; K]; K]; C]; M],
    bias: &[f32; M],
    y: usize,
    sums: &mut [Lanes],
    stride: usize,
) {
    let width = const { WP + 1 - K };
    for x in (0..width).step_by(Q).map(|x| x.min(width - Q)) {
        for m in (0..M).step_by(T).map(|m| m.min(M - T)) {
            let weight: &[_; T] = weight[m..].first_chunk().expect("a tile");
            let bias: &[_; T] = bias[m..].first_chunk().expect("a tile");
            let mut acc = [[s.splat(0.0); Q]; T];
            for t in 0..T {
                acc[t] = [s.splat(bias[t]); Q];
            }
            for (c, input) in input.iter().enumerate() {
                for i in 0..K {
                    let inputs = &input[y + i][x..x + const { Q + K - 1 }];
                    for j in 0..K {
                        let mut values = [s.splat(0.0); Q];
                        for q in 0..Q {
                            values[q] = s.load(part(&inputs[j + q], n));
                        }
                        for t in 0..T {
                            let weight = s.splat(weight[t][c][i][j]);
                            for q in 0..Q {
                                acc[t][q] = s.mul_add(values[q], weight, acc[t][q]);
                            }
                        }
                    }
                }
            }
            for t in 0..T {
                let to = &mut sums[(m + t) * stride + x..][..Q];
                for q in 0..Q {
                    s.store(acc[t][q], part_mut(&mut to[q], n));
                }
            }
        }
    }
}
