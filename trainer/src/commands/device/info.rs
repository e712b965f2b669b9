//! `trainer device info`.

use super::{BoardArgs, given_weights, print_json};
use crate::commands::out::Out;
use crate::dataset::hex;
use crate::device::Identity;
use crate::error::Error;
use serde::Serialize;

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

pub fn run(args: &BoardArgs) -> Result<(), Error> {
    let who = args.with_board(given_weights(args)?.as_ref(), |client| {
        Ok(client.identity().clone())
    })?;
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
            "weights file {}, format {}, network fingerprint {}",
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
