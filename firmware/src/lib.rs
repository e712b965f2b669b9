//! The code that the programs share: board, log, faults, time, memory and weights.
//!
//! A program is a file in `src/bin`. It calls [`start`], does its work in a function that returns a [`Result`], and
//! passes the result to [`finish`]. `build.rs` selects the board, which implements the trait in [`board`].
//!
//! | module | contents |
//! |---|---|
//! | [`board`] | the trait that a board implements, and the board of this build |
//! | [`chip`] | clocks and UARTs for each family of chips |
//! | [`wire`] | the trait for connections that carry bytes to and from a host |
//! | [`link`] | the wires of this build |
//! | [`log`] | `info!`, `debug!`, `error!`: defmt over RTT on a real board, text over semihosting in QEMU |
//! | `rtt` | log and link through a debug probe, on real boards |
//! | [`fault`] | handlers for panics, HardFaults and stack overflows, which print a message and exit with an error |
//! | [`clock`] | time from SysTick, and cycles from the cycle counter if there is one |
//! | [`bench`](mod@bench) | measures the cost of each layer |
//! | [`bulk`] | classifies a whole file of images, through semihosting |
//! | [`ram`] | measures the memory used |
//! | [`model`] | the network that the firmware runs, in f32 or in int8 |
//! | [`weights`] | reads and checks the weights file in flash |
//! | [`samples`] | ten sample images |
//! | [`semihost`] | command line and exit code through the debugger or the emulator |

#![no_std]

pub mod bench;
pub mod board;
pub mod bulk;
pub mod chip;
pub mod clock;
pub mod fault;
pub mod link;
pub mod log;
pub mod model;
pub mod ram;
#[cfg(not(emulated))]
pub mod rtt;
pub mod samples;
pub mod semihost;
pub mod weights;
pub mod wire;

use board::{Board, Selected};
use clock::{Clock, CycleCounter};
use core::fmt;
use lenet_core::self_test::SelfTestError;
use lenet_core::weights::WeightsError;

/// The name of the board that this firmware is built for.
pub const BOARD: &str = env!("LENET_BOARD");
/// The version of the firmware.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The devices that [`start`] returns to a program.
pub struct Machine {
    /// Measures time.
    pub clock: Clock,
    /// Counts cycles, except in QEMU.
    pub cycles: CycleCounter,
    /// Carries bytes to and from a host.
    pub link: link::Host,
}

/// Starts the log, the clocks and the link. Call this function once, before anything else.
///
/// # Panics
/// Panics if it is called twice.
pub fn start() -> Machine {
    #[cfg(not(emulated))]
    let rtt = rtt::start();
    let (mhz, uart) = Selected::start();
    // This must follow `Selected::start`, because a HAL may take the core's peripherals while it starts the chip.
    let core = cortex_m::Peripherals::take().expect("`start` is called once");
    Machine {
        clock: Clock::start(core.SYST, mhz),
        cycles: CycleCounter {
            #[cfg(not(armv6m))]
            debug: core.DCB,
            #[cfg(not(armv6m))]
            dwt: core.DWT,
        },
        link: link::Host {
            uart,
            #[cfg(not(emulated))]
            rtt,
        },
    }
}

/// The reason why a program fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, defmt::Format)]
pub enum Failure {
    /// The weights file in flash cannot be used.
    Weights(WeightsError),
    /// The board's logits differ from those that the trainer computed.
    SelfTest(SelfTestError),
    /// The command line or a file on the host is invalid.
    Host(&'static str),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weights(error) => write!(f, "weights: {error}"),
            Self::SelfTest(error) => write!(f, "{error}"),
            Self::Host(what) => f.write_str(what),
        }
    }
}

/// Ends a program: prints `ok` and exits with code 0, or prints the error and exits with code 1.
#[inline(never)] // so that its stack frame is not part of the program's
pub fn finish(result: Result<(), Failure>) -> ! {
    match result {
        Ok(()) => {
            info!("ok");
            semihost::exit(0)
        }
        Err(failure) => {
            error!("{}", failure);
            semihost::exit(1)
        }
    }
}
