//! `trainer device bench`: measures the cost of each layer.

use super::board::PROGRESS;
use super::{BoardArgs, given_weights, print_json};
use crate::commands::out::{Out, load_model};
use crate::device::certificate::{self, Cost, LayerCost};
use crate::device::{Client, DeviceError, Machine, Qemu, Wire};
use crate::error::Error;
use lenet_core::link::Unit;
use lenet_core::network::LAYERS;
use serde::Serialize;

/// The `shift` of QEMU's option `-icount`: an instruction takes 2⁷ ns of emulated time. With this value, the ticks of the emulated
/// clock are fine enough to count instructions.
const ICOUNT_SHIFT: &str = "7";

#[derive(Serialize)]
struct BenchReport {
    board: String,
    unit: &'static str,
    /// The name and the count of each layer.
    layers: Vec<(String, u32)>,
    forward: u32,
}

pub fn run(args: &BoardArgs) -> Result<(), Error> {
    let report = match args.machine() {
        Some(machine) => counted_instructions(args, machine)?,
        None => args.with_board(given_weights(args)?.as_ref(), |client| {
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

/// Counts the instructions of each layer if the board is emulated by QEMU, which cannot count cycles.
pub(super) fn instructions(args: &BoardArgs) -> Result<Option<Cost>, Error> {
    let Some(machine) = args.machine() else {
        return Ok(None);
    };
    let BenchReport {
        layers, forward, ..
    } = counted_instructions(args, machine)?;
    Ok(Some(Cost {
        unit: certificate::Unit::Instructions,
        layers: layers
            .into_iter()
            .map(|(name, count)| LayerCost { name, count })
            .collect(),
        forward,
    }))
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
