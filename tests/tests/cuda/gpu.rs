//! Tests the backend on a GPU. This test has not been run yet.

use lenet_core::network::CLASSES;
use std::ops::ControlFlow;
use std::time::Instant;
use trainer::adam::Adam;
use trainer::backend::{Backend, Batches, State};
use trainer::cpu::Cpu;
use trainer::cuda::Cuda;
use trainer::dataset::{Dataset, Order};
use trainer::evaluate::core_logits;
use trainer::init::initial_params;

use super::repository;
use lenet_test_support::tolerance;

/// Trains one epoch on the whole data set. The first ten losses must be those of the CPU backend, two runs must give the same
/// bits, and the logits of the test images must be those of the board.
#[test]
#[ignore = "needs a CUDA device"]
fn an_epoch_agrees_with_the_cpu_and_is_reproducible() {
    let Dataset {
        train: split, test, ..
    } = Dataset::load(&repository("data/fashion-mnist"), false).unwrap();
    let state = State::new(initial_params(0));
    let batches = Batches::epoch(Order::shuffled(0, 0, split.len()), split.len(), 256);
    let losses = |backend: &mut dyn Backend, batches: &Batches| {
        let mut losses = Vec::new();
        backend
            .train(batches, &mut |stats| {
                losses.push(stats.loss);
                ControlFlow::Continue(())
            })
            .unwrap();
        losses
    };
    let mut cpu = Cpu::new(&split, state.clone(), Adam::default(), 0).unwrap();
    let expected = losses(
        &mut cpu,
        &Batches {
            range: 0..10,
            ..batches.clone()
        },
    );
    let mut cuda = Cuda::new(&split, &state, Adam::default(), 1).unwrap();
    // If the other modules' tests run in the same process, the driver is a stand-in.
    assert!(!cuda.describe().contains("stand-in"), "run this alone");
    let first = losses(&mut cuda, &batches);
    for (step, (loss, expected)) in first.iter().zip(&expected).enumerate() {
        assert!(
            f64::from(loss - expected).abs() <= tolerance::LOSS,
            "step {step}: {loss} {expected}"
        );
    }
    let mut again = Cuda::new(&split, &state, Adam::default(), 1).unwrap();
    assert_eq!(losses(&mut again, &batches), first);
    assert_eq!(again.state().unwrap(), cuda.state().unwrap());

    let mut logits = vec![[0.0; CLASSES]; test.len()];
    cuda.logits(test.images(), &mut logits).unwrap();
    let expected = core_logits(&cuda.state().unwrap().params, test.images());
    for (logit, expected) in logits.iter().flatten().zip(expected.iter().flatten()) {
        assert!(
            f64::from(logit - expected).abs() <= tolerance::LOGITS,
            "{logit} {expected}"
        );
    }

    let started = Instant::now();
    losses(&mut cuda, &batches);
    let (elapsed, ms) = (started.elapsed(), cuda.last_epoch_ms().unwrap());
    println!(
        "{}: {ms} ms an epoch by events, {elapsed:?} by the host's clock",
        cuda.describe()
    );
}
