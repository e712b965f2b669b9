//! Times of `lenet_core`'s kernels on this machine, and of the CPU backend's step and evaluation with each instruction
//! set: `cargo bench -p trainer`. What is timed is compared first, the kernels with plainer ones, the step with the
//! reference.
//!
//! Where the time of a step goes tells `trainer bench`; ratios to PyTorch come from `pytorch/compare.py`.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use lenet_core::network::*;
use lenet_core::network::{Activations, forward};
use lenet_core::ops;
use std::ops::ControlFlow;
use trainer::adam::Adam;
use trainer::backend::{Backend, Batches, State};
use trainer::cpu::{Cpu, Isa};
use trainer::dataset::{Order, Split};
use trainer::init::initial_params;
use trainer::reference::Reference;

const BATCH: usize = 256;

fn main() {
    check_kernels();
    check_step();
    divan::main();
}

/// Images of noise, of two batches.
fn data() -> Split {
    let pixels =
        (0..2 * BATCH * SIDE * SIDE).map(|i| (i as u32).wrapping_mul(2_654_435_761) as u8 / 2);
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

fn check_kernels() {
    let params = initial_params(0);
    let input = image(&data().images()[0]);
    let (mut conv, mut expected) = (
        [[[0.0; CONV1_SIDE]; CONV1_SIDE]; C1],
        [[[0.0; POOL1_SIDE]; POOL1_SIDE]; C1],
    );
    ops::conv2d(&input, &params.conv1.weight, &params.conv1.bias, &mut conv);
    ops::max_pool2d(&conv, &mut expected);
    ops::sigmoid_in_place(expected.as_flattened_mut().as_flattened_mut());
    let mut act = Activations::new();
    forward(&params, &input, &mut act);
    assert_eq!(act.pool1, expected, "conv1, pool1");

    let (mut conv, mut expected) = (
        [[[0.0; CONV2_SIDE]; CONV2_SIDE]; C2],
        [[[0.0; POOL2_SIDE]; POOL2_SIDE]; C2],
    );
    ops::conv2d(
        &act.pool1,
        &params.conv2.weight,
        &params.conv2.bias,
        &mut conv,
    );
    ops::max_pool2d(&conv, &mut expected);
    ops::sigmoid_in_place(expected.as_flattened_mut().as_flattened_mut());
    assert_eq!(act.pool2, expected, "conv2, pool2");

    let rows = params.fc3.weight.iter().zip(params.fc3.bias);
    let expected = rows.map(|(row, bias)| {
        row.iter()
            .zip(act.fc2)
            .fold(bias, |sum, (w, x)| sum + x * w)
    });
    assert!(expected.eq(act.logits), "fc3");
}

/// With beta1 at 0 the first moment after a step is the gradient.
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

/// One group of `lenet_core`'s kernels, with the activations they read.
struct Core {
    params: Box<Params>,
    image: Image,
    act: Activations,
}

impl Core {
    fn new() -> Self {
        let (params, image) = (initial_params(0), image(&data().images()[0]));
        let mut act = Activations::new();
        forward(&params, &image, &mut act);
        Self { params, image, act }
    }
}

#[divan::bench]
fn core_conv1_pool_sigmoid(bencher: Bencher) {
    let Core { params, image, act } = Core::new();
    let mut out = act.pool1;
    bencher.bench_local(|| {
        ops::conv_pool_sigmoid(
            black_box(&image),
            &params.conv1.weight,
            &params.conv1.bias,
            &mut out,
        );
    });
}

#[divan::bench]
fn core_conv2_pool_sigmoid(bencher: Bencher) {
    let Core { params, act, .. } = Core::new();
    let mut out = act.pool2;
    bencher.bench_local(|| {
        ops::conv_pool_sigmoid(
            black_box(&act.pool1),
            &params.conv2.weight,
            &params.conv2.bias,
            &mut out,
        );
    });
}

#[divan::bench]
fn core_fc1(bencher: Bencher) {
    let Core { params, act, .. } = Core::new();
    let flat: &[f32; FLAT] = bytemuck::must_cast_ref(&act.pool2);
    let mut out = act.fc1;
    bencher.bench_local(|| {
        ops::linear(
            black_box(flat),
            &params.fc1.weight,
            &params.fc1.bias,
            &mut out,
        )
    });
}

#[divan::bench]
fn core_sigmoid_of_fc1(bencher: Bencher) {
    let mut values = Core::new().act.fc1;
    bencher.bench_local(|| ops::sigmoid_in_place(black_box(&mut values)));
}

#[divan::bench]
fn core_forward(bencher: Bencher) {
    let Core {
        params,
        image,
        mut act,
    } = Core::new();
    bencher.bench_local(|| *forward(&params, black_box(&image), &mut act));
}

#[divan::bench]
fn core_forward_with_this_cpu(bencher: Bencher) {
    let Core {
        params,
        image,
        mut act,
    } = Core::new();
    bencher.bench_local(|| *trainer::forward::forward(&params, black_box(&image), &mut act));
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
    let mut logits = vec![Logits::default(); BATCH];
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        cpu.logits(&data.images()[..BATCH], &mut logits)
            .expect("the CPU cannot fail");
    });
}
