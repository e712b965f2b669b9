//! The subcommands, one per file. Only these modules print results.

mod bench;
mod classes;
mod compare;
mod completions;
mod console;
mod data;
mod device;
mod doctor;
mod evaluate;
mod exchange;
mod out;
mod page;
mod predict;
mod quantize;
mod report;
mod summary;
mod train;

use crate::adam::Adam;
use crate::backend::{Backend, Error as BackendError, State};
use crate::config::DataConfig;
use crate::cpu::Cpu;
use crate::dataset::{self, Dataset, ImageOptions, ReadOptions, Split};
use crate::error::Error;
use crate::reference::Reference;
use crate::threads::start_global;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};

/// Train a small convolutional network, and write weights that a microcontroller runs in place.
///
/// Without a command, train LeNet on Fashion-MNIST with the settings of the course.
#[derive(Debug, Parser)]
#[command(name = "trainer", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    train: train::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a network, test it, and write a run folder (the default)
    Train(train::Args),
    /// Evaluate weights on a data set
    Evaluate(evaluate::Args),
    /// Classify single images
    Predict(predict::Args),
    /// Check or draw a data set
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Compare a real or emulated board with this computer, bit for bit
    Device(device::Args),
    /// List what this computer has, and how to install what is missing
    Doctor(doctor::Args),
    /// Compare two weights files, or one and another program's outputs
    Compare(compare::Args),
    /// Convert weights to another format
    Export(exchange::ExportArgs),
    /// Convert another program's weights to a weights file
    Import(exchange::ImportArgs),
    /// Convert weights to 8-bit integers, for boards without a floating-point unit
    Quantize(quantize::Args),
    /// Measure the speed of training and evaluation on this computer
    Bench(bench::Args),
    /// Write a web page in which the network runs
    Page(page::Args),
    /// Write the pictures and the report of a run again
    Report(report::Args),
    /// Show the layers of the network, and the metadata of a weights file
    Summary(summary::Args),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
    /// Write manual pages
    Man(completions::ManArgs),
}

/// The location of the data set, and how to read it.
#[derive(Clone, Debug, clap::Args)]
struct DataArgs {
    // The environment variable is read by `folder` and not by clap, because clap does not treat an empty variable as unset.
    /// Folder of the data set: IDX files (compressed or not), class folders of pictures (train/NAME/*, test/NAME/*), or CSV
    /// tables [env: LENET_DATA] [default: data/fashion-mnist, or the folder of the Debian package]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Accept files of Fashion-MNIST that differ from the published ones
    #[arg(long)]
    allow_modified: bool,
    /// Share of each class to set aside for tests, if the data set has no test images
    #[arg(long, value_name = "F", value_parser = share)]
    test_split: Option<f64>,
    #[command(flatten)]
    images: PictureArgs,
}

/// How to change pictures so that they fit the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
struct PictureArgs {
    /// Scale pictures to the size of the network's input, with their proportions, on black
    #[arg(long)]
    resize: bool,
    /// Invert pictures that are dark on white; Fashion-MNIST is bright on black
    #[arg(long)]
    invert: bool,
}

impl From<PictureArgs> for ImageOptions {
    fn from(PictureArgs { resize, invert }: PictureArgs) -> Self {
        Self { resize, invert }
    }
}

impl DataArgs {
    /// Returns the arguments for a folder, with the default options.
    fn of_folder(folder: &Path) -> Self {
        Self {
            data: Some(folder.to_owned()),
            allow_modified: false,
            test_split: None,
            images: PictureArgs::default(),
        }
    }

    /// Returns the arguments with which a run read its data, except for those that are given here.
    fn of_run(&self, run: &DataConfig) -> Self {
        let mut args = self.clone();
        // The run's folder takes precedence over the environment variable, which was not set for this run.
        args.data.get_or_insert_with(|| run.place());
        args.allow_modified |= run.allow_modified;
        args.images.resize |= run.resize;
        args.images.invert |= run.invert;
        args.test_split = args.test_split.or(run.test_split);
        args
    }

    /// Returns the folder that the option or the environment variable names, if any.
    fn folder(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os("LENET_DATA").filter(|folder| !folder.is_empty());
        self.data.clone().or_else(|| variable().map(PathBuf::from))
    }

    /// Reads the data, and prints the notes and warnings about it.
    fn load(&self) -> Result<Dataset, Error> {
        self.load_unless(false)
    }

    /// Reads the data like [`load`](Self::load), but prints only the warnings if `quiet` is set.
    fn load_unless(&self, quiet: bool) -> Result<Dataset, Error> {
        let data = self.read()?;
        if !quiet {
            data.notes.iter().for_each(out::note);
        }
        let warnings = match data.published {
            true => data.warnings.clone(),
            false => dataset::check::warnings(&data),
        };
        warnings.iter().for_each(out::warn);
        Ok(data)
    }

    /// Reads the data without printing anything.
    fn read(&self) -> Result<Dataset, Error> {
        let options = ReadOptions {
            allow_modified: self.allow_modified,
            test_split: self.test_split,
            images: self.images.into(),
        };
        dataset::open(self.folder().as_deref(), options)
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        Ok(_) => Err("must be above 0 and below 1".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Accepts up to 1024 threads: more than a machine has cores, but few enough to start quickly.
fn threads() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(0..=1024)
}

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Device {
    /// The fastest device that is available
    Auto,
    /// The forward pass of `lenet-core`, which a board runs
    Core,
    /// The CPU, with all cores
    Cpu,
    /// NVIDIA GPUs
    Cuda,
    /// Plain loops on one core: slow; other devices are tested against it
    Reference,
}

impl Device {
    /// Returns a parser for the devices that a command has.
    fn any_of(devices: &[Self]) -> impl TypedValueParser<Value = Self> {
        let names = devices.iter().filter_map(Self::to_possible_value);
        PossibleValuesParser::new(names).try_map(|name| Self::from_str(&name, false))
    }
}

/// Returns the name of a value on the command line.
fn name_of(value: impl ValueEnum) -> String {
    let value = value.to_possible_value().expect("no variant is hidden");
    value.get_name().to_owned()
}

/// A part of the data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SplitArg {
    Test,
    Train,
}

impl SplitArg {
    /// Returns this part of `data`.
    fn of(self, data: &Dataset) -> &Split {
        match self {
            Self::Test => &data.test,
            Self::Train => &data.train,
        }
    }
}

/// Returns a backend with the training images of `train`, and, if `auto` finds no GPU, the reason.
fn backend(
    device: Device,
    devices: usize,
    threads: usize,
    train: &Split,
    state: State,
    adam: Adam,
) -> Result<(Box<dyn Backend + '_>, Option<String>), Error> {
    let mut not_on_gpu = None;
    let backend: Box<dyn Backend> = match device {
        Device::Auto => match cuda(train, &state, adam, devices) {
            Err(BackendError::Cuda { cause, .. }) => {
                not_on_gpu = Some(cause);
                Box::new(Cpu::new(train, state, adam, threads)?)
            }
            backend => backend?,
        },
        Device::Cpu => Box::new(Cpu::new(train, state, adam, threads)?),
        Device::Cuda => cuda(train, &state, adam, devices)?,
        Device::Reference => Box::new(Reference::new(train, state, adam)),
        Device::Core => {
            let cause = "the device core computes forward passes only; use --device cpu";
            return Err(Error::Settings(cause.to_owned()));
        }
    };
    Ok((backend, not_on_gpu))
}

/// Creates the CUDA backend on the first `devices` GPUs.
#[cfg(feature = "cuda")]
fn cuda(
    train: &Split,
    state: &State,
    adam: Adam,
    devices: usize,
) -> Result<Box<dyn Backend>, BackendError> {
    let cuda = crate::cuda::Cuda::new(train, state, adam, devices)?;
    Ok(Box::new(cuda))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: &Split, _: &State, _: Adam, _: usize) -> Result<Box<dyn Backend>, BackendError> {
    Err(no_cuda())
}

#[cfg(not(feature = "cuda"))]
fn no_cuda() -> BackendError {
    BackendError::Cuda {
        cause: "this build lacks CUDA".to_owned(),
        remedy: "Build with --features cuda, or train with --device cpu",
    }
}

/// Returns the batch size for `images` training images, and a note to print if there are fewer images than that. The batch size is
/// the one `given`, or else the `default`; if there are fewer images than the default, it is the number of images.
fn batch_size(given: Option<u32>, default: u32, images: usize) -> (u32, Option<String>) {
    let wanted = given.unwrap_or(default);
    let all = u32::try_from(images).unwrap_or(u32::MAX);
    match given {
        _ if wanted <= all => (wanted, None),
        // The steps would be the same with the default, but the run's files should state the real batch size.
        None => {
            let note = format!(
                "batch size {all}: there are {images} training images, fewer than the default batch size of {default}"
            );
            (all, Some(note))
        }
        Some(_) => {
            let note = format!(
                "--batch-size {wanted} is more than the {images} training images: each epoch is one step with all of them"
            );
            (wanted, Some(note))
        }
    }
}

/// Runs the subcommand that the command line names.
///
/// # Errors
/// Those of the subcommand.
pub fn run(cli: Cli) -> Result<(), Error> {
    let command = cli.command.unwrap_or(Command::Train(cli.train));
    match &command {
        Command::Train(train::Args { threads, .. })
        | Command::Evaluate(evaluate::Args { threads, .. })
        | Command::Bench(bench::Args { threads, .. }) => start_global((*threads).into())?,
        Command::Predict(_)
        | Command::Data(_)
        | Command::Device(_)
        | Command::Doctor(_)
        | Command::Compare(_)
        | Command::Page(_)
        | Command::Quantize(_)
        | Command::Import(_)
        | Command::Report(_) => start_global(0)?,
        Command::Export(_) | Command::Summary(_) | Command::Completions(_) | Command::Man(_) => {}
    }
    match command {
        Command::Train(args) => train::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Data(command) => data::run(&command),
        Command::Device(args) => device::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Export(args) => exchange::export(&args),
        Command::Import(args) => exchange::import(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Page(args) => page::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Summary(args) => summary::run(&args),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => completions::man(&args),
    }
}
