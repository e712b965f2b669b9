//! The backward pass: the gradients of the parameters, of the sums before the pool, and of the input.

use super::super::activation::activate_grad;
use super::super::simd::{
    HALF, Kernel, LANES, Lanes, Lanewise, Simd, by_parts, part, part_mut, sum_lanes,
};
use super::{Sums, most_columns, tile, winner_len, with_size};
use lenet_core::layer::{Layered, Pool};
use lenet_core::plan::Layer;
use std::marker::PhantomData;

/// Computes the gradients of a layer's parameters, and of its sums before the pool, from which [`GradInput`] computes the input
/// gradient.
pub(in crate::cpu) struct Backward<
    'a,
    L,
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
    /// The output from [`Forward`](super::Forward), as are `winner` and `sums`.
    pub out: &'a [[[Lanes; PW]; PH]; M],
    pub winner: &'a [[u8; LANES]],
    pub sums: &'a [Lanes],
    /// The gradient of `out`.
    pub grad: &'a [[[Lanes; PW]; PH]; M],
    /// The gradient of the sums, `(M, OH, W + K - 1)`, [`grad_sums_len`](super::grad_sums_len) long; overwritten. Each row has a
    /// border of zeros.
    pub grad_sums: &'a mut [Lanes],
    /// Overwritten.
    pub grad_params: &'a mut Sums<C, M, K>,
}

impl<
    L: Layered,
    const C: usize,
    const HP: usize,
    const WP: usize,
    const M: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
> Kernel for Backward<'_, L, C, HP, WP, M, K, PH, PW>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const {
            let Layer { padding, pool, .. } = L::LAYER;
            let window = pool.window();
            assert!(C > 0 && M > 0 && K > 0 && PH > 0 && PW > 0 && window >= 1 && window <= 3);
            assert!(PH * window + K == HP + 1 && PW * window + K == WP + 1);
            assert!(padding <= K / 2 && WP > 2 * padding && HP > 2 * padding);
        }
        let Self {
            layer: _,
            input,
            out,
            winner,
            sums,
            grad,
            grad_sums,
            grad_params,
        } = self;
        let window = const { L::LAYER.pool.window() };
        let (height, width) = const { (HP + 1 - K, WP + 1 - K) };
        let border = const { K - 1 - L::LAYER.padding };
        let pitch = width + 2 * border;
        assert!(grad_sums.len() == M * height * pitch);
        assert!(winner.len() == const { winner_len(L::LAYER.pool, M, PH, PW) });
        for m in 0..M {
            let mut by_bias = s.splat(0.0);
            for py in 0..PH {
                for y in py * window..(py + 1) * window {
                    let row = &mut grad_sums[(m * height + y) * pitch..][..pitch];
                    let (left, row) = row.split_at_mut(border);
                    let (row, right) = row.split_at_mut(width);
                    left.fill([0.0; LANES]);
                    right.fill([0.0; LANES]);
                    if let Pool::Average(_) = const { L::LAYER.pool } {
                        let activated = &sums[(m * height + y) * width..][..width];
                        let share = const { 1.0 / (L::LAYER.pool.window().pow(2)) as f32 };
                        for (px, grad) in grad[m][py].iter().enumerate() {
                            let grad = s.mul(s.load(grad), s.splat(share));
                            for x in px * window..(px + 1) * window {
                                let out = s.load(&activated[x]);
                                let grad = activate_grad(s, L::LAYER.activation, out, grad);
                                by_bias = s.add(by_bias, grad);
                                s.store(grad, &mut row[x]);
                            }
                        }
                    }
                }
                if let Pool::Average(_) = const { L::LAYER.pool } {
                    continue;
                }
                for px in 0..PW {
                    let out = s.load(&out[m][py][px]);
                    let grad = s.load(&grad[m][py][px]);
                    let grad = activate_grad(s, L::LAYER.activation, out, grad);
                    by_bias = s.add(by_bias, grad);
                    let first = (m * height + py * window) * pitch + border + px * window;
                    if let Pool::Whole = const { L::LAYER.pool } {
                        s.store(grad, &mut grad_sums[first]);
                        continue;
                    }
                    let winner = s.load_bytes(&winner[(m * PH + py) * PW + px]);
                    let zero = s.splat(0.0);
                    for q in 0..window * window {
                        let at_most = s.splat(q as f32 + 0.5);
                        let at_least = s.splat(q as f32 - 0.5);
                        let of_position = s.select_gt(winner, at_most, zero, grad);
                        let of_position = s.select_gt(winner, at_least, of_position, zero);
                        let at = first + q / window * pitch + q % window;
                        s.store(of_position, &mut grad_sums[at]);
                    }
                }
            }
            s.store(by_bias, &mut grad_params.bias[m]);
        }
        let weight = &mut grad_params.weight;
        if S::WIDE {
            with_size!(T = weight_tile(M, K, true) =>
                by_weight::<S, C, HP, WP, M, K, T>(s, input, grad_sums, border, weight));
        } else {
            with_size!(T = weight_tile(M, K, false) =>
                by_weight::<S, C, HP, WP, M, K, T>(s, input, grad_sums, border, weight));
        }
    }
}

/// Returns the number of maps in a tile of the weight gradient, which has `K` accumulators for each map.
const fn weight_tile(maps: usize, kernel: usize, wide: bool) -> usize {
    let most = if wide { 24 } else { 12 } / kernel;
    tile(maps, if most > 8 { 8 } else { most })
}

/// Computes the weight gradient.
#[inline(always)]
fn by_weight<
    S: Simd,
    const C: usize,
    const HP: usize,
    const WP: usize,
    const M: usize,
    const K: usize,
    const T: usize,
>(
    s: S,
    input: &[[[Lanes; WP]; HP]; C],
    grad_sums: &[Lanes],
    border: usize,
    weight: &mut [[[[f32; K]; K]; C]; M],
) {
    let maps = grad_sums.len() / M;
    for m in (0..M).step_by(T).map(|m| m.min(M - T)) {
        let grad_sums = &grad_sums[m * maps..][..T * maps];
        for (c, input) in input.iter().enumerate() {
            let mut sums = [[[0.0; K]; T]; K];
            by_parts!(s, weight_plane(input, grad_sums, border, &mut sums));
            for i in 0..K {
                for t in 0..T {
                    weight[m + t][c][i] = sums[i][t];
                }
            }
        }
    }
}

/// Adds the gradient of the kernels of `T` maps over one channel, for part `n` of the lanes.
#[inline(always)]
fn weight_plane<
    const N: usize,
    S: Lanewise<N>,
    const HP: usize,
    const WP: usize,
    const K: usize,
    const T: usize,
>(
    s: S,
    n: usize,
    input: &[[Lanes; WP]; HP],
    grad_sums: &[Lanes],
    border: usize,
    sums: &mut [[[f32; K]; T]; K],
) {
    let (height, width) = const { (HP + 1 - K, WP + 1 - K) };
    let (maps, pitch) = (grad_sums.len() / T, width + 2 * border);
    // A few rows at a time, so that they stay in the L1 cache for all rows of the kernel.
    let rows = const { rows_at_once(T * (WP + 1 - K)) };
    let mut stored = [[[[0.0; N]; K]; T]; K];
    for first in (0..height).step_by(rows) {
        for (i, stored) in stored.iter_mut().enumerate() {
            let mut acc = [[s.splat(0.0); K]; T];
            for t in 0..T {
                for j in 0..K {
                    acc[t][j] = s.load(&stored[t][j]);
                }
            }
            for y in first..height.min(first + rows) {
                let row = &input[y + i];
                let mut grads = [&[] as &[Lanes]; T];
                for t in 0..T {
                    grads[t] = &grad_sums[t * maps + y * pitch + border..][..width];
                }
                for x in 0..width {
                    let inputs = &row[x..x + K];
                    // The smaller set, inputs or gradients, stays in registers beside the accumulators.
                    if const { K < T } {
                        let mut loaded = [s.splat(0.0); K];
                        for j in 0..K {
                            loaded[j] = s.load(part(&inputs[j], n));
                        }
                        for t in 0..T {
                            let grad = s.load(part(&grads[t][x], n));
                            for j in 0..K {
                                acc[t][j] = s.mul_add(loaded[j], grad, acc[t][j]);
                            }
                        }
                    } else {
                        let mut loaded = [s.splat(0.0); T];
                        for t in 0..T {
                            loaded[t] = s.load(part(&grads[t][x], n));
                        }
                        for j in 0..K {
                            let input = s.load(part(&inputs[j], n));
                            for t in 0..T {
                                acc[t][j] = s.mul_add(input, loaded[t], acc[t][j]);
                            }
                        }
                    }
                }
            }
            for t in 0..T {
                for j in 0..K {
                    s.store(acc[t][j], &mut stored[t][j]);
                }
            }
        }
    }
    let sums = sums.as_flattened_mut().as_flattened_mut();
    add_sums(s, stored.as_flattened().as_flattened(), sums);
}

/// Returns how many rows of `vectors` vectors fill half of the L1 cache, at least one.
const fn rows_at_once(vectors: usize) -> usize {
    let rows = (16 << 10) / (vectors * size_of::<Lanes>());
    if rows > 0 { rows } else { 1 }
}

/// Adds the sum of the lanes of each vector, in the order of [`Lanewise::add_sums`].
#[inline(always)]
fn add_sums<const N: usize, S: Lanewise<N>>(s: S, vectors: &[[f32; N]], sums: &mut [f32]) {
    let (eights, rest) = vectors.as_chunks::<HALF>();
    let (to, rest_to) = sums.as_chunks_mut::<HALF>();
    for (vectors, to) in eights.iter().zip(to) {
        let mut loaded = [s.splat(0.0); HALF];
        for (vector, from) in loaded.iter_mut().zip(vectors) {
            *vector = s.load(from);
        }
        s.add_sums(loaded, to);
    }
    for (vector, to) in rest.iter().zip(rest_to) {
        for half in vector.as_chunks::<HALF>().0 {
            *to += sum_lanes(*half);
        }
    }
}

/// Returns the range of kernel columns that meet a row of sums, and not only its border of zeros, for at least one of `columns`
/// inputs from `x` on.
const fn columns_within(
    x: usize,
    columns: usize,
    width: usize,
    kernel: usize,
    padding: usize,
) -> (usize, usize) {
    let end = x + padding + columns;
    let first = (x + padding + kernel).saturating_sub(width + 2 * padding);
    (first, if end < kernel { end } else { kernel })
}

/// Returns the number of channels and columns of a tile of the input gradient. Among the tiles with enough accumulators to hide
/// the latency of the multiply-adds, it is the one that reads the least of the border.
const fn grad_tiles(
    channels: usize,
    width: usize,
    kernel: usize,
    padding: usize,
    wide: bool,
) -> (usize, usize) {
    let channels = tile(channels, 6);
    let mut columns = most_columns(channels, wide);
    if columns >= width {
        columns = width;
    }
    let (mut best, mut least) = (columns, usize::MAX);
    while columns > 0 && (columns * channels >= 8 || least == usize::MAX) {
        let (mut x, mut products) = (0, 0);
        while x < width {
            let start = if x + columns < width {
                x
            } else {
                width - columns
            };
            let (first, end) = columns_within(start, columns, width, kernel, padding);
            products += columns * (end - first);
            x += columns;
        }
        if products < least {
            (best, least) = (columns, products);
        }
        columns -= 1;
    }
    (channels, best)
}

/// Computes the input gradient from the gradient of the sums before the pool.
pub(in crate::cpu) struct GradInput<
    'a,
    L,
    const C: usize,
    const H: usize,
    const W: usize,
    const M: usize,
    const K: usize,
> {
    pub layer: PhantomData<L>,
    pub weight: &'a [[[[f32; K]; K]; C]; M],
    /// The gradient of the sums, from [`Backward`].
    pub grad_sums: &'a [Lanes],
    /// The gradient of the input, without its border; overwritten.
    pub grad_input: &'a mut [[[Lanes; W]; H]; C],
}

impl<L: Layered, const C: usize, const H: usize, const W: usize, const M: usize, const K: usize>
    Kernel for GradInput<'_, L, C, H, W, M, K>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const {
            let padding = L::LAYER.padding;
            assert!(C > 0 && M > 0 && K > 0 && padding <= K / 2);
            assert!(H + 2 * padding >= K && W + 2 * padding >= K);
        }
        let padding = const { L::LAYER.padding };
        let (weight, grad_sums, grad) = (self.weight, self.grad_sums, self.grad_input);
        let height = const { H + 2 * L::LAYER.padding + 1 - K };
        assert!(grad_sums.len() == M * height * const { W + K - 1 });
        for y in 0..H {
            if S::WIDE {
                with_size!(T = grad_tiles(C, W, K, L::LAYER.padding, true).0 => with_size!(Q = grad_tiles(C, W, K, L::LAYER.padding, true).1 =>
                    grad_row::<LANES, S, C, H, W, M, K, T, Q>(s, 0, weight, grad_sums, height, padding, y, grad)));
            } else {
                for n in 0..2 {
                    with_size!(T = grad_tiles(C, W, K, L::LAYER.padding, false).0 => with_size!(Q = grad_tiles(C, W, K, L::LAYER.padding, false).1 =>
                        grad_row::<HALF, S::Half, C, H, W, M, K, T, Q>(s.half(), n, weight, grad_sums, height, padding, y, grad)));
                }
            }
        }
    }
}

/// Computes a row of the input gradient, for all channels and part `n` of the lanes.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn grad_row<
    const N: usize,
    S: Lanewise<N>,
    const C: usize,
    const H: usize,
    const W: usize,
    const M: usize,
    const K: usize,
    const T: usize,
    const Q: usize,
>(
    s: S,
    n: usize,
    weight: &[[[[f32; K]; K]; C]; M],
    grad_sums: &[Lanes],
    height: usize,
    padding: usize,
    y: usize,
    grad: &mut [[[Lanes; W]; H]; C],
) {
    let pitch = const { W + K - 1 };
    // The rows of the kernel that meet the sums, and not only the border, at this row of the input.
    let rows = (y + padding + 1).saturating_sub(height)..K.min(y + padding + 1);
    for x in (0..W).step_by(Q).map(|x| x.min(W - Q)) {
        // The same for the columns, for at least one of the inputs.
        let columns = columns_within(x, Q, W, K, padding);
        for c in (0..C).step_by(T).map(|c| c.min(C - T)) {
            let mut acc = [[s.splat(0.0); Q]; T];
            for (m, weight) in weight.iter().enumerate() {
                let weight: &[_; T] = weight[c..].first_chunk().expect("a tile");
                for i in rows.clone() {
                    let first = (m * height + y + padding - i) * pitch + x;
                    let grads = &grad_sums[first..][..const { Q + K - 1 }];
                    for j in columns.0..columns.1 {
                        let grads = &grads[K - 1 - j..][..Q];
                        let mut values = [s.splat(0.0); Q];
                        for q in 0..Q {
                            values[q] = s.load(part(&grads[q], n));
                        }
                        for t in 0..T {
                            let weight = s.splat(weight[t][i][j]);
                            for q in 0..Q {
                                acc[t][q] = s.mul_add(values[q], weight, acc[t][q]);
                            }
                        }
                    }
                }
            }
            for t in 0..T {
                let to = &mut grad[c + t][y][x..][..Q];
                for q in 0..Q {
                    s.store(acc[t][q], part_mut(&mut to[q], n));
                }
            }
        }
    }
}
