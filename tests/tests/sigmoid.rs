//! The sigmoid over all 2³² floats: range, monotone, NaN, error against f64, the bits of boards; and what follows for the pool.
//!
//! The reference is `1 / (1 + exp(-x))` in f64 with the standard library's `exp`, whose own error is some 2⁻⁵².

use lenet_core::ops::{max_pool2d, sigmoid, sigmoid_in_place};
use rayon::prelude::*;
use std::array::from_fn;

/// Bound of the absolute error, stated in the doc of `sigmoid`; the largest, 8.931e-8, is at 7.859211.
const MAX_ERROR: f64 = 9e-8;
/// Bound of the error in units in the last place of the exact value, where that is a normal number; the largest, 2.481, is
/// at -16.635704.
const MAX_ULP: f64 = 2.5;

/// Bits of -inf and of inf: from one to the other in order of value are all floats but NaN.
const NEG_INFINITY: u32 = f32::NEG_INFINITY.to_bits();
const INFINITY: u32 = f32::INFINITY.to_bits();
/// How many floats there are of either sign, zero and infinity included.
const PER_SIGN: u32 = INFINITY + 1;

/// The `index`th float in order of value, from -inf; -0 comes before 0.
fn ascending(index: u32) -> f32 {
    f32::from_bits(match index.checked_sub(PER_SIGN) {
        None => NEG_INFINITY - index,
        Some(positive) => positive,
    })
}

/// Spacing of the normal f32 numbers around `value`.
fn ulp(value: f64) -> f64 {
    f64::from_bits(value.to_bits() & f64::INFINITY.to_bits()) * f64::from(f32::EPSILON)
}

#[test]
#[ignore = "takes a minute: every float there is; ci.sh runs it"]
fn monotone_within_0_and_1_the_boards_bits_and_close_to_f64_on_every_float() {
    const CHUNK: u32 = 1 << 20;
    let errors = (0..(2 * PER_SIGN).div_ceil(CHUNK))
        .into_par_iter()
        .map(|n| {
            // Chunks overlap by one, so that each neighbouring pair falls into one of them.
            let indices = n * CHUNK..=(n * CHUNK + CHUNK).min(2 * PER_SIGN - 1);
            let (mut below, mut error, mut error_ulp) = (0.0, (0.0, 0.0), (0.0, 0.0));
            for x in indices.map(ascending) {
                let y = sigmoid(x);
                assert!(
                    below <= y && y <= 1.0,
                    "sigmoid({x:e}) = {y:e} after {below:e}"
                );
                below = y;

                // What a Cortex-M computes.
                let board = 1.0 / (1.0 + libm::expf(-x));
                assert_eq!(y.to_bits(), board.to_bits(), "{x:e}: {y:e} {board:e}");

                let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
                let difference = (f64::from(y) - exact).abs();
                if difference > error.0 {
                    error = (difference, x);
                }
                if exact < f64::from(f32::MIN_POSITIVE) {
                    assert!(
                        y <= f32::MIN_POSITIVE,
                        "sigmoid({x:e}) = {y:e}, exactly {exact:e}"
                    );
                } else if difference > error_ulp.0 * ulp(exact) {
                    error_ulp = (difference / ulp(exact), x);
                }
            }
            (error, error_ulp)
        });
    let largest = |a: (f64, f32), b: (f64, f32)| if b.0 > a.0 { b } else { a };
    let (error, error_ulp) = errors.reduce(Default::default, |a, b| {
        (largest(a.0, b.0), largest(a.1, b.1))
    });
    println!("largest error {error:?}, in ulp {error_ulp:?}");
    assert!(error.0 <= MAX_ERROR, "{error:?}");
    assert!(error_ulp.0 <= MAX_ULP, "{error_ulp:?}");
}

#[test]
#[ignore = "takes a minute: every float there is; ci.sh runs it"]
fn nan_stays_nan() {
    for bits in INFINITY + 1..=u32::MAX >> 1 {
        let nan = f32::from_bits(bits);
        assert!(sigmoid(nan).is_nan() && sigmoid(-nan).is_nan(), "{bits:#x}");
    }
}

#[test]
fn pool_before_sigmoid_is_sigmoid_before_pool() {
    // Windows of values that are often equal, of zeros of both signs, and of any magnitude.
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let value = (state >> 8) as f32 / 8_388_608.0 - 1.0;
        match state >> 30 {
            0 => (2.0 * value).round() / 2.0,
            1 => 1e-7 * value,
            2 => 30.0 * value,
            _ => 1.0 + 1e-7 * (8.0 * value).round(),
        }
    };
    for round in 0..10_000 {
        let input: [[[f32; 8]; 6]; 2] = from_fn(|_| from_fn(|_| from_fn(|_| next())));
        let mut pool_first = [[[0.0; 4]; 3]; 2];
        max_pool2d(&input, &mut pool_first);
        sigmoid_in_place(pool_first.as_flattened_mut().as_flattened_mut());

        let mut activated = input;
        sigmoid_in_place(activated.as_flattened_mut().as_flattened_mut());
        let mut pool_last = [[[0.0; 4]; 3]; 2];
        max_pool2d(&activated, &mut pool_last);

        let bits = |out: [[[f32; 4]; 3]; 2]| out.map(|map| map.map(|row| row.map(f32::to_bits)));
        assert_eq!(
            bits(pool_first),
            bits(pool_last),
            "round {round}: {input:?}"
        );
    }
}
