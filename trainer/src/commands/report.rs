//! `trainer report`: writes the pictures and the report page of a run again.

use super::DataArgs;
use super::out::{Out, load_model, load_weights, warn};
use crate::checkpoint;
use crate::config::DataConfig;
use crate::dataset::{self, hex};
use crate::error::Error;
use crate::evaluate::core_logits;
use crate::model::Model;
use crate::report::{self, Quantized};
use crate::weights_file::{WeightsFile, class_names};
use lenet_core::network::int8;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Run folder
    run: PathBuf,
    /// Int8 weights that were quantized from the run's weights: adds their accuracy, their confusion matrix, and each layer's
    /// signal-to-noise ratio
    #[arg(long, value_name = "FILE")]
    int8: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
}

pub fn run(args: &Args) -> Result<(), Error> {
    if args.run.is_file() {
        return Err(Error::Settings(format!(
            "{} is a file: a report is of a run, so name the run's folder. For int8 weights add --int8 FILE; for other weights \
             there are trainer evaluate and trainer summary",
            args.run.display()
        )));
    }
    let path = args.run.join("lenet.weights");
    if !path.exists() && args.run.join(checkpoint::NAME).exists() {
        return Err(Error::Checkpoint {
            problem: format!(
                "no epoch is done yet; continue with: trainer train --resume {}",
                args.run.display()
            ),
            path: args.run.clone(),
        });
    }
    let file = load_weights(&path)?;
    let weights = file.weights();
    let int8 = args.int8.as_deref().map(|path| quantized_from(&file, path));
    let int8 = int8.transpose()?;
    // By default, read the data as the run did: from the same folder, if it still exists, and with the same options.
    let settings = report::settings(&args.run)?;
    let run = settings.get("data").cloned();
    let mut data = match run.and_then(|run| run.try_into::<DataConfig>().ok()) {
        Some(run) => args.data.of_run(&run),
        None => args.data.clone(),
    };
    if args.data.data.is_none() {
        data.data = data
            .data
            .filter(|folder| dataset::find(Some(folder)).is_ok());
    }
    let mut data = data.read()?;
    let trained_on = weights.metadata.provenance.dataset_sha256;
    if data.sha256 != trained_on {
        return Err(Error::Data {
            problem: format!(
                "not the data that {} was trained on: SHA-256 {}, expected {}; name the folder with --data",
                args.run.display(),
                hex(&data.sha256),
                hex(&trained_on)
            ),
            path: data.folder,
        });
    }
    // The images and labels are those of the run, so the report keeps the run's class names even if the data set has other names
    // now.
    let names = class_names(&weights.metadata.classes).map(str::to_owned);
    if data.classes != names {
        warn(format_args!(
            "{} has other names for its classes than the run: {} in place of {}; the report keeps the run's",
            data.folder.display(),
            data.classes.join(", "),
            names.join(", ")
        ));
        data.classes = names;
    }
    let logits = core_logits(weights.params, data.test.images());
    let quantized = int8
        .as_ref()
        .map(|int8| Quantized::new(&file, int8, &data.test));
    let page = report::write(&args.run, &data, &logits, quantized)?;
    writeln!(Out, "report {}", page.display())?;
    Ok(())
}

/// Reads int8 weights and checks that they were quantized from the given f32 weights.
pub(super) fn quantized_from(
    f32: &WeightsFile,
    path: &Path,
) -> Result<WeightsFile<int8::Net>, Error> {
    let refused = |problem| Error::Foreign {
        path: path.to_owned(),
        problem,
    };
    let Model::Int8(file) = load_model(path)? else {
        return Err(refused(
            "an f32 network, and --int8 takes the file that trainer quantize made of the f32 weights".to_owned(),
        ));
    };
    let from = hex(&f32.weights().metadata.provenance.params_sha256);
    match file.weights().metadata.provenance.recipe {
        recipe if recipe.contains(&format!("quantized from {from}")) => Ok(file),
        recipe => Err(refused(format!(
            "not quantized from the f32 weights, whose parameters have the SHA-256 {from}; its recipe is: {recipe}"
        ))),
    }
}
