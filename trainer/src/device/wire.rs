//! Carries bytes to and from a board.

use super::DeviceError;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

/// A connection that carries bytes, with or without losses.
pub trait Wire {
    /// Sends all bytes.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Receives the available bytes, at least one; returns 0 if none came within `patience`.
    fn receive(&mut self, buffer: &mut [u8], patience: Duration) -> io::Result<usize>;
}

impl<W: Wire + ?Sized> Wire for Box<W> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        (**self).send(bytes)
    }

    fn receive(&mut self, buffer: &mut [u8], patience: Duration) -> io::Result<usize> {
        (**self).receive(buffer, patience)
    }
}

/// A TCP connection, such as to an emulated UART or a serial port server.
pub struct Tcp(TcpStream);

impl Tcp {
    /// Connects to `HOST:PORT`, and allows `timeout` for each of its addresses.
    ///
    /// # Errors
    /// `Wire`: the connection failed.
    pub fn connect(address: &str, timeout: Duration) -> Result<Self, DeviceError> {
        let first_that_answers = || {
            let none = io::Error::new(ErrorKind::NotFound, "the host has no address");
            let mut failed = Err(none);
            for address in address.to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, timeout) {
                    Err(error) => failed = Err(error),
                    connected => return connected,
                }
            }
            failed
        };
        first_that_answers()
            .and_then(Self::of)
            .map_err(|source| DeviceError::Wire {
                wire: address.to_owned(),
                source,
                hint: "",
            })
    }

    /// Uses an existing connection.
    ///
    /// # Errors
    /// The system's error.
    pub fn of(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }
}

impl Wire for Tcp {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn receive(&mut self, buffer: &mut [u8], patience: Duration) -> io::Result<usize> {
        // Zero would mean no time-out.
        self.0
            .set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        match nothing_yet(self.0.read(buffer))? {
            Some(0) => Err(io::Error::new(
                ErrorKind::ConnectionAborted,
                "the other end closed the connection",
            )),
            received => Ok(received.unwrap_or(0)),
        }
    }
}

/// A serial port, such as that of a board's debugger: eight bits, no parity.
pub struct Serial(Box<dyn serialport::SerialPort>);

impl Serial {
    /// Opens a port by its path.
    ///
    /// # Errors
    /// `Wire`: there is no such port, or it cannot be opened.
    pub fn open(path: &str, baud: u32) -> Result<Self, DeviceError> {
        serialport::new(path, baud)
            .open()
            .map(Self)
            .map_err(|error| {
                // The crate also reports `NoDevice` for a port that is busy.
                let exists = Path::new(path).exists();
                let (kind, source) = (error.kind(), io::Error::from(error));
                DeviceError::Wire {
                    wire: path.to_owned(),
                    hint: match (source.kind(), kind) {
                        (ErrorKind::PermissionDenied, _) => {
                            "; on Debian the group dialout may use serial ports: adduser USER dialout"
                        }
                        (ErrorKind::NotFound, _) if !exists => "; is the board plugged in?",
                        (ErrorKind::NotFound | ErrorKind::WouldBlock | ErrorKind::ResourceBusy, _) => {
                            "; another program has it open, such as a terminal or ModemManager"
                        }
                        (_, serialport::ErrorKind::Unknown) => "; it is not a serial port",
                        _ => "",
                    },
                    source,
                }
            })
    }
}

impl Wire for Serial {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        // The port has a single time-out, which also applies to writing.
        self.0.set_timeout(Duration::from_secs(5))?;
        self.0.write_all(bytes)
    }

    fn receive(&mut self, buffer: &mut [u8], patience: Duration) -> io::Result<usize> {
        self.0.set_timeout(patience)?;
        Ok(nothing_yet(self.0.read(buffer))?.unwrap_or(0))
    }
}

/// Returns `None` if a read ended because of its time-out.
fn nothing_yet(read: io::Result<usize>) -> io::Result<Option<usize>> {
    match read {
        Ok(count) => Ok(Some(count)),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}
