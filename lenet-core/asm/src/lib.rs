//! Arm instructions for the int8 kernels of `lenet_core`. They need unsafe code, which that crate forbids.
//!
//! The module [`plain`] has functions in plain Rust with the same results. Other targets use them, and a program can compare
//! both variants on the machine that it runs on.

#![no_std]
#![warn(missing_docs)]

/// Expands to a line of assembly if the target is Armv8-M, and otherwise to an empty line.
#[cfg(all(dsp, armv8m))]
macro_rules! if_armv8m {
    ($line:literal) => {
        $line
    };
}

/// Expands to a line of assembly if the target is Armv8-M, and otherwise to an empty line.
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
    // SAFETY: the instruction reads and writes only these registers and the flag Q, which no compiled code reads. The build
    // script has checked that the target has the instruction.
    unsafe {
        core::arch::asm!(
            // By default the assembler assumes a Cortex-M33 without DSP instructions. This line affects only this statement.
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

/// Returns `value` and keeps calls of this function in order, without an instruction. The compiler then cannot complete one
/// chain of sums before it begins the next one, which would need more registers than a Cortex-M0 has.
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

/// Returns `slice`, and makes the compiler keep its address in a register and address its elements relative to it. This takes no
/// instruction.
#[inline(always)]
pub fn pin_slice<T>(slice: &[T]) -> &[T] {
    #[cfg(target_arch = "arm")]
    {
        let mut start = slice.as_ptr();
        // SAFETY: there is no instruction, so nothing is read or written, and `start` keeps its value.
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

/// Returns the words at the indices `AT` and `AT + 1`, or 0 for a missing one, with a single instruction if the target has it.
#[inline(always)]
pub fn pair_at<const AT: usize>(words: &[u32]) -> [u32; 2] {
    const { assert!(AT < 255, "the instruction reaches 1020 bytes") };
    #[cfg(dsp)]
    if words.len() >= AT + 2 {
        let (first, second);
        // SAFETY: both words exist and are aligned to four bytes, which is all that the instruction requires. It writes
        // only the two registers.
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

/// The same functions in plain Rust.
pub mod plain {
    /// Returns the result of [`smlad`](super::smlad).
    #[inline(always)]
    pub fn smlad(a: u32, b: u32, sum: u32) -> u32 {
        let low = i32::from(a as i16) * i32::from(b as i16);
        let high = i32::from((a >> 16) as i16) * i32::from((b >> 16) as i16);
        sum.wrapping_add(low as u32).wrapping_add(high as u32)
    }

    /// Returns the result of [`pair_at`](super::pair_at).
    #[inline(always)]
    pub fn pair_at<const AT: usize>(words: &[u32]) -> [u32; 2] {
        [AT, AT + 1].map(|at| words.get(at).copied().unwrap_or(0))
    }
}
