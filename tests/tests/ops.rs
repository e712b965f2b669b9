//! Compares every operation of `lenet_core`, and the forward pass of every network, with the oracle, for several kinds of input
//! and for odd and unequal shapes, within bounds derived from the number of roundings. (`lenet-core/src/layer/conv2d.rs` compares
//! the kernel of a convolution with simple loops bit for bit.)

use bytemuck::Pod;
use lenet_core::{Network, ops};
use lenet_test_support::for_each_network;
use lenet_test_support::generate::{KINDS, Kind, array};
use lenet_test_support::oracle::{self, Net, widen};
use lenet_test_support::tolerance;
use ndarray::{Array, Array3, ArrayD, IxDyn};

/// Converts a nested array to an f64 array with dimensions `dims`.
fn wide<A: Pod>(array: &A, dims: &[usize]) -> ArrayD<f64> {
    Array::from_shape_vec(IxDyn(dims), widen(array)).unwrap()
}

/// Asserts that `found` is within `bound` of `expected`, element by element.
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

/// Returns all pairs of a kind of input and a kind of parameters, with a seed for each pair.
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
        let padding = (OH + K - 1 - H) / 2;
        let conv = |[x, w, b]: [ArrayD<f64>; 3]| {
            oracle::conv2d(
                x.view().into_dimensionality().unwrap(),
                padding,
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
fn conv2d_agrees_with_the_oracle() {
    conv2d_case::<1, 1, 1, 1, 1, 1, 1>();
    conv2d_case::<2, 3, 6, 9, 3, 4, 7>();
    conv2d_case::<3, 2, 7, 4, 2, 6, 3>();
    conv2d_case::<5, 1, 5, 8, 4, 2, 5>();
    conv2d_case::<2, 3, 6, 9, 3, 6, 9>();
    conv2d_case::<1, 2, 5, 4, 6, 6, 5>();
    conv2d_case::<3, 2, 3, 9, 7, 1, 7>();
    conv2d_case::<1, 6, 28, 28, 5, 24, 24>();
    conv2d_case::<6, 16, 12, 12, 5, 8, 8>();
}

fn pool2d_case<const C: usize, const H: usize, const W: usize, const OH: usize, const OW: usize>() {
    let n = H / OH;
    for (kind, seed) in KINDS.into_iter().zip(0..) {
        let what = format!("({C}, {H}, {W}) {kind:?}, seed {seed}");
        let input = array::<[[[f32; W]; H]; C]>(kind, seed);
        let x: Array3<f64> = wide(&*input, &[C, H, W]).into_dimensionality().unwrap();

        let mut out = [[[f32::NAN; OW]; OH]; C];
        ops::max_pool2d(&input, &mut out);
        let largest = oracle::pool2d(x.view(), n, |window| {
            window.fold(f64::NEG_INFINITY, |a, &b| a.max(b))
        });
        assert_eq!(widen(&out), largest.into_raw_vec_and_offset().0, "{what}");

        ops::average_pool2d(&input, &mut out);
        let sum = |x: Array3<f64>| {
            let sums = oracle::pool2d(x.view(), n, |window| window.sum() / (n * n) as f64);
            sums.into_raw_vec_and_offset().0
        };
        let bound: Vec<f64> = sum(x.mapv(f64::abs))
            .iter()
            .map(|&m| tolerance::sum(n * n + 1, m))
            .collect();
        assert_within(&out, &sum(x), &bound, &what);
    }
}

#[test]
fn pools_agree_with_the_oracle() {
    pool2d_case::<1, 2, 2, 1, 1>();
    pool2d_case::<3, 6, 10, 3, 5>();
    pool2d_case::<2, 8, 2, 4, 1>();
    pool2d_case::<4, 9, 15, 3, 5>();
    pool2d_case::<6, 24, 24, 12, 12>();
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
fn linear_agrees_with_the_oracle() {
    linear_case::<1, 1>();
    linear_case::<7, 3>();
    linear_case::<3, 7>();
    linear_case::<256, 120>();
    linear_case::<84, 10>();
}

#[test]
fn tanh_agrees_with_the_oracle() {
    for step in -2000..=2000 {
        let x = step as f32 / 128.0;
        let expected = f64::from(x).tanh();
        assert_within(
            &ops::tanh(x),
            &[expected],
            &[tolerance::TANH * expected.abs()],
            &format!("tanh({x})"),
        );
    }
}

#[test]
fn sigmoid_agrees_with_the_oracle() {
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
fn softmax_agrees_with_the_oracle() {
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
                    // Beyond a range of 100, the probability is smaller than any float.
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

fn forward_case<N: Network>() {
    for seed in 0..4 {
        // Use parameters of realistic magnitude. With ±1, every sigmoid would saturate and hide errors before it.
        let mut params = array::<N::Params>(Kind::Random, seed);
        let values: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *params));
        values.iter_mut().for_each(|p| *p *= 0.3);
        let flat = widen(&*params);
        let net = Net::new(N::LAYERS, &flat);
        let [c, h, w] = N::LAYERS[0].input;
        for kind in KINDS {
            let mut image = array::<N::Image>(kind, seed + 100);
            let values: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *image));
            values.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0));
            let mut act: Box<N::Activations> = bytemuck::zeroed_box();
            let logits = N::forward(&params, &image, &mut act);

            let wide = wide(&*image, &[c, h, w]).into_dimensionality().unwrap();
            assert_within(
                logits,
                &net.logits(wide.view()).to_vec(),
                &tolerance::logits(&net, wide.view()).to_vec(),
                &format!("{}, {kind:?}, seed {seed}", N::NAME),
            );
        }
    }
}

#[test]
fn forward_agrees_with_the_oracle_for_every_network() {
    for_each_network!(forward_case);
}
