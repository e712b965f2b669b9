//! Handles panics, HardFaults and stack overflows: each prints a message and exits with an error.
//!
//! The stack has its own memory region at the bottom of RAM. A stack overflow therefore leaves RAM and faults before it
//! overwrites anything (a Cortex-M33 also has a limit register). The handler must not use the overflowed stack, so its first
//! instructions reset the stack pointer. Then it examines the previous stack pointer.

use crate::semihost;
use core::arch::naked_asm;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a panic or fault. A program that returns an error has exit code 1.
const EXIT_CODE: i32 = 101;

unsafe extern "C" {
    static _stack_end: u32;
    static _stack_start: u32;
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    if first() {
        let (file, line) = info
            .location()
            .map_or(("?", 0), |at| (at.file(), at.line()));
        let message = info
            .message()
            .as_str()
            .unwrap_or("(no text: the message has arguments)");
        crate::error!("panic at {}:{}: {}", file, line, message);
    }
    semihost::exit(EXIT_CODE)
}

/// Returns whether this is the first fault. A fault while another one is being reported must not be reported.
fn first() -> bool {
    static FAULTED: AtomicBool = AtomicBool::new(false);
    // A Cortex-M0 has no atomic swap. A load and a store suffice, because no fault interrupts them.
    let first = !FAULTED.load(Ordering::Relaxed);
    FAULTED.store(true, Ordering::Relaxed);
    first
}

/// Resets the stack pointer and passes its previous value to `hard_fault`. The processor enters this function.
///
/// # Safety
/// Only the vector table may use this function.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn HardFault() -> ! {
    naked_asm!(
        "mrs r0, MSP",
        "ldr r1, =_stack_start",
        "msr MSP, r1",
        "ldr r1, ={hard_fault}",
        "bx r1",
        ".pool",
        hard_fault = sym hard_fault,
    )
}

/// Reports a fault. `sp` is the stack pointer at the fault, which points to the frame of eight words that the processor pushed.
extern "C" fn hard_fault(sp: usize) -> ! {
    let (end, start) = (
        &raw const _stack_end as usize,
        &raw const _stack_start as usize,
    );
    if semihost::unanswered() {
        semihost::sleep();
    }
    if first() {
        if sp < end || stack_limit_hit() {
            crate::error!("stack overflow: more than {} bytes", start - end);
        } else if sp <= start - 32 && sp.is_multiple_of(4) {
            // SAFETY: by the comparison above, the frame is within the stack's region.
            let pc = unsafe { *core::ptr::with_exposed_provenance::<u32>(sp + 24) };
            crate::error!("HardFault at {:#010x}", pc);
        } else {
            crate::error!("HardFault, stack pointer {:#010x}", sp);
        }
    }
    semihost::exit(EXIT_CODE)
}

/// Whether the fault is the Cortex-M33's UsageFault.STKOF; a Cortex-M4 reads 0 there.
#[cfg(not(armv6m))]
fn stack_limit_hit() -> bool {
    const STKOF: u32 = 1 << 20;
    // SAFETY: reading this register has no effect.
    unsafe { (*cortex_m::peripheral::SCB::PTR).cfsr.read() & STKOF != 0 }
}

/// A Cortex-M0 has no stack limit.
#[cfg(armv6m)]
fn stack_limit_hit() -> bool {
    false
}
