//! Convolution, max-pool and sigmoid in one: what the forward pass uses.
//!
//! The sigmoid is monotone, so pooling first gives the same bits and a quarter of the exponentials.
//!
//! Method: register blocking. A tile is a few maps of the output by one row by a few columns; its sums stay in registers
//! while `c`, `i`, `j` run as in the plain kernel. Every loaded input serves all maps and, as the window slides, several
//! columns; every weight serves all the tile. What is left over at an edge is done in tiles of one map or one column.
//!
//! Two maps by two columns, before the pool two rows by four columns, make sixteen sums, which fill the 32 registers of a
//! Cortex-M FPU with eight inputs and the weights; pooled there, no convolution output is stored. Hosts take three maps by
//! four columns: six sums of AVX2's eight lanes, or twelve of four, which is what their registers hold. They store the
//! convolution and then pool it in one loop, because that way both loops become vectors: pooled in registers, the compiler
//! sorts the sums by columns in the first.

use super::max_pool2d::first_max;
use super::sigmoid;
use core::array::{from_mut, from_ref};

/// `sigmoid(max_pool2d(conv2d(input, weight, bias)))`, bit for bit.
///
/// # Shapes
/// * `input`: `(C_IN, H, W)`
/// * `weight`: `(C_OUT, C_IN, K, K)`
/// * `bias`: `(C_OUT)`
/// * `out`: `(C_OUT, PH, PW)` with `PH = (H - K + 1) / 2`, `PW = (W - K + 1) / 2`, both exact; overwritten
///
/// # Numerics
/// As [`conv2d`](super::conv2d), [`max_pool2d`](super::max_pool2d) and [`sigmoid`].
///
/// # Cost
/// The multiply-adds of the convolution, one sigmoid per output; no scratch memory. Instructions on a Cortex-M4F: conv1
/// with its pool 173,566, conv2 with its pool 240,542; how measured: [`network::forward`](crate::network::forward).
#[cfg_attr(not(target_arch = "arm"), inline(always))]
pub fn conv_pool_sigmoid<
    const C_IN: usize,
    const C_OUT: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
>(
    input: &[[[f32; W]; H]; C_IN],
    weight: &[[[[f32; K]; K]; C_IN]; C_OUT],
    bias: &[f32; C_OUT],
    out: &mut [[[f32; PW]; PH]; C_OUT],
) {
    const {
        assert!(
            2 * PH + K == H + 1 && 2 * PW + K == W + 1,
            "out must be ((H-K+1)/2, (W-K+1)/2)"
        )
    }
    let (out_groups, out_rest) = out.as_chunks_mut::<MAPS>();
    let (weight_groups, weight_rest) = weight.as_chunks::<MAPS>();
    let (bias_groups, bias_rest) = bias.as_chunks::<MAPS>();
    for ((out, weight), bias) in out_groups.iter_mut().zip(weight_groups).zip(bias_groups) {
        maps(input, weight, bias, out);
    }
    for ((out, weight), bias) in out_rest.iter_mut().zip(weight_rest).zip(bias_rest) {
        maps(input, from_ref(weight), from_ref(bias), from_mut(out));
    }
}

/// Maps and columns of a tile; the result does not depend on them.
const MAPS: usize = if cfg!(target_arch = "arm") { 2 } else { 3 };
const COLUMNS: usize = if cfg!(target_arch = "arm") { 2 } else { 4 };

/// `M` maps of the output: each tile is pooled in registers.
#[cfg(target_arch = "arm")]
#[inline(always)]
fn maps<
    const C_IN: usize,
    const M: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
>(
    input: &[[[f32; W]; H]; C_IN],
    weight: &[[[[f32; K]; K]; C_IN]; M],
    bias: &[f32; M],
    out: &mut [[[f32; PW]; PH]; M],
) {
    tiles::<_, _, _, _, _, PH, PW>(input, weight, bias, |m, y, x, [top, bottom]| {
        let out = out[m][y].iter_mut().skip(x);
        for ((out, &top), &bottom) in out.zip(top).zip(bottom) {
            *out = pool_sigmoid(top, bottom);
        }
    });
}

/// `M` maps of the output: the convolution is stored, upper and lower rows of the windows apart, then pooled.
#[cfg(not(target_arch = "arm"))]
#[inline(always)]
fn maps<
    const C_IN: usize,
    const M: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
>(
    input: &[[[f32; W]; H]; C_IN],
    weight: &[[[[f32; K]; K]; C_IN]; M],
    bias: &[f32; M],
    out: &mut [[[f32; PW]; PH]; M],
) {
    let mut rows = [[[[[0.0; 2]; PW]; PH]; M]; 2];
    tiles::<_, _, _, _, _, PH, PW>(input, weight, bias, |m, y, x, tile| {
        for (rows, tile) in rows.iter_mut().zip(tile) {
            for (to, &from) in rows[m][y].iter_mut().skip(x).zip(tile) {
                *to = from;
            }
        }
    });
    let [tops, bottoms] = &rows;
    let [tops, bottoms] = [tops, bottoms].map(|rows| rows.as_flattened().as_flattened());
    let out = out.as_flattened_mut().as_flattened_mut();
    for ((out, &top), &bottom) in out.iter_mut().zip(tops).zip(bottoms) {
        *out = pool_sigmoid(top, bottom);
    }
}

/// The output of a window.
#[inline(always)]
fn pool_sigmoid(top: [f32; 2], bottom: [f32; 2]) -> f32 {
    sigmoid(first_max([top[0], top[1], bottom[0], bottom[1]]))
}

/// The convolution of `M` maps, tile by tile: `take` gets each map's part with the indices `(m, y, x)` of its first output.
#[inline(always)]
fn tiles<
    const C_IN: usize,
    const M: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
>(
    input: &[[[f32; W]; H]; C_IN],
    weight: &[[[[f32; K]; K]; C_IN]; M],
    bias: &[f32; M],
    mut take: impl FnMut(usize, usize, usize, [&[[f32; 2]]; 2]),
) {
    for y in 0..PH {
        for n in 0..PW / COLUMNS {
            tile::<COLUMNS, _, _, _, _, _>(input, weight, bias, y, COLUMNS * n, &mut take);
        }
        for x in PW - PW % COLUMNS..PW {
            tile::<1, _, _, _, _, _>(input, weight, bias, y, x, &mut take);
        }
    }
}

/// The tile of `M` maps by `P` columns from row `y`, column `x` of the output.
///
/// The order of the loops inside `j` has no effect on the result, only on how well the compiler keeps the tile in
/// registers; this one was the best of those tried.
#[inline(always)]
fn tile<
    const P: usize,
    const C_IN: usize,
    const M: usize,
    const H: usize,
    const W: usize,
    const K: usize,
>(
    input: &[[[f32; W]; H]; C_IN],
    weight: &[[[[f32; K]; K]; C_IN]; M],
    bias: &[f32; M],
    y: usize,
    x: usize,
    take: &mut impl FnMut(usize, usize, usize, [&[[f32; 2]]; 2]),
) {
    let mut sums = bias.map(|bias| [[[bias; 2]; P]; 2]);
    for c in 0..C_IN {
        for i in 0..K {
            for j in 0..K {
                for dy in 0..2 {
                    for p in 0..P {
                        for q in 0..2 {
                            let input = input[c][2 * y + dy + i][2 * (x + p) + q + j];
                            for m in 0..M {
                                sums[m][dy][p][q] += input * weight[m][c][i][j];
                            }
                        }
                    }
                }
            }
        }
    }
    for (m, [top, bottom]) in sums.iter().enumerate() {
        take(m, y, x, [top, bottom]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{conv2d, max_pool2d, sigmoid_in_place};
    use super::*;
    use core::array::from_fn;

    /// Compares with the three kernels in turn, bit for bit, on values drawn from `next`.
    fn compare<
        const C_IN: usize,
        const C_OUT: usize,
        const H: usize,
        const W: usize,
        const K: usize,
        const OH: usize,
        const OW: usize,
        const PH: usize,
        const PW: usize,
    >(
        mut next: impl FnMut() -> f32,
    ) {
        let input: [[[f32; W]; H]; C_IN] = from_fn(|_| from_fn(|_| from_fn(|_| next())));
        let weight: [[[[f32; K]; K]; C_IN]; C_OUT] =
            from_fn(|_| from_fn(|_| from_fn(|_| from_fn(|_| next()))));
        let bias: [f32; C_OUT] = from_fn(|_| next());

        let mut conv = [[[0.0; OW]; OH]; C_OUT];
        let mut expected = [[[0.0; PW]; PH]; C_OUT];
        conv2d(&input, &weight, &bias, &mut conv);
        max_pool2d(&conv, &mut expected);
        sigmoid_in_place(expected.as_flattened_mut().as_flattened_mut());

        let mut out = [[[0.0; PW]; PH]; C_OUT];
        conv_pool_sigmoid(&input, &weight, &bias, &mut out);
        // A NaN's payload is the machine's affair.
        let bits = |x: f32| if x.is_nan() { f32::NAN } else { x }.to_bits();
        let bits = |out: [[[f32; PW]; PH]; C_OUT]| out.map(|map| map.map(|row| row.map(bits)));
        assert_eq!(bits(out), bits(expected));
    }

    /// Values in -0.5..0.5 without a pattern, rounded to multiples of `step`.
    fn values(step: f32) -> impl FnMut() -> f32 {
        let mut state = 1u32;
        move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = (state >> 8) as f32 / 16_777_216.0 - 0.5;
            (value / step) as i32 as f32 * step
        }
    }

    #[test]
    fn equals_the_three_kernels_in_turn() {
        // Whole tiles, an odd last map, an odd last column, both, and nothing but those.
        compare::<1, 2, 8, 12, 5, 4, 8, 2, 4>(values(1e-6));
        compare::<3, 5, 6, 10, 3, 4, 8, 2, 4>(values(1e-6));
        compare::<3, 4, 7, 9, 4, 4, 6, 2, 3>(values(1e-6));
        compare::<2, 5, 6, 8, 3, 4, 6, 2, 3>(values(1e-6));
        compare::<2, 1, 5, 3, 2, 4, 2, 2, 1>(values(1e-6));
        compare::<1, 3, 6, 16, 3, 4, 14, 2, 7>(values(1e-6));
    }

    #[test]
    fn ties_and_zeros_of_both_signs_are_as_in_the_plain_pool() {
        compare::<2, 5, 6, 8, 3, 4, 6, 2, 3>(values(0.5));
        compare::<1, 3, 6, 10, 3, 4, 8, 2, 4>(values(0.25));
    }

    #[test]
    fn infinities_and_nan_are_as_in_the_plain_kernels() {
        let mut finite = values(1e-6);
        let mut n = 0;
        compare::<2, 5, 6, 8, 3, 4, 6, 2, 3>(|| {
            n += 1;
            match n {
                17 => f32::INFINITY,
                80 => f32::NAN,
                _ => finite(),
            }
        });
    }
}
