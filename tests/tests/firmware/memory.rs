//! The flash and the RAM of the images, and the absence of panics.

use super::*;
use lenet_core::Numbers;
use lenet_core::network::{CLASSES, Image, Pixels};
use lenet_test_support::tolerance::assert_count;
use object::read::ObjectSection;

const PROGRAMS: [&str; 6] = ["infer", "serve", "bench", "evaluate", "fault", "panic_free"];

/// The space that `firmware/build.rs` requires of a board.
#[path = "../../../firmware/room.rs"]
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

/// Returns the numbers of the last row with this name in the tables of `firmware/RESULTS.md`.
fn stated(name: &str) -> Vec<u64> {
    let results = fs::read_to_string(root().join("firmware/RESULTS.md")).unwrap();
    let start = format!("| {name} |");
    let mut rows = results.lines().filter_map(|line| line.strip_prefix(&start));
    let row = rows.next_back().unwrap_or_else(|| panic!("no row {name}"));
    row.split('|')
        .filter_map(|cell| cell.trim().replace(',', "").parse().ok())
        .collect()
}

/// Every image must fit into its board and into the space that `build.rs` requires of a board. The flash and the statics
/// of `infer` must be at most 3 % above those that `firmware/RESULTS.md` states.
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
            if program == "infer" && !board.ends_with("-int8") {
                let row = stated(&format!("`{board}`"));
                assert_count(&format!("flash of infer on {board}"), size.flash, row[0]);
                assert_count(&format!("statics of infer on {board}"), size.ram, row[2]);
            }
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
    let (statics, stack) = ram_of_infer("mps2-an386", &weights_file());
    println!("{statics} bytes of statics, {stack} of stack");
    assert!(statics + stack <= 6 * 1024, "{statics} + {stack} bytes");
}

/// Returns the bytes of statics and of stack that `infer` reports.
pub fn ram_of_infer(board: &str, weights: &Path) -> (u32, u32) {
    let run = run(board, &["infer"], Some(weights), &[]);
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

/// Checks the size of the statics and of the used stack of `infer`, which measures the latter by a fill pattern.
#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn the_ram_of_infer_in_int8_is_small() {
    for (board, _) in INT8 {
        let (statics, stack) = ram_of_infer(board, &weights_of(board));
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
    let stated = stated("the same with the weights file (47,593 bytes)")[0];
    assert_count("flash of infer on microbit", code + weights, stated);
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
