//! The fully connected layer.
//!
//! On a microcontroller the function holds 24 inputs at a time in registers. It adds their products, in order, to the sum of
//! each output in turn and keeps the sums in `out`. It reads the weight row by row, so one pointer suffices. On hosts the lanes
//! of a vector hold eight outputs, and blocks of eight rows by eight inputs are transposed in registers.

use super::SMALL;
use core::array::{from_mut, from_ref};

/// Computes `out[o] = bias[o] + Σ input[i] · weight[o][i]`.
///
/// # Shapes
/// * `input`: `(IN)`
/// * `weight`: `(OUT, IN)`
/// * `bias`: `(OUT)`
/// * `out`: `(OUT)`; overwritten
///
/// # Numerics
/// Computes in f32. The sum starts from the bias and adds its terms in ascending order of `i`, without fused multiply-add. The
/// error is at most `γ·(|bias| + Σ|input·weight|)`, with `γ ≈ (IN + 1)·2⁻²⁴`. NaN and infinity propagate.
///
/// # Cost
/// `OUT·IN` multiply-adds; no scratch memory.
///
/// # Source
/// The same definition as `torch.nn.Linear`.
#[cfg_attr(not(target_os = "none"), inline(always))]
pub fn linear<const IN: usize, const OUT: usize>(
    input: &[f32; IN],
    weight: &[[f32; IN]; OUT],
    bias: &[f32; OUT],
    out: &mut [f32; OUT],
) {
    *out = *bias;
    if SMALL {
        by_chunks(input, weight, out);
    } else {
        by_lanes(input, weight, out);
    }
}

/// The number of inputs that a microcontroller holds in registers. If there are fewer, the compiler unrolls the loop over the
/// outputs, which needs more registers than there are.
const CHUNK: usize = 24;

/// Adds all products to `out`: one chunk of the inputs for every output, then the next chunk.
#[inline(always)]
fn by_chunks<const IN: usize, const OUT: usize>(
    input: &[f32; IN],
    weight: &[[f32; IN]; OUT],
    out: &mut [f32; OUT],
) {
    let (chunks, rest) = input.as_chunks::<CHUNK>();
    for (n, chunk) in chunks.iter().enumerate() {
        add_products(chunk, CHUNK * n, weight, out);
    }
    add_products(rest, IN - rest.len(), weight, out);
}

/// Adds all products to `out`: all inputs for eight outputs, then for the next eight.
#[inline(always)]
fn by_lanes<const IN: usize, const OUT: usize>(
    input: &[f32; IN],
    weight: &[[f32; IN]; OUT],
    out: &mut [f32; OUT],
) {
    let (out_groups, out_rest) = out.as_chunks_mut::<8>();
    let (weight_groups, weight_rest) = weight.as_chunks::<8>();
    for (out, weight) in out_groups.iter_mut().zip(weight_groups) {
        add_all_products(input, weight, out);
    }
    for (out, weight) in out_rest.iter_mut().zip(weight_rest) {
        add_all_products(input, from_ref(weight), from_mut(out));
    }
}

/// Adds the products of `input`, which starts at index `start` of all inputs, to every output.
#[inline(always)]
fn add_products<const IN: usize, const OUT: usize>(
    input: &[f32],
    start: usize,
    weight: &[[f32; IN]; OUT],
    out: &mut [f32; OUT],
) {
    for (out, weight) in out.iter_mut().zip(weight) {
        for (&input, &weight) in input.iter().zip(&weight[start..]) {
            *out += input * weight;
        }
    }
}

/// Adds the products of all inputs to `M` outputs at once.
#[inline(always)]
fn add_all_products<const IN: usize, const M: usize>(
    input: &[f32; IN],
    weight: &[[f32; IN]; M],
    out: &mut [f32; M],
) {
    let mut sums = *out;
    let mut add = |i: usize| {
        for (sum, weight) in sums.iter_mut().zip(weight) {
            *sum += input[i] * weight[i];
        }
    };
    for n in 0..IN / 8 {
        for i in 8 * n..8 * n + 8 {
            add(i);
        }
    }
    for i in IN - IN % 8..IN {
        add(i);
    }
    *out = sums;
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::array::from_fn;

    #[test]
    fn rows_of_the_weight_are_outputs() {
        let mut out = [0.0; 3];
        linear(
            &[1.0, 10.0],
            &[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
            &[0.0, 0.5, 0.0],
            &mut out,
        );
        assert_eq!(out, [21.0, 43.5, 65.0]);
    }

    #[test]
    fn the_sum_starts_from_the_bias() {
        // 1 + 2^24 - 2^24 is 0 or 1, depending on the order of the terms. Starting from the bias it is 0.
        let mut out = [0.0];
        linear(
            &[1.0, 1.0],
            &[[16_777_216.0, -16_777_216.0]],
            &[1.0],
            &mut out,
        );
        assert_eq!(out, [0.0]);
    }

    /// Compares both variants with the definition, bit for bit.
    fn compare<const IN: usize, const OUT: usize>() {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 16_777_216.0 - 0.5
        };
        let input: [f32; IN] = from_fn(|_| next());
        let weight: [[f32; IN]; OUT] = from_fn(|_| from_fn(|_| next()));
        let bias: [f32; OUT] = from_fn(|_| next());
        let expected: [f32; OUT] = from_fn(|o| {
            let mut sum = bias[o];
            for i in 0..IN {
                sum += input[i] * weight[o][i];
            }
            sum
        });
        let bits = |out: [f32; OUT]| out.map(f32::to_bits);
        let mut out = [0.0; OUT];
        linear(&input, &weight, &bias, &mut out);
        assert_eq!(bits(out), bits(expected));
        let mut out = bias;
        by_chunks(&input, &weight, &mut out);
        assert_eq!(bits(out), bits(expected));
        let mut out = bias;
        by_lanes(&input, &weight, &mut out);
        assert_eq!(bits(out), bits(expected));
    }

    #[test]
    fn equals_the_definition() {
        // Fewer inputs than a chunk, whole chunks, and a remainder.
        compare::<0, 2>();
        compare::<7, 3>();
        compare::<32, 1>();
        compare::<84, 10>();
        compare::<55, 13>();
    }
}
