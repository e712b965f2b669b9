//! The PTX in the tree, executed: what it computes, and how much it executes for that.

use super::machine::{Counts, Kernel, Memory};
use lenet_core::image::grey;
use lenet_core::network::{Activations, CLASSES, NUM_PARAMS, Params, Pixels, TENSORS, forward};
use lenet_tests::tolerance;
use trainer::adam::{self, Adam, Coefficients};
use trainer::backend::{Batches, State};
use trainer::cuda::{PTX, THREADS, UPDATE_BLOCKS, coefficient_words, definitions, epoch_words};
use trainer::dataset::{Augment, Dataset, Order, Split};
use trainer::init::initial_params;
use trainer::reference::Reference;

use super::repository;

/// Images a block, and bytes of the trace of one, as in step.cu.
fn defined(name: &str) -> usize {
    let prefix = format!("{name}=");
    let value = definitions()
        .into_iter()
        .find_map(|d| d.strip_prefix(&prefix).map(str::to_owned));
    value.unwrap().parse().unwrap()
}

/// What a step on the first `count` images leaves, and what its two kernels execute.
struct Step {
    loss: Vec<f32>,
    state: State,
    gradients: Counts,
    update: Counts,
}

fn step(
    split: &Split,
    (order, augment): (&Order, Option<&Augment>),
    count: usize,
    state: &State,
    c: &Coefficients,
) -> Step {
    let words = epoch_words(order, 0, augment);
    let blocks = count.div_ceil(defined("GROUP"));
    let conv_params = TENSORS[4].offset;
    let mut memory = Memory::default();
    let images = memory.buffer(bytemuck::cast_slice::<_, u8>(split.images()));
    let labels = memory.buffer(split.labels());
    let epoch = memory.buffer(bytemuck::cast_slice(&words));
    let [params, moment1, moment2] = [&state.params, &state.moment1, &state.moment2]
        .map(|p| memory.buffer(bytemuck::cast_slice(p.as_flat())));
    let coefficients = memory.buffer(bytemuck::cast_slice(&coefficient_words(c)));
    let loss = memory.buffer(&vec![0xff; 4 * count]);
    let correct = memory.buffer(&vec![0xff; count]);
    let traces = memory.buffer(&vec![0xff; defined("TRACE_BYTES") * count]);
    let sums = memory.buffer(&vec![0xff; 4 * conv_params * blocks]);

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
    let gradients =
        Kernel::new(PTX, "gradients", &arguments).launch(blocks, THREADS, 0, &mut memory);
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
    let update =
        Kernel::new(PTX, "update", &arguments).launch(UPDATE_BLOCKS, THREADS, 0, &mut memory);
    let read = |address| {
        let mut params: Box<Params> = bytemuck::zeroed_box();
        params
            .as_flat_mut()
            .copy_from_slice(&memory.floats(address, NUM_PARAMS));
        params
    };
    Step {
        loss: memory.floats(loss, count),
        state: State {
            params: read(params),
            moment1: read(moment1),
            moment2: read(moment2),
            step: 1,
            mean: None,
        },
        gradients,
        update,
    }
}

fn dataset() -> Dataset {
    Dataset::load(&repository("data/fashion-mnist"), false).unwrap()
}

/// Against the reference: three images, in two blocks, as they are and augmented; logits of five.
#[test]
fn ptx_computes_what_the_reference_does() {
    for augment in [None, Some(Augment::new(5, 0))] {
        computes_what_the_reference_does(augment.as_ref());
    }
}

fn computes_what_the_reference_does(augment: Option<&Augment>) {
    let split = dataset().train.truncated(3);
    let (order, state) = (Order::shuffled(1, 0, 3), State::new(initial_params(3)));
    let c = Adam {
        weight_decay: 0.1,
        ..Adam::default()
    };
    let c = c.coefficients(1);
    let step = step(&split, (&order, augment), 3, &state, &c);
    let reference = Reference::new(&split, state.clone(), Adam::default());
    let batches = Batches::epoch(order, 3, 3);
    let (expected, stats) = reference.gradient(batches.batch(0), augment);
    let loss = step.loss.iter().sum::<f32>() / 3.0;
    assert!(
        f64::from(loss - stats.loss).abs() <= tolerance::LOSS,
        "{loss} {stats:?}"
    );
    // The first step's first moment is a tenth of the gradient.
    let gradient: Vec<f32> = step
        .state
        .moment1
        .as_flat()
        .iter()
        .map(|m| m / c.keep1)
        .collect();
    for tensor in TENSORS {
        let values = tensor.offset..tensor.offset + tensor.len();
        let largest = expected.as_flat()[values.clone()]
            .iter()
            .fold(0.0f32, |a, b| a.max(b.abs()));
        for i in values.clone() {
            let error = f64::from(gradient[i] - expected.as_flat()[i]).abs();
            let limit = tolerance::GRADIENT * f64::from(largest);
            assert!(
                error <= limit,
                "{}[{}]: off by {error}, limit {limit}",
                tensor.name,
                i - values.start
            );
        }
    }
    let State {
        mut params,
        mut moment1,
        mut moment2,
        ..
    } = state.clone();
    adam::update(
        &c,
        params.as_flat_mut(),
        &gradient,
        moment1.as_flat_mut(),
        moment2.as_flat_mut(),
    );
    for (a, b) in params.as_flat().iter().zip(step.state.params.as_flat()) {
        assert!(f64::from(a - b).abs() <= tolerance::WEIGHTS, "{a} {b}");
    }

    // A mean, far from them.
    let mut mean = initial_params(4);
    let mut memory = Memory::default();
    let adam = Adam {
        average: Some(3),
        ..Adam::default()
    };
    let c = adam.coefficients(9);
    let coefficients = memory.buffer(bytemuck::cast_slice(&coefficient_words(&c)));
    let [from, out] = [&params, &mean].map(|p| memory.buffer(bytemuck::cast_slice(p.as_flat())));
    Kernel::new(PTX, "average", &[from, coefficients, 0, out]).launch(
        NUM_PARAMS.div_ceil(THREADS),
        THREADS,
        0,
        &mut memory,
    );
    adam::average(&c, params.as_flat(), mean.as_flat_mut());
    for (found, expected) in memory.floats(out, NUM_PARAMS).iter().zip(mean.as_flat()) {
        let error = f64::from(found - expected).abs();
        assert!(error <= tolerance::WEIGHTS, "{found} {expected}");
    }

    let test = dataset().test.truncated(5);
    let mut memory = Memory::default();
    let images = memory.buffer(bytemuck::cast_slice::<_, u8>(test.images()));
    let params = memory.buffer(bytemuck::cast_slice(state.params.as_flat()));
    let out = memory.buffer(&[0xff; 4 * 5 * CLASSES]);
    Kernel::new(PTX, "logits", &[images, 5, params, out]).launch(3, THREADS, 0, &mut memory);
    let logits = memory.floats(out, 5 * CLASSES);
    for (pixels, logits) in test.images().iter().zip(logits.chunks(CLASSES)) {
        let pixels: &Pixels = pixels;
        let expected = forward(&state.params, &grey(pixels), &mut Activations::new()).to_owned();
        for (logit, expected) in logits.iter().zip(expected) {
            assert!(
                f64::from(logit - expected).abs() <= tolerance::LOGITS,
                "{logit} {expected}"
            );
        }
    }
}

/// Of a step on 256 images. The numbers stand in trainer/benches/RESULTS-cuda.md too; a change of the kernels changes
/// them, deliberately.
#[test]
fn a_step_executes_so_much() {
    let split = dataset().train.truncated(256);
    let (order, state) = (Order::shuffled(0, 0, 256), State::new(initial_params(0)));
    let step = step(
        &split,
        (&order, None),
        256,
        &state,
        &Adam::default().coefficients(1),
    );
    println!(
        "gradients: {:#?}\nupdate: {:#?}",
        step.gradients, step.update
    );
    assert_eq!(
        step.gradients,
        Counts {
            instructions: 13_582_720,
            fma: 5_888_000,
            fma_lanes: 165_633_792,
            shared: 1_663_232,
            shared_passes: 3_155_112,
            global: 159_488,
            read_bytes: 66_875_360,
            written_bytes: 9_316_352,
            barriers: 24_576,
        }
    );
    assert_eq!(
        step.update,
        Counts {
            instructions: 1_641_455,
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
