//! `trainer page`: writes a web page that runs the network of a weights file.

use super::DataArgs;
use super::out::{load_model, note, write_new};
use super::report::quantized_from;
use crate::error::Error;
use crate::model::Model;
use crate::report;
use crate::weights_file::class_names;
use std::iter;
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Weights file of either kind, or a safetensors, NumPy or ONNX file that `import` accepts
    weights: PathBuf,
    /// New HTML file; - means the standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Int8 weights that were quantized from WEIGHTS: the reader of the page can choose between both
    #[arg(long, value_name = "FILE")]
    int8: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
}

pub fn run(args: &Args) -> Result<(), Error> {
    let model = load_model(&args.weights)?;
    let int8 = match (&args.int8, &model) {
        (None, _) => None,
        (Some(path), Model::F32(file)) => Some(Model::Int8(quantized_from(file, path)?)),
        (Some(_), Model::Int8(_)) => {
            return Err(Error::Foreign {
                path: args.weights.clone(),
                problem: "an int8 network, and --int8 adds one to f32 weights: name the weights that it was quantized from".to_owned(),
            });
        }
    };
    // The page works without a data set; test images are only offered as pictures to choose from. A data set that the user did not
    // name may be missing, or be for another network.
    let data = match args.data.load() {
        Ok(data) => Some(data),
        Err(error @ (Error::NoDataset { .. } | Error::Data { .. }))
            if args.data.folder().is_none() =>
        {
            let reason = match error {
                Error::NoDataset { .. } => "no data set found".to_owned(),
                error => error.to_string(),
            };
            note(format_args!(
                "{reason}: the page has no test images to choose from; name a folder with --data"
            ));
            None
        }
        Err(error) => return Err(error),
    };
    let data = data.filter(|data| {
        let fits = data.classes == class_names(&model.metadata().classes).map(str::to_owned);
        if !fits {
            note(format_args!(
                "{} has other classes than the weights: the page has no test images to choose from; name a folder with --data",
                data.folder.display()
            ));
        }
        fits
    });
    let logits = data.as_ref().map(|data| model.logits(data.test.images()));
    let models: Vec<_> = iter::once(&model).chain(&int8).collect();
    let page = report::live_page(&models, data.as_ref().zip(logits.as_deref()));
    write_new(
        &args.out,
        page.as_bytes(),
        format_args!("{} bytes", page.len()),
    )
}
