//! Compares the backends with PyTorch in f64: the loss, logits and gradients of one batch, the losses of a hundred steps over
//! images in the order of the file, the weights after 1, 10 and 100 steps, and the logits of test images.
//!
//! One function over `dyn Backend` compares every backend with the same numbers. It prints the largest deviations.

use lenet_core::network::{Logits, TENSORS};
use lenet_test_support::fixtures::{FASHION_MNIST, Fixture};
use lenet_test_support::tolerance::{GRADIENT, LOGITS, LOSS, WEIGHTS, WEIGHTS_AFTER_100};
use std::ops::ControlFlow;
use trainer::adam::Adam;
use trainer::backend::{Backend, Batches, State};
use trainer::cpu::Cpu;
use trainer::dataset::Order;
use trainer::reference::Reference;

const BATCH: usize = 256;

/// Returns the state with which PyTorch's run starts.
fn initial() -> State {
    State::new(Fixture::open("initial").params())
}

/// Prints the largest distance, and asserts that it is within `limit`.
fn assert_near(what: &str, found: &[f32], expected: &[f64], limit: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let (index, worst) = found
        .iter()
        .zip(expected)
        .map(|(&found, expected)| (f64::from(found) - expected).abs())
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .expect("not empty");
    println!("{what}: {worst:.2e}, limit {limit:.2e}");
    assert!(
        worst <= limit,
        "{what}, element {index}: {}, expected {}, limit {limit:e}",
        found[index],
        expected[index]
    );
}

/// Compares `backend`, which must be in the state [`initial`], with all of PyTorch's results.
fn assert_is_pytorch(backend: &mut dyn Backend) {
    let name = backend.describe();
    let data = &*FASHION_MNIST;
    let logits = |backend: &mut dyn Backend, images| {
        let mut out = vec![Logits::default(); BATCH];
        backend.logits(images, &mut out).unwrap();
        out.into_flattened()
    };
    let batch = Fixture::open("batch");
    let of_batch = logits(backend, &data.train.images()[..BATCH]);
    assert_near(
        &format!("{name}: logits of the first batch"),
        &of_batch,
        &batch.tensor("logits"),
        LOGITS,
    );

    let mut losses = Vec::new();
    for (range, file, limit) in [
        (0..1, "after_1", WEIGHTS),
        (1..10, "after_10", WEIGHTS),
        (10..100, "after_100", WEIGHTS_AFTER_100),
    ] {
        let batches = Batches {
            range,
            ..Batches::epoch(Order::Sequential, data.train.len(), BATCH)
        };
        backend
            .train(&batches, &mut |stats| {
                losses.push(stats.loss);
                ControlFlow::Continue(())
            })
            .unwrap();
        let state = backend.state().unwrap();
        assert_eq!(state.step as usize, losses.len());
        if state.step == 1 {
            let expected = batch.parameters("grad.");
            // Starting from zero, the first moment is the gradient times 1 - beta1.
            let keep = Adam::default().coefficients(1).keep1;
            for tensor in &TENSORS {
                let range = tensor.offset..tensor.offset + tensor.len();
                let found: Vec<f32> = state.moment1.as_flat()[range.clone()]
                    .iter()
                    .map(|moment| moment / keep)
                    .collect();
                let expected = &expected[range];
                let largest = expected.iter().fold(0.0f64, |a, b| a.max(b.abs()));
                assert_near(
                    &format!("{name}: gradient by {}, largest {largest:.1e}", tensor.name),
                    &found,
                    expected,
                    GRADIENT * largest,
                );
            }
        }
        assert_near(
            &format!("{name}: weights, {file}"),
            state.params.as_flat(),
            &Fixture::open(file).parameters(""),
            limit,
        );
    }
    assert_near(
        &format!("{name}: loss of the first batch"),
        &losses[..1],
        &batch.tensor("loss"),
        LOSS,
    );
    assert_near(
        &format!("{name}: losses of 100 steps"),
        &losses,
        &Fixture::open("losses").tensor("losses"),
        LOSS,
    );
}

/// Compares the logits of the first test images with PyTorch's after 100 steps. `backend` must have done these steps.
fn assert_logits_are_pytorchs(backend: &mut dyn Backend) {
    let mut out = vec![Logits::default(); BATCH];
    backend
        .logits(&FASHION_MNIST.test.images()[..BATCH], &mut out)
        .unwrap();
    assert_near(
        &format!("{}: logits of test images", backend.describe()),
        out.as_flattened(),
        &Fixture::open("test_logits").tensor("logits"),
        LOGITS,
    );
}

fn after_100() -> State {
    State::new(Fixture::open("after_100").params())
}

#[test]
fn the_reference_trains_as_pytorch_does() {
    let train = &FASHION_MNIST.train;
    assert_is_pytorch(&mut Reference::new(train, initial(), Adam::default()));
    assert_logits_are_pytorchs(&mut Reference::new(train, after_100(), Adam::default()));
}

#[test]
fn the_cpu_trains_as_pytorch_does() {
    let train = &FASHION_MNIST.train;
    assert_is_pytorch(&mut Cpu::new(train, initial(), Adam::default(), 2).unwrap());
    assert_logits_are_pytorchs(&mut Cpu::new(train, after_100(), Adam::default(), 2).unwrap());
}
