//! The cost of an image in instructions, which QEMU counts exactly, and the time that `evaluate` reports.

use super::agreement::{random_params, write_weights};
use super::memory::ram_of_infer;
use super::*;
use lenet_core::Network;
use lenet_core::network::Params;
use lenet_test_support::networks::{lenet, lenet_d2l, relu, tiny};
use lenet_test_support::tolerance::assert_count;
use trainer::weights_file::WeightsFile;

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
        assert_count(
            &format!("instructions of {name}"),
            count(output, name),
            count(table, name),
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

/// Compares the instructions and the RAM of each network that classifies pictures of Fashion-MNIST with the table of the book.
#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn the_cost_of_each_network_is_that_of_the_book() {
    fn check<N: Network>(board: &str) {
        let book = fs::read_to_string(root().join("docs/src/your-own-network.md")).unwrap();
        let row = book
            .lines()
            .filter(|line| line.starts_with(&format!("| `{}` |", N::NAME)))
            .next_back();
        let cells: Vec<_> = row.unwrap().split('|').map(str::trim).collect();
        let stated = |column: usize| cells[column].replace(',', "").parse::<u64>().unwrap();

        let weights = scratch(&format!("cost-of-{}.weights", N::NAME));
        write_weights::<N>(&weights, &random_params::<N>());
        let instructions = count(&counted(board, &weights), "forward");
        let (statics, stack) = ram_of_infer(board, &weights);
        println!(
            "{}: {instructions} instructions, {statics} + {stack} bytes",
            N::NAME
        );
        // The code can depend slightly on the debug information and on the folder in which the program is compiled.
        assert!(instructions.abs_diff(stated(4)) * 100 <= stated(4));
        assert!(u64::from(statics + stack).abs_diff(stated(5)) <= 64);
    }
    check::<lenet::Net>("mps2-an386");
    check::<lenet_d2l::Net>("mps2-an386+lenet-d2l");
    check::<relu::Net>("mps2-an386+relu");
    check::<tiny::Net>("mps2-an386+tiny");
}

/// Counts the instructions per image in int8. Each layer may exceed the table by 3 %, and the sum may not exceed what the README
/// states.
#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn int8_instructions_stay_within_the_tables() {
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

/// In int8, every image takes the same number of instructions.
#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn int8_instructions_do_not_depend_on_the_image() {
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
