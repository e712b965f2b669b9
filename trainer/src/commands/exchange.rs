//! `trainer export` and `trainer import`: parameters for and from other programs.

use super::out::write_new;
use crate::error::Error;
use crate::weights_file::WeightsFile;
use crate::{c_header, onnx, safetensors};
use clap::ValueEnum;
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct ExportArgs {
    /// Weights file, or a safetensors or ONNX file that `import` reads
    weights: PathBuf,
    /// Format to write
    #[arg(long)]
    format: Format,
    /// New file; - is the standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// Safetensors file with the names of PyTorch's state_dict: conv.0.weight, conv.0.bias, conv.3.*, fc.0.*, fc.2.*,
    /// fc.4.*; or an ONNX model of this network
    file: PathBuf,
    /// New weights file; - is the standard output
    #[arg(long, value_name = "WEIGHTS")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For PyTorch, with the names of its state_dict
    Safetensors,
    /// The network with its parameters: `image` (N, 1, 28, 28) f32 in 0..1, to `logits` (N, 10); operator set 13
    Onnx,
    /// A C header of arrays
    C,
}

pub fn export(args: &ExportArgs) -> Result<(), Error> {
    let file = WeightsFile::load(&args.weights)?;
    let weights = file.weights();
    let bytes = match args.format {
        Format::Safetensors => safetensors::write_params(weights.params),
        Format::Onnx => onnx::write(&weights),
        Format::C => c_header::write(&weights).into_bytes(),
    };
    write_new(&args.out, &bytes, format_args!("{} bytes", bytes.len()))
}

pub fn import(args: &ImportArgs) -> Result<(), Error> {
    let file = WeightsFile::load(&args.file)?;
    let bytes = file.bytes();
    write_new(&args.out, bytes, format_args!("{} bytes", bytes.len()))
}
