//! Runs the unmodified images for the Raspberry Pi Pico in the emulator rp2040js and compares them with the host.
//!
//! These tests need Node, the npm package `rp2040js` in the folder that the environment variable `RP2040JS` names, and the images
//! that `firmware/build-all.sh pico` builds for f32 and for int8, so they are ignored by default (see `ci.sh`).
//! `firmware/pico.mjs` plays the debug probe and the serial adapter of the emulated chip.

use clap::Parser;
use defmt_decoder::{DecodeError, Table};
use lenet_core::image::grey;
use lenet_core::link::{LinkError, MAX_FRAME, Receiver, Reply, Request, encode};
use lenet_core::network::{Activations, Pixels, forward};
use lenet_core::ops::argmax;
use lenet_test_support::tolerance::assert_count;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use trainer::commands::{Cli, run};
use trainer::weights_file::WeightsFile;

/// The time-out, which is far more than an emulated program takes on a busy machine.
const TIME_OUT: Duration = Duration::from_secs(600);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the path of a program in a folder of `target/firmware`: `pico`, or `pico-int8`.
fn elf(folder: &str, program: &str) -> PathBuf {
    let images = root().join("target/firmware").join(folder);
    images.join("thumbv6m-none-eabi/release").join(program)
}

/// An emulated Pico that runs a program. It is stopped when this is dropped.
struct Pico {
    child: Child,
    output: BufReader<ChildStdout>,
    elf: PathBuf,
    log: PathBuf,
}

impl Pico {
    /// Starts a program for one test. `options` are those of `pico.mjs`; `words` is the program's command line.
    fn start(test: &str, program: &str, options: &[&str], words: &[&str]) -> Self {
        Self::start_elf(elf("pico", program), test, options, words)
    }

    /// Does the same as [`start`](Self::start), given the path of the program.
    fn start_elf(elf: PathBuf, test: &str, options: &[&str], words: &[&str]) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pico");
        fs::create_dir_all(&folder).unwrap();
        let log = folder.join(test);
        let _ = fs::remove_file(&log);
        let mut child = Command::new("node")
            .arg(root().join("firmware/pico.mjs"))
            .arg(&elf)
            .arg("--log")
            .arg(&log)
            .args(options)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            output,
            elf,
            log,
        }
    }

    /// Reads the address at which `pico.mjs` offers a wire.
    fn address(&mut self, wire: &str) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix(wire).map(str::trim);
        address
            .unwrap_or_else(|| panic!("no address of {wire}: {line}"))
            .to_owned()
    }

    /// Waits until the program ends. Returns its exit code and the output of `pico.mjs`.
    fn end(&mut self) -> (i32, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < TIME_OUT, "{} hangs", self.elf.display());
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut said = String::new();
        self.output.read_to_string(&mut said).unwrap();
        print!("{said}");
        (status.code().expect("not killed by a signal"), said)
    }

    /// Decodes the log so far.
    ///
    /// # Panics
    /// If a frame of the log is incomplete.
    fn log(&self) -> Vec<String> {
        let elf = fs::read(&self.elf).unwrap();
        let table = Table::parse(&elf).unwrap().expect("it logs by defmt");
        let mut stream = table.new_stream_decoder();
        stream.received(&fs::read(&self.log).unwrap_or_default());
        let mut lines = Vec::new();
        loop {
            match stream.decode() {
                Ok(frame) => {
                    let level = frame.level().map_or("", |level| level.as_str());
                    lines.push(format!("{level} {}", frame.display_message()));
                }
                Err(DecodeError::UnexpectedEof) => return lines,
                Err(DecodeError::Malformed) => panic!("torn after {lines:#?}"),
            }
        }
    }

    /// Waits until a line of the log starts with `start`.
    fn wait_for(&self, start: &str) {
        let began = Instant::now();
        while !self.log().iter().any(|line| line.starts_with(start)) {
            assert!(began.elapsed() < TIME_OUT, "no `{start}`: {:?}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Pico {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs Node, rp2040js and the Pico's images: see ci.sh"]
fn infer_agrees_with_the_host() {
    let mut pico = Pico::start("infer", "infer", &[], &["infer"]);
    let (code, said) = pico.end();
    let log = pico.log();
    println!("{}", log.join("\n"));
    assert_eq!((code, log.last()), (0, Some(&"info ok".to_owned())));
    assert!(
        log[0].starts_with("info lenet ") && log[0].ends_with(" on pico, 125 MHz"),
        "{}",
        log[0]
    );
    // The HAL must have set up the clocks and the pins, and an open input must have a pull resistor.
    assert!(
        said.contains("UART0: 115207 baud; GP0: UART; GP1: UART, pulled up"),
        "{said}"
    );

    let file = WeightsFile::load(&root().join("data/lenet.weights")).unwrap();
    let weights = file.weights();
    let samples = fs::read(root().join("data/samples.bin")).unwrap();
    let (samples, _) = samples.as_chunks::<{ size_of::<Pixels>() }>();
    let mut act = Activations::new();
    let names = &weights.metadata.classes;
    for (class, pixels) in samples.iter().enumerate() {
        let logits = forward(weights.params, &grey(bytemuck::cast_ref(pixels)), &mut act);
        let (from, to) = (names.get(class), names.get(argmax(logits)));
        let expected = format!("info {from}: {to}, ");
        assert!(
            log.iter().any(|line| line.starts_with(&expected)),
            "no line `{expected}`"
        );
    }
}

#[test]
#[ignore = "needs Node, rp2040js and the Pico's images: see ci.sh"]
fn three_images_over_the_uart_give_the_same_bits_as_the_host() {
    let mut pico = Pico::start("uart", "serve", &["--uart"], &["serve"]);
    let address = pico.address("uart");
    // Bytes that arrive earlier overflow the FIFO of the UART, as on the chip.
    pico.wait_for("info serve ");
    let words = ["trainer", "device", "evaluate", "--tcp", &address];
    let words = words
        .into_iter()
        .chain(["--images", "3", "--timeout", "300"]);
    run(Cli::try_parse_from(words).unwrap()).unwrap();
}

#[test]
#[ignore = "needs Node, rp2040js and the Pico's images: see ci.sh"]
fn thirty_int8_images_over_the_uart_give_the_same_bits_as_the_host() {
    let elf = elf("pico-int8", "serve");
    let mut pico = Pico::start_elf(elf, "uart-int8", &["--uart"], &["serve"]);
    let address = pico.address("uart");
    pico.wait_for("info serve ");
    let weights = root().join("data/lenet-int8.weights");
    let weights = weights.to_str().expect("UTF-8");
    let words = ["trainer", "device", "evaluate", "--tcp", &address];
    let options = ["--weights", weights, "--images", "30", "--timeout", "300"];
    run(Cli::try_parse_from(words.into_iter().chain(options)).unwrap()).unwrap();
}

/// Compares the cycles per image, which `bench` counts with SysTick, with a table. Each layer may exceed it by 3 %.
fn check_cycles(folder: &str, table: &str) {
    let mut pico = Pico::start_elf(elf(folder, "bench"), table, &[], &["bench"]);
    let (code, _) = pico.end();
    let log = pico.log();
    println!("{}", log.join("\n"));
    assert_eq!(code, 0);
    let table = fs::read_to_string(root().join("tests/tests").join(table)).unwrap();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let (name, expected) = line.split_once(' ').expect("a name and a count");
        let expected: u64 = expected.parse().unwrap();
        let start = format!("info {name} ");
        let found = log.iter().find_map(|line| {
            line.strip_prefix(&start)?
                .strip_suffix(" cycles")?
                .parse::<u64>()
                .ok()
        });
        let found = found.unwrap_or_else(|| panic!("no cycles of {name}"));
        assert_count(&format!("cycles of {name}"), found, expected);
    }
}

#[test]
#[ignore = "needs Node, rp2040js and the Pico's images: see ci.sh"]
fn cycles_in_f32_stay_within_the_table() {
    check_cycles("pico", "pico-cycles.txt");
}

#[test]
#[ignore = "needs Node, rp2040js and the Pico's images: see ci.sh"]
fn cycles_in_int8_stay_within_the_table() {
    check_cycles("pico-int8", "pico-cycles-int8.txt");
}

#[test]
#[ignore = "needs Node, rp2040js and the Pico's images: see ci.sh"]
fn faults_end_in_a_message() {
    for (fault, message) in [
        ("panic", "error panic at firmware/src/bin/fault.rs:"),
        ("hardfault", "error HardFault at 0x"),
    ] {
        let mut pico = Pico::start(fault, "fault", &[], &["fault", fault]);
        let (code, _) = pico.end();
        let log = pico.log();
        assert_eq!(code, 101, "{log:?}");
        assert!(log.last().unwrap().starts_with(message), "{log:?}");
    }
}

/// The program logs twice the size of the buffer within a few milliseconds, and the probe reads only every twenty milliseconds.
#[test]
#[ignore = "needs Node, rp2040js and the Pico's images: see ci.sh"]
fn a_slow_probe_gets_the_whole_log() {
    let options = ["--poll", "20000"];
    let mut pico = Pico::start("slow", "fault", &options, &["fault", "log"]);
    let (code, _) = pico.end();
    assert_eq!(code, 0);
    let log = pico.log();
    let expected: Vec<String> = ["info fault log".to_owned()]
        .into_iter()
        .chain((0..1000).map(|line| format!("info line {line} of 1000")))
        .chain(["info ok".to_owned()])
        .collect();
    assert_eq!(log, expected);
}

/// A program on a Cortex-M0+ cannot find out whether a debugger is attached. Its final breakpoint must not cause a fault without
/// one.
#[test]
#[ignore = "needs Node, rp2040js and the Pico's images: see ci.sh"]
fn without_a_probe_the_program_sleeps_at_its_end() {
    let mut pico = Pico::start("alone", "fault", &["--no-probe"], &[]);
    let (code, said) = pico.end();
    assert_eq!(code, 0);
    assert!(said.contains("asleep after "), "{said}");
}

/// Half a frame and then noise arrive over the UART, and between them a complete frame arrives over RTT.
#[test]
#[ignore = "needs Node, rp2040js and the Pico's images: see ci.sh"]
fn frames_on_two_wires_do_not_mix() {
    let options = ["--uart", "--rtt"];
    let mut pico = Pico::start("wires", "serve", &options, &["serve"]);
    let (uart, rtt) = (pico.address("uart"), pico.address("rtt"));
    pico.wait_for("info serve ");
    let mut uart = Wire::connect(&uart);
    let mut rtt = Wire::connect(&rtt);
    let mut out = [0; MAX_FRAME];
    let frame = encode(7, &Request::Info, &mut out).unwrap().to_vec();
    let (half, rest) = frame.split_at(frame.len() / 2);

    uart.send(half);
    // The emulated core replies to this frame only after it has read what came over the UART.
    rtt.send(&frame);
    assert_eq!(rtt.answer(), Ok(7));
    uart.send(rest);
    assert_eq!(uart.answer(), Ok(7));

    uart.send(&[0x55]);
    rtt.send(&frame);
    assert_eq!(rtt.answer(), Ok(7));
    // The noise must affect only the next frame on the same wire.
    uart.send(&[0]);
    assert_eq!(uart.answer(), Err(LinkError::Truncated));
    uart.send(&frame);
    assert_eq!(uart.answer(), Ok(7));
}

/// One of the emulated board's wires.
struct Wire {
    stream: TcpStream,
    receiver: Receiver,
}

impl Wire {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIME_OUT)).unwrap();
        Self {
            stream,
            receiver: Receiver::new(),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Returns the sequence number of the next reply, or the error that the board reports.
    fn answer(&mut self) -> Result<u32, LinkError> {
        let mut byte = [0];
        loop {
            self.stream.read_exact(&mut byte).unwrap();
            if let Some(frame) = self.receiver.push::<Reply>(byte[0]) {
                let frame = frame.expect("no answer is damaged");
                return match frame.message {
                    Reply::Error(error) => Err(error),
                    _ => Ok(frame.sequence),
                };
            }
        }
    }
}
