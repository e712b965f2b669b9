//! Winograd's algorithm for kernels with five taps: 8 multiplications instead of the definition's 20.
//!
//! The page "Winograd's algorithm, by example" of the book (`docs/src/winograd.md`) introduces it with small numbers.
//!
//! Four neighbouring outputs of a filter with five taps are four coefficients of a product of polynomials. The algorithm finds
//! them from the product's values at eight points instead of from the factors' coefficients (Winograd: Arithmetic complexity of
//! computations, 1980; Lavin and Gray: Fast algorithms for convolutional neural networks, 2016). The points are 0, 1, -1, 2, -2,
//! 1/2, -1/2 and infinity:
//!
//! ```text
//! values of the input     d: the eight inputs of four outputs -> one value at each point
//! values of the kernel    g: five taps                        -> one value at each point, once per step
//! product                 m = Σ d · g over the input's channels and the kernel's rows, at each point
//! outputs                 m0 + (m1 + m2) +      (m3 + m4) +       (m5 + m6)
//!                              (m1 - m2) + 2    (m3 - m4) + 1/2   (m5 - m6)
//!                              (m1 + m2) + 4    (m3 + m4) + 1/4   (m5 + m6)
//!                         m7 + (m1 - m2) + 8    (m3 - m4) + 1/8   (m5 - m6)
//! ```
//!
//! Along rows only, this saves 12 of 20 multiplications. Along rows and columns, 64 multiplications replace 400
//! ([`tiles`](super::tiles)).
//!
//! # Numerics
//! The algorithm rounds more than the definition does. In LeNet, the first convolution, along rows, has a root mean square error of
//! 6e-8 instead of 2e-8. The second, along both sides, has 2.5e-7 instead of 1.0e-7, for sums of about 0.4 (images of noise).
//!
//! Some ties of the definition stay exact ties. If the inputs of a tile do not change along a row, their values at all points but 1
//! are exactly zero, so the outputs of the row are equal; the same holds along columns. A pool over a flat part of an image
//! therefore takes the first of its equal values, as it should. Other ties are not kept: if different inputs give two equal sums
//! by the definition, the two sums can differ here by a rounding error, and another position may win the pool.
//!
//! # Backward pass
//! The backward pass takes the same steps transposed, from last to first. The gradient of the outputs gives that of the
//! products. Multiplied by the kernels, this gives the gradient of the values, and so of the input; multiplied by the values,
//! that of the kernels.

use super::simd::{Lanewise, load_all, store_all};

/// The side length of the kernels.
pub(super) const K: usize = 5;

/// The number of outputs computed together.
pub(super) const OUTPUTS: usize = 4;

/// The number of points of evaluation, which is that of the inputs of `OUTPUTS` outputs.
pub(super) const POINTS: usize = OUTPUTS + K - 1;

/// Computes `a * b + c`, rounded once.
#[inline(always)]
fn mul_add<const N: usize, S: Lanewise<N>>(s: S, a: f32, b: S::V, c: S::V) -> S::V {
    s.mul_add(s.splat(a), b, c)
}

/// Computes the values at the points from inputs in a row.
#[inline(always)]
pub(super) fn values<const N: usize, S: Lanewise<N>>(
    s: S,
    input: [S::V; POINTS],
) -> [S::V; POINTS] {
    let [d0, d1, d2, d3, d4, d5, d6, d7] = input;
    let (d2_d4, d6_d4) = (s.sub(d2, d4), s.sub(d6, d4));
    let (d1_d3, d5_d3) = (s.sub(d1, d3), s.sub(d5, d3));
    let at_1 = [
        mul_add(s, -4.25, d4, s.add(d2, d6)),
        mul_add(s, -4.25, d3, s.add(d1, d5)),
    ];
    let at_2 = [
        mul_add(s, 0.25, d2_d4, d6_d4),
        mul_add(s, 0.25, d1_d3, d5_d3),
    ];
    let at_half = [mul_add(s, 4.0, d2_d4, d6_d4), mul_add(s, 4.0, d1_d3, d5_d3)];
    [
        mul_add(s, -5.25, d2_d4, s.sub(d0, d6)),
        s.add(at_1[0], at_1[1]),
        s.sub(at_1[0], at_1[1]),
        mul_add(s, 2.0, at_2[1], at_2[0]),
        mul_add(s, -2.0, at_2[1], at_2[0]),
        mul_add(s, 0.5, at_half[1], at_half[0]),
        mul_add(s, -0.5, at_half[1], at_half[0]),
        mul_add(s, -5.25, d5_d3, s.sub(d7, d1)),
    ]
}

/// Computes the outputs from their products.
#[inline(always)]
pub(super) fn outputs<const N: usize, S: Lanewise<N>>(
    s: S,
    products: [S::V; POINTS],
) -> [S::V; OUTPUTS] {
    let [m0, m1, m2, m3, m4, m5, m6, m7] = products;
    let (even1, odd1) = (s.add(m1, m2), s.sub(m1, m2));
    let (even2, odd2) = (s.add(m3, m4), s.sub(m3, m4));
    let (even3, odd3) = (s.add(m5, m6), s.sub(m5, m6));
    [
        s.add(s.add(m0, even1), s.add(even2, even3)),
        mul_add(s, 0.5, odd3, mul_add(s, 2.0, odd2, odd1)),
        mul_add(s, 0.25, even3, mul_add(s, 4.0, even2, even1)),
        mul_add(s, 0.125, odd3, mul_add(s, 8.0, odd2, s.add(m7, odd1))),
    ]
}

/// Computes the gradient of the products from that of the outputs: [`outputs`] transposed.
#[inline(always)]
pub(super) fn products_grad<const N: usize, S: Lanewise<N>>(
    s: S,
    [g0, g1, g2, g3]: [S::V; OUTPUTS],
) -> [S::V; POINTS] {
    let (even1, odd1) = (s.add(g0, g2), s.add(g1, g3));
    let (even2, odd2) = (mul_add(s, 4.0, g2, g0), mul_add(s, 4.0, g3, g1));
    let (even3, odd3) = (mul_add(s, 0.25, g2, g0), mul_add(s, 0.25, g3, g1));
    [
        g0,
        s.add(even1, odd1),
        s.sub(even1, odd1),
        mul_add(s, 2.0, odd2, even2),
        mul_add(s, -2.0, odd2, even2),
        mul_add(s, 0.5, odd3, even3),
        mul_add(s, -0.5, odd3, even3),
        g3,
    ]
}

/// Computes the gradient of the inputs from that of their values: [`values`] transposed.
#[inline(always)]
pub(super) fn input_grad<const N: usize, S: Lanewise<N>>(
    s: S,
    grad: [S::V; POINTS],
) -> [S::V; POINTS] {
    let [g0, g1, g2, g3, g4, g5, g6, g7] = grad;
    let (even1, odd1) = (s.add(g1, g2), s.sub(g1, g2));
    let (even2, odd2) = (s.add(g3, g4), s.mul(s.splat(2.0), s.sub(g3, g4)));
    let (even3, odd3) = (s.add(g5, g6), s.mul(s.splat(0.5), s.sub(g5, g6)));
    [
        g0,
        mul_add(s, 4.0, odd3, mul_add(s, 0.25, odd2, s.sub(odd1, g7))),
        mul_add(
            s,
            -5.25,
            g0,
            mul_add(s, 4.0, even3, mul_add(s, 0.25, even2, even1)),
        ),
        mul_add(
            s,
            -5.0,
            odd3,
            mul_add(
                s,
                -1.25,
                odd2,
                mul_add(s, -4.25, odd1, s.mul(s.splat(5.25), g7)),
            ),
        ),
        mul_add(
            s,
            -5.0,
            even3,
            mul_add(
                s,
                -1.25,
                even2,
                mul_add(s, -4.25, even1, s.mul(s.splat(5.25), g0)),
            ),
        ),
        mul_add(s, -5.25, g7, s.add(s.add(odd1, odd2), odd3)),
        s.add(s.add(even1, even2), s.sub(even3, g0)),
        g7,
    ]
}

/// Computes the values at the points from inputs in a row.
#[inline(always)]
pub(super) fn evaluate<const N: usize, S: Lanewise<N>>(
    s: S,
    inputs: [&[f32; N]; POINTS],
    to: [&mut [f32; N]; POINTS],
) {
    store_all(s, values(s, load_all(s, inputs)), to);
}

/// Computes the outputs in a row from their products at the points.
#[inline(always)]
pub(super) fn interpolate<const N: usize, S: Lanewise<N>>(
    s: S,
    products: [&[f32; N]; POINTS],
    to: [&mut [f32; N]; OUTPUTS],
) {
    store_all(s, outputs(s, load_all(s, products)), to);
}

/// Computes the gradient of the products from that of outputs in a row.
#[inline(always)]
pub(super) fn interpolate_grad<const N: usize, S: Lanewise<N>>(
    s: S,
    outputs: [&[f32; N]; OUTPUTS],
    to: [&mut [f32; N]; POINTS],
) {
    store_all(s, products_grad(s, load_all(s, outputs)), to);
}

/// Computes the gradient of inputs in a row from that of their values, and adds it to the first `shared` of them.
#[inline(always)]
pub(super) fn evaluate_grad<const N: usize, S: Lanewise<N>>(
    s: S,
    values: [&[f32; N]; POINTS],
    shared: usize,
    to: [&mut [f32; N]; POINTS],
) {
    let mut grad = input_grad(s, load_all(s, values));
    for (grad, to) in grad.iter_mut().zip(&to).take(shared) {
        *grad = s.add(s.load(to), *grad);
    }
    store_all(s, grad, to);
}

/// The factors of a kernel's values at ±x, for each x other than zero. With them, an output is a sum over the points of
/// products times powers of x.
const PAIRS: [(f64, f64); 3] = [(1.0, -2.0 / 9.0), (2.0, 1.0 / 90.0), (0.5, 32.0 / 45.0)];

/// Evaluates kernels in a row at each point, several at once.
#[inline(always)]
pub(super) fn at_points<const N: usize>(taps: &[[f64; N]; K]) -> [[f64; N]; POINTS] {
    let mut values = [[0.0; N]; POINTS];
    (values[0], values[POINTS - 1]) = (taps[0], taps[K - 1]);
    for (pair, (x, scale)) in PAIRS.into_iter().enumerate() {
        for n in 0..N {
            let [t0, t1, t2, t3, t4] = [0, 1, 2, 3, 4].map(|k| taps[k][n]);
            let (even, odd) = (t0 + x * x * (t2 + x * x * t4), x * (t1 + x * x * t3));
            values[2 * pair + 1][n] = (even + odd) * scale;
            values[2 * pair + 2][n] = (even - odd) * scale;
        }
    }
    values
}

/// Computes the gradient of kernels in a row from that of their values at each point: [`at_points`] transposed.
#[inline(always)]
pub(super) fn at_points_grad<const N: usize>(grad: &[[f64; N]; POINTS]) -> [[f64; N]; K] {
    let mut taps = [[0.0; N]; K];
    (taps[0], taps[K - 1]) = (grad[0], grad[POINTS - 1]);
    for (pair, (x, scale)) in PAIRS.into_iter().enumerate() {
        for n in 0..N {
            let (plus, minus) = (grad[2 * pair + 1][n], grad[2 * pair + 2][n]);
            let (even, odd) = ((plus + minus) * scale, x * ((plus - minus) * scale));
            taps[0][n] += even;
            taps[1][n] += odd;
            taps[2][n] += x * x * even;
            taps[3][n] += x * x * odd;
            taps[4][n] += x * x * x * x * even;
        }
    }
    taps
}
