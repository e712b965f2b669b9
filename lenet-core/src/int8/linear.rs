//! The fully connected layer.

use super::{EXCESS, Finish, Quantized};

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
    const { super::headroom(&Q::LAYER) };
    let ones = input
        .iter()
        .fold(0u32, |sum, &q| sum.wrapping_add(q.into()));
    let excess = ones.wrapping_mul(EXCESS as u32) as i32;
    let rows = weight.iter().zip(bias).zip(finish);
    for (out, ((weight, bias), finish)) in out.iter_mut().zip(rows) {
        let sum = (dot(input, weight) as i32)
            .wrapping_sub(excess)
            .wrapping_add(*bias);
        *out = finish.finish::<Q>(sum);
    }
}

/// Returns the sum of the products.
#[inline(always)]
fn dot<const IN: usize>(input: &[u8; IN], weight: &[u8; IN]) -> u32 {
    let (inputs, input_rest) = input.as_chunks::<16>();
    let (weights, weight_rest) = weight.as_chunks::<16>();
    let mut sum = 0u32;
    for (input, weight) in inputs.iter().zip(weights) {
        for (&q, &w) in input.iter().zip(weight) {
            sum = sum.wrapping_add(u32::from(q) * u32::from(w));
        }
    }
    for (&q, &w) in input_rest.iter().zip(weight_rest) {
        sum = sum.wrapping_add(u32::from(q) * u32::from(w));
    }
    sum
}
