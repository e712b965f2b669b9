//! Measures the forward pass of `lenet_core` on this machine, and the training step and evaluation of the CPU backend with each
//! instruction set, for the network of this build. Run it with `cargo bench -p lenet-training`. Before measuring, it compares the step
//! with that of the reference backend.
//!
//! `trainer bench` shows how the time of a step is spent; `pytorch/compare.py` compares the trainer with PyTorch.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use lenet_core::image::grey;
use lenet_core::network::{Activations, CLASSES, Pixels, TENSORS, forward};
use lenet_training::adam::Adam;
use lenet_training::backend::{Backend, Batches, State};
use lenet_training::cpu::{Cpu, Isa};
use lenet_training::dataset::{Order, Split};
use lenet_training::init::initial_params;
use lenet_training::reference::Reference;
use std::ops::ControlFlow;

const BATCH: usize = 256;

fn main() {
    check_step();
    divan::main();
}

/// Returns two batches of noise images.
fn data() -> Split {
    let pixels = (0..2 * BATCH * size_of::<Pixels>())
        .map(|i| (i as u32).wrapping_mul(2_654_435_761) as u8 / 2);
    Split::new(
        pixels.collect(),
        (0..2 * BATCH).map(|i| (i % CLASSES) as u8).collect(),
    )
}

fn step(backend: &mut dyn Backend) {
    let mut batches = Batches::epoch(Order::Sequential, 2 * BATCH, BATCH);
    batches.range.end = 1;
    backend
        .train(&batches, &mut |_| ControlFlow::Continue(()))
        .expect("the backend has threads");
}

/// Compares the gradients of a step with those of the reference backend. With a beta1 of 0, the first moment after a step is the
/// gradient.
fn check_step() {
    let data = data();
    let adam = Adam {
        beta1: 0.0,
        ..Adam::default()
    };
    let start = || State::new(initial_params(0));
    let mut reference = Reference::new(&data, start(), adam);
    step(&mut reference);
    let expected = reference.state().expect("a copy").moment1;
    for isa in Isa::available() {
        let mut cpu = Cpu::with_isa(&data, start(), adam, 2, isa).expect("two threads");
        step(&mut cpu);
        let found = cpu.state().expect("a copy").moment1;
        for tensor in &TENSORS {
            let range = tensor.offset..tensor.offset + tensor.len();
            let (found, expected) = (&found.as_flat()[range.clone()], &expected.as_flat()[range]);
            let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            for (found, expected) in found.iter().zip(expected) {
                let error = (found - expected).abs();
                assert!(
                    error <= 2e-5 * largest,
                    "{isa:?}, {}: {found} {expected}",
                    tensor.name
                );
            }
        }
    }
}

#[divan::bench]
fn core_forward(bencher: Bencher) {
    let (params, image) = (initial_params(0), grey(&data().images()[0]));
    let mut act = Activations::new();
    bencher.bench_local(|| *forward(&params, black_box(&image), &mut act));
}

#[divan::bench]
fn core_forward_with_this_cpu(bencher: Bencher) {
    let (params, image) = (initial_params(0), grey(&data().images()[0]));
    let mut act = Activations::new();
    bencher.bench_local(|| *lenet_training::forward::forward(&params, black_box(&image), &mut act));
}

#[divan::bench(args = Isa::available(), sample_count = 30)]
fn step_of_256_one_thread(bencher: Bencher, isa: Isa) {
    let data = data();
    let state = State::new(initial_params(0));
    let mut cpu = Cpu::with_isa(&data, state, Adam::default(), 1, isa).expect("a thread");
    bencher
        .counter(ItemsCount::new(BATCH))
        .bench_local(|| step(&mut cpu));
}

#[divan::bench(args = Isa::available(), sample_count = 30)]
fn evaluate_256_one_thread(bencher: Bencher, isa: Isa) {
    let data = data();
    let state = State::new(initial_params(0));
    let mut cpu = Cpu::with_isa(&data, state, Adam::default(), 1, isa).expect("a thread");
    let mut logits = vec![[0.0_f32; CLASSES]; BATCH];
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        cpu.logits(&data.images()[..BATCH], &mut logits)
            .expect("the CPU cannot fail");
    });
}
