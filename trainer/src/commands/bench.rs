//! `trainer bench`: how fast training and testing are on this machine.

use super::{DataArgs, check_batch_size};
use crate::bench::{Plan, Report, measure, multiply_adds};
use crate::error::Error;
use crate::report::layers::grouped;
use comfy_table::{CellAlignment, Table, presets::NOTHING};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Threads; 0 is one a core
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: u16,
    /// Images a step
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch_size: u32,
    /// Epochs that are timed
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    epochs: u32,
    #[command(flatten)]
    data: DataArgs,
    /// Print one JSON object, for scripts
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<(), Error> {
    let data = args.data.load()?;
    check_batch_size(args.batch_size, data.train.len())?;
    let report = measure(
        &data,
        &Plan {
            threads: args.threads.into(),
            batch_size: args.batch_size as usize,
            epochs: args.epochs,
        },
    )?;
    if args.json {
        let json = serde_json::to_string(&report).expect("numbers and strings");
        println!("{json}");
        return Ok(());
    }
    println!("{}, medians; {}", report.device, data.name);
    println!("{}\n{}", figures(&report), phases(&report));
    Ok(())
}

fn figures(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["work", "images", "time", "rate"]);
    let rate = |images: usize, ms: f64| {
        let per_second = (images as f64 / ms * 1e3).round();
        format!("{} images/s", grouped(per_second as usize))
    };
    let mut row = |work: &str, images: usize, time: String, rate: String| {
        table.add_row([work.to_owned(), grouped(images), time, rate]);
    };
    row(
        "training step",
        report.batch_size,
        format!("{:.3} ms", report.step_ms),
        rate(report.batch_size, report.step_ms),
    );
    row(
        "epoch",
        report.images,
        format!("{:.3} s", report.epoch_s),
        rate(report.images, 1e3 * report.epoch_s),
    );
    row(
        "evaluation",
        report.evaluation_images,
        format!("{:.2} ms", report.evaluation_ms),
        rate(report.evaluation_images, report.evaluation_ms),
    );
    row(
        "lenet_core::forward, one thread",
        1,
        format!("{:.1} us", report.forward_us),
        rate(1, 1e-3 * report.forward_us),
    );
    for column in [1, 2, 3] {
        let column = table.column_mut(column).expect("there are four");
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Where a thread's time goes.
fn phases(report: &Report) -> Table {
    let waiting = report.waiting_us;
    let all = waiting + report.phases.iter().map(|phase| phase.us).sum::<f64>();
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header([
        "phase of a step, one thread",
        "us/image",
        "time",
        "GFLOP/s",
        "of peak",
    ]);
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
        row(phase.phase, phase.us, rate);
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
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
