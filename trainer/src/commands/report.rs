//! `trainer report`: the pictures and the page of a run, made again.

use super::DataArgs;
use super::out::{Out, warn};
use crate::checkpoint;
use crate::config::DataConfig;
use crate::dataset::{self, hex};
use crate::error::Error;
use crate::evaluate::core_logits;
use crate::report;
use crate::weights_file::{WeightsFile, class_names};
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Run folder
    run: PathBuf,
    #[command(flatten)]
    data: DataArgs,
}

pub fn run(args: &Args) -> Result<(), Error> {
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
    let file = WeightsFile::load(&path)?;
    let weights = file.weights();
    // Unless told otherwise, the data is where the run says, if it is still there, and read as it says.
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
    // The images and labels are those of the run, and so are the names of its classes, whatever they are called by now.
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
    let page = report::write(&args.run, &data, &logits)?;
    writeln!(Out, "report {}", page.display())?;
    Ok(())
}
