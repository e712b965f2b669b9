//! `trainer train`: resolves the settings, prepares the data, the backend and the run's folder, trains, and reports.

use super::classes::for_training;
use super::console::{Console, LogFormat};
use super::out::{load_weights, no_output, warn};
use super::summary::network_table;
use super::{DataArgs, Device, backend, batch_size, name_of};
use crate::backend::{Backend, Error as BackendError, State};
use crate::checkpoint::Checkpoint;
use crate::config::{Config, DataConfig, ImageOrder, LrSchedule, Settings};
use crate::dataset::{Dataset, Split, hex};
use crate::error::Error;
use crate::evaluate::Confusion;
use crate::init::initial_params;
use crate::report;
use crate::run::RunFolder;
use crate::signals;
use crate::train::{Event, Plan, Progress, train};
use crate::weights_file::WeightsFile;
use clap::ValueEnum;
use clap::builder::{PathBufValueParser, TypedValueParser};
use lenet_core::network::{Logits, Params};
use lenet_core::weights::{ClassNames, Metadata, Provenance};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    #[arg(long, value_parser = Device::any_of(&[Device::Auto, Device::Cpu, Device::Cuda, Device::Reference]))]
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
    /// Continue the run in this folder up to --epochs, as if it had never stopped. --max-steps, --patience and --threads may be given, too; all other settings are those of the run
    #[arg(long, value_name = "RUN", conflicts_with = "out")]
    resume: Option<PathBuf>,
    /// Start from the parameters of this weights file, or of a safetensors, NumPy or ONNX file that `import` accepts
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Order of the images [default: shuffled]
    #[arg(long)]
    order: Option<ImageOrder>,
    /// Stop after this many steps in total, and write all results
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    max_steps: Option<u64>,
    /// How the learning rate changes over the steps [default: constant]
    #[arg(long)]
    lr_schedule: Option<LrSchedule>,
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
    /// Print only notes, warnings and errors
    #[arg(long, conflicts_with = "log_format")]
    quiet: bool,
    /// Format of the output
    #[arg(long, default_value = "text")]
    log_format: LogFormat,
}

impl Args {
    /// Returns the settings of `base`, with those that are given in their place.
    fn settings(&self, base: Settings) -> Settings {
        Settings {
            epochs: self.epochs.unwrap_or(base.epochs),
            batch_size: self.batch_size.unwrap_or(base.batch_size),
            lr: self.lr.unwrap_or(base.lr),
            seed: self.seed.unwrap_or(base.seed),
            order: self.order.unwrap_or(base.order),
            max_steps: self.max_steps.or(base.max_steps),
            init: self
                .init
                .as_ref()
                .map(|path| path.display().to_string())
                .or(base.init),
            lr_schedule: self.lr_schedule.unwrap_or(base.lr_schedule),
            weight_decay: self.weight_decay.unwrap_or(base.weight_decay),
            augment: self.augment || base.augment,
            average: self.average.or(base.average),
            val_split: self.val_split.or(base.val_split),
            patience: self.patience.or(base.patience),
            devices: self.devices.unwrap_or(base.devices),
        }
    }
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
    let resumed = args.resume.as_deref().map(RunFolder::resume).transpose()?;
    let continued = resumed.as_ref().map(|(_, checkpoint)| &checkpoint.config);
    let job = Job::resolve(args, continued)?;
    let mut training = job.prepare(args, resumed)?;
    training.announce(&console, args.resume.is_some());
    let last = training.run(&mut console)?;
    training.finish(&console, &last)
}

/// What to train: the settings, the data and the device.
struct Job {
    settings: Settings,
    data: Dataset,
    device: Device,
    /// What the settings say about the data, to be printed once the run's folder is there.
    note: Option<String>,
}

impl Job {
    /// Combines the command line with the settings of the run that is `continued`, and reads the data.
    fn resolve(args: &Args, continued: Option<&Config>) -> Result<Self, Error> {
        let base = continued.map_or_else(Settings::default, |run| run.settings.clone());
        let mut settings = args.settings(base);
        if settings.patience.is_some() && settings.val_split.is_none() {
            return Err(Error::Settings(
                "--patience needs --val-split: the test images choose nothing".to_owned(),
            ));
        }
        let mut data = match continued {
            Some(run) => args.data.of_run(&run.data).load_unless(args.quiet)?,
            None => args.data.load_unless(args.quiet)?,
        };
        if let Some(share) = settings.val_split {
            data.hold_out(share, settings.seed)?;
        }
        let given = match continued {
            Some(_) => Some(settings.batch_size),
            None => args.batch_size,
        };
        let note;
        (settings.batch_size, note) = batch_size(given, settings.batch_size, data.train.len());
        Ok(Self {
            device: device(args, continued, settings.devices)?,
            settings,
            data,
            note,
        })
    }

    /// Creates the backend and opens the run's folder.
    fn prepare(
        &self,
        args: &Args,
        resumed: Option<(RunFolder, Checkpoint)>,
    ) -> Result<Training<'_>, Error> {
        let Self { settings, data, .. } = self;
        let state = match (&resumed, &args.init) {
            (Some((_, checkpoint)), _) => checkpoint.state.clone(),
            (None, Some(path)) => {
                let file = load_weights(path)?;
                State::new(for_training(data, &file.weights(), path))
            }
            (None, None) => State::new(initial_params(settings.seed)),
        };
        let plan = settings.plan();
        let (backend, not_on_gpu) = backend(
            self.device,
            settings.devices as usize,
            args.threads.into(),
            &data.train,
            state,
            settings.adam(plan.steps(data.train.len())),
        )?;
        let mut config = Config {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            settings: settings.clone(),
            device: backend.describe(),
            data: DataConfig::from(data),
        };
        let (folder, progress) = match resumed {
            Some((folder, checkpoint)) => {
                config.data.keep_place(&checkpoint.config.data);
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
            .map_err(|error| BackendError::Backend(format!("signals cannot be caught: {error}")))?;
        let not_on_gpu = not_on_gpu.map(|cause| format!("not on a GPU: {cause}"));
        Ok(Training {
            data,
            plan,
            backend,
            config,
            folder,
            progress,
            stop,
            notes: not_on_gpu.into_iter().chain(self.note.clone()).collect(),
        })
    }
}

/// Returns the device to train on: that of the command line, else that of the run that is continued.
fn device(args: &Args, continued: Option<&Config>, devices: u32) -> Result<Device, Error> {
    let device = match (args.device, continued) {
        (Some(device), _) => device,
        (None, None) => Device::Auto,
        (None, Some(run)) => Device::from_str(run.device_kind(), false).map_err(|_| {
            let kind = run.device_kind();
            Error::Settings(format!(
                "the run is of the device {kind}, which this build does not have"
            ))
        })?,
    };
    match device {
        Device::Cpu | Device::Reference if args.devices.is_some() => Err(Error::Settings(format!(
            "--devices counts GPUs: leave it out with the device {}, or train with --device cuda",
            name_of(device)
        ))),
        // The same batch on other devices gives other sums, so this is no choice for `auto`.
        Device::Auto if devices > 1 => Ok(Device::Cuda),
        device => Ok(device),
    }
}

/// A training that is ready to start, and its folder.
struct Training<'a> {
    data: &'a Dataset,
    plan: Plan,
    backend: Box<dyn Backend + 'a>,
    config: Config,
    folder: RunFolder,
    progress: Progress,
    /// Set by a signal that asks the program to end.
    stop: Arc<AtomicBool>,
    notes: Vec<String>,
}

/// The weights after the last epoch, as written, and their logits of the test images.
struct LastEpoch {
    path: PathBuf,
    file: WeightsFile,
    logits: Vec<Logits>,
}

impl Training<'_> {
    /// Prints what is trained, on what and where.
    fn announce(&self, console: &Console, resumes: bool) {
        for note in &self.notes {
            console.line(note);
        }
        console.line(network_table());
        let validation = self.data.val.as_ref().map(Split::len);
        console.line(format_args!(
            "data {}: {} training images, {}{} test images",
            self.data.name,
            self.data.train.len(),
            validation.map_or(String::new(), |n| format!("{n} validation images, ")),
            self.data.test.len()
        ));
        console.line(format_args!("training on {}", self.backend.describe()));
        let (epochs, steps) = (self.progress.epochs.len(), self.progress.losses.len());
        if resumes {
            console.line(format_args!(
                "going on after {epochs} epochs and {steps} steps"
            ));
        }
        console.object(&serde_json::json!({
            "event": "start",
            "run": self.folder.path().to_string_lossy(),
            "epochs_done": epochs,
            "steps_done": steps,
            "config": self.config,
        }));
    }

    /// Trains, and writes the run's files after each epoch.
    fn run(&mut self, console: &mut Console) -> Result<LastEpoch, Error> {
        let Self {
            data,
            plan,
            backend,
            config,
            folder,
            progress,
            stop,
            ..
        } = self;
        let images = data.train.len();
        let images_per_step = images as f64 / plan.steps_per_epoch(images) as f64;
        let done = progress.losses.len() as u64;
        console.start_bar(plan.steps(images), done, images_per_step);
        let mut last = None;
        let trained = train(&mut **backend, data, plan, progress, &mut |event| {
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
                    let (path, file) =
                        write_weights(folder, config, data, progress, params, tested)?;
                    folder.write(config, state, progress, resumable)?;
                    let epoch = progress.epochs.last().expect("one is done");
                    console.epoch(epoch, &config.settings);
                    last = tested.map(|logits| LastEpoch {
                        path,
                        file,
                        logits: logits.to_vec(),
                    });
                }
            }
            Ok(ControlFlow::Continue(()))
        });
        console.end_bar();
        let trained = trained.map_err(|mut error| {
            if let Error::Diverged { lr, last_good, .. } = &mut error {
                *lr = Some(config.settings.lr);
                *last_good = Some(folder.checkpoint()).filter(|path| path.exists());
            }
            error
        })?;
        if trained.is_break() {
            folder.write(config, &backend.state()?, progress, progress)?;
            return Err(Error::Stopped {
                epoch: progress.epochs.len() + 1,
                batch: progress.partial.steps,
                run: folder.path().to_owned(),
            });
        }
        Ok(last.expect("the last epoch is tested"))
    }

    /// Prints the result, and writes the report.
    fn finish(&self, console: &Console, last: &LastEpoch) -> Result<(), Error> {
        let (data, epochs) = (self.data, &self.progress.epochs);
        console.curves(epochs, &self.config.settings);
        let confusion = Confusion::new(&last.logits, data.test.labels());
        let best = data.val.as_ref().and_then(|_| self.progress.best_epoch());
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
        let train_acc = epochs.last().expect("one is done").train_acc;
        let at_chance = data.train.is_chance(train_acc);
        if at_chance {
            warn(format_args!(
                "still at chance: train acc {train_acc:.3} is no better than always naming the largest class. Networks with \
                 sigmoids start slowly, often for more than a hundred steps; try more --epochs or a smaller --batch-size"
            ));
        }
        console.line(format_args!("weights {}", last.path.display()));
        let sha256 = hex(&last.file.weights().metadata.provenance.params_sha256);
        console.line(format_args!("sha256 of the parameters {sha256}"));
        // The weights are safe by now: pictures that fail are no failure of the training.
        let page = report::write(self.folder.path(), data, &last.logits, None);
        match &page {
            Ok(page) => console.line(format_args!("report {}", page.display())),
            Err(error) => warn(format_args!(
                "no report: {error}. The weights are written; make the report again with: trainer report {}",
                self.folder.path().display()
            )),
        }
        console.object(&serde_json::json!({
            "event": "end",
            "test_acc": confusion.accuracy(),
            "correct": confusion.correct(),
            "total": confusion.total(),
            "at_chance": at_chance,
            "best_epoch": best.map(|best| best.epoch),
            "weights": last.path.to_string_lossy(),
            "params_sha256": sha256,
            "report": page.ok().map(|page| page.to_string_lossy().into_owned()),
        }));
        Ok(())
    }
}

/// Writes the result so far to `lenet.weights` and, with a validation split, to `best.weights`.
fn write_weights(
    folder: &RunFolder,
    config: &Config,
    data: &Dataset,
    progress: &Progress,
    params: &Params,
    tested: Option<&[Logits]>,
) -> Result<(PathBuf, WeightsFile), Error> {
    let tested = tested.map(|logits| Confusion::new(logits, data.test.labels()).accuracy());
    // With a validation split, the result is that of the best epoch. The test images are used only after the last epoch.
    let (epoch, accuracy) = match data.val {
        None => {
            let epoch = progress.epochs.last().expect("one is done");
            (epoch, tested.unwrap_or(epoch.held_out_acc))
        }
        Some(_) => {
            let epoch = progress.best_epoch().expect("one is done");
            (epoch, tested.unwrap_or(f64::NAN))
        }
    };
    let Config { settings, .. } = config;
    let names = data.classes.each_ref().map(String::as_str);
    let last_named = names.iter().rposition(|name| !name.is_empty());
    let metadata = Metadata {
        classes: ClassNames::new(&names[..last_named.map_or(0, |last| last + 1)]),
        provenance: Provenance {
            dataset: &data.name,
            dataset_sha256: data.sha256,
            params_sha256: [0; 32],
            seed: settings.seed,
            epochs: epoch.epoch,
            batch_size: settings.batch_size,
            learning_rate: settings.lr as f32,
            test_accuracy: accuracy as f32,
            recipe: &settings.recipe(data.train.len()),
        },
    };
    let file = WeightsFile::encode(params, &metadata).map_err(|source| Error::Encode {
        path: folder.path().join("lenet.weights"),
        source,
    })?;
    let path = folder.write_weights("lenet.weights", &file)?;
    if data.val.is_some() {
        folder.write_weights("best.weights", &file)?;
    }
    Ok((path, file))
}
