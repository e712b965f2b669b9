//! The trait for wires to a host. A wire carries bytes, knows no frames and never waits.

/// The bit rate of every UART, with 8 data bits, no parity and 1 stop bit.
pub const BAUD: u32 = 115_200;

/// A connection that carries bytes to and from a host.
pub trait Wire {
    /// Returns the next byte received, if there is one. Never waits.
    fn read(&mut self) -> Option<u8>;

    /// Sends as many of the bytes as the wire accepts at once, and returns their number. Never waits.
    fn write(&mut self, bytes: &[u8]) -> usize;
}
