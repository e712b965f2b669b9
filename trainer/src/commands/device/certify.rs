//! `trainer device certify`: runs all checks on a board and writes a certificate of the results, which others can check.

use super::bench::{cost_by_layer, instructions};
use super::{BoardArgs, print_json};
use crate::commands::DataArgs;
use crate::commands::classes::ClassArgs;
use crate::commands::out::{Out, load_model};
use crate::dataset::{Dataset, hex};
use crate::device::certificate::{
    Certificate, FORMAT, Host, Images, MemoryUsed, SelfTest, Time, Versions, WeightsUsed, bits,
    is_board_name, logits_sha256, name,
};
use crate::device::{DeviceError, differing};
use crate::error::Error;
use crate::evaluate::Confusion;
use crate::model::Model;
use crate::output::{Folder, check_new, write_new};
use clap::builder::{PathBufValueParser, TypedValueParser};
use indicatif::ProgressIterator;
use lenet_core::link;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, clap::Args)]
#[command(mut_arg("elf", |elf| elf.hide(true).value_parser(PathBufValueParser::new().try_map(no_program))))]
pub struct Args {
    #[command(flatten)]
    board: BoardArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    classes: ClassArgs,
    /// Number of test images to classify
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    /// Folder for the two files of the certificate
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Note for the certificate, such as the revision of the chip
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// Check certificates instead of writing one: each must be complete and consistent, and equal to the page next to it. With
    /// the same weights and data set, the logits are computed again
    #[arg(long, value_name = "FILE", num_args = 1.., group = "Place", conflicts_with_all = ["images", "out", "note", "json"])]
    check: Vec<PathBuf>,
}

/// Rejects every program, because in QEMU `certify` runs two programs, one after the other.
fn no_program(_: PathBuf) -> Result<PathBuf, &'static str> {
    Err(
        "certify runs two programs, `serve` and `bench`: omit --elf; certify uses the programs that firmware/build-all.sh built",
    )
}

pub fn run(args: &Args) -> Result<(), Error> {
    if args.check.is_empty() {
        certify(args)
    } else {
        args.check.iter().try_for_each(|path| check(args, path))
    }
}

/// Runs all checks on a board and writes the certificate as JSON and as a Markdown page.
fn certify(args: &Args) -> Result<(), Error> {
    let path = args.board.weights_path();
    let weights = load_model(&path)?;
    let mut data = args.data.load()?;
    // The hash must not depend on the order of the weights' classes.
    let test_sha256 = hex(&data.test_sha256());
    args.classes.apply(&mut data, &weights.metadata(), &path)?;
    let count = args.images as usize;
    if count > data.test.len() {
        return Err(Error::Settings(format!(
            "--images {count}: the data set has {} test images",
            data.test.len()
        )));
    }
    // The folder is created first, because the checks on a board may take long. If they fail, it is removed again.
    let _folder = Folder::create(&args.out)?;
    let (certificate, [json, page]) = check_board(args, &weights, &data, test_sha256, count)?;

    write_new(&json, certificate.json().as_bytes())?;
    write_new(&page, certificate.page().as_bytes())?;
    if args.board.json {
        print_json(&certificate)?;
    } else {
        write!(Out, "{}", certificate.page())?;
        writeln!(Out, "\nwritten {} and {}", json.display(), page.display())?;
    }
    let problems = certificate.problems();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::Mismatch(format!(
            "{}: {}",
            json.display(),
            problems.join("; ")
        )))
    }
}

/// Runs all checks on a board with the first `count` test images. Returns the certificate and the paths of its two files, which
/// do not exist yet.
fn check_board(
    args: &Args,
    weights: &Model,
    data: &Dataset,
    test_sha256: String,
    count: usize,
) -> Result<(Certificate, [PathBuf; 2]), Error> {
    let images = &data.test.images()[..count];
    let host = weights.logits(images);
    let date = jiff::Zoned::now().strftime("%Y-%m-%d").to_string();

    let (certificate, files) = args.board.with_board(Some(weights), |client| {
        let who = client.identity().clone();
        let files = new_files(&args.out, &who.board, &date)?;
        let self_test = client.self_test()?;
        let mut logits = Vec::with_capacity(count);
        let mut times = Vec::with_capacity(count);
        for (index, pixels) in images.iter().enumerate().progress_count(count as u64) {
            let classified = client.classify(pixels, &format!("image {index}"))?;
            logits.push(classified.logits);
            times.push(classified.time.as_secs_f64() * 1e6);
        }
        let cost = cost_by_layer(client)?;
        // The memory is read last, so that the stack depth covers everything before.
        let memory = client.memory()?;
        let certificate = Certificate {
            format: FORMAT,
            date,
            board: who.board,
            medium: args.board.medium(),
            note: args.note.clone(),
            clock_hz: who.clock_hz,
            versions: Versions {
                firmware: who.firmware,
                trainer: env!("CARGO_PKG_VERSION").to_owned(),
                link: link::VERSION,
                weights_file: who.weights_version,
                network: who.network,
            },
            weights: WeightsUsed {
                crc32: format!("{:08x}", who.weights_crc),
                params_sha256: hex(&who.params_sha256),
                fingerprint: format!("{:016x}", who.fingerprint),
            },
            host: Host {
                os: std::env::consts::OS.to_owned(),
                arch: std::env::consts::ARCH.to_owned(),
            },
            self_test: SelfTest {
                equal: bits(&self_test) == bits(&weights.self_test()),
                logits: bits(&self_test),
            },
            images: Images {
                dataset: data.name.clone(),
                test_sha256,
                count,
                correct: Confusion::new(&logits, &data.test.labels()[..count]).correct() as usize,
                differing: differing(&host, &logits),
                board_logits_sha256: logits_sha256(&logits),
                host_logits_sha256: logits_sha256(&host),
            },
            time_us: spread(&times),
            cost,
            memory: memory.map(|used| MemoryUsed {
                statics: used.statics,
                stack: used.stack,
            }),
            link: client.traffic(),
        };
        Ok((certificate, files))
    })?;
    let certificate = match instructions(&args.board)? {
        Some(cost) => Certificate {
            cost,
            ..certificate
        },
        None => certificate,
    };
    Ok((certificate, files))
}

/// Returns the paths of the two files of a board's certificate, and checks that neither exists yet.
fn new_files(folder: &Path, board: &str, date: &str) -> Result<[PathBuf; 2], Error> {
    // The name comes from the board, and must not lead to another folder.
    if !is_board_name(board) {
        let found = board.to_owned();
        return Err(DeviceError::Name { found }.into());
    }
    let files =
        ["json", "md"].map(|extension| folder.join(format!("{}.{extension}", name(board, date))));
    files.iter().try_for_each(|file| check_new(file))?;
    Ok(files)
}

/// Returns the least, mean and greatest of the times in microseconds, rounded to tenths, so that reading the certificate back
/// gives the same numbers.
fn spread(times: &[f64]) -> Time {
    let tenths = |us: f64| (us * 10.0).round() / 10.0;
    Time {
        least: tenths(times.iter().copied().fold(f64::INFINITY, f64::min)),
        mean: tenths(times.iter().sum::<f64>() / times.len() as f64),
        most: tenths(times.iter().copied().fold(0.0, f64::max)),
    }
}

/// Checks that a certificate is consistent, that its page and its name agree with it, and, if possible, that its logits are right.
fn check(args: &Args, path: &Path) -> Result<(), Error> {
    let certificate = Certificate::load(path)?;
    let mut problems = certificate.problems();
    let page = path.with_extension("md");
    let text = std::fs::read_to_string(&page).map_err(Error::io("cannot be read", &page))?;
    if text != certificate.page() {
        problems.push(format!(
            "{} does not say what the certificate says",
            page.display()
        ));
    }
    if path
        .file_stem()
        .is_none_or(|stem| stem != &*certificate.name())
    {
        problems.push(format!(
            "the file is not named {}.json, after board and date",
            certificate.name()
        ));
    }
    let mut is_mismatch = false;
    let computed = match recompute(args, &certificate)? {
        Some(found) => {
            is_mismatch = !found.is_empty();
            problems.extend(found);
            "; the logits were computed again"
        }
        None => {
            "; the logits were not computed again, as these weights or this data set are not here"
        }
    };
    if problems.is_empty() {
        let kind = match certificate.medium.is_silicon() {
            true => "a board",
            false => "a rehearsal",
        };
        writeln!(
            Out,
            "{}: a sound certificate of {kind}, {} on {}{computed}",
            path.display(),
            certificate.board,
            certificate.date
        )
    } else {
        let problem = problems.join("; ");
        Err(match is_mismatch {
            true => Error::Mismatch(format!("{}: {problem}", path.display())),
            false => Error::Foreign {
                path: path.to_owned(),
                problem,
            },
        })
    }
}

/// Computes the certificate's logits on this machine and returns the differences as sentences. Returns `None` if this machine does
/// not have the same weights and test images. Only files that the user has named must be readable.
fn recompute(args: &Args, certificate: &Certificate) -> Result<Option<Vec<String>>, Error> {
    let path = args.board.weights_path();
    let weights = match load_model(&path) {
        Err(_) if args.board.weights.is_none() => return Ok(None),
        weights => weights?,
    };
    let mut data = match args.data.load() {
        Err(_) if args.data.folder().is_none() => return Ok(None),
        data => data?,
    };
    let claimed = &certificate.images;
    if hex(&weights.metadata().provenance.params_sha256) != certificate.weights.params_sha256
        || hex(&data.test_sha256()) != claimed.test_sha256
        || claimed.count > data.test.len()
    {
        return Ok(None);
    }
    args.classes.apply(&mut data, &weights.metadata(), &path)?;
    let images = &data.test.images()[..claimed.count];
    let logits = weights.logits(images);
    let correct = Confusion::new(&logits, &data.test.labels()[..claimed.count]).correct() as usize;
    let mut problems = Vec::new();
    if logits_sha256(&logits) != claimed.host_logits_sha256 {
        problems.push("the host's logits are not those that this machine computes".to_owned());
    }
    if bits(&weights.self_test()) != certificate.self_test.logits {
        problems.push("the self-test's logits are not those of the weights file".to_owned());
    }
    if claimed.differing.is_empty() && correct != claimed.correct {
        problems.push(format!(
            "{} images are said to be correct, {correct} are",
            claimed.correct
        ));
    }
    Ok(Some(problems))
}
