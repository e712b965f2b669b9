//! Causes the fault that the command line names: `fault panic`, `fault hardfault` or `fault overflow`. `fault log` logs more
//! lines than any buffer holds, as fast as it can.
//!
//! The tests use this program. On a board it shows that every fault ends with a message.

#![no_std]
#![no_main]

use core::hint::black_box;
use cortex_m_rt::entry;
use firmware::{Failure, info, semihost};

/// The number of lines that `fault log` logs. At about 8 bytes each in defmt's encoding, they fill the log's buffer twice.
const LINES: u32 = 1000;

#[entry]
fn main() -> ! {
    firmware::start();
    firmware::finish(run())
}

fn run() -> Result<(), Failure> {
    let args = semihost::args()?;
    let what = (&args).nth(1).and_then(Result::ok).unwrap_or("");
    info!("fault {}", what);
    match what {
        "panic" => panic!("on purpose"),
        "hardfault" => cortex_m::asm::udf(),
        "overflow" => {
            recurse(1);
            Ok(())
        }
        "log" => {
            for line in 0..LINES {
                info!("line {} of {}", line, LINES);
            }
            Ok(())
        }
        _ => Err(Failure::Host("usage: fault panic|hardfault|overflow|log")),
    }
}

/// Recurses until the stack overflows. The work after the call keeps the compiler from turning the recursion into a loop.
fn recurse(depth: u32) -> u32 {
    let frame = black_box([depth; 32]);
    if depth == 0 {
        return 0;
    }
    recurse(black_box(depth + 1)).wrapping_add(black_box(&frame)[0])
}
