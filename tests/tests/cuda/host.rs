//! Compiles the kernels for the host, compares them with the reference backend and the oracle, and runs them under sanitizers.

use super::{Random, assert_gradient, boxed, compile, logits, params, scratch, seen, write_source};
use lenet_core::Network;
use lenet_core::network::Pixels;
use lenet_test_support::for_each_network;
use lenet_test_support::networks::{Case, lenet, lenet_d2l, named, relu, thirds};
use lenet_test_support::oracle::{Net, widen};
use lenet_test_support::tolerance;
use ndarray::Array3;
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use trainer::adam::{self, Adam, Coefficients};
use trainer::cuda::{Layout, coefficient_words, epoch_words};
use trainer::dataset::{Augment, Order};

/// Coefficients with which a step stores the gradient in the first moment and leaves the parameters unchanged.
const GRADIENT_ONLY: Coefficients = Coefficients {
    keep1: 1.0,
    beta2: 0.0,
    keep2: 0.0,
    step_size: 0.0,
    scale2: 1.0,
    eps: 1.0,
    kept: 1.0,
    keep_mean: 1.0,
};

/// The input of a step: a batch and a state.
struct Batch<N: Network> {
    images: Random<N>,
    order: Order,
    start: usize,
    count: usize,
    augment: Option<Augment>,
    coefficients: Coefficients,
    state: State,
}

/// The parameters, both moments, and the mean.
type State = [Vec<f32>; 4];

/// The results of the program `run`.
#[derive(Debug, PartialEq)]
struct Outcome {
    logits: Vec<f32>,
    loss: Vec<f32>,
    correct: Vec<u8>,
    state: State,
    /// The gradient, computed by the kernels for several devices.
    grads: Vec<f32>,
    /// The state, computed by the kernels for several devices.
    shared: State,
}

impl<N: Case> Batch<N> {
    /// Creates a batch of `count` images, from position `start` on, of `images` random images in a random order.
    fn new(images: usize, start: usize, count: usize) -> Self {
        let zeros = || vec![0.0; Layout::of::<N>().params()];
        Self {
            images: Random::new(images),
            order: Order::shuffled(1, 0, images),
            start,
            count,
            augment: None,
            coefficients: GRADIENT_ONLY,
            state: [params::<N>(3), zeros(), zeros(), params::<N>(4)],
        }
    }

    /// Returns the position of the batch in its part of the epoch. The part begins before the batch.
    fn start_in_part(&self) -> usize {
        self.start.div_ceil(2)
    }

    /// Returns the indices of the images in the batch.
    fn indices(&self) -> Vec<usize> {
        let positions = self.start..self.start + self.count;
        positions
            .map(|position| self.order.index(position))
            .collect()
    }

    /// Returns an image of the batch, after augmentation. Only images of the network of this build can be augmented.
    fn changed(&self, index: usize, pixels: &N::Pixels) -> N::Pixels {
        let Some(augment) = &self.augment else {
            return *pixels;
        };
        let pixels: &Pixels = bytemuck::cast_slice(std::slice::from_ref(pixels))
            .first()
            .expect("an image");
        bytemuck::cast_slice(&[augment.apply(index, pixels)])[0]
    }

    fn input(&self) -> Vec<u8> {
        let first = self.start - self.start_in_part();
        let count = self.images.labels.len();
        let words = [count, self.start_in_part(), self.count].map(|n| n as u32);
        let epoch = epoch_words(&self.order, first, self.augment.as_ref());
        let mut input = bytemuck::cast_slice(&words).to_vec();
        input.extend_from_slice(bytemuck::cast_slice(&epoch));
        input.extend_from_slice(bytemuck::cast_slice(&coefficient_words(&self.coefficients)));
        for values in &self.state {
            input.extend_from_slice(bytemuck::cast_slice(values));
        }
        input.extend_from_slice(bytemuck::cast_slice(&self.images.pixels));
        input.extend_from_slice(&self.images.labels);
        input
    }

    fn outcome(&self, mut bytes: &[u8]) -> Outcome {
        let (images, layout) = (self.images.labels.len(), Layout::of::<N>());
        let mut next = |len: usize| {
            bytes
                .split_off(..len)
                .expect("all that was promised")
                .to_vec()
        };
        let mut floats = |len: usize| -> Vec<f32> { bytemuck::pod_collect_to_vec(&next(4 * len)) };
        let logits = floats(images * layout.classes());
        let loss = floats(images);
        let correct = next(images);
        let mut params =
            || -> Vec<f32> { bytemuck::pod_collect_to_vec(&next(4 * layout.params())) };
        Outcome {
            logits,
            loss,
            correct,
            state: [params(), params(), params(), params()],
            grads: params(),
            shared: [params(), params(), params(), params()],
        }
    }

    /// Runs the program on this batch, with separate files for each run.
    fn run(&self, program: &Path, thread_order: &str, skip: &str) -> Output {
        let file = |end: &str| program.with_extension(skip.replace(' ', "-") + end);
        std::fs::write(file("in"), self.input()).unwrap();
        Command::new(program)
            .args([file("in"), file("out")])
            .env("CUDA_HOST_ORDER", thread_order)
            .env("CUDA_HOST_SKIP", skip)
            .env("TSAN_OPTIONS", "halt_on_error=1")
            .output()
            .unwrap()
    }

    /// Runs the program, which must succeed, and reads its results.
    fn succeed(&self, program: &Path, thread_order: &str) -> Outcome {
        let output = self.run(program, thread_order, "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{stderr}");
        self.outcome(&std::fs::read(program.with_extension("out")).unwrap())
    }
}

/// Compiles `run.cpp` with the kernels of a network, and returns the path of the program.
fn program<N: Network>(name: &str, options: &[&str]) -> PathBuf {
    let program = scratch(&format!("{name}-{}", N::NAME));
    compile("run.cpp", &write_source::<N>(name), options, &program);
    program
}

/// Compares the kernels with the reference backend and the oracle, for a batch of `count` images from position `start` on. Some
/// batches are augmented.
fn is_the_reference<N: Case>(program: &Path, (images, start, count): (usize, usize, usize)) {
    let batch = Batch::<N> {
        augment: match N::LAYERS[0].input {
            [1, 28, 28] if count % 31 > 1 => Some(Augment::new(3, images as u32)),
            _ => None,
        },
        ..Batch::new(images, start, count)
    };
    let outcome = batch.succeed(program, "fwd");
    for thread_order in ["rev", "5", "6"] {
        let other = batch.succeed(program, thread_order);
        // Compare as text, because values that were not written are NaN.
        assert_eq!(
            format!("{other:?}"),
            format!("{outcome:?}"),
            "{} {thread_order}",
            N::NAME
        );
    }

    let flat = widen(&*boxed::<N>(&batch.state[0]));
    let (net, shape) = (Net::new(N::LAYERS, &flat), N::LAYERS[0].input);
    let wide = |pixels: &N::Pixels| {
        let image = widen(&*seen::<N>(pixels));
        Array3::from_shape_vec((shape[0], shape[1], shape[2]), image).unwrap()
    };
    let classes = Layout::of::<N>().classes();
    for (pixels, found) in batch
        .images
        .pixels
        .iter()
        .zip(outcome.logits.chunks(classes))
    {
        let expected = net.logits(wide(pixels).view());
        let bound = tolerance::logits(&net, wide(pixels).view());
        for class in 0..classes {
            let error = (f64::from(found[class]) - expected[class]).abs();
            assert!(error <= bound[class], "logit {class}: off by {error}");
        }
        let core = logits::<N>(&boxed::<N>(&batch.state[0]), &seen::<N>(pixels));
        for (&logit, expected) in found.iter().zip(core) {
            assert!(f64::from(logit - expected).abs() <= tolerance::LOGITS);
        }
    }

    let indices = batch.indices();
    let loss = |net: &Net| -> f64 {
        let losses = indices.iter().map(|&i| {
            let pixels = batch.changed(i, &batch.images.pixels[i]);
            net.loss(wide(&pixels).view(), batch.images.labels[i])
        });
        losses.sum::<f64>() / count as f64
    };
    let written = batch.start_in_part()..batch.start_in_part() + count;
    let mean = outcome.loss[written.clone()]
        .iter()
        .map(|&loss| f64::from(loss))
        .sum::<f64>()
        / count as f64;
    assert!((mean - loss(&net)).abs() <= tolerance::LOSS, "{mean}");
    for (position, (loss, correct)) in outcome.loss.iter().zip(&outcome.correct).enumerate() {
        let written = written.contains(&position);
        assert_eq!(
            (loss.is_nan(), *correct > 1),
            (!written, !written),
            "position {position}"
        );
    }

    let change = |index, pixels: &N::Pixels| batch.changed(index, pixels);
    let expected = batch.images.expected(&batch.state[0], &indices, change);
    let correct = outcome.correct[written].iter().map(|&c| u32::from(c));
    assert_eq!(correct.sum::<u32>(), expected.correct);
    let gradient = &outcome.state[1];
    assert_eq!(outcome.grads, *gradient, "the same sums");
    assert_gradient::<N>(gradient, &expected.grads);
    // Compare the gradients of small batches with central differences of the oracle in f64, at three elements of each tensor. Each
    // difference computes the loss of the whole batch twice, which takes long for large batches.
    let tensors = if count <= 3 { N::TENSORS } else { &[] };
    for tensor in tensors {
        let values = tensor.offset..tensor.offset + tensor.len();
        let tensors = expected.grads[values.clone()].iter();
        let largest = tensors.fold(0.0f32, |a, b| a.max(b.abs()));
        for i in [
            values.start,
            values.start + tensor.len() / 2,
            values.end - 1,
        ] {
            let at = |step: f64| {
                let mut moved = flat.clone();
                moved[i] += step;
                loss(&Net::new(N::LAYERS, &moved))
            };
            let difference = (at(1e-6) - at(-1e-6)) / 2e-6;
            let error = (f64::from(gradient[i]) - difference).abs();
            assert!(
                error <= tolerance::GRADIENT * f64::from(largest) + 1e-9,
                "{} {}[{}]: off by {error} from f64",
                N::NAME,
                tensor.name,
                i - values.start
            );
        }
    }

    // Adam uses the same operations as on the CPU, so with the same gradient it must give the same bits.
    let moment2 = params::<N>(9).iter().map(|v| v.abs()).collect();
    let [parameters, _, _, mean] = batch.state.clone();
    let mut state = [parameters, params::<N>(8), moment2, mean];
    let adam = Adam {
        average: Some(5),
        weight_decay: 0.1,
        ..Adam::default()
    };
    let coefficients = adam.coefficients(7);
    let batch = Batch {
        coefficients,
        state: state.clone(),
        ..batch
    };
    let outcome = batch.succeed(program, "fwd");
    let [params, moment1, moment2, mean] = &mut state;
    adam::update(&coefficients, params, gradient, moment1, moment2);
    adam::average(&coefficients, params, mean);
    assert!(outcome.state == state, "{}: Adam", N::NAME);
    assert!(outcome.shared == state, "{}: Adam, shared", N::NAME);
}

/// Covers everything that a description can express, with all networks of the tests. Three networks compute more batches.
#[test]
#[ignore = "needs g++, and a minute"]
fn kernels_of_every_network_agree_with_the_reference() {
    fn check<N: Case>() {
        let program = program::<N>("kernels", &["-O1"]);
        is_the_reference::<N>(&program, (5, 1, 3));
        if [lenet::Net::NAME, lenet_d2l::Net::NAME, relu::Net::NAME].contains(&N::NAME) {
            for batch in [(1, 0, 1), (70, 0, 33), (40, 8, 32)] {
                is_the_reference::<N>(&program, batch);
            }
        }
    }
    for_each_network!(check);
}

/// A device may get no image of a batch; its gradient must then be zero.
#[test]
#[ignore = "needs g++"]
fn without_images_the_gradient_is_zero() {
    let program = program::<lenet::Net>("none", &["-O2"]);
    let outcome = Batch::<lenet::Net>::new(3, 1, 0).succeed(&program, "5");
    assert!(outcome.grads.iter().all(|&grad| grad == 0.0));
}

const ASAN: [&str; 3] = [
    "-O0",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
];
/// Like [`ASAN`], but of UBSan only the check of indices, because the program then compiles in less time.
const BOUNDS: [&str; 3] = [
    "-O0",
    "-fsanitize=address,bounds",
    "-fno-sanitize-recover=all",
];
const TSAN: [&str; 2] = ["-O1", "-fsanitize=thread"];

/// Returns a batch of three images, from the middle of five, which fill blocks of two or one.
fn small<N: Case>() -> Batch<N> {
    Batch {
        augment: Some(Augment::new(0, 0)),
        ..Batch::new(5, 1, 3)
    }
}

fn sanitizer_finds_nothing<N: Case>(program: &Path) {
    for thread_order in ["fwd", "rev", "5"] {
        small::<N>().succeed(program, thread_order);
    }
}

#[test]
#[ignore = "needs g++"]
fn address_sanitizer_finds_nothing() {
    fn check<N: Case>() {
        sanitizer_finds_nothing::<N>(&program::<N>("asan", &ASAN));
    }
    check::<lenet::Net>();
    check::<lenet_d2l::Net>();
    check::<relu::Net>();
}

/// Returns the line in which a sanitizer, or the host build after a crash, reports an error. Panics if there is none.
fn report(what: &str, output: &Output) -> String {
    assert!(!output.status.success(), "{what}: not noticed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut lines = stderr.lines();
    let words = ["ERROR", "WARNING", "error:", "DEADLYSIGNAL"];
    let report = lines.find(|line| words.iter().any(|word| line.contains(word)));
    let report = report.unwrap_or_else(|| panic!("{what}: no report: {stderr}"));
    format!("{what}: {report}")
}

/// Checks that ThreadSanitizer finds nothing in `lenet` and in two small networks. In the small ones it then leaves out each barrier
/// of each kernel in turn, and checks that ThreadSanitizer or a crash reveals this.
#[test]
#[ignore = "needs g++, and a minute"]
fn thread_sanitizer_reports_only_missing_barriers() {
    fn without_barriers<N: Case>() {
        let program = program::<N>("tsan", &TSAN);
        sanitizer_finds_nothing::<N>(&program);
        let last = Layout::of::<N>().update_blocks() as i64 - 1;
        // The kernel, its index in the order of launches in run.cpp, and the block; -1 stands for every block. In
        // `sum_gradients` and `update` the first block computes a tile of a linear layer and the last one a tile of convolutions.
        let places = [
            ("logits", 0, -1),
            ("gradients", 1, -1),
            ("sum_gradients", 2, 0),
            ("sum_gradients", 2, last),
            ("update", 5, 0),
            ("update", 5, last),
        ];
        let counts = places.par_iter().map(|(kernel, launch, block)| {
            for barrier in 0.. {
                let skip = format!("{launch} {barrier} {block}");
                let output = small::<N>().run(&program, "5", &skip);
                if output.status.code() == Some(3) {
                    return barrier;
                }
                let what = format!("{} {kernel}, block {block}, barrier {barrier}", N::NAME);
                println!("{}", report(&what, &output));
            }
            unreachable!("a kernel has an end")
        });
        let counts: Vec<usize> = counts.collect();
        // The forward pass has a barrier after the image's index, one after the image and the weights, and one after each layer.
        // The backward pass adds one after the loss, and one between each two layers.
        let layers = N::LAYERS.len();
        assert_eq!(counts, [2 + layers, 2 + 2 * layers, 1, 1, 1, 1]);
    }
    sanitizer_finds_nothing::<lenet::Net>(&program::<lenet::Net>("tsan", &TSAN));
    without_barriers::<thirds::Net>();
    without_barriers::<named::Net>();
}

/// Moves reads and writes out of bounds, and checks that the sanitizers reveal each of these faults.
#[test]
#[ignore = "needs g++, and minutes"]
fn sanitizers_detect_planted_faults() {
    let source = Layout::of::<lenet::Net>().source();
    let mutants = [
        (
            "out[first * CLASSES + i] =",
            "out[first * CLASSES + i + CLASSES] =",
        ),
        (
            "correct[start + first + n] =",
            "correct[start + first + n + 2] =",
        ),
        ("traces[first + n], memory", "traces[first + n + 1], memory"),
        (
            "sums[layers[L].bias + o] =",
            "sums[layers[L].bias + o + 1] =",
        ),
        ("store(layers[L].bias + o", "store(layers[L].bias + o + 1"),
        (
            "sum[c][j] += grad * input[n][c_in][y + i][x + j]",
            "sum[c][j] += grad * input[n][c_in][y + i + 1][x + j]",
        ),
        (
            "at[N * y + w / N][N * x + w % N] = w == winner",
            "at[N * y + w / N + 1][N * x + w % N] = w == winner",
        ),
        (
            "image[from_y * Image::W + from_x]",
            "image[from_y * Image::W + from_x + 1]",
        ),
        (
            "params[layers[L].weight + i], weight",
            "params[layers[L].weight + i + NUM_PARAMS], weight",
        ),
    ];
    let reports = mutants.par_iter().enumerate().map(|(i, (from, to))| {
        assert_eq!(source.matches(from).count(), 1, "{from}");
        let step_cu = scratch(&format!("mutant{i}.cu"));
        std::fs::write(&step_cu, source.replace(from, to)).unwrap();
        let program = scratch(&format!("mutant{i}"));
        compile("run.cpp", &step_cu, &BOUNDS, &program);
        report(
            &format!("`{to}`"),
            &small::<lenet::Net>().run(&program, "5", ""),
        )
    });
    for report in reports.collect::<Vec<_>>() {
        println!("{report}");
    }
}
