//! Time from SysTick, cycles from the DWT's counter where there is one.
//!
//! SysTick runs at the core's frequency. In QEMU it follows the host's clock, or, under `-icount`, the instructions
//! executed; the cycle counter of the DWT is not emulated and reads 0.

use crate::reg::Peripheral;
use core::sync::atomic::{AtomicU32, Ordering};
use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;

/// SysTick counts 24 bits.
const WRAP: u32 = 1 << 24;
static WRAPS: AtomicU32 = AtomicU32::new(0);

/// A running SysTick.
#[derive(Clone, Copy)]
pub struct Clock {
    mhz: u32,
}

impl Clock {
    pub(crate) fn start(mhz: u32) -> Self {
        if let Some(mut core) = cortex_m::Peripherals::take() {
            core.SYST.set_clock_source(SystClkSource::Core);
            core.SYST.set_reload(WRAP - 1);
            core.SYST.clear_current();
            core.SYST.enable_interrupt();
            core.SYST.enable_counter();
        }
        Self { mhz }
    }

    /// The core's frequency in MHz.
    pub fn mhz(self) -> u32 {
        self.mhz
    }

    /// SysTick's count, upwards; wraps at 2³².
    pub fn ticks(self) -> u32 {
        loop {
            let (wraps, left) = (WRAPS.load(Ordering::Relaxed), SYST::get_current());
            if WRAPS.load(Ordering::Relaxed) == wraps {
                return (wraps * WRAP).wrapping_add(WRAP - 1 - left);
            }
        }
    }

    /// Microseconds since `ticks` was read.
    pub fn us_since(self, ticks: u32) -> u32 {
        self.ticks().wrapping_sub(ticks) / self.mhz
    }
}

#[exception]
fn SysTick() {
    // Load and store: a Cortex-M0 cannot add atomically, and nothing else writes.
    WRAPS.store(
        WRAPS.load(Ordering::Relaxed).wrapping_add(1),
        Ordering::Relaxed,
    );
}

/// The core's cycle counter.
#[derive(Clone, Copy)]
pub struct Cycles(());

// SAFETY: the DWT and the debug block of the private peripheral bus, which exist, or read as zero, on every Cortex-M.
const DWT: Peripheral = unsafe { Peripheral::at(0xe000_1000) };
// SAFETY: as above.
const DEBUG: Peripheral = unsafe { Peripheral::at(0xe000_e000) };

impl Cycles {
    /// Starts the counter; `None` if it does not count, as on a Cortex-M0 and in QEMU.
    pub fn start() -> Option<Self> {
        DEBUG.modify(0xdfc, 0, 1 << 24); // DEMCR.TRCENA
        DWT.modify(0x000, 0, 1); // CTRL.CYCCNTENA
        let before = Self(()).now();
        cortex_m::asm::delay(100);
        (Self(()).now() != before).then_some(Self(()))
    }

    /// The count; wraps at 2³².
    pub fn now(self) -> u32 {
        DWT.read(0x004)
    }
}
