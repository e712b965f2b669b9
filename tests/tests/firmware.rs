//! Runs the firmware's images in QEMU and compares them with the host: logits bit for bit, faults, weights, cost and size.
//!
//! These tests need `qemu-system-arm` and the images that `firmware/build-all.sh` builds, so they are ignored by default. Run
//! them with `cargo test --test firmware -- --ignored`. QEMU is a direct child process, so a hang, a death by a signal and a
//! missing last line are detected as failures. `LENET_IMAGES=N` sets the number of test images that every board classifies.

use flate2::read::GzDecoder;
use lenet_core::network::{CLASSES, Image, Net, Params, Pixels};
use lenet_core::ops::argmax;
use lenet_core::weights::{PARAMS_OFFSET, encode, max_len};
use lenet_core::{Network, Numbers};
use lenet_tests::generate::{Kind, METADATA, array};
use lenet_tests::networks::{color, lenet_d2l, relu, tiny};
use object::read::{Object, ObjectSection, ObjectSymbol};
use rand_chacha::rand_core::Rng;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use trainer::dataset::generator;
use trainer::model::Model;
use trainer::weights_file::WeightsFile;

const MAX_LEN: usize = max_len::<Net>();

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
    ("mps2-an500-int8", 1_000),
    ("mps2-an505-int8", 1_000),
    ("netduinoplus2-int8", 1_000),
    ("microbit-int8", 10_000),
    ("stm32vldiscovery-int8", 1_000),
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
const PROGRAMS: [&str; 6] = ["infer", "serve", "bench", "evaluate", "fault", "panic_free"];
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
    let ci = format!("\nboards=\"{}\"\n", targets.join(" "));
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

/// The bytes of a file at an address that is a multiple of four.
#[repr(align(4))]
struct Aligned([u8; MAX_LEN]);

fn read_weights(path: &Path) -> (Box<Aligned>, usize) {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut aligned = Box::new(Aligned([0; MAX_LEN]));
    aligned.0[..bytes.len()].copy_from_slice(&bytes);
    (aligned, bytes.len())
}

/// Returns the path of a file that only one test uses.
fn scratch(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("firmware");
    fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

/// Returns the test images as one uncompressed IDX file.
fn test_images() -> Vec<u8> {
    let path = root().join("data/fashion-mnist/t10k-images-idx3-ubyte.gz");
    let mut bytes = Vec::new();
    GzDecoder::new(File::open(&path).unwrap())
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// Compares the logits of `evaluate` on a board with those of `forward` on the host. Returns the output of the run.
fn logits_are_the_hosts(board: &str, images: usize) -> String {
    let images = std::env::var("LENET_IMAGES")
        .map_or(images, |n| n.parse().expect("LENET_IMAGES is a number"));
    let (idx, out) = (
        scratch(&format!("{board}.idx")),
        scratch(&format!("{board}.logits")),
    );
    let bytes = test_images();
    fs::write(&idx, &bytes).unwrap();
    let _ = fs::remove_file(&out);
    let weights = weights_of(board);
    let args = [
        "evaluate",
        idx.to_str().unwrap(),
        out.to_str().unwrap(),
        &images.to_string(),
    ];
    let start = Instant::now();
    let time_out = TIME_OUT + Duration::from_secs(images as u64);
    let run = run_for(time_out, board, &args, Some(&weights), &[]);
    println!(
        "{board}: {images} images in {:.1} s",
        start.elapsed().as_secs_f32()
    );
    run.ends("ok", 0);

    let found = fs::read(&out).unwrap();
    assert_eq!(found.len(), images * CLASSES * 4, "{}", run.output);
    let model = Model::load(&weights).unwrap();
    let (pixels, _) = bytes[16..].as_chunks::<{ size_of::<Pixels>() }>();
    let pixels: Vec<Pixels> = pixels
        .iter()
        .take(images)
        .copied()
        .map(bytemuck::cast)
        .collect();
    let mut different = 0;
    for (i, (expected, found)) in model
        .logits(&pixels)
        .iter()
        .zip(found.chunks_exact(CLASSES * 4))
        .enumerate()
    {
        if bytemuck::bytes_of(expected) != found {
            let found: Vec<f32> = found
                .as_chunks()
                .0
                .iter()
                .map(|&b| f32::from_le_bytes(b))
                .collect();
            println!("image {i}: {board} {found:?}, host {expected:?}");
            different += 1;
        }
    }
    assert_eq!(
        different, 0,
        "logits of {different} of {images} images differ on {board}"
    );
    run.output
}

/// Compares the logits of `evaluate` on a board with those of `forward` on the host, for the network `N` with random parameters.
fn other_network_agrees_with_the_host<N: Network>(board: &str, images: usize) {
    let board = format!("{board}+{}", N::NAME);
    let path = |kind: &str| scratch(&format!("{board}.{kind}"));
    let (weights, idx, out) = (path("weights"), path("idx"), path("logits"));
    let mut rng = generator(7, 0);
    let mut params: Box<N::Params> = array(Kind::Random, 7);
    let flat: &mut [f32] = bytemuck::must_cast_slice_mut(std::slice::from_mut(&mut *params));
    for tensor in N::TENSORS {
        let [_, inputs @ ..] = tensor.dims() else {
            unreachable!("a tensor has a dimension")
        };
        let bound = (3.0 / inputs.iter().product::<usize>() as f32).sqrt();
        for value in &mut flat[tensor.offset..][..tensor.len()] {
            *value *= bound;
        }
    }
    let mut file = vec![0; max_len::<N>()];
    let file = encode::<N>(&params, &METADATA, &mut file).unwrap();
    fs::write(&weights, file).unwrap();

    // Use the test images if they have the network's size, otherwise noise with dark and bright halves.
    let shape = N::LAYERS[0].input;
    let len: usize = shape.iter().product();
    let pixels: Vec<u8> = if shape == [1, 28, 28] {
        test_images()[16..][..images * len].to_vec()
    } else {
        (0..images * len)
            .map(|i| (rng.next_u32() >> 24) as u8 >> (i / (len / 2) % 2 * 3))
            .collect()
    };
    let dims = if shape[0] == 1 { &shape[1..] } else { &shape };
    let mut bytes = vec![0, 0, 8, 1 + dims.len() as u8];
    for &dim in [&[images], dims].concat().iter() {
        bytes.extend((dim as u32).to_be_bytes());
    }
    bytes.extend(&pixels);
    fs::write(&idx, bytes).unwrap();
    let _ = fs::remove_file(&out);

    let args = ["evaluate", idx.to_str().unwrap(), out.to_str().unwrap()];
    let time_out = TIME_OUT + Duration::from_secs(images as u64);
    run_for(time_out, &board, &args, Some(&weights), &[]).ends("ok", 0);

    let found = fs::read(&out).unwrap();
    let mut image: Box<N::Image> = bytemuck::zeroed_box();
    let mut act: Box<N::Activations> = bytemuck::zeroed_box();
    assert_eq!(found.len(), images * size_of::<N::Logits>());
    for (i, (pixels, found)) in pixels
        .chunks_exact(len)
        .zip(found.chunks_exact(size_of::<N::Logits>()))
        .enumerate()
    {
        let values: &mut [f32] = bytemuck::must_cast_slice_mut(std::slice::from_mut(&mut *image));
        for (value, &pixel) in values.iter_mut().zip(pixels) {
            *value = f32::from(pixel) / 255.0;
        }
        let logits = N::forward(&params, &image, &mut act);
        assert_eq!(bytemuck::bytes_of(logits), found, "{board}: image {i}");
    }
}

#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn shipped_networks_agree_with_the_host() {
    other_network_agrees_with_the_host::<lenet_d2l::Net>("mps2-an386", 1_000);
    other_network_agrees_with_the_host::<relu::Net>("mps2-an386", 1_000);
    other_network_agrees_with_the_host::<color::Net>("mps2-an386", 1_000);
    other_network_agrees_with_the_host::<tiny::Net>("mps2-an386", 1_000);
    other_network_agrees_with_the_host::<relu::Net>("microbit", 30);
    other_network_agrees_with_the_host::<tiny::Net>("microbit", 30);
}

/// Checks that `infer` predicts the same class as the host for each sample, and ends with `ok`.
fn infer_agrees_with_the_host(board: &str) {
    let weights = weights_of(board);
    let run = run(board, &["infer"], Some(&weights), &[]);
    run.ends("ok", 0);
    let model = Model::load(&weights).unwrap();
    let classes = model.metadata().classes;
    let samples = fs::read(root().join("data/samples.bin")).unwrap();
    for (class, pixels) in samples
        .as_chunks::<{ size_of::<Pixels>() }>()
        .0
        .iter()
        .enumerate()
    {
        let [logits] = model.logits(&[bytemuck::cast(*pixels)])[..] else {
            panic!("one image")
        };
        let best = argmax(&logits);
        let expected = format!("{}: {}, ", classes.get(class), classes.get(best));
        assert!(
            run.output.contains(&expected),
            "no line `{expected}` in\n{}",
            run.output
        );
    }
    assert!(
        run.output.contains(&format!("weights {:08x}", model.crc())),
        "{}",
        run.output
    );
}

/// Checks that each fault ends with its message and exit code 101.
fn faults_end_in_a_message(board: &str) {
    let stack = {
        let elf = elf(board, "fault");
        symbol(&elf, "_stack_start") - symbol(&elf, "_stack_end")
    };
    run(board, &["fault", "overflow"], None, &[]).ends(
        &format!("error: stack overflow: more than {stack} bytes"),
        101,
    );
    for (fault, message) in [
        ("panic", "error: panic at firmware/src/bin/fault.rs:"),
        ("hardfault", "error: HardFault at 0x"),
    ] {
        let run = run(board, &["fault", fault], None, &[]);
        let last = run.output.lines().last().unwrap_or_default();
        assert!(
            last.starts_with(message) && run.code == 101,
            "{board}: {}exit code {}",
            run.output,
            run.code
        );
    }
}

macro_rules! on_each_emulated_board {
    ($($module:ident: $index:literal),*) => {$(
        mod $module {
            use super::*;

            #[test]
            #[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
            fn infer() {
                infer_agrees_with_the_host(EMULATED[$index].0);
            }

            #[test]
            #[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
            fn evaluate() {
                let (board, images) = EMULATED[$index];
                logits_are_the_hosts(board, images);
            }

            #[test]
            #[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
            fn faults() {
                faults_end_in_a_message(EMULATED[$index].0);
            }
        }
    )*};
}

on_each_emulated_board!(an386: 0, an500: 1, an505: 2, netduinoplus2: 3, microbit: 4);

/// The same checks for the images of the int8 network, and its cost.
mod int8 {
    use super::*;

    macro_rules! on_each_board {
        ($($module:ident: $index:literal),*) => {$(
            mod $module {
                use super::*;

                #[test]
                #[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
                fn infer() {
                    infer_agrees_with_the_host(INT8[$index].0);
                }

                #[test]
                #[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
                fn evaluate() {
                    let (board, images) = INT8[$index];
                    logits_are_the_hosts(board, images);
                }
            }
        )*};
    }

    on_each_board!(an386: 0, an500: 1, an505: 2, netduinoplus2: 3, microbit: 4, stm32vldiscovery: 5);

    #[test]
    #[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
    fn faults_on_the_smallest_board() {
        faults_end_in_a_message("stm32vldiscovery-int8");
    }

    /// Building f32 firmware for a board that is too small for it must fail with an error that states both sizes.
    #[test]
    #[ignore = "builds firmware: see ci.sh"]
    fn building_f32_for_a_board_that_is_too_small_fails() {
        let build = Command::new(root().join("firmware/build-all.sh"))
            .arg(INT8_ONLY)
            .env("LENET_WEIGHTS", root().join("data/lenet.weights"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&build.stderr);
        assert!(!build.status.success(), "{errors}");
        let room = room(Numbers::F32);
        let expected = format!(
            "{INT8_ONLY} is too small for lenet in f32: WEIGHTS needs {} bytes, boards/{INT8_ONLY}/memory.x gives {}; in int8 the \
             network fits: name a file that `trainer quantize` made by LENET_WEIGHTS=FILE",
            room.weights,
            56 * 1024
        );
        assert!(errors.contains(&expected), "{expected}\n{errors}");
    }

    /// Counts the instructions per image. Each layer may exceed the table by 3 %, and the sum may not exceed what the README
    /// states.
    #[test]
    #[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
    fn instructions_stay_within_the_tables() {
        for (board, most) in [
            ("mps2-an386-int8", 420_000),
            ("mps2-an505-int8", 420_000),
            ("microbit-int8", 1_400_000),
            ("stm32vldiscovery-int8", 1_000_000),
        ] {
            let table = format!("tests/tests/firmware-instructions-{board}.txt");
            let output = counted(board, &weights_of(board));
            within(&output, &fs::read_to_string(root().join(table)).unwrap());
            let forward = count(&output, "forward");
            assert!(forward <= most, "{board}: {forward} instructions");
        }
    }

    /// Every image takes the same number of instructions.
    #[test]
    #[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
    fn instructions_do_not_depend_on_the_image() {
        for board in [
            "mps2-an386-int8",
            "mps2-an505-int8",
            "microbit-int8",
            "stm32vldiscovery-int8",
        ] {
            let output = counted(board, &weights_of(board));
            let counts = (0..10).map(|image: u32| count(&output, &format!("image {image}")));
            let counts: Vec<u64> = counts.collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            println!("{board}: {least} to {most} instructions");
            assert_eq!(least, most, "{board}: {counts:?}");
        }
    }

    /// The instructions of `lenet-asm` must give the same results as their equivalents in plain Rust. `firmware/src/bin/smlad.rs`
    /// describes how to check all operands.
    #[test]
    #[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
    fn instructions_equal_their_equivalents_in_rust() {
        for board in ["mps2-an386-int8", "mps2-an500-int8", "mps2-an505-int8"] {
            let run = run(board, &["smlad"], None, &[]);
            run.ends("ok", 0);
            assert!(
                run.output.contains("4103680 sampled operands"),
                "{}",
                run.output
            );
        }
    }

    /// Checks the size of the statics and of the used stack of `infer`, which measures the latter by a fill pattern.
    #[test]
    #[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
    fn the_ram_of_infer_is_small() {
        for (board, _) in INT8 {
            let (statics, stack) = ram_of_infer(board);
            println!("{board}: {statics} bytes of statics, {stack} of stack");
            assert!(
                statics + stack <= 4096,
                "{board}: {statics} + {stack} bytes"
            );
        }
    }

    /// Checks the flash that `infer` and the weights file need, without the eleven images in flash.
    #[test]
    #[ignore = "needs the firmware images: see ci.sh"]
    fn infer_and_the_weights_are_small() {
        let images = (CLASSES + 1) * size_of::<Pixels>();
        let code = Size::of(&elf("microbit-int8", "infer")).flash - images as u64;
        let weights = fs::metadata(weights_of("microbit-int8")).unwrap().len();
        println!("microbit: {code} bytes of code, {weights} of weights");
        assert!(code + weights <= INFER_BYTES, "{code} + {weights} bytes");
    }

    #[test]
    #[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
    fn weights_of_the_other_number_format_are_rejected() {
        for (board, weights, message) in [
            (
                "microbit-int8",
                "data/lenet.weights",
                "f32, this program reads int8",
            ),
            (
                "microbit",
                "data/lenet-int8.weights",
                "int8, this program reads f32",
            ),
        ] {
            let run = run(board, &["infer"], Some(&root().join(weights)), &[]);
            run.ends(&format!("error: weights: its parameters are {message}"), 1);
        }
    }
}

/// A 32-bit RISC-V without a floating-point unit must give the same bits with the kernels for microcontrollers, which need little
/// stack.
#[test]
#[ignore = "needs qemu-system-riscv32 and the image of firmware/riscv: see ci.sh"]
fn riscv_gives_the_same_bits_as_the_host() {
    let output = logits_are_the_hosts(RISCV, 100);
    println!("{output}");
    let stack = output
        .lines()
        .find_map(|line| line.strip_prefix("self-test passed, forward takes "))
        .and_then(|line| line.strip_suffix(" bytes of stack"))
        .and_then(|bytes| bytes.parse::<u32>().ok());
    assert!(stack.expect("it says so") <= 1024, "{output}");
}

#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn damaged_weights_are_refused_at_boot() {
    let (file, len) = read_weights(&weights_file());
    let damaged = |name: &str, damage: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = file.0[..len].to_vec();
        damage(&mut bytes);
        let path = scratch(name);
        fs::write(&path, &bytes).unwrap();
        let run = run("mps2-an386", &["infer"], Some(&path), &[]);
        assert_eq!(run.code, 1, "{}", run.output);
        assert!(
            !run.output.contains("us\n"),
            "an image was classified:\n{}",
            run.output
        );
        run.output.lines().last().unwrap_or_default().to_owned()
    };
    // Flip one bit at a time, at positions spread over the parameters. The tests on the host flip every bit.
    let bits = 8 * size_of::<Params>();
    for i in 0..40 {
        let bit = i * (bits - 1) / 39;
        let last = damaged("flipped.weights", &|bytes| {
            bytes[PARAMS_OFFSET + bit / 8] ^= 1 << (bit % 8)
        });
        assert!(
            last.starts_with("error: weights: damaged: checksum "),
            "bit {bit}: {last}"
        );
    }
    let last = damaged("magic.weights", &|bytes| bytes[0] = b'X');
    assert_eq!(
        last,
        "error: weights: not a LeNet weights file (starts with 58 4e 45 54)"
    );
    let last = damaged("version.weights", &|bytes| bytes[4] = 9);
    assert_eq!(last, "error: weights: file format 9, this program reads 2");
    let last = damaged("numbers.weights", &|bytes| bytes[5] = 7);
    assert_eq!(
        last,
        "error: weights: its parameters are numbers of kind 7, this program reads f32"
    );
    let last = damaged("network.weights", &|bytes| {
        bytes[8] ^= 1;
        bytes[20..52].fill(0);
        bytes[20..25].copy_from_slice(b"other");
    });
    assert_eq!(
        last,
        "error: weights: a file of the network `other`, this program is built for `lenet`; build it with LENET_NETWORK=other (or the path of its description)"
    );
    let last = damaged("cut.weights", &|bytes| bytes.truncate(1000));
    assert!(last.starts_with("error: weights: "), "{last}");
}

#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn missing_weights_are_reported() {
    run("mps2-an386", &["infer"], None, &[]).ends(
        "error: weights: not a LeNet weights file (starts with 00 00 00 00)",
        1,
    );
}

#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn evaluate_reports_what_it_cannot_read() {
    let weights = weights_file();
    let out = scratch("unread.logits");
    let out = out.to_str().unwrap();
    let cut = scratch("cut.idx");
    fs::write(&cut, &test_images()[..16 + 784 + 100]).unwrap();
    let board = "mps2-an386";
    let evaluate = |args: &[&str]| run(board, args, Some(&weights), &[]);
    evaluate(&["evaluate"]).ends("error: usage: evaluate IMAGES LOGITS [COUNT]", 1);
    evaluate(&["evaluate", "/no/such/file", out]).ends("error: cannot open IMAGES", 1);
    evaluate(&["evaluate", cut.to_str().unwrap(), out])
        .ends("error: IMAGES ends before its last image", 1);
    evaluate(&["evaluate", cut.to_str().unwrap(), out, "1"]).ends("ok", 0);
    evaluate(&["evaluate", cut.to_str().unwrap(), "/no/such/folder/x"])
        .ends("error: cannot create LOGITS", 1);
    let gz = root().join("data/fashion-mnist/t10k-images-idx3-ubyte.gz");
    evaluate(&["evaluate", gz.to_str().unwrap(), out]).ends(
        "error: IMAGES is not an uncompressed IDX file of images of the network's size",
        1,
    );
}

/// `evaluate` must measure correctly when a run takes more than 2³² ticks, which are 25.6 s at 168 MHz. With `-icount`, the
/// emulated time of an image does not depend on the machine that runs the test.
#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn a_long_run_is_timed_correctly() {
    let (idx, out) = (scratch("long.idx"), scratch("long.logits"));
    fs::write(&idx, test_images()).unwrap();
    let weights = weights_file();
    let ms = |images: u64| -> u64 {
        let count = images.to_string();
        let args = ["evaluate", idx.to_str().unwrap(), out.to_str().unwrap()];
        let args = [&args[..], &[&count]].concat();
        let icount = ["-icount", "shift=10"];
        let run = run("netduinoplus2", &args, Some(&weights), &icount);
        run.ends("ok", 0);
        println!("{}", run.output);
        let start = format!("{count} images in ");
        let line = run
            .output
            .lines()
            .find_map(|line| line.strip_prefix(&start));
        let ms = line.and_then(|line| line.strip_suffix(" ms"));
        ms.and_then(|ms| ms.parse().ok()).expect("it says the time")
    };
    let (few, many) = (ms(10), ms(100));
    assert!(many > (1 << 32) / 168_000, "{many} ms do not wrap");
    assert!(
        many.abs_diff(10 * few) * 100 <= 5 * many,
        "10 images in {few} ms, 100 in {many} ms"
    );
}

/// Returns the count in the line that begins with `name`.
fn count(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let count = line
        .and_then(|line| line.strip_prefix(' '))
        .and_then(|line| line.split(' ').next())
        .and_then(|count| count.parse().ok());
    count.unwrap_or_else(|| panic!("no count for {name} in\n{text}"))
}

/// Runs `bench` on `mps2-an386`, where an instruction takes 128 ns.
fn bench(weights: &Path) -> String {
    counted("mps2-an386", weights)
}

/// Runs `bench` with `-icount`, so that it counts instructions.
fn counted(board: &str, weights: &Path) -> String {
    let run = run(
        board,
        &["bench", "icount", "7"],
        Some(weights),
        &["-icount", "shift=7"],
    );
    run.ends("ok", 0);
    assert!(
        run.output.contains("no cycle counter here"),
        "{}",
        run.output
    );
    run.output
}

fn instruction_table() -> String {
    fs::read_to_string(root().join("tests/tests/firmware-instructions.txt")).unwrap()
}

/// Compares the instructions per layer on `mps2-an386`, as `bench` counts them, with the table. Each layer may exceed it by 3 %.
/// The next test compares the whole forward pass exactly.
#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn instructions_stay_within_the_table() {
    within(&bench(&weights_file()), &instruction_table());
}

/// Asserts that the count of each layer is at most 3 % above that of the table.
fn within(output: &str, table: &str) {
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    for line in rows.filter(|line| !line.starts_with("forward ")) {
        let name = line.split(' ').next().unwrap_or_default();
        let (expected, found) = (count(table, name), count(output, name));
        println!("{name} {found} instructions, {expected} in the table");
        assert!(
            found * 100 <= expected * 103,
            "{name}: {found} instructions, more than 3 % above the {expected} of the table"
        );
    }
}

/// The forward pass must take exactly the same number of instructions for all pictures and weights. This test uses ten pictures
/// with each of four weights files. The number of cycles may still vary, because a core may need more cycles for one division or
/// fetch than for another.
#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn forward_takes_the_same_instructions_for_every_picture_and_all_weights() {
    const PICTURES: usize = 10;
    let trained = WeightsFile::load(&weights_file()).unwrap();
    let trained = trained.weights();
    let constant = |value: f32| {
        let mut params: Box<Params> = bytemuck::zeroed_box();
        params.as_flat_mut().fill(value);
        params
    };
    let files = [
        ("trained", Box::new(*trained.params)),
        ("zero", constant(0.0)),
        // The largest sums are still finite, and the input of every sigmoid is far outside the range of its exponential.
        ("huge", constant(1e30)),
        ("negative", constant(-0.5)),
    ];
    let mut counts = Vec::new();
    for (name, params) in files {
        let path = scratch(&format!("{name}.weights"));
        let file = WeightsFile::encode(&params, &trained.metadata).unwrap();
        fs::write(&path, file.bytes()).unwrap();
        let output = bench(&path);
        let of_image = |index| (name, index, count(&output, &format!("image {index}")));
        counts.extend((0..PICTURES).map(of_image));
        println!("{name}: forward {} instructions", count(&output, "forward"));
    }
    let (_, _, first) = counts[0];
    let others: Vec<_> = counts
        .iter()
        .filter(|(_, _, count)| *count != first)
        .collect();
    assert!(
        others.is_empty(),
        "{:?} has {first} instructions, but {others:?}",
        counts[0]
    );
    assert_eq!(
        first,
        count(&instruction_table(), "forward"),
        "the table's count"
    );
}

/// Every image must fit into its board and into the space that `build.rs` requires of a board.
#[test]
#[ignore = "needs the firmware images: see ci.sh"]
fn every_image_fits_its_board() {
    println!(
        "{:<22}{:<11}{:>8}{:>11}{:>9}{:>10}",
        "board", "program", "flash", "of", "statics", "of"
    );
    let emulated = EMULATED.into_iter().chain(INT8);
    let emulated = emulated.map(|(board, _)| (board, 0));
    for (board, extra) in emulated.chain(REAL.map(|board| (board, REAL_BYTES))) {
        let room = room(match board.ends_with("-int8") {
            true => Numbers::Int8,
            false => Numbers::F32,
        });
        let folder = machine(board);
        for program in PROGRAMS {
            let size = Size::of(&elf(board, program));
            let script =
                fs::read_to_string(root().join(format!("firmware/boards/{folder}/memory.x")))
                    .unwrap();
            let region = |name| length(&script, name).unwrap();
            let [flash, ram] = ["FLASH", "RAM"].map(region);
            assert!(region("WEIGHTS") >= room.weights && region("STACK") >= room.stack);
            println!(
                "{board:<22}{program:<11}{:>8}{flash:>11}{:>9}{ram:>10}",
                size.flash, size.ram
            );
            assert!(
                size.flash <= flash.min(room.code),
                "{board} {program}: {} bytes of flash",
                size.flash
            );
            assert!(
                size.ram <= ram.min(room.statics + extra),
                "{board} {program}: {} bytes of statics",
                size.ram
            );
        }
    }
}

/// Checks the flash that `infer` needs on the default board, without the weights and the eleven images. The HAL takes a sixth of
/// it.
#[test]
#[ignore = "needs the firmware images: see ci.sh"]
fn the_code_of_infer_is_small() {
    let images = (CLASSES + 1) * size_of::<Image>();
    let code = Size::of(&elf("microbit-v2", "infer")).flash - images as u64;
    println!("microbit-v2: {code} bytes of code");
    assert!(code <= 27 * 1024, "{code} bytes");
}

/// Checks the size of the statics and of the used stack that `infer` reports. In QEMU, it has no log buffer.
#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn the_ram_of_infer_is_small() {
    let (statics, stack) = ram_of_infer("mps2-an386");
    println!("{statics} bytes of statics, {stack} of stack");
    assert!(statics + stack <= 6 * 1024, "{statics} + {stack} bytes");
}

/// Returns the bytes of statics and of stack that `infer` reports.
fn ram_of_infer(board: &str) -> (u32, u32) {
    let run = run(board, &["infer"], Some(&weights_of(board)), &[]);
    let line = run
        .output
        .lines()
        .find(|line| line.starts_with("RAM: "))
        .expect("infer reports its RAM");
    let numbers: Vec<u32> = line
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let [statics, 0, stack] = numbers[..] else {
        panic!("{line}")
    };
    (statics, stack)
}

/// `panic_free` links only if no panic can be reached; check that it really contains no panic.
#[test]
#[ignore = "needs the firmware images: see ci.sh"]
fn the_path_to_the_logits_has_no_panic() {
    let emulated = EMULATED.into_iter().chain(INT8).map(|(board, _)| board);
    for board in emulated.chain(REAL) {
        let bytes = fs::read(elf(board, "panic_free")).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let mut names: Vec<&str> = file
            .symbols()
            .filter_map(|symbol| symbol.name().ok())
            .collect();
        assert!(
            names.iter().any(|name| name.contains("forward")),
            "{board}: symbols are missing"
        );
        names.retain(|name| {
            [
                "panicking",
                "rust_begin_unwind",
                "slice_index_fail",
                "unwrap_failed",
                "expect_failed",
            ]
            .iter()
            .any(|panic| name.contains(panic))
        });
        assert!(names.is_empty(), "{board}: {names:?}");
    }
}

/// The flash that `infer` and an int8 weights file may take together: 3 % more than the 73,253 bytes that they take now.
const INFER_BYTES: u64 = 75_450;

/// The space that `firmware/build.rs` requires of a board.
#[path = "../../firmware/room.rs"]
mod room;
use room::{REAL_BYTES, length, room};

/// The size of an image in bytes, without the weights.
struct Size {
    flash: u64,
    ram: u64,
}

impl Size {
    fn of(elf: &Path) -> Self {
        let bytes = fs::read(elf).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let sum = |names: &[&str]| -> u64 {
            let named = |section: &object::Section<'_, '_>| {
                section.name().is_ok_and(|name| names.contains(&name))
            };
            file.sections()
                .filter(named)
                .map(|section| section.size())
                .sum()
        };
        Self {
            flash: sum(&[
                ".boot2",
                ".vector_table",
                ".start_block",
                ".text",
                ".rodata",
                ".data",
            ]),
            ram: sum(&[".data", ".bss", ".uninit"]),
        }
    }
}
