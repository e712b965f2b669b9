//! Sums of products along a row by Winograd's algorithm: eight products where the definition has twenty.
//!
//! Four outputs side by side of a filter with five taps are four coefficients of a product of polynomials, found from its
//! values at eight points instead of from its coefficients (Winograd: Arithmetic complexity of computations, 1980; Lavin
//! and Gray: Fast algorithms for convolutional neural networks, 2016). For the points 0, 1, -1, 2, -2, 1/2, -1/2 and
//! infinity:
//!
//! ```text
//! values of the input     d: the eight that four outputs read -> one at each point
//! values of the kernel    g: five taps                        -> one at each point, once a step
//! product                 m = Σ d · g over the kernel's rows and the input's channels, at each point
//! outputs                 m0 + (m1 + m2) +      (m3 + m4) +       (m5 + m6)
//!                              (m1 - m2) + 2    (m3 - m4) + 1/2   (m5 - m6)
//!                              (m1 + m2) + 4    (m3 + m4) + 1/4   (m5 + m6)
//!                         m7 + (m1 - m2) + 8    (m3 - m4) + 1/8   (m5 - m6)
//! ```
//!
//! The sums are a fifth as long as those of the definition, so that conv2's are no less exact; conv1's, short as they are,
//! round to 6e-8 for 2e-8 (root mean squares of noise). Equal inputs still give equal outputs: of a row that does not
//! change from column to column, all values but the one at 1 are exactly zero, so that a pool's ties stay ties.
//!
//! The way back to the input takes the same steps transposed, from last to first: from the outputs' gradient to the
//! products', from there by the kernels to the values', and to the input's.

use super::simd::Lanewise;
use lenet_core::arch::K;

/// Outputs that are found together.
pub(super) const OUTPUTS: usize = 4;

/// Points of evaluation: as many as the outputs have inputs.
pub(super) const POINTS: usize = OUTPUTS + K - 1;

/// The kernels at each point, `(POINTS, OUT, IN, K)`: made by [`kernels`].
pub(super) type Kernels<const IN: usize, const OUT: usize> = [[[[f32; K]; IN]; OUT]; POINTS];

/// `a * b + c`, rounded once.
#[inline(always)]
fn mul_add<const N: usize, S: Lanewise<N>>(s: S, a: f32, b: S::V, c: S::V) -> S::V {
    s.mul_add(s.splat(a), b, c)
}

/// The values at the points of inputs in a row.
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

/// The outputs from their products, with the bias.
#[inline(always)]
pub(super) fn outputs<const N: usize, S: Lanewise<N>>(
    s: S,
    products: [S::V; POINTS],
    bias: S::V,
) -> [S::V; OUTPUTS] {
    let [m0, m1, m2, m3, m4, m5, m6, m7] = products;
    let m1 = s.add(m1, bias);
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

/// The gradient by the products from that by the outputs: [`outputs`] transposed.
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

/// The gradient by the inputs from that by their values: [`values`] transposed.
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

/// The kernels at each point, times `scale`: in f64, rounded once.
pub(super) fn kernels<const IN: usize, const OUT: usize>(
    weight: &[[[[f32; K]; K]; IN]; OUT],
    scale: f64,
    out: &mut Kernels<IN, OUT>,
) {
    for (o, weight) in weight.iter().enumerate() {
        for (c, weight) in weight.iter().enumerate() {
            for (i, taps) in weight.iter().enumerate() {
                let taps = taps.map(|tap| f64::from(tap) * scale);
                let at = |x: f64| taps.iter().rev().fold(0.0, |sum, tap| sum * x + tap);
                let values = [
                    taps[0],
                    at(1.0) * (-2.0 / 9.0),
                    at(-1.0) * (-2.0 / 9.0),
                    at(2.0) / 90.0,
                    at(-2.0) / 90.0,
                    at(0.5) * (32.0 / 45.0),
                    at(-0.5) * (32.0 / 45.0),
                    taps[K - 1],
                ];
                for (value, out) in values.into_iter().zip(&mut *out) {
                    out[o][c][i] = value as f32;
                }
            }
        }
    }
}
