//! Registers of peripherals, by address: the programs use too few of them for a whole register crate.

use core::ptr::with_exposed_provenance_mut;

/// A peripheral: its registers lie at offsets from a base address.
#[derive(Clone, Copy)]
pub struct Peripheral(usize);

impl Peripheral {
    /// The peripheral at an address.
    ///
    /// # Safety
    /// Up to `base + 0xfff` the chip of this build has device registers or nothing, no memory that Rust uses, and
    /// writing to the registers that the caller names by offset changes no such memory.
    pub const unsafe fn at(base: usize) -> Self {
        Self(base)
    }

    /// Reads the register at a byte offset below 4096.
    pub fn read(self, offset: u16) -> u32 {
        // SAFETY: a device register, by the contract of `at`.
        unsafe { self.register(offset).read_volatile() }
    }

    /// Writes the register at a byte offset below 4096.
    pub fn write(self, offset: u16, value: u32) {
        // SAFETY: a device register, by the contract of `at`.
        unsafe { self.register(offset).write_volatile(value) }
    }

    /// Replaces the bits in `mask` of the register.
    pub fn modify(self, offset: u16, mask: u32, value: u32) {
        self.write(offset, self.read(offset) & !mask | value);
    }

    /// Waits until the bits in `mask` read as `value`, some ten milliseconds at most; whether they did.
    pub fn wait(self, offset: u16, mask: u32, value: u32) -> bool {
        (0..200_000).any(|_| self.read(offset) & mask == value)
    }

    fn register(self, offset: u16) -> *mut u32 {
        with_exposed_provenance_mut(self.0 + usize::from(offset & 0xffc))
    }
}
