//! Checks sigmoid, tanh and ReLU for all 2³² floats: their range, monotonicity, treatment of NaN, and error. From this it follows
//! that max-pooling may come before the activation, which is checked too.
//!
//! The errors are measured against `1 / (1 + exp(-x))` and `tanh(x)` in f64 with the functions of the standard library, whose own
//! error is about 2⁻⁵². Most floats are very small or very large. For these, one or two terms of a series or a constant are close
//! enough, and take less time.

use lenet_core::ops::{Activation, max_pool2d};
use rayon::prelude::*;
use std::array::from_fn;

/// The bounds that the documentation of a function states.
struct Bounds {
    activation: Activation,
    exact: fn(f64) -> f64,
    /// The range of all values.
    range: [f32; 2],
    /// The largest absolute error.
    error: f64,
    /// The largest error in units in the last place of the exact value, if that is a normal number.
    ulp: f64,
}

const BOUNDS: [Bounds; 3] = [
    Bounds {
        activation: Activation::Sigmoid,
        exact: exact_sigmoid,
        range: [0.0, 1.0],
        // The largest error, 8.931e-8, is at 7.859211.
        error: 9e-8,
        // The largest error, 2.481, is at -16.635704.
        ulp: 2.5,
    },
    Bounds {
        activation: Activation::Tanh,
        exact: exact_tanh,
        range: [-1.0, 1.0],
        error: 1.5e-7,
        ulp: 2.5,
    },
    Bounds {
        activation: Activation::Relu,
        exact: |x| x.max(0.0),
        range: [0.0, f32::INFINITY],
        error: 0.0,
        ulp: 0.0,
    },
];

/// Below this magnitude, the next term of either series is less than 2⁻⁵⁴ of the last one used.
const NEAR_ZERO: f64 = 1.0 / (1u32 << 27) as f64;
/// Above this magnitude, both functions differ from a constant by less than 2⁻¹⁸⁴.
const FAR: f64 = 128.0;

fn exact_sigmoid(x: f64) -> f64 {
    if x.abs() < NEAR_ZERO {
        0.5 + x / 4.0
    } else if x.abs() > FAR {
        f64::from(x > 0.0)
    } else {
        1.0 / (1.0 + (-x).exp())
    }
}

fn exact_tanh(x: f64) -> f64 {
    if x.abs() < NEAR_ZERO {
        x
    } else if x.abs() > FAR {
        x.signum()
    } else {
        x.tanh()
    }
}

/// The bits of -inf and of inf. All floats except NaN lie between them.
const NEG_INFINITY: u32 = f32::NEG_INFINITY.to_bits();
const INFINITY: u32 = f32::INFINITY.to_bits();
/// The number of floats of each sign, including zero and infinity.
const PER_SIGN: u32 = INFINITY + 1;

/// Returns float number `index` in ascending order, starting with -inf; -0 comes before 0.
fn ascending(index: u32) -> f32 {
    f32::from_bits(match index.checked_sub(PER_SIGN) {
        None => NEG_INFINITY - index,
        Some(positive) => positive,
    })
}

/// Returns the spacing of the normal f32 numbers around `value`.
fn ulp(value: f64) -> f64 {
    f64::from_bits(value.to_bits() & f64::INFINITY.to_bits()) * f64::from(f32::EPSILON)
}

fn check(bounds: &Bounds) {
    let &Bounds {
        activation,
        exact,
        range: [low, high],
        ..
    } = bounds;
    const CHUNK: u32 = 1 << 12;
    let errors = (0..(2 * PER_SIGN).div_ceil(CHUNK))
        .into_par_iter()
        .with_min_len(256)
        .map(|n| {
            // Chunks overlap by one, so that each pair of neighbours belongs to one of them.
            let indices = n * CHUNK..=(n * CHUNK + CHUNK).min(2 * PER_SIGN - 1);
            let mut values = [0.0; CHUNK as usize + 1];
            let values = &mut values[..indices.clone().count()];
            for (value, x) in values.iter_mut().zip(indices.clone().map(ascending)) {
                *value = x;
            }
            activation.apply(values);
            let [first, .., last] = *values else {
                unreachable!("a chunk and its neighbour")
            };
            let pairs = values.iter().zip(&values[1..]);
            let ascends = pairs.fold(low <= first && last <= high, |so_far, (a, b)| {
                so_far & (a <= b)
            });
            let x = |i: usize| ascending(n * CHUNK + i as u32);
            assert!(
                ascends,
                "{activation:?}: not monotone, or out of range, between {:e} and {:e}",
                x(0),
                x(values.len() - 1)
            );

            // Where all values of a chunk are equal, it is enough to check its two ends. The exact function is monotone, too, so it is
            // furthest from the common value at an end, and its sign does not change. So the error in ulp is at most the larger
            // error divided by the smaller ulp.
            let ends = [0, values.len() - 1];
            let (step, most_precise) = if first == last {
                let ulps = ends.map(|end| ulp(exact(f64::from(x(end)))));
                (ends[1], ulps[0].min(ulps[1]))
            } else {
                (1, f64::INFINITY)
            };
            let (mut error, mut error_ulp) = ((0.0, 0.0), (0.0, 0.0));
            for (i, &y) in values.iter().enumerate().step_by(step) {
                let x = x(i);
                let exact = exact(f64::from(x));
                if exact.is_infinite() {
                    assert!(y.is_infinite());
                    continue;
                }
                let difference = (f64::from(y) - exact).abs();
                if difference > error.0 {
                    error = (difference, x);
                }
                let ulp = ulp(exact).min(most_precise);
                if exact.abs() < f64::from(f32::MIN_POSITIVE) {
                    assert!(
                        y.abs() <= f32::MIN_POSITIVE,
                        "{activation:?} of {x:e} is {y:e}, exactly {exact:e}"
                    );
                } else if difference > error_ulp.0 * ulp {
                    error_ulp = (difference / ulp, x);
                }
            }
            (error, error_ulp)
        });
    let largest = |a: (f64, f32), b: (f64, f32)| if b.0 > a.0 { b } else { a };
    let (error, error_ulp) = errors.reduce(Default::default, |a, b| {
        (largest(a.0, b.0), largest(a.1, b.1))
    });
    println!("{activation:?}: largest error {error:?}, in ulp {error_ulp:?}");
    assert!(error.0 <= bounds.error, "{activation:?}: {error:?}");
    assert!(error_ulp.0 <= bounds.ulp, "{activation:?}: {error_ulp:?}");
}

#[test]
#[ignore = "takes minutes: every float there is; ci.sh runs it"]
fn monotone_in_range_and_close_to_f64_on_every_float() {
    BOUNDS.iter().for_each(check);
}

#[test]
#[ignore = "takes a minute: every float there is; ci.sh runs it"]
fn the_sigmoid_has_the_bits_of_libm_on_every_float() {
    const CHUNK: usize = 1 << 12;
    let chunks = (0..1_u32 << 20).into_par_iter().with_min_len(256);
    chunks.for_each(|chunk| {
        let x: [f32; CHUNK] = from_fn(|i| f32::from_bits(chunk * CHUNK as u32 + i as u32));
        let mut values = x;
        Activation::Sigmoid.apply(&mut values);
        for (x, value) in x.into_iter().zip(values) {
            let libm = 1.0 / (1.0 + libm::expf(-x));
            assert!(
                x.is_nan() || value.to_bits() == libm.to_bits(),
                "{x:e}: {value:e} {libm:e}"
            );
        }
        // `of` computes a single value, perhaps with other instructions than `apply`. This checks one float in 31, at positions
        // that change from chunk to chunk.
        for x in x.into_iter().skip(chunk as usize % 31).step_by(31) {
            let (one, libm) = (Activation::Sigmoid.of(x), 1.0 / (1.0 + libm::expf(-x)));
            assert!(
                x.is_nan() || one.to_bits() == libm.to_bits(),
                "{x:e} alone: {one:e} {libm:e}"
            );
        }
    });
}

#[test]
#[ignore = "takes a minute: every float there is; ci.sh runs it"]
fn nan_stays_nan() {
    (INFINITY + 1..=u32::MAX >> 1)
        .into_par_iter()
        .for_each(|bits| {
            let nan = f32::from_bits(bits);
            for Bounds { activation, .. } in &BOUNDS {
                assert!(
                    activation.of(nan).is_nan() && activation.of(-nan).is_nan(),
                    "{bits:#x}"
                );
            }
        });
}

#[test]
fn tanh_is_odd() {
    for bits in (0..INFINITY).step_by(4099) {
        let x = f32::from_bits(bits);
        let [plus, minus] = [x, -x].map(|x| Activation::Tanh.of(x));
        assert_eq!(plus.to_bits(), (-minus).to_bits(), "{x:e}");
    }
}

#[test]
fn pool_before_activation_is_activation_before_pool() {
    // Windows with many equal values, with zeros of both signs, and with values of any magnitude.
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
        for Bounds { activation, .. } in &BOUNDS {
            let mut pool_first = [[[0.0; 4]; 3]; 2];
            max_pool2d(&input, &mut pool_first);
            activation.apply(pool_first.as_flattened_mut().as_flattened_mut());

            let mut activated = input;
            activation.apply(activated.as_flattened_mut().as_flattened_mut());
            let mut pool_last = [[[0.0; 4]; 3]; 2];
            max_pool2d(&activated, &mut pool_last);

            assert_eq!(
                pool_first, pool_last,
                "{activation:?}, round {round}: {input:?}"
            );
        }
    }
}
