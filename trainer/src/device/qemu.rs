//! A board that QEMU emulates. It gets its weights at the start, and is always stopped at the end.
//!
//! QEMU is started as a direct child process, so its exit code or the signal that killed it is known. It is killed when its
//! [`Qemu`] is dropped; if this process is killed first, a [`Watcher`] kills QEMU. The last lines that it printed are kept for
//! messages.

use super::watcher::Watcher;
use super::{DeviceError, Tcp};
use lenet_core::Numbers;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// An emulated board that the firmware knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The name of the machine in QEMU, which is also its folder in `firmware/boards`.
    pub name: &'static str,
    /// The board's settings for cargo.
    config: &'static str,
    /// The board's settings for the linker.
    memory: &'static str,
}

/// Creates a machine with the files of its folder.
macro_rules! machine {
    ($name:literal) => {
        Machine {
            name: $name,
            config: include_str!(concat!("../../../firmware/boards/", $name, "/config.toml")),
            memory: include_str!(concat!("../../../firmware/boards/", $name, "/memory.x")),
        }
    };
}

/// The emulated boards.
pub const MACHINES: [Machine; 6] = [
    machine!("mps2-an386"),
    machine!("mps2-an500"),
    machine!("mps2-an505"),
    machine!("netduinoplus2"),
    machine!("microbit"),
    machine!("stm32vldiscovery"),
];

const QEMU: &str = "qemu-system-arm";
/// The number of lines of output to keep.
const KEPT: usize = 100;

/// Returns the text after `before` and up to `after`, or an empty text if they do not occur.
fn between<'a>(text: &'a str, before: &str, after: char) -> &'a str {
    let found = text.split_once(before).map(|(_, rest)| rest);
    found
        .and_then(|rest| rest.split_once(after))
        .map_or("", |(found, _)| found)
}

impl Machine {
    /// Returns the board's Rust target.
    pub fn target(self) -> &'static str {
        between(self.config, "target = \"", '"')
    }

    /// Returns the address of the weights in the linker script, in hexadecimal.
    pub fn weights_address(self) -> &'static str {
        let (_, region) = self.memory.split_once("WEIGHTS").unwrap_or_default();
        between(region, "ORIGIN = ", ',')
    }

    /// Returns the machine with this name.
    pub fn named(name: &str) -> Option<Self> {
        MACHINES.into_iter().find(|machine| machine.name == name)
    }

    /// Returns the absolute path of a program's image: the path `given`, or else the one to which cargo builds the program for
    /// this number format. `weights` is the weights file, for the build command in the error.
    ///
    /// # Errors
    /// `NotBuilt`: the file does not exist; the error says how to build it.
    pub fn image(
        self,
        program: &str,
        given: Option<&Path>,
        numbers: Numbers,
        weights: &Path,
    ) -> Result<PathBuf, DeviceError> {
        let (folder, variable) = match numbers {
            Numbers::F32 => (self.name.to_owned(), String::new()),
            Numbers::Int8 => {
                // The script changes to another folder, so it needs an absolute path.
                let weights = std::path::absolute(weights).unwrap_or_else(|_| weights.to_owned());
                (
                    format!("{}-int8", self.name),
                    format!("LENET_WEIGHTS={} ", weights.display()),
                )
            }
        };
        let path = given.map_or_else(
            || {
                sources("target/firmware")
                    .join(folder)
                    .join(self.target())
                    .join("release")
                    .join(program)
            },
            Path::to_owned,
        );
        // QEMU runs in another folder, so it needs an absolute path.
        path.canonicalize().map_err(|_| DeviceError::NotBuilt {
            path,
            command: format!(
                "{variable}{} {}",
                sources("firmware/build-all.sh").display(),
                self.name
            ),
        })
    }
}

/// Returns a path in the source tree from which this program was built.
fn sources(path: &str) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).join(path)
}

/// A running emulator. It works in its own temporary folder, which is removed at the end.
pub struct Qemu {
    machine: Machine,
    running: Running,
    output: Arc<Mutex<VecDeque<String>>>,
    readers: Vec<JoinHandle<()>>,
}

/// The resources to clean up. The fields are dropped in this order, so the watcher ends when there is nothing left to watch.
struct Running {
    child: Killed,
    folder: TempDir,
    _watcher: Watcher,
}

/// A child process that is killed when this is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Qemu {
    /// Starts a program. `words` is the program's command line, `files` are created in its folder, and `arguments` are further
    /// arguments of QEMU.
    ///
    /// # Errors
    /// * `NoQemu`: QEMU is not installed
    /// * `Wire`: QEMU cannot be started
    pub fn start(
        machine: Machine,
        image: &Path,
        weights: &[u8],
        words: &[&str],
        files: &[(&str, &[u8])],
        arguments: &[&str],
    ) -> Result<Self, DeviceError> {
        let cannot = |source| DeviceError::Wire {
            wire: format!("{QEMU} in a temporary folder"),
            source,
            hint: "",
        };
        let folder = tempfile::tempdir().map_err(cannot)?;
        let watcher = Watcher::start(folder.path()).map_err(cannot)?;
        for (name, content) in files.iter().chain([&("weights", weights)]) {
            std::fs::write(folder.path().join(name), content).map_err(cannot)?;
        }
        let mut semihosting = "enable=on,target=native".to_owned();
        for word in words {
            semihosting += ",arg=";
            semihosting += word;
        }
        let loader = format!(
            "loader,file=weights,addr={},force-raw=on",
            machine.weights_address()
        );
        let mut command = Command::new(QEMU);
        command
            .args(["-machine", machine.name, "-display", "none"])
            .args(["-monitor", "none", "-semihosting-config", &semihosting])
            .args(["-device", &loader, "-kernel"])
            .arg(image)
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        watcher.watch(&mut command).map_err(cannot)?;
        let child = command.spawn().map_err(|source| match source.kind() {
            ErrorKind::NotFound => DeviceError::NoQemu,
            _ => cannot(source),
        })?;
        let mut child = Killed(child);
        let output = Arc::new(Mutex::new(VecDeque::new()));
        let (stdout, stderr) = (child.0.stdout.take(), child.0.stderr.take());
        let readers = [
            stdout.map(|pipe| keep_lines(pipe, &output)),
            stderr.map(|pipe| keep_lines(pipe, &output)),
        ];
        let readers = readers.into_iter().flatten();
        Ok(Self {
            machine,
            output,
            readers: readers.collect::<Result<_, _>>().map_err(cannot)?,
            running: Running {
                child,
                folder,
                _watcher: watcher,
            },
        })
    }

    /// Returns the path of a file in the emulator's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.running.folder.path().join(name)
    }

    /// Starts the program `serve` and connects to its UART. QEMU must connect within `patience`.
    ///
    /// # Errors
    /// Those of [`start`](Self::start); `Qemu` if it ends at once or hangs.
    pub fn serve(
        machine: Machine,
        image: &Path,
        weights: &[u8],
        patience: Duration,
    ) -> Result<(Self, Tcp), DeviceError> {
        let here = |source| DeviceError::Wire {
            wire: "a local TCP port".to_owned(),
            source,
            hint: "",
        };
        // QEMU connects to this process, so the port is known before QEMU starts.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(here)?;
        listener.set_nonblocking(true).map_err(here)?;
        let serial = format!("tcp:{},nodelay=on", listener.local_addr().map_err(here)?);
        let mut qemu = Self::start(
            machine,
            image,
            weights,
            &["serve"],
            &[],
            &["-serial", &serial],
        )?;
        let start = Instant::now();
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).map_err(here)?;
                    return Ok((qemu, Tcp::of(stream).map_err(here)?));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(here(error)),
            }
            if let Some(status) = qemu.ended().map_err(here)? {
                return Err(qemu.failed(ending(status)));
            }
            if start.elapsed() > patience {
                return Err(qemu.hangs("serial port", patience));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the program ends, and returns its output, whose last line must be `ok`. If the number that `progress` returns
    /// does not change for `patience`, the program is considered to hang.
    ///
    /// # Errors
    /// `Qemu`: the program hangs, fails, is killed by a signal, or does not print `ok` last.
    pub fn wait(
        &mut self,
        patience: Duration,
        mut progress: impl FnMut() -> u64,
    ) -> Result<Vec<String>, DeviceError> {
        let mut last = (progress(), Instant::now());
        let status = loop {
            match self.ended() {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(error) => return Err(self.failed(error.to_string())),
            }
            let now = progress();
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > patience {
                return Err(self.hangs("result", patience));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let lines: Vec<String> = locked(&self.output).iter().cloned().collect();
        if !status.success() || lines.last().is_none_or(|line| line != "ok") {
            return Err(self.failed(ending(status)));
        }
        Ok(lines)
    }

    /// Returns a better error if the connection failed because the program has ended: one with its exit code and last line.
    /// Otherwise returns `error`.
    pub fn explain(&mut self, error: DeviceError) -> DeviceError {
        let DeviceError::Wire { .. } = error else {
            return error;
        };
        // The connection is closed a moment before the process ends.
        for _ in 0..50 {
            match self.ended() {
                Ok(Some(status)) => return self.failed(ending(status)),
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Err(_) => break,
            }
        }
        error
    }

    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.running.child.0.try_wait()
    }

    fn hangs(&self, missing: &str, patience: Duration) -> DeviceError {
        let seconds = patience.as_secs();
        self.failed(format!(
            "no {missing} in {seconds} s: it hangs, or needs longer (--timeout)"
        ))
    }

    fn failed(&self, problem: String) -> DeviceError {
        // Give the readers time to store the last line.
        std::thread::sleep(Duration::from_millis(50));
        let lines = locked(&self.output);
        DeviceError::Qemu {
            machine: self.machine.name,
            problem,
            last_line: lines.back().cloned().unwrap_or("nothing".to_owned()),
        }
    }
}

fn ending(status: ExitStatus) -> String {
    match status.code() {
        Some(0) => "ended without `ok`".to_owned(),
        Some(code) => format!("failed with exit code {code}"),
        None => format!("QEMU died: {status}"),
    }
}

/// Starts a thread that reads a pipe, so that the child process never blocks on it, and keeps the last lines.
fn keep_lines(
    pipe: impl io::Read + Send + 'static,
    output: &Arc<Mutex<VecDeque<String>>>,
) -> io::Result<JoinHandle<()>> {
    let output = Arc::clone(output);
    std::thread::Builder::new().spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut kept = locked(&output);
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(line);
        }
    })
}

/// Locks a mutex even if another thread panicked while it held the lock, because the content is always consistent.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_those_of_the_firmware() {
        let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware/boards");
        let mut emulated: Vec<String> = std::fs::read_dir(boards)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|folder| {
                let config = std::fs::read_to_string(folder.path().join("config.toml"));
                config.is_ok_and(|config| config.contains("qemu.sh"))
            })
            .map(|folder| folder.file_name().into_string().unwrap())
            .collect();
        emulated.sort();
        let mut known = MACHINES.map(|machine| machine.name);
        known.sort();
        assert_eq!(emulated, known);
        for machine in MACHINES {
            let address = machine.weights_address().strip_prefix("0x");
            let address = address.and_then(|digits| u32::from_str_radix(digits, 16).ok());
            assert!(address.is_some_and(|address| address % 4 == 0));
            assert!(
                machine.target().ends_with("-none-eabi") || machine.target().ends_with("eabihf")
            );
        }
    }

    #[test]
    fn a_missing_image_is_named_with_the_command_that_builds_it() {
        let machine = Machine::named("microbit").unwrap();
        let error = machine
            .image(
                "serve",
                Some(Path::new("/no/such/serve")),
                Numbers::F32,
                Path::new("lenet.weights"),
            )
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "/no/such/serve: no such image. Build it: {} microbit",
                sources("firmware/build-all.sh").display()
            )
        );
    }
}
