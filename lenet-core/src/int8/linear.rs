//! The fully connected layer.

use super::{EXCESS, Finish, LEAST_HEADROOM, Quantized, headroom};
use lenet_asm::{DSP, smlad};

/// Computes `out[o] = finish(bias[o] + Σ input[i] · (weight[o][i] - 128))`.
///
/// # Shapes
/// * `input`: `(IN)`
/// * `weight`: `(OUT, IN)`, each weight plus 128
/// * `bias`, `finish`: `(OUT)`
/// * `out`: `(OUT)`; overwritten
///
/// # Numerics
/// The sums are exact. See [`Finish`] for the rounding.
///
/// # Cost
/// `OUT · IN` multiply-adds; no scratch memory.
#[cfg_attr(not(target_os = "none"), inline(always))]
pub fn forward<Q: Quantized, const IN: usize, const OUT: usize>(
    _: Q,
    input: &[u8; IN],
    weight: &[[u8; IN]; OUT],
    bias: &[i32; OUT],
    finish: &[Q::Finish; OUT],
    out: &mut [<Q::Finish as Finish>::Out; OUT],
) {
    const { assert!(headroom(&Q::LAYER) >= LEAST_HEADROOM) };
    let ones = input
        .iter()
        .fold(0u32, |sum, &q| sum.wrapping_add(q.into()));
    let excess = ones.wrapping_mul(EXCESS as u32) as i32;
    let finished = |sum: u32, bias: i32, finish: Q::Finish| {
        finish.finish::<Q>((sum as i32).wrapping_sub(excess).wrapping_add(bias))
    };
    let (groups, rest) = weight.as_chunks::<GROUP>();
    let (bias_groups, bias_rest) = bias.as_chunks::<GROUP>();
    let (finish_groups, finish_rest) = finish.as_chunks::<GROUP>();
    let (out_groups, out_rest) = out.as_chunks_mut::<GROUP>();
    let outputs = out_groups
        .iter_mut()
        .zip(bias_groups.iter().zip(finish_groups));
    for ((out, (bias, finish)), weight) in outputs.zip(groups) {
        let sums = if DSP {
            pairs(input, weight)
        } else {
            weight.each_ref().map(|row| dot(input, row))
        };
        for (out, ((&sum, &bias), &finish)) in out.iter_mut().zip(sums.iter().zip(bias).zip(finish))
        {
            *out = finished(sum, bias, finish);
        }
    }
    let outputs = out_rest.iter_mut().zip(bias_rest.iter().zip(finish_rest));
    for ((out, (&bias, &finish)), weight) in outputs.zip(rest) {
        *out = finished(dot(input, weight), bias, finish);
    }
}

/// The number of outputs that are computed together: 4 on cores with DSP instructions.
const GROUP: usize = if DSP { 4 } else { 1 };

/// Returns the sums of products of four outputs, with two multiply-adds per instruction.
#[inline(always)]
fn pairs<const IN: usize>(input: &[u8; IN], weight: &[[u8; IN]; GROUP]) -> [u32; GROUP] {
    let halves = |word: &[u8; 4]| {
        let word = u32::from_le_bytes(*word);
        [word & 0x00ff_00ff, word >> 8 & 0x00ff_00ff]
    };
    let mut sums = [0u32; GROUP];
    let (inputs, input_rest) = input.as_chunks::<4>();
    let weights = weight.each_ref().map(|row| row.as_chunks::<4>());
    for (n, input) in inputs.iter().enumerate() {
        let [even, odd] = halves(input);
        for (sum, (row, _)) in sums.iter_mut().zip(&weights) {
            let [w_even, w_odd] = halves(&row[n]);
            *sum = smlad(w_odd, odd, smlad(w_even, even, *sum));
        }
    }
    for (sum, (_, row)) in sums.iter_mut().zip(&weights) {
        for (&q, &w) in input_rest.iter().zip(*row) {
            *sum = sum.wrapping_add(u32::from(q) * u32::from(w));
        }
    }
    sums
}

/// Returns the sum of products of one output. On a microcontroller all layers share this function.
#[cfg_attr(target_os = "none", inline(never))]
fn dot(input: &[u8], weight: &[u8]) -> u32 {
    let (inputs, input_rest) = input.as_chunks::<16>();
    let (weights, weight_rest) = weight.as_chunks::<16>();
    let sum = chunks(inputs, weights, 0);
    let (inputs, input_rest) = input_rest.as_chunks::<4>();
    let (weights, weight_rest) = weight_rest.as_chunks::<4>();
    let sum = chunks(inputs, weights, sum);
    chunks(
        input_rest.as_chunks::<1>().0,
        weight_rest.as_chunks::<1>().0,
        sum,
    )
}

/// Adds the products of all chunks to `sum`. The compiler unrolls the loop over the `N` elements of a chunk.
#[inline(always)]
fn chunks<const N: usize>(inputs: &[[u8; N]], weights: &[[u8; N]], mut sum: u32) -> u32 {
    for (input, weight) in inputs.iter().zip(weights) {
        for (&q, &w) in input.iter().zip(weight) {
            sum = sum.wrapping_add(u32::from(q) * u32::from(w));
        }
    }
    sum
}
