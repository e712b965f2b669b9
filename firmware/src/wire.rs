//! What every wire to a host offers: bytes, without frames and without waiting.

/// Bits per second of every UART, with 8 data bits, no parity and 1 stop bit.
pub const BAUD: u32 = 115_200;

/// A wire to a host.
pub trait Wire {
    /// Returns the next byte received, if there is one. Never waits.
    fn read(&mut self) -> Option<u8>;

    /// Sends as many of the bytes as the wire takes at once and returns how many. Never waits.
    fn write(&mut self, bytes: &[u8]) -> usize;
}
