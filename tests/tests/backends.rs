//! Compares the backends with the reference backend, tensor by tensor for one batch and over ten steps; the CPU backend with
//! itself for different numbers of threads; and `lenet_core` with the trainer on all test images.
//!
//! [`others`] lists the backends. A new backend needs only one line there.

use lenet_core::image::grey;
use lenet_core::network::{
    CHANNELS, CLASSES, HEIGHT, LAYERS, Logits, NUM_PARAMS, Params, TENSORS, WIDTH,
};
use lenet_core::ops::argmax;
use lenet_test_support::fixtures::{FASHION_MNIST, Fixture};
use lenet_test_support::oracle::{Net, widen};
use lenet_test_support::tolerance::{self, GRADIENT, LOGITS, LOSS, WEIGHTS};
use ndarray::ArrayView3;
use rayon::prelude::*;
use std::ops::ControlFlow;
use trainer::adam::Adam;
use trainer::backend::{Backend, Batches, State, StepStats};
use trainer::cpu::Cpu;
use trainer::dataset::Order;
use trainer::evaluate::core_logits;
use trainer::init::initial_params;
use trainer::reference::Reference;

/// Returns every backend except the reference, each with the state `state`.
fn others(state: &State) -> Vec<Box<dyn Backend>> {
    vec![Box::new(cpu(state, 2))]
}

fn cpu(state: &State, threads: usize) -> Cpu<'static> {
    let train = &FASHION_MNIST.train;
    Cpu::new(train, state.clone(), Adam::default(), threads).unwrap()
}

fn reference(state: &State) -> Reference<'static> {
    Reference::new(&FASHION_MNIST.train, state.clone(), Adam::default())
}

/// Trains for `steps` batches of `batch_size` on the first images of the file.
fn train(
    backend: &mut dyn Backend,
    batch_size: usize,
    steps: usize,
    images: usize,
) -> (Vec<StepStats>, State) {
    let mut stats = Vec::new();
    let batches = Batches {
        range: 0..steps,
        ..Batches::epoch(Order::Sequential, images, batch_size)
    };
    backend
        .train(&batches, &mut |step| {
            stats.push(step);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(stats.len(), steps);
    (stats, backend.state().unwrap())
}

/// Returns the largest distance between the values, and the largest magnitude of `expected`.
fn distance(found: &[f32], expected: &[f32]) -> (f64, f64) {
    let pairs = found.iter().zip(expected);
    let worst = pairs.fold(0.0, |worst: f64, (a, b)| {
        worst.max((f64::from(*a) - f64::from(*b)).abs())
    });
    let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    (worst, largest.into())
}

/// Starts from PyTorch's initial weights, which were chosen so that no pooling window of these images is near a tie. Near a tie,
/// rounding may decide which value is the maximum, and the gradient may correctly go to another position.
#[test]
fn one_batch_agrees_with_the_reference_tensor_by_tensor() {
    let start = State::new(Fixture::open("initial").params());
    for batch_size in [256, 96, 17, 1] {
        let images = FASHION_MNIST.train.len();
        let (expected_stats, expected) = train(&mut reference(&start), batch_size, 1, images);
        for mut backend in others(&start) {
            let name = format!("{}, batch of {batch_size}", backend.describe());
            let (stats, state) = train(&mut *backend, batch_size, 1, images);
            assert_eq!(state.step, 1, "{name}");
            assert_eq!(
                (stats[0].correct, stats[0].images),
                (expected_stats[0].correct, batch_size as u32),
                "{name}"
            );
            let loss = f64::from(stats[0].loss) - f64::from(expected_stats[0].loss);
            assert!(loss.abs() <= LOSS, "{name}: loss differs by {loss:e}");
            let mut worst_of_all = 0.0f64;
            for tensor in &TENSORS {
                let range = tensor.offset..tensor.offset + tensor.len();
                // After one step from zero, the first moment is the gradient times 1 - beta1.
                let (worst, largest) = distance(
                    &state.moment1.as_flat()[range.clone()],
                    &expected.moment1.as_flat()[range],
                );
                worst_of_all = worst_of_all.max(worst / largest);
                assert!(
                    worst <= GRADIENT * largest,
                    "{name}, gradient by {}: differs by {worst:e}, largest {largest:e}",
                    tensor.name
                );
            }
            println!("{name}: gradient within {worst_of_all:.1e} of each tensor's largest");
        }
    }
}

/// Runs ten steps over 2,448 images. The last batch of the epoch has only 144.
#[test]
fn ten_steps_agree_with_the_reference() {
    let start = State::new(initial_params(0));
    let (expected_stats, expected) = train(&mut reference(&start), 256, 10, 2448);
    assert_eq!(expected_stats[9].images, 144);
    for mut backend in others(&start) {
        let name = backend.describe();
        let (stats, state) = train(&mut *backend, 256, 10, 2448);
        for (step, (stats, expected)) in stats.iter().zip(&expected_stats).enumerate() {
            let loss = (f64::from(stats.loss) - f64::from(expected.loss)).abs();
            assert!(
                loss <= LOSS,
                "{name}, step {step}: loss differs by {loss:e}"
            );
            assert_eq!(stats.images, expected.images, "{name}, step {step}");
        }
        let (worst, _) = distance(state.params.as_flat(), expected.params.as_flat());
        println!("{name}: parameters within {worst:.1e} after ten steps");
        assert!(worst <= WEIGHTS, "{name}: parameters differ by {worst:e}");
    }
}

/// A training that the user stops must have a loss for each step that its state includes.
#[test]
fn after_a_break_every_step_in_the_state_was_reported() {
    let start = State::new(initial_params(0));
    let mut backends = others(&start);
    backends.push(Box::new(reference(&start)));
    for mut backend in backends {
        let mut told = 0;
        let batches = Batches::epoch(Order::Sequential, FASHION_MNIST.train.len(), 16);
        let batches = Batches {
            range: 0..4,
            ..batches
        };
        backend
            .train(&batches, &mut |_| {
                told += 1;
                match told {
                    2.. => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            })
            .unwrap();
        let state = backend.state().unwrap();
        assert!(told >= 2, "{}", backend.describe());
        assert_eq!(state.step, told, "{}", backend.describe());
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let start = State::new(initial_params(3));
    let run = |threads| {
        let (stats, state) = train(&mut cpu(&start, threads), 256, 4, 3 * 256 + 96);
        let mut logits = vec![Logits::default(); 100];
        cpu(&state, threads)
            .logits(&FASHION_MNIST.test.images()[..100], &mut logits)
            .unwrap();
        (stats, state, logits)
    };
    let one = run(1);
    for threads in [2, 7] {
        let other = run(threads);
        assert_eq!(other.0, one.0, "{threads} threads: losses");
        assert!(
            bytemuck::bytes_of(&*other.1.params) == bytemuck::bytes_of(&*one.1.params),
            "{threads} threads: parameters"
        );
        assert!(other.1 == one.1, "{threads} threads: state");
        assert_eq!(other.2, one.2, "{threads} threads: logits");
    }
}

/// Returns parameters that distinguish the classes: those after sixty steps from PyTorch's hundredth, with a large learning rate.
fn trained() -> Box<Params> {
    let adam = Adam {
        lr: 0.01,
        ..Adam::default()
    };
    let state = State::new(Fixture::open("after_100").params());
    let mut backend = Cpu::new(&FASHION_MNIST.train, state, adam, 0).unwrap();
    train(&mut backend, 256, 60, FASHION_MNIST.train.len())
        .1
        .params
}

/// This is the main purpose of this package: the accuracy that the trainer measures must be that of the board.
#[test]
fn every_backend_classifies_all_test_images_as_core_does() {
    let images = FASHION_MNIST.test.images();
    let params = trained();
    let core = core_logits(&params, images);
    let classes: std::collections::BTreeSet<usize> =
        core.iter().map(|logits| argmax(logits)).collect();
    assert!(
        classes.len() > 3,
        "the parameters are hardly trained: {classes:?}"
    );
    let state = State::new(params);
    let mut backends = others(&state);
    backends.push(Box::new(reference(&state)));
    for mut backend in backends {
        let name = backend.describe();
        let mut logits = vec![Logits::default(); images.len()];
        backend.logits(images, &mut logits).unwrap();
        let (worst, largest) = distance(logits.as_flattened(), core.as_flattened());
        println!("{name}: logits within {worst:.1e} of core's, largest {largest:.1}");
        assert!(worst <= LOGITS, "{name}: logits differ by {worst:e}");
        for (i, (found, expected)) in logits.iter().zip(&core).enumerate() {
            assert_eq!(
                argmax(found),
                argmax(expected),
                "{name}, test image {i}: {found:?}, core {expected:?}"
            );
        }
    }
}

/// Compares `lenet_core` and every backend with the oracle, within the bound derived from the rounding of each operation.
#[test]
fn logits_agree_with_the_oracle_within_the_derived_bound() {
    let images = &FASHION_MNIST.test.images()[..400];
    let params = trained();
    let state = State::new(params);
    let mut found = vec![("core".to_owned(), core_logits(&state.params, images))];
    for mut backend in others(&state) {
        let mut logits = vec![Logits::default(); images.len()];
        backend.logits(images, &mut logits).unwrap();
        found.push((backend.describe(), logits));
    }
    let flat = widen(&*state.params);
    assert_eq!(flat.len(), NUM_PARAMS);
    let net = Net::new(&LAYERS, &flat);
    for (name, logits) in found {
        let share = (0..images.len())
            .into_par_iter()
            .map(|i| {
                let pixels = widen(&grey(&images[i]));
                let pixels = ArrayView3::from_shape((CHANNELS, HEIGHT, WIDTH), &pixels).unwrap();
                let expected = net.logits(pixels);
                let bound = tolerance::logits(&net, pixels);
                (0..CLASSES).fold(0.0f64, |share, class| {
                    let error = (f64::from(logits[i][class]) - expected[class]).abs();
                    assert!(
                        error <= bound[class],
                        "{name}, test image {i}, class {class}: {error:e} > {:e}",
                        bound[class]
                    );
                    share.max(error / bound[class])
                })
            })
            .reduce(|| 0.0, f64::max);
        println!("{name}: at most {share:.1e} of the bound");
    }
}
