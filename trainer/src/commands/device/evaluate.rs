//! `trainer device evaluate`: classifies the test images on a board and compares all logits with those of this computer.

use super::board::PROGRESS;
use super::{BoardArgs, ImageArgs, print_json};
use crate::commands::classes::ClassArgs;
use crate::commands::evaluate::confusion_table;
use crate::commands::out::{Out, load_model};
use crate::dataset::hex;
use crate::device::{Machine, Qemu, Traffic, differing};
use crate::error::Error;
use crate::evaluate::Confusion;
use crate::model::Model;
use indicatif::ProgressIterator;
use lenet_core::network::{CHANNELS, HEIGHT, Logits, Pixels, WIDTH};
use serde::Serialize;
use std::time::{Duration, Instant};

/// The maximum number of differing images to list.
const LISTED: usize = 20;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    images: ImageArgs,
    #[command(flatten)]
    classes: ClassArgs,
    /// Send the images over the link even if QEMU could read them from a file
    #[arg(long)]
    link: bool,
}

/// The logits that a board computed for many images, and the time it took.
struct Run {
    board: String,
    logits: Vec<Logits>,
    wall: Duration,
    /// The time of all forward passes by the board's clock, and the link's statistics. Present only if the images were sent over
    /// the link.
    link: Option<(Duration, Traffic)>,
}

#[derive(Serialize)]
struct EvaluateReport {
    board: String,
    over: &'static str,
    params_sha256: String,
    images: usize,
    board_accuracy: f64,
    host_accuracy: f64,
    /// The indices of the images whose logits on the board and on the host are not equal bit for bit.
    differing: Vec<usize>,
    /// A row per label, a column per class that the board predicted.
    confusion: Vec<Vec<u32>>,
    wall_seconds_per_image: f64,
    board_seconds_per_image: Option<f64>,
    traffic: Option<Traffic>,
}

pub fn run(args: &Args) -> Result<(), Error> {
    let board = &args.images.board;
    let path = board.weights_path();
    let weights = load_model(&path)?;
    let mut data = args.images.data.load()?;
    args.classes.apply(&mut data, &weights.metadata(), &path)?;
    let count = args.images.count(&data, None)?;
    let (images, labels) = (&data.test.images()[..count], &data.test.labels()[..count]);
    let run = match board.machine() {
        Some(machine) if !args.link => in_bulk(board, machine, &weights, images)?,
        _ => over_the_link(board, &weights, images)?,
    };
    let host = weights.logits(images);
    let confusion = Confusion::new(&run.logits, labels);
    let report = EvaluateReport {
        over: if run.link.is_some() {
            "link"
        } else {
            "semihosting"
        },
        params_sha256: hex(&weights.metadata().provenance.params_sha256),
        images: count,
        board_accuracy: confusion.accuracy(),
        host_accuracy: Confusion::new(&host, labels).accuracy(),
        differing: differing(&host, &run.logits),
        confusion: confusion.0.outer_iter().map(|row| row.to_vec()).collect(),
        wall_seconds_per_image: run.wall.as_secs_f64() / count as f64,
        board_seconds_per_image: run.link.map(|(time, _)| time.as_secs_f64() / count as f64),
        traffic: run.link.map(|(_, traffic)| traffic),
        board: run.board,
    };
    if board.json {
        print_json(&report)?;
    } else {
        writeln!(Out, "{}", confusion_table(&confusion, &data.classes))?;
        print_evaluation(&report)?;
    }
    match report.differing.len() {
        0 => Ok(()),
        wrong => Err(Error::Mismatch(format!(
            "{wrong} of {count} images have different logits on {} and on this computer; `trainer device compare` finds the layer",
            report.board
        ))),
    }
}

fn print_evaluation(report: &EvaluateReport) -> Result<(), Error> {
    writeln!(
        Out,
        "{}: accuracy {:.4}, on this computer {:.4}",
        report.board, report.board_accuracy, report.host_accuracy
    )?;
    writeln!(
        Out,
        "{} of {} logit vectors equal bit for bit",
        report.images - report.differing.len(),
        report.images
    )?;
    if !report.differing.is_empty() {
        let first: Vec<String> = report
            .differing
            .iter()
            .take(LISTED)
            .map(usize::to_string)
            .collect();
        let more = if report.differing.len() > LISTED {
            ", ..."
        } else {
            ""
        };
        writeln!(Out, "different: {}{more}", first.join(", "))?;
    }
    writeln!(
        Out,
        "{:.2} ms an image, {}",
        report.wall_seconds_per_image * 1e3,
        report.over
    )?;
    if let Some(seconds) = report.board_seconds_per_image {
        writeln!(
            Out,
            "{:.2} ms of them the forward pass by the board's clock",
            seconds * 1e3
        )?;
    }
    if let Some(traffic) = &report.traffic {
        writeln!(
            Out,
            "{} requests, {} repeated: {} arrived damaged, {} replies arrived damaged, {} got no reply; {} replies were duplicates or late",
            traffic.asked,
            traffic.retried,
            traffic.damaged_requests,
            traffic.damaged_replies,
            traffic.unanswered,
            traffic.stale
        )?;
    }
    Ok(())
}

/// Runs the program `evaluate` in QEMU. By semihosting, it reads all images from one file and writes all logits to another.
fn in_bulk(
    args: &BoardArgs,
    machine: Machine,
    weights: &Model,
    images: &[Pixels],
) -> Result<Run, Error> {
    let elf = args.image(machine, "evaluate", weights)?;
    let dimensions = match CHANNELS {
        1 => vec![images.len(), HEIGHT, WIDTH],
        _ => vec![images.len(), CHANNELS, HEIGHT, WIDTH],
    };
    let mut idx = Vec::from([0, 0, 8, dimensions.len() as u8]);
    for dimension in dimensions {
        idx.extend((dimension as u32).to_be_bytes());
    }
    idx.extend_from_slice(bytemuck::cast_slice(images));

    let start = Instant::now();
    let words = ["evaluate", "images", "logits"];
    let files: [(&str, &[u8]); 1] = [("images", &idx)];
    let mut qemu = Qemu::start(machine, &elf, weights.bytes(), &words, &files, &[])?;
    let path = qemu.path("logits");
    qemu.wait(args.timeout(PROGRESS), || {
        std::fs::metadata(&path).map_or(0, |file| file.len())
    })?;
    let wall = start.elapsed();
    let bytes = std::fs::read(&path).map_err(Error::io("cannot be read", &path))?;
    let logits: Vec<Logits> = bytes
        .as_chunks::<{ size_of::<Logits>() }>()
        .0
        .iter()
        .map(|bytes| bytemuck::pod_read_unaligned(bytes))
        .collect();
    if bytes.len() != images.len() * size_of::<Logits>() {
        return Err(Error::Mismatch(format!(
            "{} wrote {} bytes of logits for {} images",
            machine.name,
            bytes.len(),
            images.len()
        )));
    }
    Ok(Run {
        board: machine.name.to_owned(),
        logits,
        wall,
        link: None,
    })
}

/// Sends the images to the board one by one and collects the logits.
fn over_the_link(args: &BoardArgs, weights: &Model, images: &[Pixels]) -> Result<Run, Error> {
    args.with_board(Some(weights), |client| {
        let (start, mut time) = (Instant::now(), Duration::ZERO);
        let mut logits = Vec::with_capacity(images.len());
        for (index, pixels) in images
            .iter()
            .enumerate()
            .progress_count(images.len() as u64)
        {
            let classified = client.classify(pixels, &format!("image {index}"))?;
            logits.push(classified.logits);
            time += classified.time;
        }
        Ok(Run {
            board: client.identity().board.clone(),
            logits,
            wall: start.elapsed(),
            link: Some((time, client.traffic())),
        })
    })
}
