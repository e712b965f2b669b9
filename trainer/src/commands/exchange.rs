//! `trainer export` and `trainer import`: converts weights to and from the formats of other programs.

use super::DataArgs;
use super::classes::ClassArgs;
use super::out::{Out, load_model, load_weights, note, warn, write_new};
use crate::dataset::Split;
use crate::error::Error;
use crate::evaluate::{Confusion, core_logits};
use crate::model::Model;
use crate::normalize::Normalization;
use crate::weights_file::WeightsFile;
use crate::{c_header, onnx, safetensors};
use clap::ValueEnum;
use lenet_core::network::{CHANNELS, LAYERS};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, clap::Args)]
pub struct ExportArgs {
    /// Weights file in f32 or int8, or a safetensors, NumPy or ONNX file that `import` accepts
    weights: PathBuf,
    /// Format to write
    #[arg(long)]
    format: Format,
    /// New file; - means the standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
#[command(mut_arg("ignore_class_names", |arg| arg.requires("data")))]
pub struct ImportArgs {
    /// Safetensors file or NumPy archive (.npz) with the tensors of PyTorch's state_dict (conv.0.weight, conv.0.bias, ...), or an
    /// ONNX model that computes the same function as this network. Tensors with other names are matched by shape if there is
    /// only one way to do so
    file: PathBuf,
    /// New weights file; - means the standard output
    #[arg(long, value_name = "WEIGHTS")]
    out: PathBuf,
    /// Mean of the normalization (x - M) / S that the weights were trained with, for pixels from 0 to 1; it is folded into the
    /// first layer. One number, or one per channel, such as 0.485,0.456,0.406
    #[arg(long, value_name = "M", requires = "std", value_delimiter = ',', value_parser = mean, allow_negative_numbers = true)]
    mean: Vec<f64>,
    /// Standard deviation of the normalization, like --mean
    #[arg(long, value_name = "S", requires = "mean", value_delimiter = ',', value_parser = std, allow_negative_numbers = true)]
    std: Vec<f64>,
    /// Also evaluate the weights on the test images of this data set
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    classes: ClassArgs,
}

/// Parses a mean. Its range is checked because users often give the statistics of bytes (0 to 255).
fn mean(text: &str) -> Result<f64, String> {
    number(text, "from 0 to 1", |mean| (0.0..=1.0).contains(&mean))
}

fn std(text: &str) -> Result<f64, String> {
    number(text, "above 0, and at most 1", |std| {
        std > 0.0 && std <= 1.0
    })
}

fn number(text: &str, range: &str, fits: impl Fn(f64) -> bool) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if fits(number) => Ok(number),
        Ok(_) => Err(format!(
            "must be {range}, as images are 0..1 here; divide the statistics of bytes by 255"
        )),
        Err(error) => Err(error.to_string()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tensors with the names of PyTorch's state_dict; f32 only
    Safetensors,
    /// The network with its parameters, from `image` (N, C, H, W) in f32 from 0 to 1 to `logits` (N, classes); operator set 13.
    /// Int8 is written with QuantizeLinear and DequantizeLinear
    Onnx,
    /// A C header with one array per tensor
    C,
}

pub fn export(args: &ExportArgs) -> Result<(), Error> {
    let bytes = match (load_model(&args.weights)?, args.format) {
        (Model::F32(file), Format::Safetensors) => safetensors::write_params(file.weights().params),
        (Model::F32(file), Format::Onnx) => onnx::write(&file.weights()),
        (Model::F32(file), Format::C) => c_header::write(&file.weights()).into_bytes(),
        (Model::Int8(_), Format::Safetensors) => {
            return Err(Error::Settings(format!(
                "{} is an int8 network; safetensors is for the f32 network that it was quantized from, as a state_dict has floats. \
                 For int8 there are --format onnx and --format c",
                args.weights.display()
            )));
        }
        (Model::Int8(file), Format::Onnx) => onnx::write_int8(&file.weights()),
        (Model::Int8(file), Format::C) => c_header::write_int8(&file.weights()).into_bytes(),
    };
    write_new(&args.out, &bytes, format_args!("{} bytes", bytes.len()))
}

pub fn import(args: &ImportArgs) -> Result<(), Error> {
    let mut file = load_weights(&args.file)?;
    if !args.mean.is_empty() {
        let normalization = Normalization {
            mean: args.mean.clone(),
            std: args.std.clone(),
        };
        file = file
            .behind(&normalization)
            .map_err(|problem| Error::Foreign {
                path: args.file.clone(),
                problem,
            })?;
        note(format_args!(
            "{}: {} is folded into {}: the weights are for plain images in 0..1",
            args.file.display(),
            normalization.text(),
            LAYERS[0].name
        ));
    }
    let weights = file.weights();
    let test = match &args.data {
        None => None,
        Some(folder) => {
            let mut data = DataArgs::of_folder(folder).load()?;
            args.classes
                .apply(&mut data, &weights.metadata, &args.file)?;
            Some(data.test)
        }
    };
    let bytes = file.bytes();
    write_new(&args.out, bytes, format_args!("{} bytes", bytes.len()))?;
    if let Some(test) = test {
        let logits = core_logits(weights.params, test.images());
        let confusion = Confusion::new(&logits, test.labels());
        let (accuracy, correct) = (confusion.accuracy(), confusion.correct());
        let text = format!(
            "test acc {accuracy:.4} ({correct} of {})",
            confusion.total()
        );
        match args.out == Path::new("-") {
            // The standard output already contains the weights.
            true => note(text),
            false => writeln!(Out, "{text}")?,
        }
        warn_near_chance(&file, &args.file, &test, accuracy);
    }
    Ok(())
}

/// Warns if weights from another program are hardly better than always predicting the same class, and says what to check.
pub(super) fn warn_near_chance(file: &WeightsFile, path: &Path, split: &Split, accuracy: f64) {
    let chance = split.chance();
    if !file.is_imported() || accuracy >= chance + NEAR * (1.0 - chance) {
        return;
    }
    let channels = match CHANNELS {
        1 => "",
        _ => " The channels are red, green, blue.",
    };
    warn(format_args!(
        "{}: accuracy {accuracy:.4} is near chance ({chance:.4}) for weights from another program. If they are well trained, check \
         what they were trained on. Images are 0..1 here, without Normalize: fold it in with trainer import --mean M --std S. \
         Objects are light on a dark ground (--invert does so to pictures in class folders).{channels} Rows come before columns, and label n is \
         output n",
        path.display()
    ));
}

/// An accuracy is near chance if it covers less than this share of the distance from chance to 1. LeNet trained with `Normalize` has
/// an accuracy of 0.20 on images that are not normalized.
const NEAR: f64 = 0.25;
