//! Executes the PTX files in the repository with the interpreter in `machine`, checks the results, and counts what is executed.

use super::{Random, assert_gradient, boxed, first, logits, params, repository, seen};
use lenet_core::Network;
use lenet_core::network::Pixels;
use lenet_test_support::machine::{Counts, Kernel, Memory};
use lenet_test_support::networks::{Case, color, lenet, lenet_d2l, relu};
use lenet_test_support::tolerance;
use trainer::adam::{self, Adam, Coefficients};
use trainer::cuda::{Layout, THREADS, coefficient_words, epoch_words, shipped};
use trainer::dataset::{Augment, Dataset, Order};
use trainer::init::initial_params;

/// The results of a step, and the counts of what its two kernels executed.
struct Step {
    loss: Vec<f32>,
    correct: Vec<u8>,
    params: Vec<f32>,
    moment1: Vec<f32>,
    gradients: Counts,
    update: Counts,
}

fn kernel<N: Network>(name: &str, arguments: &[u64]) -> Kernel {
    Kernel::new(shipped(N::FINGERPRINT).unwrap(), name, arguments)
}

fn step<N: Network>(
    (pixels, labels): (&[N::Pixels], &[u8]),
    (order, augment): (&Order, Option<&Augment>),
    params: &[f32],
    c: &Coefficients,
) -> Step {
    let (layout, count) = (Layout::of::<N>(), labels.len());
    let blocks = count.div_ceil(layout.group());
    let mut memory = Memory::default();
    let images = memory.buffer(bytemuck::cast_slice(pixels));
    let labels = memory.buffer(labels);
    let epoch = memory.buffer(bytemuck::cast_slice(&epoch_words(order, 0, augment)));
    let zeros = vec![0.0; params.len()];
    let [params, moment1, moment2] =
        [params, &zeros, &zeros].map(|values| memory.buffer(bytemuck::cast_slice(values)));
    let coefficients = memory.buffer(bytemuck::cast_slice(&coefficient_words(c)));
    let loss = memory.buffer(&vec![0xff; 4 * count]);
    let correct = memory.buffer(&vec![0xff; count]);
    let traces = memory.buffer(&vec![0xff; 4 * layout.trace_len() * count]);
    let sums = memory.buffer(&vec![0xff; 4 * layout.conv_params() * blocks]);

    let scale = (1.0 / count as f32).to_bits().into();
    let (images_in_batch, partials) = (count as u64, blocks as u64);
    let arguments = [
        images,
        labels,
        epoch,
        0,
        images_in_batch,
        scale,
        params,
        loss,
        correct,
        traces,
        sums,
    ];
    let bytes = layout.gradients_bytes();
    let gradients =
        kernel::<N>("gradients", &arguments).launch(blocks, THREADS, bytes, &mut memory);
    let arguments = [
        traces,
        images_in_batch,
        sums,
        partials,
        coefficients,
        0,
        params,
        moment1,
        moment2,
    ];
    let blocks = layout.update_blocks();
    let update = kernel::<N>("update", &arguments).launch(blocks, THREADS, 0, &mut memory);
    Step {
        loss: memory.floats(loss, count),
        correct: memory.bytes(correct, count).to_vec(),
        params: memory.floats(params, layout.params()),
        moment1: memory.floats(moment1, layout.params()),
        gradients,
        update,
    }
}

/// Compares a step on three images, augmented or not, and the logits of five images with the reference backend.
fn assert_agrees_with_the_reference<N: Case>(augment: Option<&Augment>) {
    let (images, params) = (Random::<N>::new(3), params::<N>(3));
    let order = Order::shuffled(1, 0, 3);
    let c = Adam {
        weight_decay: 0.1,
        ..Adam::default()
    };
    let c = c.coefficients(1);
    let data = (&*images.pixels, &*images.labels);
    let step = step::<N>(data, (&order, augment), &params, &c);
    let indices = [0, 1, 2].map(|position| order.index(position));
    let expected = images.expected(&params, &indices, |index, pixels| match augment {
        None => *pixels,
        Some(augment) => {
            let pixels: &Pixels = &bytemuck::cast_slice(std::slice::from_ref(pixels))[0];
            bytemuck::cast_slice(&[augment.apply(index, pixels)])[0]
        }
    });
    let loss = f64::from(step.loss.iter().sum::<f32>() / 3.0);
    assert!((loss - expected.loss).abs() <= tolerance::LOSS, "{loss}");
    let correct: u32 = step.correct.iter().copied().map(u32::from).sum();
    assert_eq!(correct, expected.correct);
    // The first moment after the first step is the gradient times 1 - beta1.
    let gradient: Vec<f32> = step.moment1.iter().map(|m| m / c.keep1).collect();
    assert_gradient::<N>(&gradient, &expected.grads);
    let (mut updated, zeros) = (params.clone(), vec![0.0; params.len()]);
    adam::update(
        &c,
        &mut updated,
        &gradient,
        &mut zeros.clone(),
        &mut zeros.clone(),
    );
    for (a, b) in updated.iter().zip(&step.params) {
        assert!(f64::from(a - b).abs() <= tolerance::WEIGHTS, "{a} {b}");
    }

    let test = Random::<N>::new(5);
    let layout = Layout::of::<N>();
    let (classes, blocks) = (layout.classes(), 5_usize.div_ceil(layout.group()));
    let mut memory = Memory::default();
    let pixels = memory.buffer(bytemuck::cast_slice(&test.pixels));
    let buffer = memory.buffer(bytemuck::cast_slice(&params));
    let out = memory.buffer(&vec![0xff; 4 * 5 * classes]);
    let arguments = [pixels, 5, buffer, out];
    let bytes = layout.logits_bytes();
    kernel::<N>("logits", &arguments).launch(blocks, THREADS, bytes, &mut memory);
    let found = memory.floats(out, 5 * classes);
    for (pixels, found) in test.pixels.iter().zip(found.chunks(classes)) {
        let expected = logits::<N>(&boxed::<N>(&params), &seen::<N>(pixels));
        for (logit, expected) in found.iter().zip(expected) {
            assert!(
                f64::from(logit - expected).abs() <= tolerance::LOGITS,
                "{} {logit} {expected}",
                N::NAME
            );
        }
    }
}

#[test]
fn ptx_agrees_with_the_reference() {
    for augment in [None, Some(Augment::new(5, 0))] {
        assert_agrees_with_the_reference::<lenet::Net>(augment.as_ref());
    }
    assert_agrees_with_the_reference::<lenet_d2l::Net>(Some(&Augment::new(6, 0)));
    assert_agrees_with_the_reference::<relu::Net>(None);
    assert_agrees_with_the_reference::<color::Net>(None);
}

/// Updates a mean that differs much from the parameters.
#[test]
fn ptx_averages_like_the_cpu() {
    let (params, mut mean) = (params::<lenet::Net>(3), params::<lenet::Net>(4));
    let mut memory = Memory::default();
    let adam = Adam {
        average: Some(3),
        ..Adam::default()
    };
    let c = adam.coefficients(9);
    let coefficients = memory.buffer(bytemuck::cast_slice(&coefficient_words(&c)));
    let [from, out] = [&params, &mean].map(|p| memory.buffer(bytemuck::cast_slice(p)));
    kernel::<lenet::Net>("average", &[from, coefficients, 0, out]).launch(
        params.len().div_ceil(THREADS),
        THREADS,
        0,
        &mut memory,
    );
    adam::average(&c, &params, &mut mean);
    for (found, expected) in memory.floats(out, mean.len()).iter().zip(&mean) {
        let error = f64::from(found - expected).abs();
        assert!(error <= tolerance::WEIGHTS, "{found} {expected}");
    }
}

/// Counts what a step of the default network on 256 images executes. trainer/benches/RESULTS-cuda.md states the same numbers; if
/// you change the kernels, update both.
#[test]
fn a_step_executes_the_documented_counts() {
    let data = Dataset::load(&repository("data/fashion-mnist"), false).unwrap();
    let split = first(&data.train, 256);
    let order = Order::shuffled(0, 0, 256);
    let step = step::<lenet::Net>(
        (bytemuck::cast_slice(split.images()), split.labels()),
        (&order, None),
        initial_params(0).as_flat(),
        &Adam::default().coefficients(1),
    );
    println!(
        "gradients: {:#?}\nupdate: {:#?}",
        step.gradients, step.update
    );
    assert_eq!(
        step.gradients,
        Counts {
            instructions: 13_617_792,
            fma: 5_888_000,
            fma_lanes: 165_633_792,
            shared: 1_655_680,
            shared_passes: 3_154_728,
            global: 152_320,
            read_bytes: 66_645_984,
            written_bytes: 9_316_352,
            barriers: 24_576,
        }
    );
    assert_eq!(
        step.update,
        Counts {
            instructions: 1_642_271,
            fma: 345_297,
            fma_lanes: 10_793_118,
            shared: 28_432,
            shared_passes: 28_432,
            global: 197_506,
            read_bytes: 17_196_064,
            written_bytes: 661_536,
            barriers: 4_016,
        }
    );
}
