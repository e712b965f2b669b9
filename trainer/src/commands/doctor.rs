//! `trainer doctor`: lists what this machine has for training and for firmware, and how to install what is missing.
//!
//! It runs each program with `--version`, and does not communicate with a board.

use super::DataArgs;
use super::out::{Out, table};
use crate::cpu::Isa;
use crate::error::Error;
use std::path::Path;
use std::process::Command;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,
}

/// A description of what was found, or of what is missing, with a remedy.
type Finding = Result<String, (String, String)>;

/// The targets of the boards in firmware/boards.
const TARGETS: [&str; 4] = [
    "thumbv6m-none-eabi",
    "thumbv7em-none-eabihf",
    "thumbv7m-none-eabi",
    "thumbv8m.main-none-eabihf",
];

/// Prints the table. Returns an error if there is no data set, because training is impossible then.
pub fn run(args: &Args) -> Result<(), Error> {
    let data = args.data.load();
    let data_found = match &data {
        Ok(data) => Ok(format!(
            "{} in {}: {} training images, {} test images",
            data.name,
            data.folder.display(),
            data.train.len(),
            data.test.len()
        )),
        Err(_) => Err(("not usable".to_owned(), "see the error below".to_owned())),
    };
    let findings = [
        ("data set", data_found),
        ("cpu", Ok(cpu())),
        ("cuda", cuda()),
        ("NCCL", nccl()),
        (
            "QEMU",
            version(
                "qemu-system-arm",
                "to run firmware without a board: your package manager's qemu-system-arm",
            ),
        ),
        (
            "probe-rs",
            version(
                "probe-rs",
                "to flash a board: cargo install probe-rs-tools --locked",
            ),
        ),
        ("debug probe", debug_probe()),
        ("Rust targets", rust_targets()),
    ];

    let mut table = table(["", "", "found", "how to fix it"], 0..0);
    for (what, finding) in findings {
        match finding {
            Ok(found) => table.add_row([what, "ok", &found, ""]),
            Err((missing, remedy)) => table.add_row([what, "--", &missing, &remedy]),
        };
    }
    writeln!(Out, "{}", table.trim_fmt())?;
    data.map(drop)
}

fn cpu() -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let plural = if threads == 1 { "" } else { "s" };
    let others: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    format!(
        "{threads} thread{plural}, {} (of {})",
        Isa::fastest().name(),
        others.join(", ")
    )
}

#[cfg(feature = "cuda")]
fn cuda() -> Finding {
    match crate::cuda::probe() {
        Ok(driver) => Ok(driver.to_string()),
        Err(crate::backend::Error::Cuda { cause, remedy }) => Err((cause, remedy.to_owned())),
        Err(error) => Err((error.to_string(), String::new())),
    }
}

#[cfg(feature = "cuda")]
fn nccl() -> Finding {
    match crate::cuda::Nccl::open() {
        Ok(nccl) => Ok(nccl.to_string()),
        Err(crate::backend::Error::Cuda { cause, .. }) => Err((
            cause,
            "only to train with --devices 2 or more: NCCL 2 (libnccl2, or PyPI's nvidia-nccl-cu12)"
                .to_owned(),
        )),
        Err(error) => Err((error.to_string(), String::new())),
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Finding {
    Err((
        "this build lacks it".to_owned(),
        "build with --features cuda".to_owned(),
    ))
}

#[cfg(not(feature = "cuda"))]
fn nccl() -> Finding {
    cuda()
}

#[cfg(feature = "probe")]
fn debug_probe() -> Finding {
    let found = crate::device::probe::plugged_in();
    match found.is_empty() {
        true => Err((
            "none found".to_owned(),
            "plug one in; on Linux its udev rules may be missing: https://probe.rs".to_owned(),
        )),
        false => Ok(found.join("; ")),
    }
}

#[cfg(not(feature = "probe"))]
fn debug_probe() -> Finding {
    Err((
        "this build cannot look for one".to_owned(),
        "build with --features probe".to_owned(),
    ))
}

/// Returns the first line that a program prints with `--version`.
fn version(program: &str, remedy: &str) -> Finding {
    let missing = |what: String| (what, remedy.to_owned());
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(|error| missing(format!("{program}: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().next() {
        Some(line) if output.status.success() => Ok(line.to_owned()),
        _ => Err(missing(format!("{program} --version: {}", output.status))),
    }
}

/// Looks for the Rust targets of the firmware. A target is installed if the folder of its libraries exists.
fn rust_targets() -> Finding {
    version("rustc", "to build firmware: https://rustup.rs")?;
    let missing: Vec<&str> = TARGETS
        .into_iter()
        .filter(|target| {
            let libraries = Command::new("rustc")
                .args(["--print", "target-libdir", "--target", target])
                .output();
            !libraries.is_ok_and(|output| {
                Path::new(String::from_utf8_lossy(&output.stdout).trim_end()).is_dir()
            })
        })
        .collect();
    match missing.is_empty() {
        true => Ok(TARGETS.join(", ")),
        false => Err((
            format!("no {}", missing.join(", ")),
            format!("to build firmware: rustup target add {}", missing.join(" ")),
        )),
    }
}
