//! Compares the other networks with PyTorch in f64: the loss, logits and gradients of one batch for the reference and the CPU
//! backend, and for the CPU backend also the losses of some steps of Adam and the weights after them. `golden.rs` does the same
//! for the default network.
//!
//! `relu` is compared over ten steps only, because rounding errors grow after that. Even in f64, changing the initial weights by
//! half a unit in the last place of f32 changes the loss by more than 1e-5 between steps 24 and 53, and by up to 8e-3 within a
//! hundred steps, because the input of a ReLU near 0 changes its sign.

use lenet_core::image::grey;
use lenet_test_support::fixtures::{FASHION_MNIST, Fixture};
use lenet_test_support::networks::{Case, lenet_d2l, relu};
use lenet_test_support::tolerance::LOGITS;
use lenet_training::adam::Adam;
use lenet_training::cpu::{Engine, Images, Isa, Slots, Weights};

const BATCH: usize = 256;

/// The limits for the differences of a network from PyTorch.
struct Limits {
    /// The number of steps to compare.
    steps: usize,
    /// The largest error of a gradient, relative to the largest element of the tensor. That of PyTorch in f32 is 1.7e-5 for
    /// lenet-d2l and 4.2e-6 for relu.
    gradient: f64,
    /// The largest error of a loss. That of PyTorch in f32 is 4.6e-7 for lenet-d2l and 3.2e-7 for relu.
    loss: f64,
    /// The largest error of a weight after the last step. That of PyTorch in f32 is 6.8e-6 for lenet-d2l and 5.9e-6 for relu.
    weights: f64,
}

fn flat<T: bytemuck::Pod>(value: &T) -> &[f32] {
    bytemuck::cast_slice(std::slice::from_ref(value))
}

fn flat_mut<T: bytemuck::Pod>(value: &mut T) -> &mut [f32] {
    bytemuck::cast_slice_mut(std::slice::from_mut(value))
}

/// Prints the largest distance, and asserts that it is within `limit`.
fn assert_near(what: &str, found: &[f32], expected: &[f64], limit: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let pairs = found.iter().zip(expected);
    let worst = pairs.fold(0.0, |worst: f64, (&found, expected)| {
        worst.max((f64::from(found) - expected).abs())
    });
    println!("{what}: {worst:.2e}, limit {limit:.2e}");
    assert!(worst <= limit, "{what}: {worst:e}, limit {limit:e}");
}

fn assert_gradient<N: Case>(name: &str, found: &[f32], expected: &[f64], limit: f64) {
    for tensor in N::TENSORS {
        let range = tensor.offset..tensor.offset + tensor.len();
        let expected = &expected[range.clone()];
        let largest = expected.iter().fold(0.0f64, |a, b| a.max(b.abs()));
        let what = format!("{}, {name}: gradient by {}", N::NAME, tensor.name);
        assert_near(&what, &found[range], expected, limit * largest);
    }
}

fn assert_is_pytorch<N: Case>(limits: &Limits)
where
    N::Pixels: From28,
    N::Image: bytemuck::Pod,
{
    let open = |file: &str| Fixture::open(&format!("{}/{file}", N::NAME));
    let start: Vec<f32> = open("initial")
        .parameters("")
        .iter()
        .map(|&p| p as f32)
        .collect();
    let batch = open("batch");
    let expected = batch.parameters("grad.");
    let (images, labels) = (FASHION_MNIST.train.images(), FASHION_MNIST.train.labels());

    // The reference, image by image.
    let mut params: Box<N::Params> = bytemuck::zeroed_box();
    flat_mut(&mut *params).copy_from_slice(&start);
    let mut grads: Box<N::Params> = bytemuck::zeroed_box();
    let mut loss = 0.0;
    for (pixels, &label) in images.iter().zip(labels).take(BATCH) {
        let image = grey(pixels);
        let image: &N::Image = bytemuck::from_bytes(bytemuck::bytes_of(&image));
        let of_image = N::gradient(&params, image, label, 1.0 / BATCH as f32, &mut grads);
        loss += f64::from(of_image) / BATCH as f64;
    }
    let what = format!("{}, reference: loss", N::NAME);
    assert_near(&what, &[loss as f32], &batch.tensor("loss"), limits.loss);
    assert_gradient::<N>("reference", flat(&*grads), &expected, limits.gradient);

    // The CPU backend, step by step.
    let stored: &[N::Pixels] = bytemuck::cast_slice(images);
    let (mut moment1, mut moment2) = (vec![0.0; start.len()], vec![0.0; start.len()]);
    let isa = Isa::fastest();
    let mut engine = Engine::<N>::new(isa, 2).unwrap();
    let mut weights = Weights::<N>::new(isa, &params);
    let mut logits: Vec<Vec<f32>> = vec![Vec::new(); BATCH];
    engine.logits(
        &params,
        &weights,
        &stored[..BATCH],
        &mut logits,
        |out, values| {
            out.extend(values);
        },
    );
    let what = format!("{}, cpu: logits of the first batch", N::NAME);
    assert_near(&what, &logits.concat(), &batch.tensor("logits"), LOGITS);
    let adam = Adam::default();
    let threads = engine.threads();
    let mut losses = Vec::new();
    for step in 0..limits.steps {
        let stats = threads.install(|| {
            engine.step(
                &Images {
                    stored,
                    labels,
                    count: BATCH,
                    index: &|n| step * BATCH + n,
                    change: None,
                },
                &mut weights,
                &adam.coefficients(step as u64 + 1),
                Slots {
                    params: flat_mut(&mut *params),
                    moment1: &mut moment1,
                    moment2: &mut moment2,
                    mean: None,
                },
            )
        });
        losses.push(stats.loss);
        if step == 0 {
            // Starting from zero, the first moment is the gradient times 1 - beta1.
            let keep = adam.coefficients(1).keep1;
            let found: Vec<f32> = moment1.iter().map(|moment| moment / keep).collect();
            assert_gradient::<N>("cpu", &found, &expected, limits.gradient);
        }
    }
    let what = format!("{}, cpu: losses", N::NAME);
    assert_near(
        &what,
        &losses,
        &open("losses").tensor("losses"),
        limits.loss,
    );
    let what = format!("{}, cpu: weights after {} steps", N::NAME, limits.steps);
    let after = open(&format!("after_{}", limits.steps)).parameters("");
    assert_near(&what, flat(&*params), &after, limits.weights);
}

/// Images of the size of Fashion-MNIST.
trait From28: bytemuck::Pod {}
impl From28 for [[[u8; 28]; 28]; 1] {}

#[test]
fn lenet_d2l_trains_as_in_pytorch() {
    assert_is_pytorch::<lenet_d2l::Net>(&Limits {
        steps: 100,
        gradient: 3e-5,
        loss: 5e-6,
        weights: 5e-5,
    });
}

#[test]
fn relu_trains_as_in_pytorch() {
    assert_is_pytorch::<relu::Net>(&Limits {
        steps: 10,
        gradient: 1e-5,
        loss: 3e-6,
        weights: 5e-5,
    });
}
