//! The options that say how to reach a board and which weights it should have, and the connection.

use crate::commands::out::{load_model, warn};
use crate::device::certificate::Medium;
use crate::device::{Client, DeviceError, MACHINES, Machine, Qemu, Serial, Tcp, Wire};
use crate::error::Error;
use crate::model::Model;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The default of --timeout for a board: how long to wait for a reply.
const ANSWER: Duration = Duration::from_secs(15);
/// The default of --timeout for QEMU: a program that makes no progress for this long is considered to hang.
pub(super) const PROGRESS: Duration = Duration::from_secs(60);

/// Which board, and which parameters it should have.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct BoardArgs {
    #[command(flatten)]
    place: Place,
    /// Weights file that the board should have; QEMU loads it [default: data/lenet.weights]
    #[arg(long, value_name = "FILE")]
    pub(super) weights: Option<PathBuf>,
    /// Program for QEMU [default: the one that firmware/build-all.sh built]
    #[arg(long, value_name = "FILE", requires = "qemu", conflicts_with_all = ["port", "tcp"])]
    #[cfg_attr(feature = "probe", arg(conflicts_with = "probe"))]
    elf: Option<PathBuf>,
    /// Bits per second of --port
    #[arg(long, value_name = "N", default_value_t = 115_200, value_parser = clap::value_parser!(u32).range(50..=50_000_000))]
    baud: u32,
    /// Name of the chip for --probe, from `probe-rs chip list` [default: detected]
    #[cfg(feature = "probe")]
    #[arg(long, value_name = "NAME", requires = "probe", conflicts_with_all = ["qemu", "port", "tcp"])]
    chip: Option<String>,
    /// How long to wait for the first reply, for each further reply, and for progress of a program in QEMU
    /// [default: 15, for QEMU 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// Emulate this machine in QEMU
    #[arg(long, value_name = "MACHINE", num_args = 0..=1, default_missing_value = "mps2-an386",
          value_parser = machine)]
    qemu: Option<Machine>,
    /// Use this serial port, such as /dev/ttyACM0
    #[arg(long, value_name = "PATH")]
    port: Option<String>,
    /// Use this TCP address, such as that of a serial port server
    #[arg(long, value_name = "HOST:PORT")]
    tcp: Option<String>,
    /// Use the debug probe
    #[cfg(feature = "probe")]
    #[arg(long)]
    probe: bool,
}

fn machine(name: &str) -> Result<Machine, String> {
    Machine::named(name).ok_or_else(|| {
        let names = MACHINES.map(|machine| machine.name).join(", ");
        format!("the firmware knows {names}")
    })
}

impl BoardArgs {
    pub(super) fn timeout(&self, default: Duration) -> Duration {
        self.timeout.map_or(default, Duration::from_secs)
    }

    /// Returns how the board is connected.
    pub(super) fn medium(&self) -> Medium {
        match &self.place {
            Place { qemu: Some(_), .. } => Medium::Qemu,
            Place { port: Some(_), .. } => Medium::Serial,
            Place { tcp: Some(_), .. } => Medium::Tcp,
            _ => Medium::Probe,
        }
    }

    /// Returns the machine to emulate, if `--qemu` names one.
    pub(super) fn machine(&self) -> Option<Machine> {
        self.place.qemu
    }

    /// Returns the weights file that the board should have.
    pub(super) fn weights_path(&self) -> PathBuf {
        self.weights.clone().unwrap_or_else(|| {
            let here = Path::new("data/lenet.weights");
            if here.exists() {
                here.to_owned()
            } else {
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/lenet.weights")
            }
        })
    }

    /// Returns the firmware image of a program, built for the number format of the weights (f32 or int8).
    pub(super) fn image(
        &self,
        machine: Machine,
        program: &str,
        weights: &Model,
    ) -> Result<PathBuf, DeviceError> {
        let file = self.weights_path();
        machine.image(program, self.elf.as_deref(), weights.numbers(), &file)
    }

    /// Connects to the board and calls `act` with it. If `weights` is given, checks first that the board has the same parameters.
    pub(super) fn with_board<T>(
        &self,
        weights: Option<&Model>,
        act: impl FnOnce(&mut Client<Box<dyn Wire>>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (mut qemu, wire, name): (_, Box<dyn Wire>, _) =
            match (self.place.qemu, &self.place.port, &self.place.tcp) {
                (Some(machine), _, _) => {
                    let weights = match weights {
                        Some(weights) => weights,
                        None => &load_model(&self.weights_path())?,
                    };
                    let image = self.image(machine, "serve", weights)?;
                    let patience = self.timeout(PROGRESS);
                    let (qemu, tcp) = Qemu::serve(machine, &image, weights.bytes(), patience)?;
                    (Some(qemu), Box::new(tcp), machine.name)
                }
                (_, Some(path), _) => (None, Box::new(Serial::open(path, self.baud)?), path),
                (_, _, Some(address)) => {
                    let tcp = Tcp::connect(address, self.timeout(ANSWER))?;
                    (None, Box::new(tcp), address)
                }
                _ => (None, self.probe()?, "probe"),
            };
        let timeout = self.timeout(ANSWER);
        let connected = Client::connect(wire, name, timeout).map_err(Error::from);
        let answer = connected.and_then(|mut client| {
            if let Some(weights) = weights {
                let host = weights.metadata().provenance.params_sha256;
                let board = client.identity().params_sha256;
                if board != host {
                    let file = self.weights_path();
                    return Err(DeviceError::Weights { board, host, file }.into());
                }
                if client.identity().weights_crc != weights.crc() {
                    warn(format_args!(
                        "the board's weights file has the parameters of {}, but describes them otherwise: the names of its \
                         classes may be other ones",
                        self.weights_path().display()
                    ));
                }
            }
            act(&mut client)
        });
        answer.map_err(|error| match (error, &mut qemu) {
            (Error::Device(error), Some(qemu)) => qemu.explain(error).into(),
            (error, _) => error,
        })
    }

    #[cfg(feature = "probe")]
    fn probe(&self) -> Result<Box<dyn Wire>, DeviceError> {
        Ok(Box::new(crate::device::probe::Rtt::attach(
            self.chip.as_deref(),
        )?))
    }

    #[cfg(not(feature = "probe"))]
    fn probe(&self) -> Result<Box<dyn Wire>, DeviceError> {
        unreachable!("clap asks for one of the places");
    }
}
