//! The reference's gradients against central differences of the oracle in f64: each op on small odd shapes, then the
//! whole network.
//!
//! Differences are wrong where a pool is about to change its mind, so inputs are chosen away from near-ties. Exact ties
//! have a test of their own.

use bytemuck::Pod;
use lenet_core::image::grey;
use lenet_core::network::{Image, Params, TENSORS};
use lenet_core::ops;
use lenet_tests::fixtures::{FASHION_MNIST, Fixture};
use lenet_tests::generate::{Kind, array};
use lenet_tests::oracle::{self, Net, smallest_gap, widen};
use lenet_tests::tolerance::{self, DIFFERENCES, GRADIENT, SIGMOID_GRAD};
use ndarray::{ArrayView1, ArrayView2, ArrayView3, ArrayView4};
use rayon::prelude::*;
use trainer::reference::{
    conv2d_grad_input, conv2d_grad_params, image_gradient, linear_grad_input, linear_grad_params,
    max_pool2d_grad, sigmoid_grad,
};

/// The gradient of `f` by each element of `at`.
fn differences(at: &[f64], step: f64, f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = at.to_vec();
    (0..at.len())
        .map(|i| {
            let mut moved = |by: f64| {
                x[i] = at[i] + by;
                let value = f(&x);
                x[i] = at[i];
                value
            };
            (moved(step) - moved(-step)) / (2.0 * step)
        })
        .collect()
}

/// Compares the gradient of a function that is linear in the argument, and whose value is a sum of products of its
/// inputs: then the step may be large, and the same function of magnitudes gives the magnitudes of the terms.
///
/// `f(argument, magnitudes?)` is the function; `terms` of them make an element of the gradient.
fn assert_linear<A: Pod>(
    found: &A,
    at: &[f64],
    terms: usize,
    what: &str,
    f: impl Fn(&[f64], fn(f64) -> f64) -> f64,
) {
    let expected = differences(at, 0.5, |x| f(x, |v| v));
    let magnitude = differences(at, 0.5, |x| f(x, f64::abs));
    let found = widen(found);
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, found) in found.into_iter().enumerate() {
        let bound = tolerance::sum(terms, magnitude[i]) + DIFFERENCES * 1e-3 * magnitude[i];
        let error = (found - expected[i]).abs();
        assert!(
            error <= bound,
            "{what}, element {i}: {found}, expected {}, error {error:e} > {bound:e}",
            expected[i]
        );
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
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
    for (kind, seed) in [(Kind::Random, 1), (Kind::OneHot, 2), (Kind::Spaced, 3)] {
        let input = array::<[[[f32; W]; H]; C_IN]>(kind, seed);
        let weight = array::<[[[[f32; K]; K]; C_IN]; C_OUT]>(Kind::Random, seed + 100);
        let grad_out = array::<[[[f32; OW]; OH]; C_OUT]>(Kind::Random, seed + 200);
        let [x, w, g] = [widen(&*input), widen(&*weight), widen(&*grad_out)];
        // The loss is the output weighted by `grad_out`.
        let loss = |x: &[f64], w: &[f64], b: &[f64], of: fn(f64) -> f64| {
            let [x, w, b] = [x, w, b].map(|v| v.iter().copied().map(of).collect::<Vec<f64>>());
            let out = oracle::conv2d(
                ArrayView3::from_shape((C_IN, H, W), &x).unwrap(),
                ArrayView4::from_shape((C_OUT, C_IN, K, K), &w).unwrap(),
                ArrayView1::from(&b),
            );
            let g: Vec<f64> = g.iter().copied().map(of).collect();
            dot(out.as_slice().unwrap(), &g)
        };
        let what = |by: &str| format!("({C_IN}, {H}, {W}) {kind:?} * ({C_OUT}, {K}) by {by}");

        let (mut grad_weight, mut grad_bias) = ([[[[0.0; K]; K]; C_IN]; C_OUT], [0.0; C_OUT]);
        conv2d_grad_params(&input, &grad_out, &mut grad_weight, &mut grad_bias);
        let zeros = [0.0; C_OUT];
        assert_linear(
            &grad_weight,
            &offset(&w),
            OH * OW,
            &what("weight"),
            |w, of| loss(&x, w, &zeros, of),
        );
        assert_linear(
            &grad_bias,
            &[1.0; C_OUT],
            OH * OW,
            &what("bias"),
            |b, of| loss(&x, &w, b, of),
        );

        let mut grad_input = [[[f32::NAN; W]; H]; C_IN];
        conv2d_grad_input(&weight, &grad_out, &mut grad_input);
        assert_linear(
            &grad_input,
            &offset(&x),
            C_OUT * K * K,
            &what("input"),
            |x, of| loss(x, &w, &zeros, of),
        );
    }
}

/// Away from zero, where the magnitude has its kink. A linear function has the same gradient everywhere.
fn offset(values: &[f64]) -> Vec<f64> {
    values.iter().map(|value| value + 3.0).collect()
}

#[test]
fn conv2d_gradients_are_the_differences() {
    conv2d_case::<1, 1, 3, 4, 2, 2, 3>();
    conv2d_case::<2, 3, 6, 9, 3, 4, 7>();
    conv2d_case::<3, 2, 8, 5, 4, 5, 2>();
    conv2d_case::<2, 1, 5, 7, 5, 1, 3>();
}

fn linear_case<const IN: usize, const OUT: usize>() {
    let input = array::<[f32; IN]>(Kind::Random, 1);
    let weight = array::<[[f32; IN]; OUT]>(Kind::Random, 2);
    let grad_out = array::<[f32; OUT]>(Kind::Random, 3);
    let [x, w, g] = [widen(&*input), widen(&*weight), widen(&*grad_out)];
    let loss = |x: &[f64], w: &[f64], b: &[f64], of: fn(f64) -> f64| {
        let [x, w, b, g] = [x, w, b, &g].map(|v| v.iter().copied().map(of).collect::<Vec<f64>>());
        let out = oracle::linear(
            ArrayView1::from(&x),
            ArrayView2::from_shape((OUT, IN), &w).unwrap(),
            ArrayView1::from(&b),
        );
        dot(out.as_slice().unwrap(), &g)
    };
    let what = |by: &str| format!("({IN}) to ({OUT}) by {by}");

    let (mut grad_weight, mut grad_bias) = ([[0.0; IN]; OUT], [0.0; OUT]);
    linear_grad_params(&input, &grad_out, &mut grad_weight, &mut grad_bias);
    let zeros = [0.0; OUT];
    assert_linear(&grad_weight, &offset(&w), 1, &what("weight"), |w, of| {
        loss(&x, w, &zeros, of)
    });
    assert_linear(&grad_bias, &[1.0; OUT], 1, &what("bias"), |b, of| {
        loss(&x, &w, b, of)
    });

    let mut grad_input = [f32::NAN; IN];
    linear_grad_input(&weight, &grad_out, &mut grad_input);
    assert_linear(&grad_input, &offset(&x), OUT, &what("input"), |x, of| {
        loss(x, &w, &zeros, of)
    });
}

#[test]
fn linear_gradients_are_the_differences() {
    linear_case::<1, 1>();
    linear_case::<7, 3>();
    linear_case::<4, 9>();
}

#[test]
fn sigmoid_gradient_is_the_difference() {
    let x = array::<[f32; 50]>(Kind::Spaced, 0).map(|x| x * 12.0);
    let grad_out = array::<[f32; 50]>(Kind::Random, 1);
    let mut grad = *grad_out;
    sigmoid_grad(&x.map(ops::sigmoid), &mut grad);
    for i in 0..50 {
        let g = f64::from(grad_out[i]);
        let expected = differences(&[x[i].into()], 1e-5, |x| g * oracle::sigmoid(x[0]))[0];
        let error = (f64::from(grad[i]) - expected).abs();
        let bound = g.abs() * (SIGMOID_GRAD + DIFFERENCES);
        assert!(
            error <= bound,
            "at {}: {}, expected {expected}, error {error:e} > {bound:e}",
            x[i],
            grad[i]
        );
    }
}

fn max_pool2d_case<
    const C: usize,
    const H: usize,
    const W: usize,
    const OH: usize,
    const OW: usize,
>(
    kind: Kind,
    seed: u64,
) {
    let input = array::<[[[f32; W]; H]; C]>(kind, seed);
    let grad_out = array::<[[[f32; OW]; OH]; C]>(Kind::Random, seed + 100);
    let mut grad_input = [[[f32::NAN; W]; H]; C];
    max_pool2d_grad(&input, &grad_out, &mut grad_input);

    // Tilted, so that of equal elements the first in row order is the largest by 1e-6.
    let mut x = widen(&*input);
    for (i, x) in x.iter_mut().enumerate() {
        *x -= 1e-6 * i as f64;
    }
    let view = |x| ArrayView3::from_shape((C, H, W), x).unwrap();
    assert!(
        smallest_gap(view(&x)) > 5e-7,
        "{kind:?}, seed {seed}: too near a tie"
    );
    let g = widen(&*grad_out);
    let expected = differences(&x, 1e-7, |x| {
        dot(
            oracle::max_pool2d(ArrayView3::from_shape((C, H, W), x).unwrap())
                .as_slice()
                .unwrap(),
            &g,
        )
    });
    for (i, (found, expected)) in widen(&grad_input).into_iter().zip(expected).enumerate() {
        // A gradient is handed on or it is not.
        assert!(
            (found - expected).abs() < 1e-6,
            "({C}, {H}, {W}) {kind:?}, element {i}: {found}, expected {expected}"
        );
    }
}

#[test]
fn max_pool2d_gradients_are_the_differences() {
    max_pool2d_case::<1, 2, 2, 1, 1>(Kind::Random, 1);
    max_pool2d_case::<3, 4, 10, 2, 5>(Kind::Random, 2);
    max_pool2d_case::<2, 8, 6, 4, 3>(Kind::Spaced, 3);
}

#[test]
fn tied_windows_give_their_gradient_to_the_first() {
    for seed in 0..8 {
        max_pool2d_case::<2, 8, 6, 4, 3>(Kind::Ties, seed);
    }
    max_pool2d_case::<3, 4, 10, 2, 5>(Kind::Zeros, 0);
    max_pool2d_case::<3, 4, 10, 2, 5>(Kind::OneHot, 0);
}

/// Far enough from a near-tie: a parameter moved by [`STEP`] moves a convolution's output by less than four.
const GAP: f64 = 4.0 * STEP;
const STEP: f64 = 1e-5;

fn is_far_from_ties(net: &Net, image: &[f64]) -> bool {
    let act = net.forward(ArrayView3::from_shape((1, 28, 28), image).unwrap());
    smallest_gap(act.conv1.view()).min(smallest_gap(act.conv2.view())) > GAP
}

/// The small tensors whole, and a sample of the large ones, against differences of the loss.
fn assert_network_gradient(params: &Params, image: &Image, label: u8, what: &str) {
    let mut grads: Box<Params> = bytemuck::zeroed_box();
    let loss = image_gradient(params, image, label, 1.0, &mut grads);
    let (flat, pixels) = (widen(params), widen(image));
    let at = |flat: &[f64]| {
        Net::new(flat).loss(ArrayView3::from_shape((1, 28, 28), &pixels).unwrap(), label)
    };
    assert!(
        (f64::from(loss.loss) - at(&flat)).abs() < tolerance::LOSS,
        "{what}"
    );

    let mut worst = 0.0f64;
    for tensor in &TENSORS {
        let range = tensor.offset..tensor.offset + tensor.len();
        let found = &grads.as_flat()[range.clone()];
        let largest = found.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        // A prime, so that a sample meets every row and column.
        let stride = if tensor.len() > 2000 { 29 } else { 1 };
        let error = range
            .into_par_iter()
            .step_by(stride)
            .map_init(
                || flat.clone(),
                |x, i| {
                    let mut moved = |by: f64| {
                        x[i] = flat[i] + by;
                        let loss = at(x);
                        x[i] = flat[i];
                        loss
                    };
                    let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                    (f64::from(grads.as_flat()[i]) - expected).abs()
                },
            )
            .reduce(|| 0.0, f64::max)
            / f64::from(largest);
        worst = worst.max(error);
        assert!(
            error <= GRADIENT + DIFFERENCES,
            "{what}, {}: {error:e} of its largest, {largest}",
            tensor.name
        );
    }
    println!("{what}: gradient within {worst:.1e} of each tensor's largest");
}

#[test]
fn the_networks_gradient_is_the_difference_for_random_images() {
    let mut params = array::<Params>(Kind::Random, 1);
    params.as_flat_mut().iter_mut().for_each(|p| *p *= 0.2);
    let flat = widen(&*params);
    let net = Net::new(&flat);
    let (seed, image) = (0..)
        .map(|seed| (seed, array::<Image>(Kind::Random, seed)))
        .find(|(_, image)| is_far_from_ties(&net, &widen(&**image)))
        .unwrap();
    assert_network_gradient(&params, &image, 3, &format!("random image {seed}"));
}

#[test]
fn the_networks_gradient_is_the_difference_for_real_images_and_pytorchs_weights() {
    // Their background ties many windows of the first pool; tied patches are equal, so the loss has no kink there.
    let params = Fixture::open("initial").params();
    let flat = widen(&*params);
    let net = Net::new(&flat);
    let split = &FASHION_MNIST.train;
    let index = (0..split.len())
        .find(|&i| is_far_from_ties(&net, &widen(&grey(&split.images()[i]))))
        .unwrap();
    let (pixels, label) = (&split.images()[index], split.labels()[index]);
    assert_network_gradient(
        &params,
        &grey(pixels),
        label,
        &format!("training image {index}"),
    );
}
