//! Faults of the processor, weights that the firmware must refuse, and what `evaluate` reports.

use super::*;
use lenet_core::network::{Net, Params};
use lenet_core::weights::{PARAMS_OFFSET, max_len};

const MAX_LEN: usize = max_len::<Net>();

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

macro_rules! faults_on_each_board {
    ($($name:ident: $board:expr),*) => {$(
        #[test]
        #[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
        fn $name() {
            faults_end_in_a_message($board);
        }
    )*};
}

faults_on_each_board!(
    faults_on_an386: EMULATED[0].0,
    faults_on_an500: EMULATED[1].0,
    faults_on_an505: EMULATED[2].0,
    faults_on_netduinoplus2: EMULATED[3].0,
    faults_on_microbit: EMULATED[4].0,
    faults_on_the_smallest_board: "stm32vldiscovery-int8"
);

/// The bytes of a file at an address that is a multiple of four.
#[repr(align(4))]
struct Aligned([u8; MAX_LEN]);

fn read_weights(path: &Path) -> (Box<Aligned>, usize) {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut aligned = Box::new(Aligned([0; MAX_LEN]));
    aligned.0[..bytes.len()].copy_from_slice(&bytes);
    (aligned, bytes.len())
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
