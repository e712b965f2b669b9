//! What the programs share: the board, the log, faults, time, memory, weights.
//!
//! A program is a file in `src/bin`. It calls [`start`], does its work in a function that returns a [`Result`], and
//! hands that to [`finish`]. The board is chosen by `build.rs`; everything a board must say is in [`board`].
//!
//! | module | holds |
//! |---|---|
//! | [`board`] | the trait a board implements, and the board of this build |
//! | [`chip`] | clocks and UARTs, by family of chips |
//! | [`wire`] | the trait of everything that carries bytes to and from a host |
//! | [`link`] | the wires of this build |
//! | [`log`] | `info!`, `debug!`, `error!`: defmt over RTT on a real board, text over semihosting in QEMU |
//! | `rtt` | log and link through a debug probe, on real boards |
//! | [`fault`] | panic, HardFault and stack overflow: a message and a failing exit |
//! | [`clock`] | time from SysTick, cycles from the cycle counter where there is one |
//! | [`bench`](mod@bench) | cost of each layer |
//! | [`bulk`] | a whole file of images, through semihosting |
//! | [`ram`] | memory used, the stack by its paint |
//! | [`model`] | the network that the image runs, in f32 or in int8 |
//! | [`weights`] | the weights file in flash, checked |
//! | [`samples`] | ten images to try |
//! | [`semihost`] | command line and exit through the debugger or the emulator |

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

/// Name of the board this image is for.
pub const BOARD: &str = env!("LENET_BOARD");
/// Version of the firmware.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a program gets from [`start`].
pub struct Machine {
    /// Measures time.
    pub clock: Clock,
    /// Counts cycles, except in QEMU.
    pub cycles: CycleCounter,
    /// Bytes to and from a host.
    pub link: link::Host,
}

/// Starts the log, the clocks and the link. To be called once, first.
///
/// # Panics
/// If it is called twice.
pub fn start() -> Machine {
    #[cfg(not(emulated))]
    let rtt = rtt::start();
    let (mhz, uart) = Selected::start();
    // Only now: a HAL may borrow the core's peripherals while it starts the chip.
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

/// Why a program ends with a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, defmt::Format)]
pub enum Failure {
    /// The weights in flash are not usable.
    Weights(WeightsError),
    /// The board computes other bits than the trainer did.
    SelfTest(SelfTestError),
    /// The command line or a file of the host is not as expected.
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

/// Ends a program: `ok` and exit code 0, or the error and 1.
#[inline(never)] // its stack is not that of the program
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
