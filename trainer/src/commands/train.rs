//! `trainer train`: the main job.

use super::summary::network_table;
use super::{DataArgs, check_batch_size, cuda};
use crate::adam::Adam;
use crate::backend::{Backend, State};
use crate::cpu::Cpu;
use crate::dataset::{Dataset, hex};
use crate::error::Error;
use crate::init::initial_params;
use crate::reference::Reference;
use crate::report;
use crate::run::{Config, DataConfig, RunFolder};
use crate::train::{Epoch, Event, Plan, train};
use crate::weights_file::WeightsFile;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use lenet_core::weights::{Metadata, Provenance};
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Times that each training image is seen
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    epochs: u32,
    /// Images a step
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch_size: u32,
    /// Learning rate of Adam
    #[arg(long, default_value_t = 0.001, value_name = "F", value_parser = learning_rate)]
    lr: f64,
    /// Seed of the initial parameters and of the order of images: the same seed gives the same weights
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// What computes
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Threads of the cpu device; 0 is one a core. They do not change the result
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: u16,
    #[command(flatten)]
    data: DataArgs,
    /// Folder for the results [default: runs/<date>-<time>-seed<N>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Start from the parameters in a weights file or a safetensors file
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Order of the images
    #[arg(long, default_value = "shuffled")]
    order: OrderArg,
    /// Stop after so many steps in all, and still write everything
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_steps: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Device {
    /// The fastest there is
    Auto,
    /// All cores
    Cpu,
    /// An NVIDIA GPU
    Cuda,
    /// Plain loops on one core: slow, the oracle
    Reference,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OrderArg {
    /// A fresh order each epoch
    Shuffled,
    /// As in the file
    Sequential,
}

fn learning_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(lr) if lr > 0.0 && lr <= 1000.0 => Ok(lr),
        Ok(_) => Err("must be above 0 and at most 1000".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub fn run(args: &Args) -> Result<(), Error> {
    let data = args.data.load()?;
    let images = data.train.len();
    check_batch_size(args.batch_size, images)?;
    let params = match &args.init {
        Some(path) => Box::new(*WeightsFile::load(path)?.weights().params),
        None => initial_params(args.seed),
    };
    let adam = Adam {
        lr: args.lr,
        ..Adam::default()
    };
    let state = State::new(params);
    let cpu = |state| Cpu::new(&data.train, state, adam, args.threads.into());
    let mut backend: Box<dyn Backend> = match args.device {
        Device::Auto => match cuda(&data.train, &state, adam) {
            Err(Error::Cuda { cause, .. }) => {
                println!("not on a GPU: {cause}");
                Box::new(cpu(state)?)
            }
            backend => backend?,
        },
        Device::Cpu => Box::new(cpu(state)?),
        Device::Cuda => cuda(&data.train, &state, adam)?,
        Device::Reference => Box::new(Reference::new(&data.train, state, adam)),
    };
    let order = args
        .order
        .to_possible_value()
        .expect("no variant is hidden")
        .get_name()
        .to_owned();
    let folder = RunFolder::create(
        &args
            .out
            .clone()
            .unwrap_or_else(|| RunFolder::default_path(args.seed)),
    )?;

    println!("{}", network_table());
    println!(
        "data {}: {images} training images, {} test images",
        data.name,
        data.test.len()
    );
    println!("training on {}", backend.describe());

    let plan = Plan {
        epochs: args.epochs,
        batch_size: args.batch_size as usize,
        seed: args.seed,
        shuffle: args.order == OrderArg::Shuffled,
        max_steps: args.max_steps,
        lr: args.lr,
    };
    let bar = progress_bar((images.div_ceil(plan.batch_size)) as u64);
    let (mut epochs, mut losses) = (Vec::new(), Vec::new());
    let trained = train(&mut *backend, &data, &plan, &mut |event| {
        match event {
            Event::Step { epoch, loss } => {
                losses.push(loss);
                bar.set_message(format!("epoch {epoch}, loss {loss:.4}"));
                bar.inc(1);
            }
            Event::Epoch(epoch) => {
                bar.suspend(|| println!("{}", epoch_line(epoch)));
                bar.reset();
                epochs.push(*epoch);
            }
        }
        Ok(())
    });
    bar.finish_and_clear();
    let trained = trained?;

    let file = WeightsFile::encode(
        &trained.params,
        &Metadata {
            classes: data.classes.each_ref().map(String::as_str),
            provenance: Provenance {
                dataset: &data.name,
                dataset_sha256: data.sha256,
                params_sha256: [0; 32],
                seed: args.seed,
                epochs: epochs.len() as u32,
                batch_size: args.batch_size,
                learning_rate: args.lr as f32,
                test_accuracy: trained.confusion.accuracy() as f32,
                recipe: &recipe(args, &data, &order),
            },
        },
    )
    .map_err(|source| Error::Encode {
        path: folder.path().join("lenet.weights"),
        source,
    })?;
    folder.write_config(&Config {
        version: env!("CARGO_PKG_VERSION"),
        epochs: args.epochs,
        batch_size: plan.batch_size,
        lr: args.lr,
        seed: args.seed,
        order,
        max_steps: args.max_steps,
        init: args.init.clone(),
        device: backend.describe(),
        data: DataConfig::from(&data),
    })?;
    folder.write_metrics(&epochs, &losses)?;
    let path = folder.write_weights(&file)?;

    let (correct, total) = (trained.confusion.correct(), trained.confusion.total());
    println!(
        "test acc {:.4} ({correct} of {total}), by lenet-core's forward pass",
        trained.confusion.accuracy()
    );
    println!("weights {}", path.display());
    println!(
        "sha256 of the parameters {}",
        hex(&file.weights().metadata.provenance.params_sha256)
    );
    // The weights are safe by now: pictures that fail are no failure of the training.
    match report::write(folder.path(), &data, &trained.logits) {
        Ok(page) => println!("report {}", page.display()),
        Err(error) => eprintln!("warning: no report: {error}"),
    }
    Ok(())
}

/// The line of the course.
fn epoch_line(epoch: &Epoch) -> String {
    let Epoch {
        epoch,
        train_loss,
        train_acc,
        test_acc,
        seconds,
    } = epoch;
    format!(
        "epoch {epoch}, loss {train_loss:.4}, train acc {train_acc:.3}, test acc {test_acc:.3}, time {seconds:.1} sec"
    )
}

/// How the parameters came about, for the file's provenance.
fn recipe(args: &Args, data: &Dataset, order: &str) -> String {
    let mut recipe = format!("adam, {order}, {} images", data.train.len());
    if let Some(steps) = args.max_steps {
        recipe += &format!(", at most {steps} steps");
    }
    if args.init.is_some() {
        recipe += ", from given parameters";
    }
    recipe
}

/// Hidden where the error stream is no terminal.
fn progress_bar(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg} {bar:40} {pos}/{len} steps, {per_sec}, {eta} left in the epoch",
    )
    .expect("the template is well formed");
    ProgressBar::new(steps).with_style(style)
}
