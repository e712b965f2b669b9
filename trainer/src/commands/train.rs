//! `trainer train`: the main job.

use super::classes::for_training;
use super::console::{Console, LogFormat};
use super::out::{load_weights, no_output, warn};
use super::summary::network_table;
use super::{DataArgs, batch_size, cuda};
use crate::adam::{Adam, Schedule};
use crate::backend::{Backend, State};
use crate::config::{Config, DataConfig, Settings};
use crate::cpu::Cpu;
use crate::dataset::{Dataset, Split, hex};
use crate::error::Error;
use crate::evaluate::Confusion;
use crate::init::initial_params;
use crate::reference::Reference;
use crate::report;
use crate::run::RunFolder;
use crate::signals;
use crate::train::{Event, Plan, Progress, train};
use crate::weights_file::WeightsFile;
use clap::ValueEnum;
use clap::builder::{PathBufValueParser, TypedValueParser};
use lenet_core::network::Params;
use lenet_core::weights::{ClassNames, EncodeError, Metadata, Provenance};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    // What is not given is the default, or with --resume what it was in the run; so there are no defaults here.
    /// Number of passes over the training images [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    epochs: Option<u32>,
    /// Images per step [default: 256, or all if there are fewer]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch_size: Option<u32>,
    /// Learning rate of Adam [default: 0.001]
    #[arg(long, value_name = "F", value_parser = learning_rate)]
    lr: Option<f64>,
    /// Seed of everything random; the same seed gives the same weights [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// Where to train [default: auto]
    #[arg(long)]
    device: Option<Device>,
    /// Number of GPUs that share each batch; more than 1 need NCCL, and have not run on hardware yet [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    devices: Option<u32>,
    /// Threads of the cpu device and of the final test; 0 means one per core. The result does not depend on them
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = super::threads())]
    pub(super) threads: u16,
    #[command(flatten)]
    data: DataArgs,
    /// Folder for the results [default: runs/<date>-<time>-seed<N>]
    #[arg(long, value_name = "DIR", value_parser = PathBufValueParser::new().try_map(no_output))]
    out: Option<PathBuf>,
    /// Continue the run in this folder up to --epochs, as if it had never stopped; all other settings are those of the run
    #[arg(long, value_name = "RUN", conflicts_with = "out")]
    resume: Option<PathBuf>,
    /// Start from the parameters of this weights file, or of a safetensors, NumPy or ONNX file that `import` accepts
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Order of the images [default: shuffled]
    #[arg(long)]
    order: Option<OrderArg>,
    /// Stop after this many steps in total, and write all results
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    max_steps: Option<u64>,
    /// How the learning rate changes over the steps [default: constant]
    #[arg(long)]
    lr_schedule: Option<ScheduleArg>,
    /// AdamW: each step also multiplies every parameter by 1 - F times the learning rate [default: 0]
    #[arg(long, value_name = "F", value_parser = weight_decay)]
    weight_decay: Option<f64>,
    /// In each epoch, shift every image at random by up to two pixels, and mirror it with a probability of one half
    #[arg(long)]
    augment: bool,
    // In f32 a mean over many more steps would hardly move.
    /// Return a running mean of the weights over about the last N steps
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    average: Option<u64>,
    /// Hold out a share of the training images for validation, and return the epoch with the best accuracy on them. The
    /// test images are then evaluated only once, at the end
    #[arg(long, value_name = "F", value_parser = super::share)]
    val_split: Option<f64>,
    /// Stop after N epochs in a row without a better validation accuracy; epochs at chance at the start do not count
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    patience: Option<u32>,
    /// Print only warnings and errors
    #[arg(long, conflicts_with = "log_format")]
    quiet: bool,
    /// Format of the output
    #[arg(long, default_value = "text")]
    log_format: LogFormat,
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
            lr_schedule: self.lr_schedule.map_or(base.lr_schedule, name_of),
            weight_decay: self.weight_decay.unwrap_or(base.weight_decay),
            augment: self.augment || base.augment,
            average: self.average.or(base.average),
            val_split: self.val_split.or(base.val_split),
            patience: self.patience.or(base.patience),
            devices: self.devices.unwrap_or(base.devices),
        }
    }
}

/// Returns the name of a value on the command line.
fn name_of(value: impl ValueEnum) -> String {
    let value = value.to_possible_value().expect("no variant is hidden");
    value.get_name().to_owned()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Device {
    /// The fastest device that is available
    Auto,
    /// The CPU, with all cores
    Cpu,
    /// An NVIDIA GPU
    Cuda,
    /// Plain loops on one core: slow; other devices are tested against it
    Reference,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OrderArg {
    /// A new random order in each epoch
    Shuffled,
    /// The order of the data set
    Sequential,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScheduleArg {
    /// The same for all steps
    Constant,
    /// Half a cosine, from --lr to zero after the last step
    Cosine,
}

fn learning_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(lr) if lr > 0.0 && lr <= 1000.0 => Ok(lr),
        Ok(_) => Err("must be above 0 and at most 1000".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn weight_decay(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(decay) if (0.0..=1.0).contains(&decay) => Ok(decay),
        Ok(_) => Err("must be 0 to 1".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The exit code of a training that was told to stop, as a shell gives it for Ctrl-C.
const STOPPED: i32 = 130;

pub fn run(args: &Args) -> Result<(), Error> {
    let mut console = Console::new(args.log_format, args.quiet);
    let resumed = match &args.resume {
        None => None,
        Some(run) => Some(RunFolder::resume(run)?),
    };
    let run_config = resumed.as_ref().map(|(_, checkpoint)| &checkpoint.config);
    let mut settings =
        args.settings(run_config.map_or_else(Settings::default, |run| run.settings.clone()));
    if settings.patience.is_some() && settings.val_split.is_none() {
        return Err(Error::Settings(
            "--patience needs --val-split: the test images choose nothing".to_owned(),
        ));
    }
    let mut data = match run_config {
        Some(run) => args.data.of_run(&run.data).load_unless(args.quiet)?,
        None => args.data.load_unless(args.quiet)?,
    };
    if let Some(share) = settings.val_split {
        data.hold_out(share, settings.seed)?;
    }
    let images = data.train.len();
    let given = match run_config {
        None => args.batch_size,
        Some(run) => Some(args.batch_size.unwrap_or(run.settings.batch_size)),
    };
    let batch_note;
    (settings.batch_size, batch_note) = batch_size(given, settings.batch_size, images);
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
    let device = match device {
        Device::Cpu | Device::Reference if args.devices.is_some() => {
            let device = name_of(device);
            return Err(Error::Settings(format!(
                "--devices counts GPUs: leave it out with the device {device}, or train with --device cuda"
            )));
        }
        // The same batch on other devices gives other sums, so this is no choice for `auto`.
        Device::Auto if settings.devices > 1 => Device::Cuda,
        device => device,
    };
    let devices = settings.devices as usize;
    let state = match (&resumed, &args.init) {
        (Some((_, checkpoint)), _) => checkpoint.state.clone(),
        (None, Some(path)) => {
            let file = load_weights(path)?;
            State::new(for_training(&data, &file.weights(), path))
        }
        (None, None) => State::new(initial_params(settings.seed)),
    };
    let plan = Plan {
        epochs: settings.epochs,
        batch_size: settings.batch_size as usize,
        seed: settings.seed,
        shuffle: settings.order == name_of(OrderArg::Shuffled),
        max_steps: settings.max_steps,
        lr: settings.lr,
        augment: settings.augment,
        patience: settings.patience,
    };
    let steps = plan.steps(images);
    let adam = Adam {
        lr: settings.lr,
        weight_decay: settings.weight_decay,
        schedule: match settings.lr_schedule == name_of(ScheduleArg::Cosine) {
            true => Schedule::Cosine { steps },
            false => Schedule::Constant,
        },
        average: settings.average,
        ..Adam::default()
    };
    let cpu = |state| Cpu::new(&data.train, state, adam, args.threads.into());
    // Said once the run's folder is there: an error before that stands alone.
    let mut not_on_gpu = None;
    let mut backend: Box<dyn Backend> = match device {
        Device::Auto => match cuda(&data.train, &state, adam, devices) {
            Err(Error::Cuda { cause, .. }) => {
                not_on_gpu = Some(cause);
                Box::new(cpu(state)?)
            }
            backend => backend?,
        },
        Device::Cpu => Box::new(cpu(state)?),
        Device::Cuda => cuda(&data.train, &state, adam, devices)?,
        Device::Reference => Box::new(Reference::new(&data.train, state, adam)),
    };
    let mut config = Config {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        settings,
        device: backend.describe(),
        data: DataConfig::from(&data),
    };
    if let Some(run) = run_config {
        config.data.keep_place(&run.data);
    }
    let config = config;
    let settings = &config.settings;
    let (folder, mut progress) = match resumed {
        Some((folder, checkpoint)) => {
            let differences = config.differences(&checkpoint.config);
            if !differences.is_empty() {
                return Err(Error::Settings(format!(
                    "{}: a run can only continue with the settings that it was started with:\n  {}\nLeave them out, or start a new run",
                    folder.path().display(),
                    differences.join("\n  ")
                )));
            }
            (folder, checkpoint.progress)
        }
        None => {
            let folder = match &args.out {
                Some(path) => RunFolder::create(path)?,
                None => RunFolder::create_default(settings.seed)?,
            };
            (folder, Progress::default())
        }
    };
    let stop = signals::stop_flag(STOPPED)
        .map_err(|error| Error::Backend(format!("signals cannot be caught: {error}")))?;

    if let Some(cause) = not_on_gpu {
        console.line(format_args!("not on a GPU: {cause}"));
    }
    if let Some(note) = batch_note {
        console.line(format_args!("{note}"));
    }
    console.line(network_table());
    let validation = data.val.as_ref().map(Split::len);
    console.line(format_args!(
        "data {}: {images} training images, {}{} test images",
        data.name,
        validation.map_or(String::new(), |n| format!("{n} validation images, ")),
        data.test.len()
    ));
    console.line(format_args!("training on {}", backend.describe()));
    if args.resume.is_some() {
        console.line(format_args!(
            "going on after {} epochs and {} steps",
            progress.epochs.len(),
            progress.losses.len()
        ));
    }
    console.object(&serde_json::json!({
        "event": "start",
        "run": folder.path().to_string_lossy(),
        "epochs_done": progress.epochs.len(),
        "steps_done": progress.losses.len(),
        "config": config,
    }));
    let images_per_step = images as f64 / plan.steps_per_epoch(images) as f64;
    console.start_bar(steps, progress.losses.len() as u64, images_per_step);
    let mut result = None;
    let trained = train(&mut *backend, &data, &plan, &mut progress, &mut |event| {
        match event {
            Event::Step {
                epoch,
                loss,
                partial,
            } => {
                console.step(epoch, loss, partial);
                if stop.load(Ordering::Relaxed) || console.is_closed() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Event::Epoch {
                progress,
                resumable,
                state,
                params,
                tested,
            } => {
                let epoch = progress.epochs.last().expect("one is done");
                let tested_acc =
                    tested.map(|logits| Confusion::new(logits, data.test.labels()).accuracy());
                // With a validation split the result is the best epoch's, and not tested before the end.
                let (result_epoch, accuracy) = match data.val {
                    None => (epoch, tested_acc.unwrap_or(epoch.held_out_acc)),
                    Some(_) => (
                        progress.best_epoch().expect("one is done"),
                        tested_acc.unwrap_or(f64::NAN),
                    ),
                };
                let file = weights_file(&config, &data, params, result_epoch.epoch, accuracy);
                let file = file.map_err(|source| Error::Encode {
                    path: folder.path().join("lenet.weights"),
                    source,
                })?;
                let path = folder.write_weights("lenet.weights", &file)?;
                if data.val.is_some() {
                    folder.write_weights("best.weights", &file)?;
                }
                folder.write(&config, state, progress, resumable)?;
                console.epoch(epoch, settings);
                result = tested.map(|tested| (tested.to_vec(), path, file));
            }
        }
        Ok(ControlFlow::Continue(()))
    });
    console.end_bar();
    let trained = trained.map_err(|mut error| {
        if let Error::Diverged { last_good, .. } = &mut error {
            *last_good = Some(folder.checkpoint()).filter(|path| path.exists());
        }
        error
    })?;
    if trained.is_break() {
        folder.write(&config, &backend.state()?, &progress, &progress)?;
        return Err(Error::Stopped {
            epoch: progress.epochs.len() + 1,
            batch: progress.partial.steps,
            run: folder.path().to_owned(),
        });
    }

    console.curves(&progress.epochs, settings);
    let (logits, path, file) = result.expect("the last epoch is tested");
    let confusion = Confusion::new(&logits, data.test.labels());
    let best = data.val.as_ref().and_then(|_| progress.best_epoch());
    if let Some(best) = best {
        console.line(format_args!(
            "best epoch {}: val acc {:.4}",
            best.epoch, best.held_out_acc
        ));
    }
    console.line(format_args!(
        "test acc {:.4} ({} of {}), by lenet-core's forward pass",
        confusion.accuracy(),
        confusion.correct(),
        confusion.total()
    ));
    let last = progress.epochs.last().expect("one is done");
    let at_chance = data.train.is_chance(last.train_acc);
    if at_chance {
        warn(format_args!(
            "still at chance: train acc {:.3} is no better than always naming the largest class. Networks with sigmoids \
             start slowly, often for more than a hundred steps; try more --epochs or a smaller --batch-size",
            last.train_acc
        ));
    }
    console.line(format_args!("weights {}", path.display()));
    let sha256 = hex(&file.weights().metadata.provenance.params_sha256);
    console.line(format_args!("sha256 of the parameters {sha256}"));
    // The weights are safe by now: pictures that fail are no failure of the training.
    let page = report::write(folder.path(), &data, &logits, None);
    match &page {
        Ok(page) => console.line(format_args!("report {}", page.display())),
        Err(error) => warn(format_args!(
            "no report: {error}. The weights are written; make the report again with: trainer report {}",
            folder.path().display()
        )),
    }
    console.object(&serde_json::json!({
        "event": "end",
        "test_acc": confusion.accuracy(),
        "correct": confusion.correct(),
        "total": confusion.total(),
        "at_chance": at_chance,
        "best_epoch": best.map(|best| best.epoch),
        "weights": path.to_string_lossy(),
        "params_sha256": sha256,
        "report": page.ok().map(|page| page.to_string_lossy().into_owned()),
    }));
    Ok(())
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
    let names = data.classes.each_ref().map(String::as_str);
    let named = names
        .iter()
        .rposition(|name| !name.is_empty())
        .map_or(0, |last| last + 1);
    let metadata = Metadata {
        classes: ClassNames::new(&names[..named]),
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

/// How the parameters came about, for the file's provenance.
fn recipe(settings: &Settings, images: usize) -> String {
    let mut recipe = format!("adam, {}, {images} images", settings.order);
    if let Some(steps) = settings.max_steps {
        recipe += &format!(", at most {steps} steps");
    }
    if settings.init.is_some() {
        recipe += ", from given parameters";
    }
    if settings.lr_schedule != "constant" {
        recipe += &format!(
            ", {} learning rate over {} epochs",
            settings.lr_schedule, settings.epochs
        );
    }
    if settings.weight_decay != 0.0 {
        recipe += &format!(", weight decay {}", settings.weight_decay);
    }
    if settings.augment {
        recipe += ", shifted and mirrored images";
    }
    if let Some(steps) = settings.average {
        recipe += &format!(", mean over about the last {steps} steps");
    }
    if let Some(share) = settings.val_split {
        recipe += &format!(", best epoch on {share} held out for validation");
    }
    if settings.devices > 1 {
        recipe += &format!(", on {} GPUs", settings.devices);
    }
    recipe
}
