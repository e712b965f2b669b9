//! Runs the firmware's images in QEMU and compares them with the host: logits bit for bit, errors, cost and size.
//!
//! These tests need `qemu-system-arm` and the images that `firmware/build-all.sh` builds, so they are ignored by default. Run
//! them with `cargo test --test firmware -- --ignored`. QEMU is a direct child process, so a hang, a death by a signal and a
//! missing last line are detected as failures. `LENET_IMAGES=N` sets the number of test images that every board classifies.

mod agreement;
mod errors;
mod instructions;
mod memory;

use lenet_test_support::fixtures::unzipped;
use object::read::{Object, ObjectSymbol};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The emulated boards, and the number of test images that each classifies in CI.
const EMULATED: [(&str, usize); 5] = [
    ("mps2-an386", 10_000),
    ("mps2-an500", 1_000),
    ("mps2-an505", 1_000),
    ("netduinoplus2", 1_000),
    ("microbit", 30),
];
/// The emulated boards for the int8 network, and the number of test images that each classifies. The last board is too small for
/// f32.
const INT8: [(&str, usize); 6] = [
    ("mps2-an386-int8", 10_000),
    ("mps2-an500-int8", 10_000),
    ("mps2-an505-int8", 10_000),
    ("netduinoplus2-int8", 10_000),
    ("microbit-int8", 10_000),
    ("stm32vldiscovery-int8", 10_000),
];
/// The board that supports int8 only. Its settings name weights in int8.
const INT8_ONLY: &str = "stm32vldiscovery";
const REAL: [&str; 6] = [
    "microbit-v2",
    "nrf52840-dk",
    "nucleo-f446re",
    "stm32f4discovery",
    "pico",
    "pico2",
];
/// The folder of the images that `firmware/riscv` builds.
const RISCV: &str = "riscv";
/// The time-out of a run, which is far more than it takes on a busy machine. Each image adds a second.
const TIME_OUT: Duration = Duration::from_secs(120);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Cargo needs the settings of the boards in several files; they must agree.
#[test]
fn the_boards_settings_agree() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let mut folders: Vec<String> = fs::read_dir(root().join("firmware/boards"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let mut boards = [&EMULATED.map(|(board, _)| board)[..], &REAL, &[INT8_ONLY]].concat();
    boards.sort();
    assert_eq!(folders, boards);

    let (package, common) = (
        read("firmware/Cargo.toml"),
        read("firmware/.cargo/config.toml"),
    );
    let value = |text: &str, key: &str| {
        let start = format!("{key} = ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no {key}")).to_owned()
    };
    let mut targets = Vec::new();
    for board in &boards {
        let config = read(&format!("firmware/boards/{board}/config.toml"));
        let target = value(&config, "target").trim_matches('"').to_owned();
        let kind = if *board == INT8_ONLY { "-int8" } else { "" };
        let folder = format!("\"../../target/firmware/{board}{kind}\"");
        assert_eq!(value(&config, "target-dir"), folder, "{board}");
        let weights =
            "LENET_WEIGHTS = { value = \"../../data/lenet-int8.weights\", relative = true }";
        assert_eq!(config.contains(weights), !kind.is_empty(), "{board}");
        assert!(config.contains(&format!("[target.{target}]")), "{board}");
        let emulated = !REAL.contains(board);
        let runner = value(&config, "runner");
        let qemu = format!("\"../qemu.sh {board}\"");
        assert_eq!(runner == qemu, emulated, "{board}: {runner}");
        assert!(package.contains(&format!("\n{board} = [")), "{board}");
        let alias = format!(
            "= \"run --release --no-default-features --features {board} --config boards/{board}/config.toml\"\n"
        );
        assert_eq!(common.matches(&alias).count(), 1, "{board}");
        if value(&package, "default") == format!("[\"{board}\"]") {
            assert_eq!(value(&common, "target").trim_matches('"'), target);
            assert_eq!(value(&common, "runner"), runner);
            let folder = format!("\"../target/firmware/{board}\"");
            assert_eq!(value(&common, "target-dir"), folder);
        }
        targets.push(target);
    }
    targets.sort();
    targets.dedup();
    let ci = format!("\ncortex_m=\"{}\"\n", targets.join(" "));
    assert!(read("ci.sh").contains(&ci), "ci.sh builds for {targets:?}");
    let doctor = read("trainer/src/commands/doctor.rs");
    for target in targets {
        assert!(doctor.contains(&target), "`trainer doctor`: {target}");
    }
}

/// Returns the path to which `build-all.sh` builds a program for a board. A board of the form `board+network` stands for another
/// network, whose programs `firmware/build-networks.sh` builds.
fn elf(board: &str, program: &str) -> PathBuf {
    let board_folder = root().join("target/firmware").join(board);
    let found = fs::read_dir(&board_folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path().join("release").join(program))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "no {program} in {}: run firmware/build-all.sh",
            board_folder.display()
        )
    })
}

/// Returns the name of a board in QEMU and in `firmware/boards`, without the suffix for another network or for int8.
fn machine(board: &str) -> &str {
    let machine = board.split_once('+').map_or(board, |(machine, _)| machine);
    machine.strip_suffix("-int8").unwrap_or(machine)
}

/// Returns the address of a symbol.
fn symbol(elf: &Path, name: &str) -> u64 {
    let bytes = fs::read(elf).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let found = file.symbols().find(|symbol| symbol.name() == Ok(name));
    found
        .unwrap_or_else(|| panic!("no symbol {name} in {}", elf.display()))
        .address()
}

/// The result of a run: its output and its exit code.
struct Run {
    output: String,
    code: i32,
}

impl Run {
    #[track_caller]
    fn ends(&self, last_line: &str, code: i32) {
        assert_eq!(
            (self.output.lines().last(), self.code),
            (Some(last_line), code),
            "{}",
            self.output
        );
    }
}

/// Runs a program on an emulated board. `args` is the program's command line; `qemu_args` are further arguments of QEMU.
fn run(board: &str, args: &[&str], weights: Option<&Path>, qemu_args: &[&str]) -> Run {
    run_for(TIME_OUT, board, args, weights, qemu_args)
}

fn run_for(
    time_out: Duration,
    board: &str,
    args: &[&str],
    weights: Option<&Path>,
    qemu_args: &[&str],
) -> Run {
    let elf = elf(board, args[0]);
    let mut semihosting = String::from("enable=on,target=native");
    for arg in args {
        semihosting += ",arg=";
        semihosting += arg;
    }
    let (mut qemu, machine) = match board {
        RISCV => (Command::new("qemu-system-riscv32"), "virt"),
        _ => (Command::new("qemu-system-arm"), machine(board)),
    };
    if board == RISCV {
        qemu.args(["-bios", "none"]);
    }
    qemu.args([
        "-machine", machine, "-display", "none", "-monitor", "none", "-serial", "null",
    ])
    .args(["-semihosting-config", &semihosting])
    .args(qemu_args);
    if let Some(weights) = weights {
        let address = symbol(&elf, "__weights");
        qemu.arg("-device").arg(format!(
            "loader,file={},addr={address:#x},force-raw=on",
            weights.display()
        ));
    }
    qemu.arg("-kernel")
        .arg(&elf)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = qemu.spawn().expect("qemu-system-arm starts");
    // Read the pipes while the program runs, so that it never blocks on them.
    let pipes: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().unwrap()),
        Box::new(child.stderr.take().unwrap()),
    ];
    let readers = pipes.map(|mut pipe| {
        thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).map(|_| text)
        })
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if start.elapsed() > time_out {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let output: String = readers
        .map(|reader| reader.join().unwrap().unwrap())
        .concat();
    let status = status.unwrap_or_else(|| panic!("{board} {args:?} hangs; so far:\n{output}"));
    let code = status
        .code()
        .unwrap_or_else(|| panic!("{board} {args:?}: QEMU ended by {status}:\n{output}"));
    Run { output, code }
}

/// Returns the weights file to use: the one that `LENET_WEIGHTS` names, or else the committed one.
fn weights_file() -> PathBuf {
    std::env::var_os("LENET_WEIGHTS").map_or(root().join("data/lenet.weights"), PathBuf::from)
}

/// Returns the weights file for the images of a board.
fn weights_of(board: &str) -> PathBuf {
    match board.ends_with("-int8") {
        true => root().join("data/lenet-int8.weights"),
        false => weights_file(),
    }
}

/// Returns the path of a file that only one test uses.
fn scratch(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("firmware");
    fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

/// Returns the test images as one uncompressed IDX file.
fn test_images() -> Vec<u8> {
    unzipped("t10k-images-idx3-ubyte")
}
