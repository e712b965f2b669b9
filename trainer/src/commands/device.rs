//! `trainer device`: sends requests to a real or emulated board and compares it with this computer bit for bit.

use super::DataArgs;
use super::certify;
use super::classes::ClassArgs;
use super::evaluate::confusion_table;
use super::out::{Out, load_model, warn};
use crate::dataset::{Dataset, hex};
use crate::device::certificate::{self, Cost, LayerCost, Medium};
use crate::device::{
    Classified, Client, DeviceError, Difference, Identity, MACHINES, Machine, Qemu, Serial, Tcp,
    Traffic, Wire, differing, first_difference, ulps,
};
use crate::error::Error;
use crate::evaluate::Confusion;
use crate::model::Model;
use clap::Subcommand;
use indicatif::ProgressIterator;
use lenet_core::link::Unit;
use lenet_core::network::{CHANNELS, HEIGHT, LAYERS, Logits, Pixels, WIDTH};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The default of --timeout for a board: how long to wait for a reply.
const ANSWER: Duration = Duration::from_secs(15);
/// The default of --timeout for QEMU: a program that makes no progress for this long is considered to hang.
const PROGRESS: Duration = Duration::from_secs(60);
/// The `shift` of QEMU's option `-icount`: an instruction takes 2⁷ ns of emulated time. With this value, the ticks of the emulated
/// clock are fine enough to count instructions.
const ICOUNT_SHIFT: &str = "7";
/// The maximum number of differing images to list.
const LISTED: usize = 20;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    question: Question,
}

#[derive(Clone, Debug, Subcommand)]
enum Question {
    /// Print the board's name, firmware and parameters
    Info(BoardArgs),
    /// Classify the test images on the board, and compare all logits with this computer's
    Evaluate(ImageArgs),
    /// Measure each layer: in cycles, or in QEMU in instructions
    Bench(BoardArgs),
    /// Find the first layer and element in which the board differs from this computer
    Compare(ImageArgs),
    /// Run all checks on a board and write a certificate, or check certificates
    Certify(certify::Args),
}

/// Which board, and which parameters it should have.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct BoardArgs {
    #[command(flatten)]
    place: Place,
    /// Weights file that the board should have; QEMU loads it [default: data/lenet.weights]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Program for QEMU [default: the one that firmware/build-all.sh built]
    #[arg(long, value_name = "FILE", requires = "qemu", conflicts_with_all = ["port", "tcp"])]
    #[cfg_attr(feature = "probe", arg(conflicts_with = "probe"))]
    elf: Option<PathBuf>,
    /// Bits per second of --port
    #[arg(long, value_name = "N", default_value_t = 115_200, value_parser = clap::value_parser!(u32).range(50..=50_000_000))]
    baud: u32,
    /// Name of the chip for --probe, from `probe-rs chip list` [default: detected]
    #[cfg(feature = "probe")]
    #[arg(long, value_name = "NAME", requires = "probe", conflicts_with_all = ["qemu", "port", "tcp"])]
    chip: Option<String>,
    /// How long to wait for the first reply, for each further reply, and for progress of a program in QEMU
    /// [default: 15, for QEMU 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// Emulate this machine in QEMU
    #[arg(long, value_name = "MACHINE", num_args = 0..=1, default_missing_value = "mps2-an386",
          value_parser = machine)]
    qemu: Option<Machine>,
    /// Use this serial port, such as /dev/ttyACM0
    #[arg(long, value_name = "PATH")]
    port: Option<String>,
    /// Use this TCP address, such as that of a serial port server
    #[arg(long, value_name = "HOST:PORT")]
    tcp: Option<String>,
    /// Use the debug probe
    #[cfg(feature = "probe")]
    #[arg(long)]
    probe: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct ImageArgs {
    #[command(flatten)]
    board: BoardArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    classes: ClassArgs,
    /// Use only the first N test images [default: all for evaluate, 10 for compare]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    images: Option<u32>,
    /// Send the images over the link even if QEMU could read them from a file
    #[arg(long)]
    link: bool,
}

fn machine(name: &str) -> Result<Machine, String> {
    Machine::named(name).ok_or_else(|| {
        let names = MACHINES.map(|machine| machine.name).join(", ");
        format!("the firmware knows {names}")
    })
}

pub fn run(args: &Args) -> Result<(), Error> {
    match &args.question {
        Question::Info(args) => info(args),
        Question::Evaluate(args) => evaluate(args),
        Question::Bench(args) => bench(args),
        Question::Compare(args) => compare(args),
        Question::Certify(args) => certify::run(args),
    }
}

impl BoardArgs {
    fn timeout(&self, default: Duration) -> Duration {
        self.timeout.map_or(default, Duration::from_secs)
    }

    /// Returns how the board is connected.
    pub(super) fn medium(&self) -> Medium {
        match &self.place {
            Place { qemu: Some(_), .. } => Medium::Qemu,
            Place { port: Some(_), .. } => Medium::Serial,
            Place { tcp: Some(_), .. } => Medium::Tcp,
            _ => Medium::Probe,
        }
    }

    /// Counts the instructions of each layer if the board is emulated by QEMU, which cannot count cycles.
    pub(super) fn instructions(&self) -> Result<Option<Cost>, Error> {
        let Some(machine) = self.place.qemu else {
            return Ok(None);
        };
        let BenchReport {
            layers, forward, ..
        } = counted_instructions(self, machine)?;
        Ok(Some(Cost {
            unit: certificate::Unit::Instructions,
            layers: layers
                .into_iter()
                .map(|(name, count)| LayerCost { name, count })
                .collect(),
            forward,
        }))
    }

    pub(super) fn weights_path(&self) -> PathBuf {
        self.weights.clone().unwrap_or_else(|| {
            let here = Path::new("data/lenet.weights");
            if here.exists() {
                here.to_owned()
            } else {
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/lenet.weights")
            }
        })
    }

    /// Returns the firmware image of a program, built for the number format of the weights (f32 or int8).
    fn image(
        &self,
        machine: Machine,
        program: &str,
        weights: &Model,
    ) -> Result<PathBuf, DeviceError> {
        let file = self.weights_path();
        machine.image(program, self.elf.as_deref(), weights.numbers(), &file)
    }

    /// Connects to the board and calls `act` with it. If `weights` is given, checks first that the board has the same parameters.
    pub(super) fn with_board<T>(
        &self,
        weights: Option<&Model>,
        act: impl FnOnce(&mut Client<Box<dyn Wire>>) -> Result<T, DeviceError>,
    ) -> Result<T, Error> {
        let (mut qemu, wire, name): (_, Box<dyn Wire>, _) =
            match (self.place.qemu, &self.place.port, &self.place.tcp) {
                (Some(machine), _, _) => {
                    let weights = match weights {
                        Some(weights) => weights,
                        None => &load_model(&self.weights_path())?,
                    };
                    let image = self.image(machine, "serve", weights)?;
                    let patience = self.timeout(PROGRESS);
                    let (qemu, tcp) = Qemu::serve(machine, &image, weights.bytes(), patience)?;
                    (Some(qemu), Box::new(tcp), machine.name)
                }
                (_, Some(path), _) => (None, Box::new(Serial::open(path, self.baud)?), path),
                (_, _, Some(address)) => {
                    let tcp = Tcp::connect(address, self.timeout(ANSWER))?;
                    (None, Box::new(tcp), address)
                }
                _ => (None, self.probe()?, "probe"),
            };
        let timeout = self.timeout(ANSWER);
        let answer = Client::connect(wire, name, timeout).and_then(|mut client| {
            if let Some(weights) = weights {
                let host = weights.metadata().provenance.params_sha256;
                let board = client.identity().params_sha256;
                if board != host {
                    let file = self.weights_path();
                    return Err(DeviceError::Weights { board, host, file });
                }
                if client.identity().weights_crc != weights.crc() {
                    warn(format_args!(
                        "the board's weights file has the parameters of {}, but describes them otherwise: the names of its \
                         classes may be other ones",
                        self.weights_path().display()
                    ));
                }
            }
            act(&mut client)
        });
        Ok(answer.map_err(|error| match &mut qemu {
            Some(qemu) => qemu.explain(error),
            None => error,
        })?)
    }

    #[cfg(feature = "probe")]
    fn probe(&self) -> Result<Box<dyn Wire>, DeviceError> {
        Ok(Box::new(crate::device::probe::Rtt::attach(
            self.chip.as_deref(),
        )?))
    }

    #[cfg(not(feature = "probe"))]
    fn probe(&self) -> Result<Box<dyn Wire>, DeviceError> {
        unreachable!("clap asks for one of the places");
    }
}

/// Prints a report as one JSON object.
pub(super) fn print_json(report: &impl Serialize) -> Result<(), Error> {
    let json = serde_json::to_string(report).expect("numbers and strings have a JSON form");
    writeln!(Out, "{json}")
}

#[derive(Serialize)]
struct InfoReport<'a> {
    board: &'a str,
    firmware: &'a str,
    clock_hz: u32,
    weights_version: u8,
    weights_crc: String,
    params_sha256: String,
    fingerprint: String,
}

fn info(args: &BoardArgs) -> Result<(), Error> {
    // Without --weights, the board may have any weights.
    let expected = args.weights.as_deref().map(load_model).transpose()?;
    let who = args.with_board(expected.as_ref(), |client| Ok(client.identity().clone()))?;
    let report = InfoReport {
        board: &who.board,
        firmware: &who.firmware,
        clock_hz: who.clock_hz,
        weights_version: who.weights_version,
        weights_crc: format!("{:08x}", who.weights_crc),
        params_sha256: hex(&who.params_sha256),
        fingerprint: format!("{:016x}", who.fingerprint),
    };
    if args.json {
        print_json(&report)?;
    } else {
        writeln!(Out, "{}", describe(&who))?;
        writeln!(
            Out,
            "weights file {}, format {}, architecture {}",
            report.weights_crc, who.weights_version, report.fingerprint
        )?;
        writeln!(Out, "parameters {}", report.params_sha256)?;
    }
    Ok(())
}

fn describe(who: &Identity) -> String {
    format!(
        "{}, firmware {}, {} MHz",
        who.board,
        who.firmware,
        f64::from(who.clock_hz) / 1e6
    )
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

fn evaluate(args: &ImageArgs) -> Result<(), Error> {
    let path = args.board.weights_path();
    let weights = load_model(&path)?;
    let mut data = args.data.load()?;
    args.classes.apply(&mut data, &weights.metadata(), &path)?;
    let count = args.count(&data, None)?;
    let (images, labels) = (&data.test.images()[..count], &data.test.labels()[..count]);
    let run = match args.board.place.qemu {
        Some(machine) if !args.link => in_bulk(&args.board, machine, &weights, images)?,
        _ => over_the_link(&args.board, &weights, images)?,
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
    if args.board.json {
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

impl ImageArgs {
    /// Returns the number of images to use.
    fn count(&self, data: &Dataset, default: Option<usize>) -> Result<usize, Error> {
        let all = data.test.len();
        match self.images.map(|images| images as usize) {
            Some(images) if images > all => Err(Error::Settings(format!(
                "--images {images}: the data set has {all} test images"
            ))),
            Some(images) => Ok(images),
            None => Ok(default.unwrap_or(all).min(all)),
        }
    }
}

#[derive(Serialize)]
struct BenchReport {
    board: String,
    unit: &'static str,
    /// The name and the count of each layer.
    layers: Vec<(String, u32)>,
    forward: u32,
}

fn bench(args: &BoardArgs) -> Result<(), Error> {
    let report = match args.place.qemu {
        Some(machine) => counted_instructions(args, machine)?,
        None => args.with_board(None, |client| {
            let cost = cost_by_layer(client)?;
            let by_name = |LayerCost { name, count }| (name, count);
            Ok(BenchReport {
                board: client.identity().board.clone(),
                unit: match cost.unit {
                    certificate::Unit::Cycles => "cycles",
                    _ => "ticks of the clock (no cycle counter here)",
                },
                layers: cost.layers.into_iter().map(by_name).collect(),
                forward: cost.forward,
            })
        })?,
    };
    if args.json {
        return print_json(&report);
    }
    writeln!(Out, "{}, {}", report.board, report.unit)?;
    for (name, count) in &report.layers {
        writeln!(Out, "{name:12} {count:>10}")?;
    }
    writeln!(Out, "{:12} {:>10}", "forward", report.forward)?;
    Ok(())
}

/// Measures the cost of each layer on a board, in cycles or in ticks of its clock.
pub(super) fn cost_by_layer<W: Wire>(client: &mut Client<W>) -> Result<Cost, DeviceError> {
    let bench = client.bench()?;
    let layers = LAYERS.iter().zip(bench.layers);
    Ok(Cost {
        unit: match bench.unit {
            Unit::Cycles => certificate::Unit::Cycles,
            Unit::Ticks => certificate::Unit::Ticks,
        },
        layers: layers
            .map(|(layer, count)| LayerCost {
                name: layer.name.to_owned(),
                count,
            })
            .collect(),
        forward: bench.total,
    })
}

/// Counts the instructions of each layer: runs the program `bench` in QEMU with `-icount`, which prints lines of the form
/// `NAME COUNT instructions`.
fn counted_instructions(args: &BoardArgs, machine: Machine) -> Result<BenchReport, Error> {
    let weights = load_model(&args.weights_path())?;
    let elf = args.image(machine, "bench", &weights)?;
    let words = ["bench", "icount", ICOUNT_SHIFT];
    let icount = format!("shift={ICOUNT_SHIFT}");
    let mut qemu = Qemu::start(
        machine,
        &elf,
        weights.bytes(),
        &words,
        &[],
        &["-icount", &icount],
    )?;
    let lines = qemu.wait(args.timeout(PROGRESS), || 0)?;
    let mut layers: Vec<(String, u32)> = lines
        .iter()
        .filter_map(|line| {
            let (name, count) = line.strip_suffix(" instructions")?.split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        })
        .collect();
    match layers.pop() {
        Some((name, forward)) if name == "forward" => Ok(BenchReport {
            board: machine.name.to_owned(),
            unit: "instructions",
            layers,
            forward,
        }),
        _ => Err(Error::Device(DeviceError::Qemu {
            machine: machine.name,
            problem: "counted nothing".to_owned(),
            last_line: lines.join("; "),
        })),
    }
}

#[derive(Serialize)]
struct CompareReport {
    board: String,
    images: usize,
    difference: Option<(usize, &'static str, usize, f32, f32)>,
}

fn compare(args: &ImageArgs) -> Result<(), Error> {
    let weights = load_model(&args.board.weights_path())?;
    let data = args.data.load()?;
    let count = args.count(&data, Some(10))?;
    let (board, difference) = args.board.with_board(Some(&weights), |client| {
        for (index, pixels) in data.test.images()[..count].iter().enumerate() {
            let host = weights.layers(pixels);
            let at = format!("image {index}");
            let Classified { image, .. } = client.classify(pixels, &at)?;
            let layers = (0..LAYERS.len())
                .map(|layer| client.layer(image, layer, weights.numbers(), &at))
                .collect::<Result<Vec<_>, _>>()?;
            if let Some(difference) = first_difference(&host, &layers) {
                return Ok((client.identity().board.clone(), Some((index, difference))));
            }
        }
        Ok((client.identity().board.clone(), None))
    })?;
    if args.board.json {
        print_json(&CompareReport {
            board: board.clone(),
            images: count,
            difference: difference
                .map(|(index, at)| (index, at.layer, at.element, at.host, at.board)),
        })?;
    }
    match difference {
        None if args.board.json => Ok(()),
        None => {
            writeln!(Out, "{board}: no difference in any layer of {count} images")?;
            Ok(())
        }
        Some((
            index,
            Difference {
                layer,
                element,
                host,
                board: found,
            },
        )) => {
            let apart = ulps(host, found).map_or("NaN".to_owned(), |ulps| format!("{ulps} ulp"));
            Err(Error::Mismatch(format!(
                "first difference: image {index}, layer {layer}, element {element}, host {host} ({:08x}), {board} {found} ({:08x}): {apart}",
                host.to_bits(),
                found.to_bits()
            )))
        }
    }
}
