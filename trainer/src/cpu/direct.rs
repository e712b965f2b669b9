//! Direct convolution of 16 images, with its pooling and activation, and its gradients, for every shape that a network's
//! description allows.
//!
//! **Shapes.** The forward pass reads an input that already has its border of zeros ([`Pad`]), so it computes a convolution
//! without padding:
//!
//! ```text
//! input     (C, HP, WP)           HP = H + 2 · padding
//! weight    (M, C, K, K)
//! sums      (M, OH, OW)           OH = HP - K + 1
//! output    (M, PH, PW)           OH = PH · window
//! ```
//!
//! Each element is a vector with one value for each of the 16 images.
//!
//! **Numerics.** Every sum has a fixed order, the same on every instruction set, and each multiply-add is fused:
//!
//! * an output starts with the bias and adds its terms by channel, row and column of the kernel;
//! * a mean adds the values of its window in row order and multiplies by the reciprocal of the window's size;
//! * an input gradient adds its terms by map, row and column of the kernel;
//! * a weight gradient adds its terms by row and column of the output, for each image. Then the sums of the lower eight images
//!   are added pairwise by halves, then those of the upper eight, and the two results are added in this order;
//! * a bias gradient adds its terms by row and column of the output (of the pooled output after max pooling), for each image.
//!   Then the sums of the images are added pairwise by halves.
//!
//! **Tiles.** The accumulators of a tile (some maps at some neighbouring columns) stay in registers. If the number of maps or
//! columns is not a multiple of the tile's, the last tile overlaps the one before, and computes some values twice, with the
//! same bits.

use super::activation::{activate, activate_grad};
use super::simd::{
    HALF, Kernel, LANES, Lanes, Lanewise, Simd, by_parts, part, part_mut, sum_lanes,
};
use bytemuck::Zeroable;
use lenet_core::layer::{Layered, Pool};
use lenet_core::plan::Layer;
use std::marker::PhantomData;

/// Returns the tile size up to `most` that computes `n` values with the least work; of equally good ones the largest.
const fn tile(n: usize, most: usize) -> usize {
    if n <= most {
        return n;
    }
    let (mut best, mut size) = (1, 2);
    while size <= most {
        if n.div_ceil(size) * size <= n.div_ceil(best) * best || best < most.div_ceil(2) {
            best = size;
        }
        size += 1;
    }
    best
}

/// Runs `$call` with the constant `$size` set to the value of a constant expression in 1..=8.
macro_rules! with_size {
    ($size:ident = $value:expr => $call:expr) => {
        with_size!(@ $size $value, $call, 1 2 3 4 5 6 7 8)
    };
    (@ $size:ident $value:expr, $call:expr, $($n:literal)*) => {
        // For a given shape, the compiler removes all arms but one.
        match const { $value } {
            $($n => {
                const $size: usize = $n;
                $call
            })*
            _ => unreachable!("a tile's size is 1 to 8"),
        }
    };
}

/// Returns the largest number of columns for a tile of `maps` maps: as many accumulators as fit the registers, 24 whole vectors
/// or 12 half vectors.
const fn most_columns(maps: usize, wide: bool) -> usize {
    match (wide, maps) {
        (true, 1..=3) => 8,
        (true, maps) => 24 / maps,
        (false, 1) => 8,
        (false, 2) => 5,
        (false, 3 | 4) => 3,
        (false, _) => 2,
    }
}

/// Returns the number of maps and columns of a tile in the forward pass.
const fn tiles(maps: usize, columns: usize, wide: bool) -> (usize, usize) {
    let maps = tile(maps, 6);
    (maps, tile(columns, most_columns(maps, wide)))
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

/// Returns the length of [`Forward::sums`].
pub(super) const fn sums_len(pool: Pool, maps: usize, height: usize, width: usize) -> usize {
    match pool {
        Pool::Whole => 0,
        Pool::Max(window) => maps * window * width,
        Pool::Average(_) => maps * height * width,
    }
}

/// Returns the length of [`Forward::winner`] for a pooled output of this size.
pub(super) const fn winner_len(pool: Pool, maps: usize, height: usize, width: usize) -> usize {
    match pool {
        Pool::Max(_) => maps * height * width,
        Pool::Whole | Pool::Average(_) => 0,
    }
}

/// Returns the length of [`Backward::grad_sums`] for an input of this width, without its border, and a kernel of this side.
pub(super) const fn grad_sums_len(
    maps: usize,
    output_height: usize,
    input_width: usize,
    kernel: usize,
) -> usize {
    maps * output_height * (input_width + kernel - 1)
}

/// Copies an input into an array with a border of zeros.
pub(super) struct Pad<
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
pub(super) struct Forward<
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

/// The gradients of a layer's parameters, summed over one group of images.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
pub struct Sums<const C: usize, const M: usize, const K: usize> {
    pub weight: [[[[f32; K]; K]; C]; M],
    /// The bias gradient of each image.
    pub bias: [Lanes; M],
}

impl<const C: usize, const M: usize, const K: usize> Sums<C, M, K> {
    /// Returns the bias gradient.
    pub(super) fn bias(&self) -> [f32; M] {
        self.bias.map(sum_lanes)
    }
}

/// Computes the gradients of a layer's parameters, and of its sums before the pool, from which [`GradInput`] computes the input
/// gradient.
pub(super) struct Backward<
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
    /// The output from [`Forward`], as are `winner` and `sums`.
    pub out: &'a [[[Lanes; PW]; PH]; M],
    pub winner: &'a [[u8; LANES]],
    pub sums: &'a [Lanes],
    /// The gradient of `out`.
    pub grad: &'a [[[Lanes; PW]; PH]; M],
    /// The gradient of the sums, `(M, OH, W + K - 1)`, [`grad_sums_len`] long; overwritten. Each row has a border of zeros.
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

/// Computes the input gradient from the gradient of the sums before the pool.
pub(super) struct GradInput<
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

#[cfg(test)]
mod tests {
    use super::super::simd::Isa;
    use super::*;
    use bytemuck::zeroed_box;
    use lenet_core::layer::Activation;
    use lenet_core::layer::conv2d::Spec;

    /// A generator of noise in -1..1.
    struct Noise(u32);

    impl Noise {
        fn next(&mut self) -> f32 {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
        }

        fn fill(&mut self, values: &mut [f32], scale: f32) {
            values.fill_with(|| self.next() * scale);
        }
    }

    /// One image, its output and its gradients, computed in f64 by the definition. All arrays are flat.
    struct Reference {
        out: Vec<f64>,
        weight: Vec<f64>,
        bias: Vec<f64>,
        input: Vec<f64>,
    }

    fn activate_f64(activation: Activation, x: f64) -> (f64, f64) {
        match activation {
            Activation::Identity => (x, 1.0),
            Activation::Sigmoid => {
                let y = 1.0 / (1.0 + (-x).exp());
                (y, y * (1.0 - y))
            }
            Activation::Tanh => (x.tanh(), 1.0 - x.tanh() * x.tanh()),
            Activation::Relu => (x.max(0.0), f64::from(u8::from(x > 0.0))),
        }
    }

    fn reference(
        layer: &Layer,
        [c_, h, w, m_, k]: [usize; 5],
        input: &[f64],
        weight: &[f64],
        bias: &[f64],
        grad: &[f64],
    ) -> Reference {
        let (p, window) = (layer.padding, layer.pool.window());
        let (oh, ow) = (h + 2 * p + 1 - k, w + 2 * p + 1 - k);
        let (ph, pw) = (oh / window, ow / window);
        let mut result = Reference {
            out: vec![0.0; m_ * ph * pw],
            weight: vec![0.0; weight.len()],
            bias: vec![0.0; m_],
            input: vec![0.0; input.len()],
        };
        // Returns the weight and the input of each term of a sum.
        let terms = |m: usize, y: usize, x: usize| {
            let mut terms = Vec::new();
            for c in 0..c_ {
                for (i, j) in (0..k * k).map(|t| (t / k, t % k)) {
                    let (y, x) = (y + i, x + j);
                    if (p..h + p).contains(&y) && (p..w + p).contains(&x) {
                        let weight = ((m * c_ + c) * k + i) * k + j;
                        terms.push((weight, (c * h + y - p) * w + x - p));
                    }
                }
            }
            terms
        };
        for m in 0..m_ {
            for at in 0..ph * pw {
                let positions: Vec<_> = (0..window * window)
                    .map(|q| {
                        let y = at / pw * window + q / window;
                        let x = at % pw * window + q % window;
                        let terms = terms(m, y, x);
                        let sum = terms.iter().map(|&(w, i)| weight[w] * input[i]);
                        (bias[m] + sum.sum::<f64>(), terms)
                    })
                    .collect();
                let grad = grad[m * ph * pw + at];
                let passed: Vec<_> = match layer.pool {
                    Pool::Average(_) => {
                        let share = 1.0 / positions.len() as f64;
                        positions.iter().map(|position| (position, share)).collect()
                    }
                    _ => {
                        let first = positions
                            .iter()
                            .reduce(|a, b| if b.0 > a.0 { b } else { a });
                        vec![(first.unwrap(), 1.0)]
                    }
                };
                for ((sum, terms), share) in passed {
                    let (out, derivative) = activate_f64(layer.activation, *sum);
                    result.out[m * ph * pw + at] += share * out;
                    let by_sum = grad * share * derivative;
                    result.bias[m] += by_sum;
                    for &(w, i) in terms {
                        result.weight[w] += by_sum * input[i];
                        result.input[i] += by_sum * weight[w];
                    }
                }
            }
        }
        result
    }

    fn assert_close(found: f32, expected: f64, tolerance: f64, what: impl Fn() -> String) {
        let error = (f64::from(found) - expected).abs();
        assert!(
            error <= tolerance * (1.0 + expected.abs()),
            "{}: {found} {expected}",
            what()
        );
    }

    #[rustfmt::skip]
    fn check<
        L: Layered, const C: usize, const H: usize, const W: usize, const HP: usize, const WP: usize, const M: usize,
        const K: usize, const PH: usize, const PW: usize,
    >(layer: PhantomData<L>, name: &str) {
        let Layer { padding, pool, .. } = L::LAYER;
        assert_eq!((HP, WP), (H + 2 * padding, W + 2 * padding), "{name}");
        let mut noise = Noise(1);
        let mut input: Box<[[[Lanes; W]; H]; C]> = zeroed_box();
        let mut weight: Box<[[[[f32; K]; K]; C]; M]> = zeroed_box();
        let mut bias = [0.0; M];
        let mut grad: Box<[[[Lanes; PW]; PH]; M]> = zeroed_box();
        noise.fill(input.as_flattened_mut().as_flattened_mut().as_flattened_mut(), 1.0);
        let scale = 2.0 / ((C * K * K) as f32).sqrt();
        noise.fill(weight.as_flattened_mut().as_flattened_mut().as_flattened_mut(), scale);
        noise.fill(&mut bias, 0.3);
        noise.fill(grad.as_flattened_mut().as_flattened_mut().as_flattened_mut(), 1.0);

        let (oh, ow) = (HP + 1 - K, WP + 1 - K);
        let mut before: Option<Vec<Vec<u32>>> = None;
        for isa in Isa::every() {
            let mut padded: Box<[[[Lanes; WP]; HP]; C]> = zeroed_box();
            padded.as_flattened_mut().as_flattened_mut().fill([f32::NAN; LANES]);
            isa.run(Pad { input: &input, out: &mut padded });
            let mut out: Box<[[[Lanes; PW]; PH]; M]> = zeroed_box();
            let mut winner = vec![[9; LANES]; winner_len(pool, M, PH, PW)];
            let mut sums = vec![[f32::NAN; LANES]; sums_len(pool, M, oh, ow)];
            isa.run(Forward::<_, true, C, HP, WP, M, K, PH, PW> {
                layer, input: &padded, weight: &weight, bias: &bias, out: &mut out, winner: &mut winner, sums: &mut sums,
            });
            let mut grad_sums = vec![[f32::NAN; LANES]; grad_sums_len(M, oh, W, K)];
            let mut params: Box<Sums<C, M, K>> = zeroed_box();
            params.weight.as_flattened_mut().as_flattened_mut().as_flattened_mut().fill(f32::NAN);
            isa.run(Backward {
                layer, input: &padded, out: &out, winner: &winner, sums: &sums, grad: &grad, grad_sums: &mut grad_sums,
                grad_params: &mut params,
            });
            let mut grad_input: Box<[[[Lanes; W]; H]; C]> = zeroed_box();
            grad_input.as_flattened_mut().as_flattened_mut().fill([f32::NAN; LANES]);
            isa.run(GradInput { layer, weight: &weight, grad_sums: &grad_sums, grad_input: &mut grad_input });

            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            let all = vec![
                bits(out.as_flattened().as_flattened().as_flattened()),
                winner.as_flattened().iter().map(|&winner| winner.into()).collect(),
                bits(params.weight.as_flattened().as_flattened().as_flattened()),
                bits(params.bias.as_flattened()),
                bits(grad_input.as_flattened().as_flattened().as_flattened()),
            ];
            if let Some(before) = &before {
                assert!(*before == all, "{name}: {isa:?} has other bits");
                continue;
            }

            let mut expected = [vec![0.0; M * C * K * K], vec![0.0; M]];
            for n in 0..LANES {
                fn lane(lanes: &[Lanes], n: usize) -> Vec<f64> {
                    lanes.iter().map(|lanes| lanes[n].into()).collect()
                }
                let image = reference(
                    &L::LAYER, [C, H, W, M, K],
                    &lane(input.as_flattened().as_flattened(), n),
                    &weight.as_flattened().as_flattened().as_flattened().iter().map(|&x| x.into()).collect::<Vec<_>>(),
                    &bias.map(f64::from), &lane(grad.as_flattened().as_flattened(), n),
                );
                let out = out.as_flattened().as_flattened();
                for (at, (found, expected)) in out.iter().zip(&image.out).enumerate() {
                    assert_close(found[n], *expected, 1e-6, || format!("{name} {isa:?}: output {at}, image {n}"));
                }
                let grad_input = grad_input.as_flattened().as_flattened();
                for (at, (found, expected)) in grad_input.iter().zip(&image.input).enumerate() {
                    assert_close(found[n], *expected, 2e-6, || format!("{name} {isa:?}: by input {at}, image {n}"));
                }
                for (sums, images) in expected.iter_mut().zip([image.weight, image.bias]) {
                    sums.iter_mut().zip(images).for_each(|(sum, image)| *sum += image);
                }
            }
            let tolerance = 1e-6 * ((oh * ow * LANES) as f64).sqrt();
            let found = params.weight.as_flattened().as_flattened().as_flattened();
            for (at, (&found, expected)) in found.iter().zip(&expected[0]).enumerate() {
                assert_close(found, *expected, tolerance, || format!("{name} {isa:?}: by weight {at}"));
            }
            for (at, (found, expected)) in params.bias().into_iter().zip(&expected[1]).enumerate() {
                assert_close(found, *expected, tolerance, || format!("{name} {isa:?}: by bias {at}"));
            }
            before = Some(all);
        }
    }

    macro_rules! shapes {
        ($( $name:ident: $c:literal x $h:literal x $w:literal => $m:literal maps, kernel $k:literal, padding $p:literal, $pool:expr, $activation:ident; )*) => { $(
            #[test]
            fn $name() {
                #[derive(Clone, Copy)]
                struct This;
                impl Layered for This {
                    const LAYER: Layer = Spec {
                        maps: $m, kernel: $k, padding: $p, pool: $pool, activation: Activation::$activation,
                    }
                    .layer(stringify!($name), [$c, $h, $w]);
                }
                const N: usize = This::LAYER.pool.window();
                check::<This, $c, $h, $w, { $h + 2 * $p }, { $w + 2 * $p }, $m, $k,
                    { ($h + 2 * $p + 1 - $k) / N }, { ($w + 2 * $p + 1 - $k) / N }>(PhantomData::<This>, stringify!($name));
            }
        )* };
    }

    // Other kernels, windows and paddings are in the networks of tests/tests/networks.rs.
    shapes! {
        kernel_2_pooled: 3 x 11 x 17 => 5 maps, kernel 2, padding 1, Pool::Max(3), Identity;
        kernel_3_narrow: 5 x 3 x 3 => 3 maps, kernel 3, padding 0, Pool::Whole, Sigmoid;
        kernel_3_average: 6 x 10 x 16 => 13 maps, kernel 3, padding 1, Pool::Average(2), Tanh;
        kernel_4_unpadded: 4 x 9 x 6 => 2 maps, kernel 4, padding 0, Pool::Average(3), Identity;
        kernel_7_unpadded: 2 x 15 x 9 => 17 maps, kernel 7, padding 0, Pool::Max(3), Sigmoid;
        kernel_as_large_as_the_input: 7 x 7 x 7 => 10 maps, kernel 7, padding 0, Pool::Whole, Sigmoid;
        kernel_larger_than_the_input: 1 x 2 x 3 => 2 maps, kernel 3, padding 1, Pool::Whole, Relu;
        one_by_one: 1 x 1 x 1 => 1 maps, kernel 1, padding 0, Pool::Whole, Identity;
    }

    #[derive(Clone, Copy)]
    struct LargestOfNine;

    impl Layered for LargestOfNine {
        const LAYER: Layer = Spec {
            maps: 2,
            kernel: 3,
            padding: 0,
            pool: Pool::Max(3),
            activation: Activation::Relu,
        }
        .layer("flat", [1, 8, 11]);
    }

    /// Returns the outputs and winners of two maps, for the same picture in all images.
    fn largest_of_nine<const TRAIN: bool>(
        isa: Isa,
        picture: fn(usize, usize) -> f32,
    ) -> ([[[Lanes; 3]; 2]; 2], [[u8; LANES]; 12]) {
        let input = [std::array::from_fn(|y| {
            std::array::from_fn(|x| [picture(y, x); LANES])
        })];
        let (mut out, mut winner) = ([[[[0.0; LANES]; 3]; 2]; 2], [[9; LANES]; 12]);
        isa.run(Forward::<_, TRAIN, 1, 8, 11, 2, 3, 2, 3> {
            layer: PhantomData::<LargestOfNine>,
            input: &input,
            weight: &[[[[0.1; 3]; 3]; 1], [[[-0.7; 3]; 3]; 1]],
            bias: &[0.2, 0.1],
            out: &mut out,
            winner: &mut winner,
            sums: &mut [[0.0; LANES]; sums_len(Pool::Max(3), 2, 6, 9)],
        });
        (out, winner)
    }

    /// On pictures that are flat, or change along one side only, the first of equal values wins. Inference gives the same
    /// outputs as training.
    #[test]
    fn the_first_of_equal_values_wins() {
        let pictures: [fn(usize, usize) -> f32; 3] = [
            |_, _| 0.377,
            |y, _| (y as f32 * 0.7).sin().abs(),
            |_, x| (x as f32 * 0.7).sin().abs(),
        ];
        let may_win: [&[u8]; 3] = [&[0], &[0, 3, 6], &[0, 1, 2]];
        for (picture, may_win) in pictures.into_iter().zip(may_win) {
            for isa in Isa::every() {
                let (out, winner) = largest_of_nine::<true>(isa, picture);
                let mut winners = winner.as_flattened().iter();
                assert!(winners.all(|winner| may_win.contains(winner)), "{isa:?}");
                assert_eq!(largest_of_nine::<false>(isa, picture).0, out, "{isa:?}");
            }
        }
    }

    #[test]
    fn tiles_are_as_large_as_they_can_be() {
        for n in 1..=64 {
            for most in 1..=8 {
                let tile = tile(n, most);
                assert!((1..=most.min(n)).contains(&tile), "{n} {most}: {tile}");
            }
        }
        assert_eq!(
            [
                tile(6, 6),
                tile(16, 6),
                tile(10, 6),
                tile(28, 4),
                tile(7, 6)
            ],
            [6, 4, 5, 4, 4]
        );
    }
}
