//! `trainer report`: the pictures and the page of a run, made again.

use super::DataArgs;
use crate::dataset::hex;
use crate::error::Error;
use crate::evaluate::core_logits;
use crate::report;
use crate::weights_file::WeightsFile;
use std::path::PathBuf;
use toml::Value;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder of the run
    run: PathBuf,
    #[command(flatten)]
    data: DataArgs,
}

pub fn run(args: &Args) -> Result<(), Error> {
    let file = WeightsFile::load(&args.run.join("lenet.weights"))?;
    let weights = file.weights();
    let mut data = args.data.clone();
    // Unless told otherwise, the data is where the run says, if it is still there, and read as it says.
    let settings = report::settings(&args.run)?;
    let setting = |name: &str| settings.get("data").and_then(|data| data.get(name));
    if data.data.is_none() {
        let folder = setting("folder").and_then(Value::as_str).map(PathBuf::from);
        data.data = folder.filter(|folder| folder.is_dir());
    }
    let flag = |name| setting(name).and_then(Value::as_bool).unwrap_or(false);
    data.images.resize |= flag("resize");
    data.images.invert |= flag("invert");
    data.test_split = data
        .test_split
        .or(setting("test_split").and_then(Value::as_float));
    let data = data.read()?;
    let trained_on = weights.metadata.provenance.dataset_sha256;
    if data.sha256 != trained_on {
        return Err(Error::Data {
            problem: format!(
                "not the data that {} was trained on: SHA-256 {}, wanted {}; name the folder with --data",
                args.run.display(),
                hex(&data.sha256),
                hex(&trained_on)
            ),
            path: data.folder,
        });
    }
    let logits = core_logits(weights.params, data.test.images());
    let page = report::write(&args.run, &data, &logits)?;
    println!("report {}", page.display());
    Ok(())
}
