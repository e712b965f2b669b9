//! Measures the memory used: the statics from the linker's symbols, the stack by stack painting.
//!
//! The start-up code fills the stack's region with a pattern. Words that no longer hold the pattern have been used.

use cortex_m_rt::STACK_PAINT_VALUE;

unsafe extern "C" {
    static _ram_start: u32;
    static __euninit: u32;
    static _stack_end: u32;
    static _stack_start: u32;
}

/// The RAM used since the start, in bytes.
#[derive(Clone, Copy)]
pub struct Used {
    /// The size of the statics, including the buffers of the log and the link.
    pub statics: usize,
    /// The maximum stack usage.
    pub stack: usize,
}

/// Measures the memory used so far.
pub fn used() -> Used {
    let (mut word, top) = (&raw const _stack_end, &raw const _stack_start);
    // SAFETY: the linker script reserves this region of whole words for the stack, and `word` stays below its top.
    while word < top && unsafe { word.read_volatile() } == STACK_PAINT_VALUE {
        word = word.wrapping_add(1);
    }
    Used {
        statics: &raw const __euninit as usize - &raw const _ram_start as usize,
        stack: top as usize - word as usize,
    }
}
