//! Time from SysTick, and cycles from the cycle counter of the DWT if there is one.
//!
//! SysTick runs at the core's frequency. In QEMU it follows the host's clock or, with `-icount`, the number of executed
//! instructions. QEMU does not emulate the cycle counter of the DWT, which always reads 0 there.

use core::sync::atomic::{AtomicU32, Ordering};
use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
#[cfg(not(armv6m))]
use cortex_m::peripheral::{DCB, DWT};
use cortex_m_rt::exception;

/// The number of values of SysTick's 24-bit counter.
const WRAP: u32 = 1 << 24;
static WRAPS: AtomicU32 = AtomicU32::new(0);

/// A running SysTick.
#[derive(Clone, Copy)]
pub struct Clock {
    mhz: u32,
}

impl Clock {
    pub(crate) fn start(mut timer: SYST, mhz: u32) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(WRAP - 1);
        timer.clear_current();
        timer.enable_interrupt();
        timer.enable_counter();
        Self { mhz }
    }

    /// Returns the core's frequency in MHz.
    pub fn mhz(self) -> u32 {
        self.mhz
    }

    /// Returns the ticks since the start. The count has 56 bits, which last for years.
    pub fn now(self) -> u64 {
        let (wraps, left) = Self::read();
        u64::from(wraps) * u64::from(WRAP) + u64::from(WRAP - 1 - left)
    }

    /// Returns the low 32 bits of [`now`](Self::now), enough for a single image: at 150 MHz they wrap after half a minute.
    pub fn ticks(self) -> u32 {
        let (wraps, left) = Self::read();
        wraps.wrapping_mul(WRAP).wrapping_add(WRAP - 1 - left)
    }

    /// Returns the milliseconds since [`now`](Self::now) was read.
    pub fn ms_since(self, start: u64) -> u64 {
        (self.now() - start) / (u64::from(self.mhz) * 1000)
    }

    /// Waits until `ready` returns true, but at most `us` microseconds, up to ten million. Returns whether `ready` did.
    #[must_use]
    pub fn within(self, us: u32, mut ready: impl FnMut() -> bool) -> bool {
        let (start, patience) = (self.ticks(), us.saturating_mul(self.mhz));
        loop {
            if ready() {
                return true;
            }
            if self.ticks().wrapping_sub(start) > patience {
                return false;
            }
        }
    }

    /// Reads both parts of the count consistently.
    fn read() -> (u32, u32) {
        loop {
            let (wraps, left) = (WRAPS.load(Ordering::Relaxed), SYST::get_current());
            if WRAPS.load(Ordering::Relaxed) == wraps {
                return (wraps, left);
            }
        }
    }
}

#[exception]
fn SysTick() {
    // A load and a store suffice, because nothing else writes. A Cortex-M0 has no atomic addition.
    WRAPS.store(
        WRAPS.load(Ordering::Relaxed).wrapping_add(1),
        Ordering::Relaxed,
    );
}

/// The core's cycle counter, before it is started.
pub struct CycleCounter {
    #[cfg(not(armv6m))]
    pub(crate) debug: DCB,
    #[cfg(not(armv6m))]
    pub(crate) dwt: DWT,
}

impl CycleCounter {
    /// Starts the DWT's counter. If there is none, a real board falls back to SysTick. In QEMU nothing counts cycles.
    pub fn start(self, clock: Clock) -> Option<Cycles> {
        #[cfg(not(armv6m))]
        {
            let Self { mut debug, mut dwt } = self;
            debug.enable_trace();
            dwt.enable_cycle_counter();
            let before = DWT::cycle_count();
            cortex_m::asm::delay(100);
            if DWT::cycle_count() != before {
                return Some(Cycles::Dwt);
            }
        }
        (!cfg!(emulated)).then_some(Cycles::SysTick(clock))
    }
}

/// A counter of the core's cycles.
#[derive(Clone, Copy)]
pub enum Cycles {
    /// The DWT's counter.
    #[cfg(not(armv6m))]
    Dwt,
    /// SysTick, which runs at the core's frequency on a real board.
    SysTick(Clock),
}

impl Cycles {
    /// Returns the count, which wraps around at 2³².
    pub fn now(self) -> u32 {
        match self {
            #[cfg(not(armv6m))]
            Self::Dwt => DWT::cycle_count(),
            Self::SysTick(clock) => clock.ticks(),
        }
    }
}
