//! The convolution with its pooling and activation, fused into one kernel.
//!
//! Maximum pooling comes before the activation, which saves most exponentials. Because every activation is monotone, the result
//! is the same as in the other order. Average pooling comes after the activation.
//!
//! The method is register blocking. A tile has a few maps, one row and a few columns of the pooled output. Its sums stay in
//! registers during the loops over `c`, `i` and `j`, whose order is that of the plain kernel. Each loaded input is used for all
//! maps and, because windows overlap, for several columns. Each weight is used for the whole tile. Maps and columns that do not
//! fill a tile are computed in tiles of one map or one column. In a layer with padding, a tile first copies what it reads of a
//! channel, with zeros for the padding, so that its loops need not check each index.
//!
//! On a microcontroller a window of 2 has tiles of two maps by two columns. Their sixteen sums fill the 32 registers of a
//! Cortex-M FPU together with eight inputs and the weights. They are pooled in registers, so the convolution is never stored.
//! Hosts use three maps by four columns: six vectors of AVX2's eight lanes, or twelve of four lanes, which fit into registers.
//! Hosts store the convolution and then pool it in a second loop, so that the compiler vectorizes both. If the sums were pooled
//! in registers, the compiler would shuffle them by columns in the first loop.

use super::{Activation, Layered, Pool};
use crate::ops::{SMALL, first_max};
use crate::plan::{Kind, Layer, Refusal};
use core::array::{from_mut, from_ref};

/// The fields of a convolution in a description.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The number of feature maps, which are the channels of the output: 1 to 256.
    pub maps: usize,
    /// The side of the square kernel, 1 to 7.
    pub kernel: usize,
    /// The rows and columns of zeros on each side of the input, from 0 (the default) to half the kernel.
    pub padding: usize,
    /// The pooling of the output, by default none.
    pub pool: Pool,
    /// The activation, by default none.
    pub activation: Activation,
}

impl Spec {
    /// The defaults for fields that a description leaves out.
    pub const DEFAULT: Self = Self {
        maps: 0,
        kernel: 0,
        padding: 0,
        pool: Pool::Whole,
        activation: Activation::Identity,
    };

    /// Returns the layer for an input of this shape, or stops the build with an error if the fields do not fit it.
    #[track_caller]
    pub const fn layer(self, name: &'static str, input: [usize; 3]) -> Layer {
        let Self {
            maps,
            kernel,
            padding,
            pool,
            activation,
        } = self;
        let [_, h, w] = input;
        let n = pool.window();
        let refusal = Refusal::of(name);
        if maps == 0 {
            refusal
                .text("a conv2d layer needs `maps: 1` or more")
                .stop()
        }
        if maps > 256 {
            refusal.number(maps).text(" maps are more than 256").stop()
        }
        if kernel < 1 || kernel > 7 {
            refusal
                .text("kernel ")
                .number(kernel)
                .text(" is not 1 to 7")
                .stop()
        }
        if padding > kernel / 2 {
            refusal
                .text("padding ")
                .number(padding)
                .text(" is more than half of kernel ")
                .number(kernel)
                .stop()
        }
        if !matches!(pool, Pool::Whole) && n != 2 && n != 3 {
            refusal
                .text("a pooling window of ")
                .number(n)
                .text(" is not 2 or 3")
                .stop()
        }
        if h + 2 * padding < kernel || w + 2 * padding < kernel {
            refusal
                .text("kernel ")
                .number(kernel)
                .text(" is larger than its input of ")
                .size(h, w)
                .stop()
        }
        let (h, w) = (h + 2 * padding + 1 - kernel, w + 2 * padding + 1 - kernel);
        if !h.is_multiple_of(n) || !w.is_multiple_of(n) {
            refusal
                .text("a pooling window of ")
                .number(n)
                .text(" does not divide its output of ")
                .size(h, w)
                .stop()
        }
        Layer {
            name,
            kind: Kind::Conv2d,
            input,
            kernel,
            padding,
            pool,
            activation,
            output: [maps, h / n, w / n],
        }
    }
}

/// The type of inputs and outputs, `(C, H, W)`.
pub type Array<T, const C: usize, const H: usize, const W: usize, const LEN: usize> =
    [[[T; W]; H]; C];
/// The type of the weight, `(OUT, C, K, K)`.
pub type Weight<T, const OUT: usize, const C: usize, const K: usize, const LEN: usize> =
    [[[[T; K]; K]; C]; OUT];

/// Returns an array of zeros.
pub const fn zeros<const C: usize, const H: usize, const W: usize>() -> [[[f32; W]; H]; C] {
    [[[0.0; W]; H]; C]
}

/// Computes the layer: convolution, pooling and activation.
///
/// # Shapes
/// * `input`: `(C, H, W)`
/// * `weight`: `(M, C, K, K)`
/// * `bias`: `(M)`
/// * `out`: `(M, PH, PW)`, where `N` is the side of the pooling window, `P` the padding, `PH = (H + 2·P - K + 1) / N` and
///   `PW = (W + 2·P - K + 1) / N`; overwritten
///
/// # Numerics
/// Gives the bits of [`conv2d`](crate::ops::conv2d) followed by [`max_pool2d`](crate::ops::max_pool2d) and the
/// [`Activation`], or by the activation and [`average_pool2d`](crate::ops::average_pool2d).
///
/// # Cost
/// The multiply-adds of the convolution and one activation per output (with average pooling `N²`). On a microcontroller it
/// needs no scratch memory, or less than 400 bytes of the stack if the layer has padding.
#[cfg_attr(not(target_os = "none"), inline(always))]
pub fn forward<
    L: Layered,
    const C: usize,
    const M: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
>(
    layer: L,
    input: &[[[f32; W]; H]; C],
    weight: &[[[[f32; K]; K]; C]; M],
    bias: &[f32; M],
    out: &mut [[[f32; PW]; PH]; M],
) {
    const {
        let Layer {
            input,
            kernel,
            output,
            ..
        } = L::LAYER;
        assert!(input[0] == C && input[1] == H && input[2] == W && kernel == K);
        assert!(output[0] == M && output[1] == PH && output[2] == PW);
    }
    match const { L::LAYER.pool.window() } {
        1 => all_maps::<L, 1, 4, 12, C, M, H, W, K, PH, PW>(layer, input, weight, bias, out),
        2 => all_maps::<L, 2, 2, 4, C, M, H, W, K, PH, PW>(layer, input, weight, bias, out),
        _ => all_maps::<L, 3, 1, 2, C, M, H, W, K, PH, PW>(layer, input, weight, bias, out),
    }
}

/// The number of maps of a tile. Neither it nor the number of columns of a tile affects the result.
const MAPS: usize = if SMALL { 2 } else { 3 };

/// Computes all maps for windows of side `N`, in tiles of `FEW` columns on a microcontroller and of `MANY` on a host.
#[inline(always)]
fn all_maps<
    L: Layered,
    const N: usize,
    const FEW: usize,
    const MANY: usize,
    const C: usize,
    const M: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
>(
    layer: L,
    input: &[[[f32; W]; H]; C],
    weight: &[[[[f32; K]; K]; C]; M],
    bias: &[f32; M],
    out: &mut [[[f32; PW]; PH]; M],
) {
    let (out_groups, out_rest) = out.as_chunks_mut::<MAPS>();
    let (weight_groups, weight_rest) = weight.as_chunks::<MAPS>();
    let (bias_groups, bias_rest) = bias.as_chunks::<MAPS>();
    for ((out, weight), bias) in out_groups.iter_mut().zip(weight_groups).zip(bias_groups) {
        if SMALL {
            pool_in_registers::<L, N, FEW, _, _, _, _, _, PH, PW>(layer, input, weight, bias, out);
        } else {
            store_and_pool::<L, N, MANY, _, _, _, _, _, PH, PW>(layer, input, weight, bias, out);
        }
    }
    for ((out, weight), bias) in out_rest.iter_mut().zip(weight_rest).zip(bias_rest) {
        let (weight, bias, out) = (from_ref(weight), from_ref(bias), from_mut(out));
        if SMALL {
            pool_in_registers::<L, N, FEW, _, _, _, _, _, PH, PW>(layer, input, weight, bias, out);
        } else {
            store_and_pool::<L, N, MANY, _, _, _, _, _, PH, PW>(layer, input, weight, bias, out);
        }
    }
}

/// Computes `M` maps of the output and pools each tile in registers.
#[inline(always)]
fn pool_in_registers<
    L: Layered,
    const N: usize,
    const P: usize,
    const C: usize,
    const M: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
>(
    _: L,
    input: &[[[f32; W]; H]; C],
    weight: &[[[[f32; K]; K]; C]; M],
    bias: &[f32; M],
    out: &mut [[[f32; PW]; PH]; M],
) {
    tiles::<true, L, N, P, _, _, _, _, _, PH, PW>(input, weight, bias, |m, y, x, tile| {
        // The range comes last in the zip, because the compiler does not unroll the loop if it ends in a `take`.
        let columns = tile[0].len();
        let Some(row) = out[m].get_mut(y) else {
            return;
        };
        for (out, p) in row.iter_mut().skip(x).zip(0..columns) {
            let window = tile.map(|row| row.get(p).copied().unwrap_or([0.0; N]));
            *out = pooled::<L, N>(window);
        }
    });
}

/// Computes `M` maps of the output: stores the convolution, with each row of the windows in its own array, then pools it.
#[inline(always)]
fn store_and_pool<
    L: Layered,
    const N: usize,
    const P: usize,
    const C: usize,
    const M: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
>(
    _: L,
    input: &[[[f32; W]; H]; C],
    weight: &[[[[f32; K]; K]; C]; M],
    bias: &[f32; M],
    out: &mut [[[f32; PW]; PH]; M],
) {
    let mut rows = [[[[[0.0; N]; PW]; PH]; M]; N];
    tiles::<false, L, N, P, _, _, _, _, _, PH, PW>(input, weight, bias, |m, y, x, tile| {
        for (rows, tile) in rows.iter_mut().zip(tile) {
            for (to, &from) in rows[m][y].iter_mut().skip(x).zip(tile) {
                *to = from;
            }
        }
    });
    // The rows of the windows. With a window of 1 all three are the same row, with a window of 2 the last two are.
    let [first, second, third] =
        [0, N / 2, N - 1].map(|row| rows[row].as_flattened().as_flattened());
    let out = out.as_flattened_mut().as_flattened_mut();
    for (((out, first), second), third) in out.iter_mut().zip(first).zip(second).zip(third) {
        let mut window = [[0.0; N]; N];
        (window[0], window[N / 2], window[N - 1]) = (*first, *second, *third);
        *out = pooled::<L, N>(window);
    }
}

/// Returns the output for a window, whose values it takes in row order.
#[inline(always)]
fn pooled<L: Layered, const N: usize>(window: [[f32; N]; N]) -> f32 {
    let activation = const { L::LAYER.activation };
    match const { L::LAYER.pool } {
        Pool::Whole | Pool::Max(_) => activation.of(first_max(window)),
        Pool::Average(_) => {
            let mut sum = activation.of(window[0][0]);
            for value in window.as_flattened().iter().skip(1) {
                sum += activation.of(*value);
            }
            sum / (N * N) as f32
        }
    }
}

/// Computes the convolution of `M` maps, tile by tile. It calls `take` for each map of a tile, with the indices `(m, y, x)` of the
/// map's first output and with the sums, indexed by row of the window and column of the output.
///
/// Here and in the functions that this calls, `SMALL` selects the loops for a microcontroller. It is a parameter so that tests
/// on a host run both variants.
#[inline(always)]
fn tiles<
    const SMALL: bool,
    L: Layered,
    const N: usize,
    const P: usize,
    const C: usize,
    const M: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
>(
    input: &[[[f32; W]; H]; C],
    weight: &[[[[f32; K]; K]; C]; M],
    bias: &[f32; M],
    mut take: impl FnMut(usize, usize, usize, [&[[f32; N]]; N]),
) {
    for y in 0..PH {
        for n in 0..PW / P {
            tile::<SMALL, L, N, P, _, _, _, _, _>(input, weight, bias, y, P * n, &mut take);
        }
        for x in PW - PW % P..PW {
            tile::<SMALL, L, N, 1, _, _, _, _, _>(input, weight, bias, y, x, &mut take);
        }
    }
}

/// Computes the tile of `M` maps by `P` columns that starts at row `y` and column `x` of the output.
#[inline(always)]
fn tile<
    const SMALL: bool,
    L: Layered,
    const N: usize,
    const P: usize,
    const C: usize,
    const M: usize,
    const H: usize,
    const W: usize,
    const K: usize,
>(
    input: &[[[f32; W]; H]; C],
    weight: &[[[[f32; K]; K]; C]; M],
    bias: &[f32; M],
    y: usize,
    x: usize,
    take: &mut impl FnMut(usize, usize, usize, [&[[f32; N]]; N]),
) {
    let padding = const { L::LAYER.padding };
    let sums = if padding == 0 {
        sums::<SMALL, N, P, _, _, _, _>(weight, bias, |c| {
            move |i, j| value(&input[c], N * y + i, N * x + j)
        })
    } else {
        sums::<SMALL, N, P, _, _, _, _>(weight, bias, |c| {
            let patch = patch::<SMALL, N, P, K, H, W>(&input[c], (N * y, N * x), padding);
            move |i, j| value(&patch, i, j)
        })
    };
    for (m, sums) in sums.iter().enumerate() {
        take(m, y, x, sums.each_ref().map(<[_; P]>::as_slice));
    }
}

/// Copies what a tile reads of a channel, with zeros for the padding.
#[inline(always)]
fn patch<
    const SMALL: bool,
    const N: usize,
    const P: usize,
    const K: usize,
    const H: usize,
    const W: usize,
>(
    input: &[[f32; W]; H],
    (y, x): (usize, usize),
    padding: usize,
) -> [[f32; COLUMNS]; ROWS] {
    // On a microcontroller, the tiles of a host are compiled but never run.
    const {
        assert!(N + K - 1 <= ROWS);
        assert!(N * P + K - 1 <= COLUMNS || SMALL != crate::ops::SMALL);
    }
    let mut patch = [[0.0; COLUMNS]; ROWS];
    for (i, row) in patch.iter_mut().enumerate().take(N + K - 1) {
        for (j, to) in row.iter_mut().enumerate().take(N * P + K - 1) {
            // In the padding, the row or the column wraps around to a large value.
            *to = value(
                input,
                (y + i).wrapping_sub(padding),
                (x + j).wrapping_sub(padding),
            );
        }
    }
    patch
}

/// Returns a value, or zero if an index is out of range.
///
/// The compiler removes the checks that it can show to be unnecessary. A plain index that it cannot show to be in range would leave a
/// panic in the program.
#[inline(always)]
fn value<const H: usize, const W: usize>(rows: &[[f32; W]; H], y: usize, x: usize) -> f32 {
    let row = rows.get(y);
    row.and_then(|row| row.get(x)).copied().unwrap_or(0.0)
}

/// The most rows that a tile reads: a window of 3 with a kernel of 7.
const ROWS: usize = 3 + 7 - 1;
/// The most columns that a tile reads: four columns on a microcontroller, or twelve on a host, with a kernel of 7.
const COLUMNS: usize = if SMALL { 4 } else { 12 } + 7 - 1;

/// Returns the sums of a tile. `input` takes a channel and returns a function of the row and the column of what the tile reads.
///
/// For a microcontroller the columns of the kernel are unrolled in the source. Whether the compiler would unroll a loop depends
/// on what else the program calls, and without unrolling the function takes an eighth more instructions.
#[inline(always)]
fn sums<
    const SMALL: bool,
    const N: usize,
    const P: usize,
    const C: usize,
    const M: usize,
    const K: usize,
    I: Fn(usize, usize) -> f32,
>(
    weight: &[[[[f32; K]; K]; C]; M],
    bias: &[f32; M],
    input: impl Fn(usize) -> I,
) -> [[[[f32; N]; P]; N]; M] {
    const { assert!(K <= 7) }
    let mut sums = bias.map(|bias| [[[bias; N]; P]; N]);
    for c in 0..C {
        let input = input(c);
        for i in 0..K {
            if SMALL {
                column::<SMALL, N, P, C, M, K>(&mut sums, weight, &input, [c, i, 0]);
                column::<SMALL, N, P, C, M, K>(&mut sums, weight, &input, [c, i, 1]);
                column::<SMALL, N, P, C, M, K>(&mut sums, weight, &input, [c, i, 2]);
                column::<SMALL, N, P, C, M, K>(&mut sums, weight, &input, [c, i, 3]);
                column::<SMALL, N, P, C, M, K>(&mut sums, weight, &input, [c, i, 4]);
                column::<SMALL, N, P, C, M, K>(&mut sums, weight, &input, [c, i, 5]);
                column::<SMALL, N, P, C, M, K>(&mut sums, weight, &input, [c, i, 6]);
            } else {
                for j in 0..K {
                    column::<SMALL, N, P, C, M, K>(&mut sums, weight, &input, [c, i, j]);
                }
            }
        }
    }
    sums
}

/// Adds the products of channel `c`, row `i` and column `j` of the kernels. Does nothing if the kernels have no such column.
///
/// The order of the loops does not affect the result, only how well the compiler keeps the tile in registers. On a
/// microcontroller the best order is one map after another; on a host it is each input for all maps.
// This uses indices, because iterators over four arrays at once would hide which product is added to which sum.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn column<
    const SMALL: bool,
    const N: usize,
    const P: usize,
    const C: usize,
    const M: usize,
    const K: usize,
>(
    sums: &mut [[[[f32; N]; P]; N]; M],
    weight: &[[[[f32; K]; K]; C]; M],
    input: &impl Fn(usize, usize) -> f32,
    [c, i, j]: [usize; 3],
) {
    if j >= K {
        return;
    }
    for dy in 0..N {
        if SMALL {
            for m in 0..M {
                for p in 0..P {
                    for q in 0..N {
                        sums[m][dy][p][q] += input(dy + i, N * p + q + j) * weight[m][c][i][j];
                    }
                }
            }
        } else {
            for p in 0..P {
                for q in 0..N {
                    let input = input(dy + i, N * p + q + j);
                    for m in 0..M {
                        sums[m][dy][p][q] += input * weight[m][c][i][j];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{average_pool2d, conv2d, max_pool2d};
    use core::array::from_fn;

    /// Returns a generator of pseudorandom values in -0.5..0.5, rounded to multiples of `step`.
    fn values(step: f32) -> impl FnMut() -> f32 {
        let mut state = 1u32;
        move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = (state >> 8) as f32 / 16_777_216.0 - 0.5;
            (value / step) as i32 as f32 * step
        }
    }

    /// Compares a layer with the sequence of plain operations, bit for bit, on values from `next`. It compares both the variant
    /// for microcontrollers and that for hosts.
    macro_rules! compare {
        ($next:expr, $input:expr, $($field:ident: $value:expr),*) => {{
            #[allow(unused_imports)]
            use super::{Activation::*, Pool::*};
            #[allow(clippy::needless_update)]
            const LAYER: Layer = Spec { $($field: $value,)* ..Spec::DEFAULT }.layer("layer", $input);
            #[derive(Clone, Copy)]
            struct This;
            impl Layered for This {
                const LAYER: Layer = LAYER;
            }
            const C: usize = LAYER.input[0];
            const H: usize = LAYER.input[1];
            const W: usize = LAYER.input[2];
            const K: usize = LAYER.kernel;
            const N: usize = LAYER.pool.window();
            const M: usize = LAYER.output[0];
            const PH: usize = LAYER.output[1];
            const PW: usize = LAYER.output[2];

            let mut next = $next;
            let input: [[[f32; W]; H]; C] = from_fn(|_| from_fn(|_| from_fn(|_| next())));
            let weight: [[[[f32; K]; K]; C]; M] =
                from_fn(|_| from_fn(|_| from_fn(|_| from_fn(|_| next()))));
            let bias: [f32; M] = from_fn(|_| next());

            let mut conv = [[[0.0; N * PW]; N * PH]; M];
            conv2d(&input, &weight, &bias, &mut conv);
            let mut expected = [[[0.0; PW]; PH]; M];
            if let Pool::Average(_) = LAYER.pool {
                LAYER.activation.apply(conv.as_flattened_mut().as_flattened_mut());
                average_pool2d(&conv, &mut expected);
            } else {
                max_pool2d(&conv, &mut expected);
                LAYER.activation.apply(expected.as_flattened_mut().as_flattened_mut());
            }

            // The payload of a NaN depends on the machine.
            let bits = |x: f32| if x.is_nan() { f32::NAN } else { x }.to_bits();
            let bits = |out: [[[f32; PW]; PH]; M]| out.map(|map| map.map(|row| row.map(bits)));
            let mut out = [[[0.0; PW]; PH]; M];
            forward(This, &input, &weight, &bias, &mut out);
            assert_eq!(bits(out), bits(expected), "{LAYER:?}");

            let mut out = [[[0.0; PW]; PH]; M];
            for ((out, weight), bias) in out.chunks_mut(2).zip(weight.chunks(2)).zip(bias.chunks(2)) {
                if let (Ok(out), Ok(weight), Ok(bias)) =
                    (<&mut [_; 2]>::try_from(&mut *out), <&[_; 2]>::try_from(weight), bias.try_into())
                {
                    pool_in_registers::<_, N, 2, _, _, _, _, _, PH, PW>(This, &input, weight, bias, out);
                } else {
                    let (out, weight, bias) =
                        (from_mut(&mut out[0]), from_ref(&weight[0]), from_ref(&bias[0]));
                    pool_in_registers::<_, N, 1, _, _, _, _, _, PH, PW>(This, &input, weight, bias, out);
                }
            }
            assert_eq!(bits(out), bits(expected), "{LAYER:?}, pooled in registers");
        }};
    }

    #[test]
    fn equals_the_plain_operations_in_turn() {
        // Only full tiles, then a leftover map, a leftover column, both, and nothing but leftovers.
        compare!(values(1e-6), [1, 8, 12], maps: 2, kernel: 5, pool: Max(2), activation: Sigmoid);
        compare!(values(1e-6), [3, 6, 10], maps: 5, kernel: 3, pool: Max(2), activation: Sigmoid);
        compare!(values(1e-6), [3, 7, 9], maps: 4, kernel: 4, pool: Max(2), activation: Tanh);
        compare!(values(1e-6), [2, 6, 8], maps: 5, kernel: 3, pool: Max(2), activation: Relu);
        compare!(values(1e-6), [2, 5, 3], maps: 1, kernel: 2, pool: Max(2));
        compare!(values(1e-6), [1, 6, 16], maps: 3, kernel: 3, pool: Average(2), activation: Sigmoid);
    }

    #[test]
    fn equals_the_plain_operations_with_padding_and_other_windows() {
        compare!(values(1e-6), [1, 28, 28], maps: 6, kernel: 5, padding: 2, pool: Average(2), activation: Sigmoid);
        compare!(values(1e-6), [3, 11, 17], maps: 4, kernel: 2, padding: 1, pool: Max(3));
        compare!(values(1e-6), [3, 9, 12], maps: 7, kernel: 3, padding: 1, pool: Average(3), activation: Tanh);
        compare!(values(1e-6), [2, 5, 9], maps: 3, kernel: 7, padding: 3, activation: Relu);
        compare!(values(1e-6), [2, 5, 9], maps: 3, kernel: 7, padding: 2);
        compare!(values(1e-6), [4, 3, 26], maps: 6, kernel: 1, activation: Tanh);
        compare!(values(1e-6), [1, 1, 1], maps: 1, kernel: 1);
        compare!(values(1e-6), [1, 2, 2], maps: 2, kernel: 5, padding: 2, pool: Max(2));
        compare!(values(1e-6), [2, 6, 7], maps: 3, kernel: 6, padding: 3, activation: Sigmoid);
    }

    #[test]
    fn ties_and_zeros_of_both_signs_are_as_in_the_plain_pool() {
        compare!(values(0.5), [2, 6, 8], maps: 5, kernel: 3, pool: Max(2), activation: Sigmoid);
        compare!(values(0.25), [1, 6, 10], maps: 3, kernel: 3, pool: Max(2));
        compare!(values(0.5), [2, 9, 9], maps: 2, kernel: 3, padding: 1, pool: Max(3), activation: Relu);
    }

    #[test]
    fn infinities_and_nan_are_as_in_the_plain_operations() {
        let odd = || {
            let (mut finite, mut n) = (values(1e-6), 0);
            move || {
                n += 1;
                match n {
                    17 => f32::INFINITY,
                    80 => f32::NAN,
                    _ => finite(),
                }
            }
        };
        compare!(odd(), [2, 6, 8], maps: 5, kernel: 3, pool: Max(2), activation: Sigmoid);
        compare!(odd(), [2, 6, 8], maps: 5, kernel: 3, padding: 1, pool: Average(2), activation: Tanh);
        compare!(odd(), [2, 6, 8], maps: 5, kernel: 3, activation: Relu);
    }
}
