//! Every kernel of `lenet_core` against the oracle, by kinds of input, on odd and unequal shapes, within bounds
//! derived from the number of roundings; the fused kernel against the plain ones bit for bit.

use bytemuck::Pod;
use lenet_core::network::{Activations, Image, Params, forward};
use lenet_core::ops;
use lenet_tests::generate::{KINDS, Kind, array};
use lenet_tests::oracle::{self, Net, widen};
use lenet_tests::tolerance;
use ndarray::{Array, ArrayD, IxDyn};

/// A nested array as an f64 array of `dims`.
fn wide<A: Pod>(array: &A, dims: &[usize]) -> ArrayD<f64> {
    Array::from_shape_vec(IxDyn(dims), widen(array)).unwrap()
}

/// `found` is within `bound` of `expected`, element by element.
fn assert_within<A: Pod>(found: &A, expected: &[f64], bound: &[f64], what: &str) {
    for (i, ((found, expected), bound)) in widen(found).iter().zip(expected).zip(bound).enumerate()
    {
        let error = (found - expected).abs();
        assert!(
            error <= *bound,
            "{what}, element {i}: {found:e}, expected {expected:e}, error {error:e} > {bound:e}"
        );
    }
}

fn assert_bits<A: Pod>(found: &A, expected: &A, what: &str) {
    let bits =
        |array: &A| -> Vec<u32> { bytemuck::cast_slice(std::slice::from_ref(array)).to_vec() };
    assert_eq!(bits(found), bits(expected), "{what}");
}

/// Kinds of input with kinds of parameters, and a seed for each pair.
fn kinds() -> impl Iterator<Item = (Kind, Kind, u64)> {
    KINDS
        .into_iter()
        .flat_map(|input| KINDS.into_iter().map(move |weight| (input, weight)))
        .zip(0..)
        .map(|((input, weight), seed)| (input, weight, seed))
}

fn conv2d_case<
    const C_IN: usize,
    const C_OUT: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const OH: usize,
    const OW: usize,
>() {
    for (of_input, of_weight, seed) in kinds() {
        let what =
            format!("({C_IN}, {H}, {W}) {of_input:?} * ({C_OUT}, {K}) {of_weight:?}, seed {seed}");
        let input = array::<[[[f32; W]; H]; C_IN]>(of_input, seed);
        let weight = array::<[[[[f32; K]; K]; C_IN]; C_OUT]>(of_weight, seed + 100);
        let bias = array::<[f32; C_OUT]>(of_weight, seed + 200);
        let mut out = [[[f32::NAN; OW]; OH]; C_OUT];
        ops::conv2d(&input, &weight, &bias, &mut out);

        let [x, w, b] = [
            wide(&*input, &[C_IN, H, W]),
            wide(&*weight, &[C_OUT, C_IN, K, K]),
            wide(&*bias, &[C_OUT]),
        ];
        let conv = |[x, w, b]: [ArrayD<f64>; 3]| {
            oracle::conv2d(
                x.view().into_dimensionality().unwrap(),
                w.view().into_dimensionality().unwrap(),
                b.view().into_dimensionality().unwrap(),
            )
            .into_raw_vec_and_offset()
            .0
        };
        let magnitude = conv([x.mapv(f64::abs), w.mapv(f64::abs), b.mapv(f64::abs)]);
        let bound: Vec<f64> = magnitude
            .iter()
            .map(|&m| tolerance::sum(C_IN * K * K + 1, m))
            .collect();
        assert_within(&out, &conv([x, w, b]), &bound, &what);
    }
}

#[test]
fn conv2d_computes_the_oracle() {
    conv2d_case::<1, 1, 1, 1, 1, 1, 1>();
    conv2d_case::<2, 3, 6, 9, 3, 4, 7>();
    conv2d_case::<3, 2, 7, 4, 2, 6, 3>();
    conv2d_case::<5, 1, 5, 8, 4, 2, 5>();
    conv2d_case::<1, 6, 28, 28, 5, 24, 24>();
    conv2d_case::<6, 16, 12, 12, 5, 8, 8>();
}

fn fused_case<
    const C_IN: usize,
    const C_OUT: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const OH: usize,
    const OW: usize,
    const PH: usize,
    const PW: usize,
>() {
    for (of_input, of_weight, seed) in kinds() {
        let what =
            format!("({C_IN}, {H}, {W}) {of_input:?} * ({C_OUT}, {K}) {of_weight:?}, seed {seed}");
        let input = array::<[[[f32; W]; H]; C_IN]>(of_input, seed);
        let weight = array::<[[[[f32; K]; K]; C_IN]; C_OUT]>(of_weight, seed + 100);
        let bias = array::<[f32; C_OUT]>(of_weight, seed + 200);
        let mut conv = [[[0.0; OW]; OH]; C_OUT];
        ops::conv2d(&input, &weight, &bias, &mut conv);

        let mut pool_first = [[[0.0; PW]; PH]; C_OUT];
        ops::max_pool2d(&conv, &mut pool_first);
        let pooled: &mut [f32] = pool_first.as_flattened_mut().as_flattened_mut();
        ops::sigmoid_in_place(pooled);

        let mut sigmoid_first = [[[0.0; PW]; PH]; C_OUT];
        ops::sigmoid_in_place(conv.as_flattened_mut().as_flattened_mut());
        ops::max_pool2d(&conv, &mut sigmoid_first);

        let mut fused = [[[f32::NAN; PW]; PH]; C_OUT];
        ops::conv_pool_sigmoid(&input, &weight, &bias, &mut fused);
        assert_bits(&fused, &pool_first, &what);
        assert_bits(&fused, &sigmoid_first, &what);
    }
}

#[test]
fn the_fused_kernel_is_the_plain_ones_bit_for_bit_and_the_sigmoid_may_come_first() {
    fused_case::<1, 1, 2, 2, 1, 2, 2, 1, 1>();
    fused_case::<2, 3, 6, 8, 3, 4, 6, 2, 3>();
    fused_case::<3, 2, 7, 5, 2, 6, 4, 3, 2>();
    fused_case::<1, 6, 28, 28, 5, 24, 24, 12, 12>();
    fused_case::<6, 16, 12, 12, 5, 8, 8, 4, 4>();
}

fn max_pool2d_case<
    const C: usize,
    const H: usize,
    const W: usize,
    const OH: usize,
    const OW: usize,
>() {
    for (kind, seed) in KINDS.into_iter().zip(0..) {
        let input = array::<[[[f32; W]; H]; C]>(kind, seed);
        let mut out = [[[f32::NAN; OW]; OH]; C];
        ops::max_pool2d(&input, &mut out);
        let x = wide(&*input, &[C, H, W]);
        let expected = oracle::max_pool2d(x.view().into_dimensionality().unwrap());
        assert_eq!(
            widen(&out),
            expected.into_raw_vec_and_offset().0,
            "({C}, {H}, {W}) {kind:?}, seed {seed}"
        );
    }
}

#[test]
fn max_pool2d_selects_what_the_oracle_does() {
    max_pool2d_case::<1, 2, 2, 1, 1>();
    max_pool2d_case::<3, 6, 10, 3, 5>();
    max_pool2d_case::<2, 8, 2, 4, 1>();
    max_pool2d_case::<6, 24, 24, 12, 12>();
}

fn linear_case<const IN: usize, const OUT: usize>() {
    for (of_input, of_weight, seed) in kinds() {
        let what = format!("({IN}) {of_input:?} to ({OUT}) {of_weight:?}, seed {seed}");
        let input = array::<[f32; IN]>(of_input, seed);
        let weight = array::<[[f32; IN]; OUT]>(of_weight, seed + 100);
        let bias = array::<[f32; OUT]>(of_weight, seed + 200);
        let mut out = [f32::NAN; OUT];
        ops::linear(&input, &weight, &bias, &mut out);

        let [x, w, b] = [
            wide(&*input, &[IN]),
            wide(&*weight, &[OUT, IN]),
            wide(&*bias, &[OUT]),
        ];
        let linear = |[x, w, b]: [ArrayD<f64>; 3]| {
            oracle::linear(
                x.view().into_dimensionality().unwrap(),
                w.view().into_dimensionality().unwrap(),
                b.view().into_dimensionality().unwrap(),
            )
            .to_vec()
        };
        let magnitude = linear([x.mapv(f64::abs), w.mapv(f64::abs), b.mapv(f64::abs)]);
        let bound: Vec<f64> = magnitude
            .iter()
            .map(|&m| tolerance::sum(IN + 1, m))
            .collect();
        assert_within(&out, &linear([x, w, b]), &bound, &what);
    }
}

#[test]
fn linear_computes_the_oracle() {
    linear_case::<1, 1>();
    linear_case::<7, 3>();
    linear_case::<3, 7>();
    linear_case::<256, 120>();
    linear_case::<84, 10>();
}

#[test]
fn sigmoid_computes_the_oracle() {
    for step in -2000..=2000 {
        let x = step as f32 / 16.0;
        let expected = oracle::sigmoid(f64::from(x));
        assert_within(
            &ops::sigmoid(x),
            &[expected],
            &[tolerance::sigmoid(expected)],
            &format!("sigmoid({x})"),
        );
    }
}

#[test]
fn softmax_computes_the_oracle() {
    for (kind, seed) in KINDS.into_iter().zip(0..) {
        for scale in [1.0, 20.0] {
            let logits = array::<[f32; 7]>(kind, seed).map(|logit| logit * scale);
            let mut out = [f32::NAN; 7];
            ops::softmax(&logits, &mut out);
            let expected =
                oracle::softmax(wide(&logits, &[7]).into_dimensionality().unwrap().view());
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let bound: Vec<f64> = logits
                .iter()
                .zip(&expected)
                .map(|(&logit, p)| {
                    let range = f64::from(largest) - f64::from(logit);
                    // Beyond a range of 100 the probability is below every float.
                    p * tolerance::softmax(7, range.min(100.0)) + f64::from(f32::MIN_POSITIVE)
                })
                .collect();
            assert_within(
                &out,
                &expected.to_vec(),
                &bound,
                &format!("{kind:?} * {scale}"),
            );
        }
    }
}

#[test]
fn forward_computes_the_oracle() {
    for seed in 0..20 {
        // Parameters of a trained size; at ±1 every sigmoid would be saturated and hide what comes before it.
        let mut params = array::<Params>(Kind::Random, seed);
        params.as_flat_mut().iter_mut().for_each(|p| *p *= 0.3);
        for kind in KINDS {
            let image = array::<Image>(kind, seed + 100)
                .map(|map| map.map(|row| row.map(|v| v.clamp(-1.0, 1.0))));
            let mut act = Activations::new();
            let logits = forward(&params, &image, &mut act);

            let flat = widen(&*params);
            let net = Net::new(&flat);
            let wide = wide(&image, &[1, 28, 28]).into_dimensionality().unwrap();
            assert_within(
                logits,
                &net.forward(wide.view()).logits.to_vec(),
                &tolerance::logits(&net, wide.view()).to_vec(),
                &format!("{kind:?}, seed {seed}"),
            );
        }
    }
}
