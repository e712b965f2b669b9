//! `trainer train`: the main job.

use super::summary::network_table;
use super::{DataArgs, check_batch_size, cuda};
use crate::adam::Adam;
use crate::backend::{Backend, State};
use crate::cpu::Cpu;
use crate::dataset::{Dataset, hex};
use crate::error::Error;
use crate::evaluate::Confusion;
use crate::init::initial_params;
use crate::reference::Reference;
use crate::report;
use crate::run::{Config, DataConfig, RunFolder, Settings};
use crate::train::{Epoch, Event, Plan, Progress, train};
use crate::weights_file::WeightsFile;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use lenet_core::arch::Params;
use lenet_core::weights::{EncodeError, Metadata, Provenance};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    // What is not given is the default, or with --resume what it was in the run; so there are no defaults here.
    /// Times that each training image is seen [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    epochs: Option<u32>,
    /// Images a step [default: 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch_size: Option<u32>,
    /// Learning rate of Adam [default: 0.001]
    #[arg(long, value_name = "F", value_parser = learning_rate)]
    lr: Option<f64>,
    /// Seed of the initial parameters and of the order of images: the same seed gives the same weights [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// What computes [default: auto]
    #[arg(long)]
    device: Option<Device>,
    /// Threads of the cpu device; 0 is one a core. They do not change the result
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: u16,
    #[command(flatten)]
    data: DataArgs,
    /// Folder for the results [default: runs/<date>-<time>-seed<N>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in a folder, up to --epochs, as if it had never stopped; other settings are the run's
    #[arg(long, value_name = "RUN", conflicts_with = "out")]
    resume: Option<PathBuf>,
    /// Start from the parameters in a weights file or a safetensors file
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Order of the images [default: shuffled]
    #[arg(long)]
    order: Option<OrderArg>,
    /// Stop after so many steps in all, and still write everything
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    max_steps: Option<u64>,
}

impl Args {
    /// Those of `base` but for what is given.
    fn settings(&self, base: Settings) -> Settings {
        Settings {
            epochs: self.epochs.unwrap_or(base.epochs),
            batch_size: self.batch_size.unwrap_or(base.batch_size),
            lr: self.lr.unwrap_or(base.lr),
            seed: self.seed.unwrap_or(base.seed),
            order: self.order.map_or(base.order, name_of),
            max_steps: self.max_steps.or(base.max_steps),
            init: self
                .init
                .as_ref()
                .map(|path| path.display().to_string())
                .or(base.init),
        }
    }
}

/// As it is written on the command line.
fn name_of(value: impl ValueEnum) -> String {
    let value = value.to_possible_value().expect("no variant is hidden");
    value.get_name().to_owned()
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
    let resumed = match &args.resume {
        None => None,
        Some(run) => Some(RunFolder::resume(run)?),
    };
    let run_config = resumed.as_ref().map(|(_, checkpoint)| &checkpoint.config);
    let settings =
        args.settings(run_config.map_or_else(Settings::default, |run| run.settings.clone()));
    let data = match run_config {
        Some(run) => args.data.of_run(&run.data).load()?,
        None => args.data.load()?,
    };
    let images = data.train.len();
    check_batch_size(settings.batch_size, images)?;
    let device = match (args.device, run_config) {
        (Some(device), _) => device,
        (None, None) => Device::Auto,
        (None, Some(run)) => Device::from_str(run.device_kind(), false).map_err(|_| {
            let kind = run.device_kind();
            Error::Settings(format!(
                "the run is of the device {kind}, which this build does not have"
            ))
        })?,
    };
    let state = match (&resumed, &args.init) {
        (Some((_, checkpoint)), _) => checkpoint.state.clone(),
        (None, Some(path)) => State::new(Box::new(*WeightsFile::load(path)?.weights().params)),
        (None, None) => State::new(initial_params(settings.seed)),
    };
    let adam = Adam {
        lr: settings.lr,
        ..Adam::default()
    };
    let cpu = |state| Cpu::new(&data.train, state, adam, args.threads.into());
    let mut backend: Box<dyn Backend> = match device {
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
    let config = Config {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        settings,
        device: backend.describe(),
        data: DataConfig::from(&data),
    };
    let settings = &config.settings;
    let (folder, mut progress) = match resumed {
        Some((folder, checkpoint)) => {
            let differences = config.differences(&checkpoint.config);
            if !differences.is_empty() {
                return Err(Error::Settings(format!(
                    "{}: a run goes on with the settings it was begun with:\n  {}\nLeave them out, or train anew",
                    folder.path().display(),
                    differences.join("\n  ")
                )));
            }
            (folder, checkpoint.progress)
        }
        None => {
            let path = args.out.clone();
            let path = path.unwrap_or_else(|| RunFolder::default_path(settings.seed));
            (RunFolder::create(&path)?, Progress::default())
        }
    };
    let stop = stop_on_signal()?;

    println!("{}", network_table());
    println!(
        "data {}: {images} training images, {} test images",
        data.name,
        data.test.len()
    );
    println!("training on {}", backend.describe());
    if args.resume.is_some() {
        println!(
            "going on after {} epochs and {} steps",
            progress.epochs.len(),
            progress.losses.len()
        );
    }

    let plan = Plan {
        epochs: settings.epochs,
        batch_size: settings.batch_size as usize,
        seed: settings.seed,
        shuffle: settings.order == name_of(OrderArg::Shuffled),
        max_steps: settings.max_steps,
        lr: settings.lr,
    };
    let bar = progress_bar(plan.steps_per_epoch(images) as u64);
    bar.set_position(progress.partial.steps as u64);
    let mut result = None;
    let trained = train(&mut *backend, &data, &plan, &mut progress, &mut |event| {
        match event {
            Event::Step { epoch, loss } => {
                bar.set_message(format!("epoch {epoch}, loss {loss:.4}"));
                bar.inc(1);
                if stop.load(Ordering::Relaxed) {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Event::Epoch {
                progress,
                state,
                tested,
            } => {
                let epoch = progress.epochs.last().expect("one is done");
                let accuracy = tested.map_or(epoch.test_acc, |logits| {
                    Confusion::new(logits, data.test.labels()).accuracy()
                });
                let file = weights_file(&config, &data, &state.params, epoch.epoch, accuracy);
                let file = file.map_err(|source| Error::Encode {
                    path: folder.path().join("lenet.weights"),
                    source,
                })?;
                let path = folder.write_weights(&file)?;
                folder.write(&config, state, progress)?;
                bar.suspend(|| println!("{}", epoch_line(epoch)));
                bar.reset();
                result = tested.map(|tested| (tested.to_vec(), path, file));
            }
        }
        Ok(ControlFlow::Continue(()))
    });
    bar.finish_and_clear();
    let trained = trained.map_err(|mut error| {
        if let Error::Diverged { last_good, .. } = &mut error {
            *last_good = Some(folder.checkpoint()).filter(|path| path.exists());
        }
        error
    })?;
    if trained.is_break() {
        folder.write(&config, &backend.state()?, &progress)?;
        return Err(Error::Stopped {
            epoch: progress.epochs.len() + 1,
            batch: progress.partial.steps,
            run: folder.path().to_owned(),
        });
    }

    let (logits, path, file) = result.expect("the last epoch is tested");
    let confusion = Confusion::new(&logits, data.test.labels());
    println!(
        "test acc {:.4} ({} of {}), by lenet-core's forward pass",
        confusion.accuracy(),
        confusion.correct(),
        confusion.total()
    );
    println!("weights {}", path.display());
    println!(
        "sha256 of the parameters {}",
        hex(&file.weights().metadata.provenance.params_sha256)
    );
    // The weights are safe by now: pictures that fail are no failure of the training.
    match report::write(folder.path(), &data, &logits) {
        Ok(page) => println!("report {}", page.display()),
        Err(error) => eprintln!("warning: no report: {error}"),
    }
    Ok(())
}

/// Set by Ctrl-C, SIGTERM and SIGHUP; the second of them ends the program at once.
fn stop_on_signal() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .map_err(|error| Error::Backend(format!("Ctrl-C cannot be caught: {error}")))?;
    Ok(stop)
}

/// The parameters with where they come from.
fn weights_file(
    config: &Config,
    data: &Dataset,
    params: &Params,
    epochs: u32,
    accuracy: f64,
) -> Result<WeightsFile, EncodeError> {
    let settings = &config.settings;
    let metadata = Metadata {
        classes: data.classes.each_ref().map(String::as_str),
        provenance: Provenance {
            dataset: &data.name,
            dataset_sha256: data.sha256,
            params_sha256: [0; 32],
            seed: settings.seed,
            epochs,
            batch_size: settings.batch_size,
            learning_rate: settings.lr as f32,
            test_accuracy: accuracy as f32,
            recipe: &recipe(settings, data.train.len()),
        },
    };
    WeightsFile::encode(params, &metadata)
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
fn recipe(settings: &Settings, images: usize) -> String {
    let mut recipe = format!("adam, {}, {images} images", settings.order);
    if let Some(steps) = settings.max_steps {
        recipe += &format!(", at most {steps} steps");
    }
    if settings.init.is_some() {
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
