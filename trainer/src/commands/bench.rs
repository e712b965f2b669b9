//! `trainer bench`: measures how fast this machine trains and evaluates.

use super::out::{Out, table};
use super::{DataArgs, Device, batch_size};
use crate::bench::{Plan, Report, measure, multiply_adds};
use crate::config::Settings;
use crate::dataset::Dataset;
use crate::error::Error;
use crate::report::layers::grouped;
use serde::Serialize;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where to compute
    #[arg(long, default_value = "cpu", value_parser = Device::any_of(&[Device::Cpu, Device::Cuda]))]
    device: Device,
    /// Number of GPUs of the cuda device that share each batch
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    devices: u32,
    /// Threads of the cpu device; 0 means one per core
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = super::threads())]
    pub(super) threads: u16,
    /// Images per step [default: 256, or all if there are fewer]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch_size: Option<u32>,
    /// Number of epochs to time
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    epochs: u32,
    #[command(flatten)]
    data: DataArgs,
    /// Print one JSON object, for scripts
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<(), Error> {
    if args.device != Device::Cuda && args.devices > 1 {
        return Err(Error::Settings(
            "--devices counts GPUs: it needs --device cuda".to_owned(),
        ));
    }
    let data = args.data.load()?;
    let default = Settings::default().batch_size;
    let (batch_size, note) = batch_size(args.batch_size, default, data.train.len());
    note.iter().for_each(super::out::note);
    let plan = Plan {
        threads: args.threads.into(),
        // The report states the number of images that a step really has.
        batch_size: (batch_size as usize).min(data.train.len()),
        epochs: args.epochs,
    };
    if args.device == Device::Cuda {
        return cuda(args, &data, &plan);
    }
    let report = measure(&data, &plan)?;
    let tables = || format!("{}\n{}", figures(&report), phases(&report));
    print(args, &data, &report, &report.device, tables)
}

/// Prints the report: as a JSON object with `--json`, otherwise as tables.
fn print(
    args: &Args,
    data: &Dataset,
    report: &impl Serialize,
    device: &str,
    tables: impl Fn() -> String,
) -> Result<(), Error> {
    if args.json {
        let json = serde_json::to_string(report).expect("numbers and strings");
        writeln!(Out, "{json}")
    } else {
        writeln!(Out, "{device}, medians; {}\n{}", data.name, tables())
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: &Args, _: &Dataset, _: &Plan) -> Result<(), Error> {
    Err(super::no_cuda().into())
}

#[cfg(feature = "cuda")]
fn cuda(args: &Args, data: &Dataset, plan: &Plan) -> Result<(), Error> {
    let report = crate::cuda::measure(data, plan, args.devices as usize)?;
    print(args, data, &report, &report.device, || {
        let row = |work, images, ms| (work, images, ms, format!("{ms:.3} ms"));
        let table = rates([
            row(
                "epoch, by the device's clock",
                report.images,
                report.epoch_ms,
            ),
            row(
                "epoch, by the host's clock",
                report.images,
                report.epoch_host_ms,
            ),
            row(
                "evaluation, with the copies",
                report.evaluation_images,
                report.evaluation_ms,
            ),
        ]);
        let crate::cuda::Report { steps, step_ms, .. } = &report;
        format!(
            "{table}\na step, the mean of {steps}: {:.2} us; {:.1} GFLOP/s that the network needs",
            1e3 * step_ms,
            report.gflops
        )
    })
}

/// Returns a table with the time and the rate of each kind of work on the CPU.
fn figures(report: &Report) -> String {
    let epoch_ms = 1e3 * report.epoch_s;
    rates([
        (
            "training step",
            report.batch_size,
            report.step_ms,
            format!("{:.3} ms", report.step_ms),
        ),
        (
            "epoch",
            report.images,
            epoch_ms,
            format!("{:.3} s", report.epoch_s),
        ),
        (
            "evaluation",
            report.evaluation_images,
            report.evaluation_ms,
            format!("{:.2} ms", report.evaluation_ms),
        ),
        (
            "lenet_core::forward, one thread",
            1,
            1e-3 * report.forward_us,
            format!("{:.1} us", report.forward_us),
        ),
    ])
}

/// Returns a table of times and rates. Each row consists of the work, its number of images, its time in milliseconds, and the time
/// as text.
fn rates<const N: usize>(rows: [(&str, usize, f64, String); N]) -> String {
    let mut table = table(["work", "images", "time", "rate"], 1..);
    for (work, images, ms, time) in rows {
        let per_second = grouped((images as f64 / ms * 1e3).round() as usize);
        let rate = format!("{per_second} images/s");
        table.add_row([work.to_owned(), grouped(images), time, rate]);
    }
    table.trim_fmt()
}

/// Returns a table that shows how a thread's time in a step is divided among the phases.
fn phases(report: &Report) -> String {
    let waiting = report.waiting_us;
    let all = waiting + report.phases.iter().map(|phase| phase.us).sum::<f64>();
    let mut table = table(
        [
            "phase of a step, one thread",
            "us/image",
            "time",
            "GFLOP/s",
            "rate / peak",
        ],
        1..,
    );
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let mut row = |phase: &str, us: f64, rate: Option<(f64, f64)>| {
        let [gflops, share] = match rate {
            Some((gflops, share)) => [format!("{gflops:.1}"), percent(share)],
            None => ["".to_owned(), "".to_owned()],
        };
        table.add_row([
            phase.to_owned(),
            format!("{us:.2}"),
            percent(us / all),
            gflops,
            share,
        ]);
    };
    for phase in &report.phases {
        let rate = (phase.gflops > 0.0).then_some((phase.gflops, phase.share_of_peak));
        row(&phase.phase, phase.us, rate);
    }
    row("waiting for the other threads", waiting, None);
    row(
        &format!(
            "step, {} multiply-adds an image, all threads",
            grouped(multiply_adds())
        ),
        1e6 / report.images_per_s,
        Some((report.gflops, report.share_of_peak)),
    );
    format!(
        "{}\nThe rates count the multiply-adds of the network's definition, and for a max pool's gradient those of the winners. Winograd's\nalgorithm executes fewer, so a rate can exceed the peak of fused multiply-adds.",
        table.trim_fmt()
    )
}
