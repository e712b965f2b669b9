//! Memory used: statics by the linker's symbols, the stack by its paint.
//!
//! The start-up code fills the stack's region with a pattern; what no longer holds it has been used.

use cortex_m_rt::STACK_PAINT_VALUE;

unsafe extern "C" {
    static _ram_start: u32;
    static __euninit: u32;
    static _stack_end: u32;
    static _stack_start: u32;
}

/// Bytes of RAM used since the start.
#[derive(Clone, Copy)]
pub struct Used {
    /// Statics, log and link buffers included.
    pub statics: usize,
    /// The stack at its deepest.
    pub stack: usize,
}

/// Measures the memory used so far.
pub fn used() -> Used {
    let (mut word, top) = (&raw const _stack_end, &raw const _stack_start);
    // SAFETY: the linker script sets this region of whole words aside for the stack; `word` stays below its top.
    while word < top && unsafe { word.read_volatile() } == STACK_PAINT_VALUE {
        word = word.wrapping_add(1);
    }
    Used {
        statics: &raw const __euninit as usize - &raw const _ram_start as usize,
        stack: top as usize - word as usize,
    }
}
