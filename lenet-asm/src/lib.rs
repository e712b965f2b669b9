//! What the int8 kernels of `lenet_core` cannot say in safe Rust. That crate forbids unsafe code, so it stands here.
//!
//! Every function has a plain twin: on other targets it is the function itself, and [`plain`] has it on all, so that a program
//! can compare the two on the machine.

#![no_std]
#![warn(missing_docs)]

/// Whether the target has the DSP instructions, so that [`smlad`] is one instruction.
pub const DSP: bool = cfg!(dsp);

/// Returns `sum + low(a) · low(b) + high(a) · high(b)` modulo 2³², where the halves are signed 16-bit numbers.
#[inline(always)]
#[cfg(not(dsp))]
pub fn smlad(a: u32, b: u32, sum: u32) -> u32 {
    plain::smlad(a, b, sum)
}

/// Returns `sum + low(a) · low(b) + high(a) · high(b)` modulo 2³², where the halves are signed 16-bit numbers.
#[inline(always)]
#[cfg(dsp)]
pub fn smlad(a: u32, b: u32, sum: u32) -> u32 {
    let mut result = sum;
    // SAFETY: the instruction reads and writes these registers and the flag Q alone, which no compiled code reads; the build
    // script has seen that the target has the instruction.
    unsafe {
        core::arch::asm!(
            "smlad {sum}, {a}, {b}, {sum}",
            a = in(reg) a,
            b = in(reg) b,
            sum = inout(reg) result,
            options(nomem, nostack),
        );
    }
    result
}

/// Returns a number as it is, and keeps the order of such statements: the compiler cannot compute one chain of sums to its end
/// before it begins the next, for which a Cortex-M0 has too few registers. It is no instruction.
#[inline(always)]
pub fn pin(value: u32) -> u32 {
    #[cfg(target_arch = "arm")]
    {
        let mut value = value;
        // SAFETY: there is no instruction, so nothing is read or written.
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) value, options(nomem, nostack, preserves_flags))
        };
        value
    }
    #[cfg(not(target_arch = "arm"))]
    value
}

/// Returns a slice as it is, so that the compiler keeps its address in a register and reaches its elements from there. It is no
/// instruction.
#[inline(always)]
pub fn pin_slice<T>(slice: &[T]) -> &[T] {
    #[cfg(target_arch = "arm")]
    {
        let mut start = slice.as_ptr();
        // SAFETY: there is no instruction, so nothing is read or written, and `start` stays what it is.
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) start, options(nomem, nostack, preserves_flags))
        };
        // SAFETY: these are the address and the length of `slice`.
        unsafe { core::slice::from_raw_parts(start, slice.len()) }
    }
    #[cfg(not(target_arch = "arm"))]
    slice
}

/// The functions in plain Rust.
pub mod plain {
    /// The twin of [`smlad`](super::smlad).
    #[inline(always)]
    pub fn smlad(a: u32, b: u32, sum: u32) -> u32 {
        let low = i32::from(a as i16) * i32::from(b as i16);
        let high = i32::from((a >> 16) as i16) * i32::from((b >> 16) as i16);
        sum.wrapping_add(low as u32).wrapping_add(high as u32)
    }
}
