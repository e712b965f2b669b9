//! Tests paths that are not valid UTF-8, and `-`, which stands for the standard output.

use crate::place::{FILES, Place, TRAIN, outcome};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Returns a name that is not valid UTF-8: `o`, an invalid byte, and `rest`.
fn name(rest: &str) -> OsString {
    OsString::from_vec([b"o\xff", rest.as_bytes()].concat())
}

/// Runs the program. `{}` in front of an argument stands for the beginning of such a name. Returns the exit code, the output and
/// the errors.
fn run(place: &Place, arguments: &str) -> (i32, String, String) {
    let mut command = place.process("");
    for word in arguments.split_whitespace() {
        match word.strip_prefix("{}") {
            Some(rest) => command.arg(name(rest)),
            None => command.arg(word),
        };
    }
    outcome(command.output().unwrap())
}

#[test]
fn a_path_that_is_not_valid_text_works_like_any_other() {
    let place = Place::new();
    let root = place.path(".");
    std::fs::rename(root.join("letters"), root.join(name("data"))).unwrap();
    let shown = "o\u{fffd}";
    for (arguments, says) in [
        (
            "--data {}data --batch-size 32 --epochs 2 --out {}run",
            "weights o\u{fffd}run/lenet.weights\n",
        ),
        (
            "--data {}data --batch-size 32 --epochs 1 --out {}json --log-format json",
            "\"run\":\"o\u{fffd}json\"",
        ),
        // Only the run knows the name of its data.
        (
            "--resume {}run --epochs 3",
            "going on after 2 epochs and 6 steps\n",
        ),
        ("report {}run", "report o\u{fffd}run/report.html\n"),
        (
            "evaluate {}run/lenet.weights --data {}data --logits {}logits",
            "test acc ",
        ),
        (
            "compare {}run/lenet.weights {}logits --data {}data",
            "equal bit for bit\n",
        ),
        (
            "export {}run/lenet.weights --format safetensors --out {}net",
            "wrote o\u{fffd}net (",
        ),
        ("import {}net --out {}weights", "wrote o\u{fffd}weights ("),
        (
            "--data {}data --batch-size 32 --max-steps 1 --init {}net --out {}tuned",
            "weights o\u{fffd}tuned/",
        ),
        ("summary {}weights", "o\u{fffd}weights: "),
        ("data check --data {}data", " in o\u{fffd}data\n"),
        (
            "data show --data {}data --out {}sheet.png",
            "wrote o\u{fffd}sheet.png (",
        ),
        (
            "doctor --data {}data",
            " in o\u{fffd}data: 96 training images",
        ),
        ("man --out {}man", " pages to o\u{fffd}man\n"),
    ] {
        let (code, out, err) = run(&place, arguments);
        assert_eq!((code, err.as_str()), (0, ""), "{arguments}: {out}");
        assert!(out.contains(says), "{arguments}: {out}");
    }
    let png = root.join(name("28.png"));
    image_of_28(&png);
    for format in ["", "--json"] {
        let (code, out, err) = run(&place, &format!("predict {{}}weights {{}}28.png {format}"));
        assert_eq!(code, 0, "{err}");
        assert!(out.contains(&format!("{shown}28.png")), "{out}");
    }
    // The errors are the same as for other paths.
    for (arguments, code, says) in [
        (
            "evaluate {}none --data {}data",
            1,
            "error: o\u{fffd}none: cannot be read: No such file",
        ),
        (
            "--data {}nowhere",
            1,
            "error: o\u{fffd}nowhere: no such folder",
        ),
        (
            "--resume {}nowhere",
            1,
            "error: o\u{fffd}nowhere/last.checkpoint: cannot be read: ",
        ),
        (
            "--data {}data --batch-size 32 --out {}run",
            1,
            "error: o\u{fffd}run: already exists",
        ),
        (
            "device info --port {}port",
            2,
            "error: invalid UTF-8 was detected",
        ),
        (
            "device info --qemu --elf {}elf",
            1,
            "error: o\u{fffd}elf: no such image",
        ),
        (
            "{}command",
            2,
            "error: unrecognized subcommand 'o\u{fffd}command'",
        ),
        ("--seed {}1", 2, "error: invalid UTF-8 was detected"),
    ] {
        let (found, _, err) = run(&place, arguments);
        assert_eq!(found, code, "{arguments}: {err}");
        assert!(err.starts_with(says), "{arguments}: {err}");
    }
}

/// The working directory, the temporary folder and environment variables may contain such a name too.
#[test]
fn the_environment_may_contain_invalid_text_too() {
    let place = Place::new();
    let folder = place.path(".").join(name(""));
    std::fs::create_dir(&folder).unwrap();
    for file in FILES {
        std::fs::copy(place.path("letters").join(file), folder.join(file)).unwrap();
    }
    let mut command = place.process("--batch-size 32 --max-steps 1 --out ../run");
    command.current_dir(&folder).env("LENET_DATA", &folder);
    let (code, _, err) = outcome(command.output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""));
    let mut command = place.process("--resume ../run --max-steps 2");
    command.current_dir(&folder);
    let (code, _, err) = outcome(command.output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""));
    let mut command = place.process("evaluate ../run/lenet.weights --data . --device cpu");
    command
        .current_dir(&folder)
        .env("LENET_ISA", OsStr::from_bytes(b"\xff"));
    let (code, _, err) = outcome(command.output().unwrap());
    assert_eq!(code, 1);
    assert!(err.starts_with("error: LENET_ISA: "), "{err}");
    place.write("elf", b"");
    let mut command = place.process("device info --qemu --elf elf");
    std::fs::create_dir(place.path("bin")).unwrap();
    place.program("bin/qemu-system-arm", "echo hello; exit 1");
    let output = command
        .env("PATH", place.path("bin"))
        .env("TMPDIR", &folder);
    let (code, _, err) = outcome(output.output().unwrap());
    assert_eq!(
        (code, err.as_str()),
        (
            1,
            "error: mps2-an386: failed with exit code 1; its last line: hello\n"
        )
    );
}

/// With `-`, the standard output must contain the bytes of the file and nothing else.
#[test]
fn a_dash_is_the_standard_output() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --max-steps 1 --out run"));
    for (command, file) in [
        (
            "export run/lenet.weights --format safetensors",
            "net.safetensors",
        ),
        ("export run/lenet.weights --format c", "lenet.h"),
        ("import net.safetensors", "again.weights"),
        ("data show --data letters", "sheet.png"),
    ] {
        place.good(&format!("{command} --out {file}"));
        let before = place.list(".");
        let output = place
            .command(&format!("{command} --out -"))
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{command}"
        );
        assert!(output.stdout == place.read(file), "{command}");
        assert_eq!(place.list("."), before, "{command}");
        assert_eq!(
            place.unread(&format!("{command} --out -")),
            (Some(141), String::new())
        );
    }
    let other = "this cannot go to the standard output; for something of that name write ./-";
    for (command, option) in [
        (
            "train --data letters --batch-size 32 --out -",
            "--out <DIR>",
        ),
        (
            "evaluate run/lenet.weights --data letters --logits -",
            "--logits <FILE>",
        ),
        ("man --out -", "--out <DIR>"),
    ] {
        place.unusable(
            command,
            &format!("invalid value '-' for '{option}': {other}"),
        );
    }
    for command in [
        "train --data letters --out",
        "export run/lenet.weights --format c --out",
    ] {
        let output = place.process(command).arg("").output().unwrap();
        let (code, _, err) = outcome(output);
        assert_eq!(code, 2);
        assert!(
            err.starts_with("error: a value is required for '--out <"),
            "{err}"
        );
    }
    place.good(&format!("{TRAIN} --max-steps 1 --out ./-"));
    assert!(place.path("-/lenet.weights").exists());
}

fn image_of_28(path: &std::path::Path) {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image =
        image::GrayImage::from_fn(28, 28, |x, _| image::Luma([if x < 14 { 0 } else { 250 }]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    std::fs::write(path, bytes.into_inner()).unwrap();
}
