//! What the int8 kernels of `lenet_core` cannot say in safe Rust. That crate forbids unsafe code, so it stands here.
//!
//! Every function has a plain twin: on other targets it is the function itself, and [`plain`] has it on all, so that a program
//! can compare the two on the machine.

#![no_std]
#![warn(missing_docs)]

/// A line for the assembler, where the target is Armv8-M.
#[cfg(all(dsp, armv8m))]
macro_rules! if_armv8m {
    ($line:literal) => {
        $line
    };
}

/// A line for the assembler, where the target is Armv8-M.
#[cfg(all(dsp, not(armv8m)))]
macro_rules! if_armv8m {
    ($line:literal) => {
        ""
    };
}

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
            // The assembler takes a Cortex-M33 without more words for one that lacks it. This holds for the statement alone.
            if_armv8m!(".cpu cortex-m33"),
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
        #[allow(clippy::pointers_in_nomem_asm_block)]
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) start, options(nomem, nostack, preserves_flags))
        };
        // SAFETY: these are the address and the length of `slice`.
        unsafe { core::slice::from_raw_parts(start, slice.len()) }
    }
    #[cfg(not(target_arch = "arm"))]
    slice
}

/// Returns the words at `AT` and after it, 0 where there is none, by one instruction where the target has it.
#[inline(always)]
pub fn pair_at<const AT: usize>(words: &[u32]) -> [u32; 2] {
    const { assert!(AT < 255, "the instruction reaches 1020 bytes") };
    #[cfg(dsp)]
    if words.len() >= AT + 2 {
        let (first, second);
        // SAFETY: both words are there, and are aligned to four bytes, which is all that the instruction asks for. It writes
        // nothing but the two registers.
        unsafe {
            core::arch::asm!(
                "ldrd {first}, {second}, [{start}, #{offset}]",
                first = out(reg) first,
                second = out(reg) second,
                start = in(reg) words.as_ptr(),
                offset = const 4 * AT,
                options(readonly, nostack, preserves_flags),
            );
        }
        return [first, second];
    }
    plain::pair_at::<AT>(words)
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

    /// The twin of [`pair_at`](super::pair_at).
    #[inline(always)]
    pub fn pair_at<const AT: usize>(words: &[u32]) -> [u32; 2] {
        [AT, AT + 1].map(|at| words.get(at).copied().unwrap_or(0))
    }
}
