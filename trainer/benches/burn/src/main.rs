//! Measures the same training with the framework burn, on its CPU backend burn-flex. `pytorch/compare.py --burn` runs this
//! program; you can also run it manually.
//!
//! `burn-lenet [--threads N] [--steps N] [--data FOLDER]` trains LeNet on Fashion-MNIST as `pytorch/lenet.py` does: all data
//! converted to f32 beforehand, batches of 256 shuffled images, burn's default initialisation (which is PyTorch's),
//! cross-entropy, Adam with PyTorch's defaults. It prints one JSON object, and fails if the loss has not fallen over the steps
//! before those timed.
//!
//! A step consists of everything from selecting the images of the batch to Adam's update and the loss as a number. The evaluation
//! counts the correct predictions among the 10,000 test images.
//!
//! This is the fastest form that was found. Max-pooling comes before the sigmoid, which is monotone, so that the sigmoid is
//! computed for a quarter of the values only. Burn's matrix products use AVX-512, and the program is compiled for the machine
//! that runs it (`.cargo/config.toml`). Evaluating in batches of 256 to 2000, and keeping memory from one step to the next, made
//! no difference.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::prelude::*;
use burn::tensor::activation::sigmoid;
use flate2::read::GzDecoder;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BATCH_SIZE: usize = 256;
const TEST_BATCH_SIZE: usize = 250;
const LR: f64 = 0.001;
const SIDE: usize = 28;
const NUM_PARAMS: usize = 44_426;
/// The number of steps before the timed ones. At the start, the loss stays at ln 10; these steps are enough for it to fall.
const WARM_UP_STEPS: usize = 200;
/// The number of steps at the start and at the end of the warm-up whose mean losses are compared.
const COMPARED_STEPS: usize = 10;
const EVALUATIONS: usize = 3;

#[derive(Module, Debug)]
struct LeNet {
    conv1: Conv2d,
    conv2: Conv2d,
    pool: MaxPool2d,
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
}

impl LeNet {
    fn new(device: &Device) -> Self {
        Self {
            conv1: Conv2dConfig::new([1, 6], [5, 5]).init(device),
            conv2: Conv2dConfig::new([6, 16], [5, 5]).init(device),
            pool: MaxPool2dConfig::new([2, 2]).init(),
            fc1: LinearConfig::new(256, 120).init(device),
            fc2: LinearConfig::new(120, 84).init(device),
            fc3: LinearConfig::new(84, 10).init(device),
        }
    }

    /// Computes the logits, `(N, 10)`, of images, `(N, SIDE * SIDE)`.
    fn forward(&self, images: Tensor<2>) -> Tensor<2> {
        let [n, _] = images.dims();
        let x = images.reshape([n, 1, SIDE, SIDE]);
        let x = sigmoid(self.pool.forward(self.conv1.forward(x)));
        let x = sigmoid(self.pool.forward(self.conv2.forward(x)));
        let x = sigmoid(self.fc1.forward(x.flatten(1, 3)));
        let x = sigmoid(self.fc2.forward(x));
        self.fc3.forward(x)
    }
}

struct Split {
    /// `(N, SIDE * SIDE)`, in 0..=1.
    images: Tensor<2>,
    /// `(N)`
    labels: Tensor<1, Int>,
}

impl Split {
    fn load(folder: &Path, name: &str, device: &Device) -> Result<Self, Box<dyn Error>> {
        let pixels = read_idx(&folder.join(format!("{name}-images-idx3-ubyte.gz")), 3)?;
        let labels = read_idx(&folder.join(format!("{name}-labels-idx1-ubyte.gz")), 1)?;
        let shape = [labels.len(), SIDE * SIDE];
        if pixels.len() != shape[0] * shape[1] {
            return Err(format!("{name}: {} pixels for {} labels", pixels.len(), shape[0]).into());
        }
        let pixels: Vec<f32> = pixels.into_iter().map(|p| f32::from(p) / 255.0).collect();
        let labels: Vec<i32> = labels.into_iter().map(i32::from).collect();
        Ok(Self {
            images: Tensor::from_data(TensorData::new(pixels, shape), device),
            labels: Tensor::from_data(TensorData::new(labels, [shape[0]]), device),
        })
    }

    fn len(&self) -> usize {
        self.labels.dims()[0]
    }
}

/// Reads the data of a gzipped IDX file of bytes, which consists of two zeros, the type, the rank, the dimensions in four bytes
/// each, and the data.
fn read_idx(path: &Path, rank: u8) -> Result<Vec<u8>, Box<dyn Error>> {
    let error = |e| format!("{}: {e}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(error)?;
    GzDecoder::new(file)
        .read_to_end(&mut bytes)
        .map_err(error)?;
    let header = 4 + 4 * usize::from(rank);
    if bytes.len() < header || bytes[..4] != [0, 0, 8, rank] {
        return Err(format!(
            "{} is not an IDX file of bytes of rank {rank}",
            path.display()
        )
        .into());
    }
    Ok(bytes.split_off(header))
}

struct Trainer {
    model: LeNet,
    loss: CrossEntropyLoss,
    adam: ModuleOptimizer,
    train: Split,
    test: Split,
    rng: ChaCha8Rng,
}

impl Trainer {
    /// Reads the data set and creates the model. The test images are on the backend without automatic differentiation, like the
    /// model during evaluation.
    fn new(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let device = Device::flex();
        device.seed(0);
        let training = device.clone().autodiff();
        Ok(Self {
            model: LeNet::new(&training),
            loss: CrossEntropyLossConfig::new().init(&training),
            adam: AdamConfig::new().with_epsilon(1e-8).init(),
            train: Split::load(folder, "train", &training)?,
            test: Split::load(folder, "t10k", &device)?,
            rng: ChaCha8Rng::seed_from_u64(0),
        })
    }

    /// Returns the indices of an epoch's images, shuffled by the method of Fisher and Yates.
    fn shuffled(&mut self) -> Vec<i32> {
        let mut order: Vec<i32> = (0..self.train.len() as i32).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, (self.rng.next_u64() % (last as u64 + 1)) as usize);
        }
        order
    }

    /// Trains on the images at `index`, and returns their loss before the update.
    fn step(&mut self, index: &[i32]) -> f32 {
        let index =
            Tensor::<1, Int>::from_data(TensorData::from(index), &self.train.labels.device());
        let images = self.train.images.clone().select(0, index.clone());
        let labels = self.train.labels.clone().select(0, index);
        let loss = self.loss.forward(self.model.forward(images), labels);
        let grads = GradientsParams::from_grads(loss.backward(), &self.model);
        self.model = self.adam.step(LR, self.model.clone(), grads);
        loss.into_scalar()
    }

    /// Runs `count` steps with full batches, and returns the loss and the time of each.
    fn steps(&mut self, count: usize) -> Vec<(f32, Duration)> {
        let mut steps = Vec::with_capacity(count);
        while steps.len() < count {
            let order = self.shuffled();
            for index in order.chunks_exact(BATCH_SIZE).take(count - steps.len()) {
                steps.push(timed(|| self.step(index)));
            }
        }
        steps
    }

    /// Returns the accuracy on the test images.
    fn accuracy(&self) -> f64 {
        let model = self.model.valid();
        let images = self.test.images.clone().split(TEST_BATCH_SIZE, 0);
        let labels = self.test.labels.clone().split(TEST_BATCH_SIZE, 0);
        let right = images.into_iter().zip(labels).map(|(images, labels)| {
            let answers = model.forward(images).argmax(1).flatten(0, 1);
            labels.equal(answers).int().sum().into_scalar::<i64>()
        });
        right.sum::<i64>() as f64 / self.test.len() as f64
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

fn median_ms(times: impl Iterator<Item = Duration>) -> f64 {
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    1e3 * times[times.len() / 2].as_secs_f64()
}

fn mean_loss(steps: &[(f32, Duration)]) -> f32 {
    steps.iter().map(|(loss, _)| loss).sum::<f32>() / steps.len() as f32
}

struct Arguments {
    threads: usize,
    steps: usize,
    data: PathBuf,
}

impl Arguments {
    fn parse() -> Result<Self, Box<dyn Error>> {
        let mut parsed = Self {
            threads: std::thread::available_parallelism()?.get(),
            steps: 200,
            data: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../data/fashion-mnist"),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(format!("{name} needs a value"))?;
            match name.as_str() {
                "--threads" => parsed.threads = value.parse()?,
                "--steps" => parsed.steps = value.parse()?,
                "--data" => parsed.data = value.into(),
                _ => return Err(format!("unknown argument {name}").into()),
            }
        }
        Ok(parsed)
    }
}

fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut trainer = Trainer::new(&arguments.data)?;
    assert_eq!(trainer.model.num_params(), NUM_PARAMS);
    let warm_up = trainer.steps(WARM_UP_STEPS);
    let first_loss = mean_loss(&warm_up[..COMPARED_STEPS]);
    let last_loss = mean_loss(&warm_up[WARM_UP_STEPS - COMPARED_STEPS..]);
    let learns = last_loss < first_loss;
    if !learns {
        return Err(format!("the loss has not fallen: {first_loss} to {last_loss}").into());
    }
    let steps = trainer.steps(arguments.steps.max(1));
    let step_ms = median_ms(steps.into_iter().map(|(_, time)| time));
    let accuracy = trainer.accuracy();
    let evaluation_ms = median_ms((0..EVALUATIONS).map(|_| timed(|| trainer.accuracy()).1));
    println!(
        r#"{{"threads": {}, "step_ms": {step_ms:.3}, "evaluation_ms": {evaluation_ms:.2}, "first_loss": {first_loss:.4}, "last_loss": {last_loss:.4}, "accuracy": {accuracy}}}"#,
        arguments.threads,
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse()?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(arguments.threads)
        .build()?;
    pool.install(|| measure(&arguments).map_err(|e| e.to_string()))?;
    Ok(())
}
