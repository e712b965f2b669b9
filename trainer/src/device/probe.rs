//! The wire through a debug probe: RTT channel 1, a pair of buffers in the board's RAM that the probe reads and writes while
//! the board runs.

use super::{DeviceError, Wire};
use probe_rs::config::TargetSelector;
use probe_rs::probe::list::Lister;
use probe_rs::{Permissions, Session, rtt};
use std::io;
use std::time::{Duration, Instant};

/// The link's channel; channel 0 is for the log.
const CHANNEL: usize = 1;
/// The time between two reads of the board's RAM.
const PAUSE: Duration = Duration::from_millis(1);
/// The time after which a board that accepts no byte is considered dead.
const STUCK: Duration = Duration::from_secs(2);

/// Returns the probes that are plugged in, by their names in probe-rs.
pub fn plugged_in() -> Vec<String> {
    let probes = Lister::new().list_all();
    probes.iter().map(ToString::to_string).collect()
}

/// An RTT connection to a running board.
pub struct Rtt {
    session: Session,
    rtt: rtt::Rtt,
}

impl Rtt {
    /// Attaches to the only probe that is plugged in, without stopping the board.
    ///
    /// # Errors
    /// `Wire`: there is no probe or more than one, no permission, another chip, or a program without RTT.
    pub fn attach(chip: Option<&str>) -> Result<Self, DeviceError> {
        let probes = Lister::new().list_all();
        let [probe] = &probes[..] else {
            return Err(failed(io::Error::other(if probes.is_empty() {
                "no debug probe found; is it plugged in, and may you use it (udev rules)?"
            } else {
                "several debug probes found; leave one plugged in"
            })));
        };
        let target = chip.map_or(TargetSelector::Auto, TargetSelector::from);
        let mut session = probe
            .open()
            .map_err(other)?
            .attach(target, Permissions::new())
            .map_err(other)?;
        let rtt = rtt::Rtt::attach(&mut session.core(0).map_err(other)?).map_err(other)?;
        Ok(Self { session, rtt })
    }
}

impl Wire for Rtt {
    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut core = self.session.core(0).map_err(io::Error::other)?;
        let channel = self.rtt.down_channel(CHANNEL).ok_or_else(no_channel)?;
        let mut moved = Instant::now();
        while !bytes.is_empty() {
            let sent = channel.write(&mut core, bytes).map_err(io::Error::other)?;
            bytes = &bytes[sent..];
            if sent > 0 {
                moved = Instant::now();
            } else if moved.elapsed() > STUCK {
                return Err(io::Error::other("the board takes no more bytes"));
            } else {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8], patience: Duration) -> io::Result<usize> {
        let mut core = self.session.core(0).map_err(io::Error::other)?;
        let channel = self.rtt.up_channel(CHANNEL).ok_or_else(no_channel)?;
        let start = Instant::now();
        loop {
            let count = channel.read(&mut core, buffer).map_err(io::Error::other)?;
            if count > 0 || start.elapsed() > patience {
                return Ok(count);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn no_channel() -> io::Error {
    io::Error::other("the board has no RTT channel 1; does it run `serve`?")
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> DeviceError {
    failed(io::Error::other(error))
}

fn failed(source: io::Error) -> DeviceError {
    DeviceError::Wire {
        wire: "probe".to_owned(),
        source,
        hint: "",
    }
}
