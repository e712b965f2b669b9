//! `trainer evaluate`: computes the accuracy of weights on a data set.

use super::classes::ClassArgs;
use super::exchange::warn_near_chance;
use super::out::{Out, load_model, no_output, table};
use super::{DataArgs, Device, SplitArg, backend, name_of};
use crate::adam::Adam;
use crate::backend::State;
use crate::error::Error;
use crate::evaluate::Confusion;
use crate::model::Model;
use crate::report::shown_classes;
use crate::{output, safetensors};
use clap::builder::{PathBufValueParser, TypedValueParser};
use lenet_core::network::CLASSES;
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Weights file (f32 or int8), or a safetensors, NumPy or ONNX file that `import` accepts
    weights: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    classes: ClassArgs,
    /// Images to evaluate
    #[arg(long, default_value = "test")]
    split: SplitArg,
    /// Where to compute
    #[arg(
        long,
        default_value = "core",
        value_parser = Device::any_of(&[Device::Core, Device::Cpu, Device::Cuda, Device::Reference]),
    )]
    device: Device,
    /// Threads of the devices core and cpu; 0 means one per core
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = super::threads())]
    pub(super) threads: u16,
    /// Write the logits, (N, classes) in f32, to a new safetensors file
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(no_output))]
    logits: Option<PathBuf>,
    /// Print the confusion matrix
    #[arg(long)]
    confusion: bool,
}

pub fn run(args: &Args) -> Result<(), Error> {
    let model = load_model(&args.weights)?;
    let mut data = args.data.load()?;
    args.classes
        .apply(&mut data, &model.metadata(), &args.weights)?;
    let split = args.split.of(&data);
    let mut logits = vec![[0.0; CLASSES]; split.len()];
    let state = match &model {
        Model::F32(file) => State::new(Box::new(*file.weights().params)),
        Model::Int8(_) if args.device == Device::Core => State::new(bytemuck::zeroed_box()),
        Model::Int8(_) => {
            return Err(Error::Settings(format!(
                "{} is an int8 network, which only --device core computes",
                args.weights.display()
            )));
        }
    };
    match args.device {
        Device::Core => logits = model.logits(split.images()),
        device => {
            let threads = args.threads.into();
            let (mut backend, _) = backend(device, 1, threads, split, state, Adam::default())?;
            backend.logits(split.images(), &mut logits)?;
        }
    }
    if let Some(path) = &args.logits {
        output::write_new(path, &safetensors::write_logits(&logits))?;
    }
    let confusion = Confusion::new(&logits, split.labels());
    if args.confusion {
        writeln!(Out, "{}", confusion_table(&confusion, &data.classes))?;
    }
    writeln!(
        Out,
        "{} acc {:.4} ({} of {})",
        name_of(args.split),
        confusion.accuracy(),
        confusion.correct(),
        confusion.total()
    )?;
    if let Model::F32(file) = &model {
        warn_near_chance(file, &args.weights, split, confusion.accuracy());
    }
    Ok(())
}

/// Returns the confusion matrix as a table, with a row per label, a column per predicted class, and each class's recall and
/// precision. Classes that do not occur are left out.
pub(super) fn confusion_table(confusion: &Confusion, classes: &[String; CLASSES]) -> String {
    let shown = shown_classes(confusion, classes);
    let share = |share: f64| match share.is_nan() {
        true => "-".to_owned(),
        false => format!("{share:.3}"),
    };
    let mut header = vec!["true \\ predicted".to_owned()];
    header.extend(shown.iter().map(usize::to_string));
    header.extend(["recall".to_owned(), "precision".to_owned()]);
    let mut table = table(header, 1..);
    for &class in &shown {
        let mut row = vec![format!("{class} {}", classes[class])];
        let counts = confusion.0.row(class);
        row.extend(shown.iter().map(|&taken| counts[taken].to_string()));
        row.push(share(confusion.recall(class)));
        row.push(share(confusion.precision(class)));
        table.add_row(row);
    }
    table.trim_fmt()
}
