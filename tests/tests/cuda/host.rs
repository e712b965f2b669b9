//! The kernels compiled for the host.

use super::{compile, repository, scratch};
use lenet_core::image::grey;
use lenet_core::network::{
    Activations, CLASSES, LAYERS, Logits, NUM_PARAMS, Params, Pixels, TENSORS, forward,
};
use lenet_tests::oracle::{Net, widen};
use lenet_tests::tolerance;
use ndarray::Array3;
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use trainer::adam::{self, Adam, Coefficients};
use trainer::backend::{Batches, State};
use trainer::cuda::{coefficient_words, epoch_words};
use trainer::dataset::{Augment, Order, Split};
use trainer::init::initial_params;
use trainer::reference::Reference;

/// With these, a step leaves the gradient in the first moment.
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

/// A step on a batch.
struct Case {
    split: Split,
    order: Order,
    start: usize,
    count: usize,
    augment: Option<Augment>,
    coefficients: Coefficients,
    state: State,
}

/// What `run` leaves.
#[derive(Debug, PartialEq)]
struct Outcome {
    logits: Vec<Logits>,
    loss: Vec<f32>,
    correct: Vec<u8>,
    state: State,
    /// By the kernels for a batch that devices share.
    grads: Box<Params>,
    /// As `state`, by those kernels.
    shared: State,
}

impl Case {
    /// `count` images from position `start`, of `images` random ones in a random order.
    fn new(images: usize, start: usize, count: usize) -> Self {
        use rand_chacha::rand_core::Rng;
        use trainer::dataset::generator;
        let mut rng = generator(images as u64, 9);
        let mut pixels = vec![0; images * size_of::<Pixels>()];
        rng.fill_bytes(&mut pixels);
        let labels = (0..images)
            .map(|_| (rng.next_u32() % CLASSES as u32) as u8)
            .collect();
        Self {
            split: Split::new(pixels, labels),
            order: Order::shuffled(1, 0, images),
            start,
            count,
            augment: None,
            coefficients: GRADIENT_ONLY,
            state: State {
                mean: Some(initial_params(4)),
                ..State::new(initial_params(3))
            },
        }
    }

    /// The part of the epoch begins at a position of its own, before the batch.
    fn start_in_part(&self) -> usize {
        self.start.div_ceil(2)
    }

    /// An image as the network sees it.
    fn image(&self, index: usize) -> Pixels {
        let pixels = &self.split.images()[index];
        let augmented = self.augment.map(|augment| augment.apply(index, pixels));
        augmented.unwrap_or(*pixels)
    }

    fn input(&self) -> Vec<u8> {
        let first = self.start - self.start_in_part();
        let words = [self.split.len(), self.start_in_part(), self.count].map(|n| n as u32);
        let epoch = epoch_words(&self.order, first, self.augment.as_ref());
        let State {
            params,
            moment1,
            moment2,
            mean,
            ..
        } = &self.state;
        let mean = mean.as_ref().expect("cases have one");
        let mut input = bytemuck::cast_slice(&words).to_vec();
        input.extend_from_slice(bytemuck::cast_slice(&epoch));
        input.extend_from_slice(bytemuck::cast_slice(&coefficient_words(&self.coefficients)));
        for params in [params, moment1, moment2, mean] {
            input.extend_from_slice(bytemuck::cast_slice(params.as_flat()));
        }
        input.extend_from_slice(bytemuck::cast_slice::<_, u8>(self.split.images()));
        input.extend_from_slice(self.split.labels());
        input
    }

    fn outcome(&self, mut bytes: &[u8]) -> Outcome {
        let images = self.split.len();
        let mut next = |len: usize| {
            bytes
                .split_off(..len)
                .expect("all that was promised")
                .to_vec()
        };
        let mut floats = |len: usize| -> Vec<f32> { bytemuck::pod_collect_to_vec(&next(4 * len)) };
        let logits = floats(images * CLASSES);
        let loss = floats(images);
        let correct = next(images);
        let mut params = || -> Box<Params> {
            let mut params: Box<Params> = bytemuck::zeroed_box();
            let values: Vec<f32> = bytemuck::pod_collect_to_vec(&next(4 * NUM_PARAMS));
            params.as_flat_mut().copy_from_slice(&values);
            params
        };
        let state = |params: &mut dyn FnMut() -> Box<Params>| State {
            params: params(),
            moment1: params(),
            moment2: params(),
            step: 0,
            mean: Some(params()),
        };
        Outcome {
            logits: logits.as_chunks().0.to_vec(),
            loss,
            correct,
            state: state(&mut params),
            grads: params(),
            shared: state(&mut params),
        }
    }

    /// Runs the program on this case.
    fn run(&self, program: &Path, thread_order: &str) -> Output {
        let input = program.with_extension("in");
        std::fs::write(&input, self.input()).unwrap();
        Command::new(program)
            .args([&input, &program.with_extension("out")])
            .env("CUDA_HOST_ORDER", thread_order)
            .env("TSAN_OPTIONS", "halt_on_error=1")
            .output()
            .unwrap()
    }

    /// Runs it and reads what it left.
    fn succeed(&self, program: &Path, thread_order: &str) -> Outcome {
        let output = self.run(program, thread_order);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{stderr}");
        self.outcome(&std::fs::read(program.with_extension("out")).unwrap())
    }
}

/// `run.cpp` with the kernels of the tree.
fn program(name: &str, options: &[&str]) -> PathBuf {
    let program = scratch(name);
    compile(
        "run.cpp",
        &repository("trainer/src/cuda/step.cu"),
        options,
        &program,
    );
    program
}

/// The kernels against the reference backend and the oracle: one image, an odd number, a last batch, a full block.
#[test]
#[ignore = "needs g++"]
fn kernels_compute_what_the_reference_does() {
    let program = program("kernels", &["-O2"]);
    for (images, start, count) in [(1, 0, 1), (9, 6, 3), (70, 0, 33), (40, 8, 32)] {
        let case = Case {
            augment: (count % 31 > 1).then(|| Augment::new(3, images as u32)),
            ..Case::new(images, start, count)
        };
        let outcome = case.succeed(&program, "fwd");
        for thread_order in ["rev", "5", "6"] {
            let other = case.succeed(&program, thread_order);
            // NaN where nothing was written.
            assert_eq!(
                format!("{other:?}"),
                format!("{outcome:?}"),
                "{thread_order}"
            );
        }

        let params = &case.state.params;
        let flat = widen(&**params);
        let net = Net::new(&LAYERS, &flat);
        let wide = |pixels: &Pixels| {
            let image = grey(pixels);
            Array3::from_shape_vec((1, 28, 28), widen(&image)).unwrap()
        };
        for (pixels, logits) in case.split.images().iter().zip(&outcome.logits) {
            let expected = net.logits(wide(pixels).view());
            let bound = tolerance::logits(&net, wide(pixels).view());
            for class in 0..CLASSES {
                let error = (f64::from(logits[class]) - expected[class]).abs();
                assert!(error <= bound[class], "logit {class}: off by {error}");
            }
            let core = forward(params, &grey(pixels), &mut Activations::new()).to_owned();
            for (&logit, expected) in logits.iter().zip(core) {
                assert!(f64::from(logit - expected).abs() <= tolerance::LOGITS);
            }
        }

        let batch: Vec<usize> = (start..start + count)
            .map(|position| case.order.index(position))
            .collect();
        let loss = |net: &Net| -> f64 {
            let losses = batch
                .iter()
                .map(|&i| net.loss(wide(&case.image(i)).view(), case.split.labels()[i]));
            losses.sum::<f64>() / count as f64
        };
        let written = case.start_in_part()..case.start_in_part() + count;
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

        let reference = Reference::new(&case.split, case.state.clone(), Adam::default());
        let batches = Batches {
            order: case.order,
            images,
            batch_size: 1,
            range: 0..images,
            augment: None,
        };
        let positions = start..start + count;
        let order = positions.map(|position| batches.batch(position).next().unwrap());
        let (expected, stats) =
            reference.gradient(order.collect::<Vec<_>>().into_iter(), case.augment.as_ref());
        assert_eq!(
            outcome.correct[written]
                .iter()
                .map(|&c| u32::from(c))
                .sum::<u32>(),
            stats.correct
        );
        let gradient = &outcome.state.moment1;
        assert_eq!(outcome.grads, *gradient, "the same sums");
        for tensor in TENSORS {
            let values = tensor.offset..tensor.offset + tensor.len();
            let largest = expected.as_flat()[values.clone()]
                .iter()
                .fold(0.0f32, |a, b| a.max(b.abs()));
            let limit = tolerance::GRADIENT * f64::from(largest);
            for i in values.clone() {
                let error = f64::from(gradient.as_flat()[i] - expected.as_flat()[i]).abs();
                assert!(
                    error <= limit,
                    "{}[{}]: off by {error}, limit {limit}",
                    tensor.name,
                    i - values.start
                );
            }
            // Against f64: central differences of the oracle, at three elements.
            for i in [
                values.start,
                values.start + tensor.len() / 2,
                values.end - 1,
            ] {
                let at = |step: f64| {
                    let mut moved = flat.clone();
                    moved[i] += step;
                    loss(&Net::new(&LAYERS, &moved))
                };
                let difference = (at(1e-6) - at(-1e-6)) / 2e-6;
                let error = (f64::from(gradient.as_flat()[i]) - difference).abs();
                assert!(
                    error <= limit + 1e-9,
                    "{}[{}]: off by {error} from f64",
                    tensor.name,
                    i - values.start
                );
            }
        }

        // The same gradient through Adam: the same operations as on the CPU, so the same bits.
        let mut state = State {
            moment1: initial_params(8),
            moment2: initial_params(9),
            ..case.state.clone()
        };
        state
            .moment2
            .as_flat_mut()
            .iter_mut()
            .for_each(|v| *v = v.abs());
        let adam = Adam {
            average: Some(5),
            weight_decay: 0.1,
            ..Adam::default()
        };
        let coefficients = adam.coefficients(7);
        let case = Case {
            coefficients,
            state: state.clone(),
            ..case
        };
        let outcome = case.succeed(&program, "fwd");
        let State {
            params,
            moment1,
            moment2,
            mean: Some(mean),
            ..
        } = &mut state
        else {
            panic!("cases have a mean");
        };
        let [params, moment1, moment2] = [params, moment1, moment2].map(|p| p.as_flat_mut());
        adam::update(&coefficients, params, gradient.as_flat(), moment1, moment2);
        adam::average(&coefficients, params, mean.as_flat_mut());
        assert_eq!(outcome.state, state);
        assert_eq!(outcome.shared, state);
    }
}

/// As on a device whose share of a batch is none.
#[test]
#[ignore = "needs g++"]
fn no_images_have_no_gradient() {
    let outcome = Case::new(3, 1, 0).succeed(&program("none", &["-O2"]), "5");
    assert!(outcome.grads.as_flat().iter().all(|&grad| grad == 0.0));
}

const ASAN: [&str; 3] = [
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
];
const TSAN: [&str; 2] = ["-O1", "-fsanitize=thread"];

/// Three images in blocks of two, with two more around them.
fn small() -> Case {
    Case::new(5, 1, 3)
}

#[test]
#[ignore = "needs g++"]
fn sanitizers_find_nothing() {
    for (name, options) in [("asan", &ASAN[..]), ("tsan", &TSAN)] {
        let program = program(name, options);
        for thread_order in ["fwd", "rev", "5"] {
            small().succeed(&program, thread_order);
        }
    }
}

/// Would the sanitizers notice? Every `__syncthreads` removed in turn, and reads and writes moved out of bounds.
#[test]
#[ignore = "needs g++, and minutes"]
fn sanitizers_find_planted_faults() {
    const BARRIER: &str = "__syncthreads();";
    let source = std::fs::read_to_string(repository("trainer/src/cuda/step.cu")).unwrap();
    let barriers = source.match_indices(BARRIER).map(|(at, _)| {
        let line = source[..at].lines().count();
        let mutant = format!("{}{}", &source[..at], &source[at + BARRIER.len()..]);
        (format!("line {line}: barrier removed"), mutant, &TSAN[..])
    });
    let moved = [
        (
            "out[first * CLASSES + i] =",
            "out[first * CLASSES + i + CLASSES] =",
        ),
        (
            "correct[start + first + n] =",
            "correct[start + first + n + 2] =",
        ),
        ("traces[first + n];", "traces[first + n + 1];"),
        (
            "grads[OFFSET_CONV2_BIAS + o] =",
            "grads[OFFSET_CONV2_BIAS + o + 1] =",
        ),
        ("store(bias + o", "store(bias + o + 1"),
        ("f.image[n][y + i][x + j]", "f.image[n][y + i + 1][x + j]"),
    ]
    .map(|(from, to)| {
        assert_eq!(source.matches(from).count(), 1, "{from}");
        (format!("`{to}`"), source.replace(from, to), &ASAN[..])
    });
    let mutants: Vec<_> = barriers.chain(moved).collect();
    assert!(mutants.len() > 10);
    let reports = mutants
        .par_iter()
        .enumerate()
        .map(|(i, (what, mutant, options))| {
            let step_cu = scratch(&format!("mutant{i}.cu"));
            std::fs::write(&step_cu, mutant).unwrap();
            let program = scratch(&format!("mutant{i}"));
            compile("run.cpp", &step_cu, options, &program);
            let output = small().run(&program, "5");
            assert!(!output.status.success(), "{what}: not noticed");
            let stderr = String::from_utf8_lossy(&output.stderr);
            let report = stderr.lines().find(|line| {
                line.contains("ERROR") || line.contains("WARNING") || line.contains("error:")
            });
            format!(
                "{what}: {}",
                report.unwrap_or_else(|| panic!("{what}: no report: {stderr}"))
            )
        });
    for report in reports.collect::<Vec<_>>() {
        println!("{report}");
    }
}
