//! Tests the backend on two GPUs with NCCL. This test has not been run yet.

use std::ops::ControlFlow;
use trainer::adam::Adam;
use trainer::backend::{Backend, Batches, State};
use trainer::cuda::Cuda;
use trainer::dataset::{Dataset, Order};
use trainer::init::initial_params;

use super::repository;
use lenet_test_support::tolerance;

/// Trains two epochs on the whole data set. The first ten losses must be those of one device, and two runs must give the same
/// bits.
#[test]
#[ignore = "needs two CUDA devices and NCCL"]
fn an_epoch_agrees_with_one_device_and_is_reproducible() {
    let split = Dataset::load(&repository("data/fashion-mnist"), false)
        .unwrap()
        .train;
    let state = State::new(initial_params(0));
    let run = |devices| {
        let mut cuda = Cuda::new(&split, &state, Adam::default(), devices).unwrap();
        assert!(!cuda.describe().contains("stand-in"), "run this alone");
        let mut losses = Vec::new();
        for epoch in 0..2 {
            let order = Order::shuffled(0, epoch, split.len());
            let batches = Batches::epoch(order, split.len(), 256);
            cuda.train(&batches, &mut |stats| {
                losses.push(stats.loss);
                ControlFlow::Continue(())
            })
            .unwrap();
            let ms = cuda.last_epoch_ms().unwrap();
            println!("{}: {ms} ms an epoch by events", cuda.describe());
        }
        (losses, cuda.state().unwrap())
    };
    let (one, two) = (run(1), run(2));
    for (step, (a, b)) in one.0.iter().zip(&two.0).take(10).enumerate() {
        assert!(
            f64::from(a - b).abs() <= tolerance::LOSS,
            "step {step}: {a} {b}"
        );
    }
    assert!(run(2) == two, "two runs differ");
}
