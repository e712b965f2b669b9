//! Tests the command line: every command on small data sets, and every invalid input, with the exact message and exit code.
//!
//! These tests are not in the package `tests`, because Cargo tells only the tests of the same package where a binary is.

#![cfg(feature = "program")]

#[path = "cli/classes.rs"]
mod classes;
#[cfg(all(feature = "cuda", target_os = "linux", target_arch = "x86_64"))]
#[path = "cli/cuda.rs"]
mod cuda;
#[cfg(target_os = "linux")]
#[path = "cli/device.rs"]
mod device;
#[path = "cli/imports.rs"]
mod imports;
#[path = "cli/int8.rs"]
mod int8;
#[cfg(target_os = "linux")]
#[path = "cli/paths.rs"]
mod paths;
mod place;
#[path = "cli/refusals.rs"]
mod refusals;
#[cfg(target_os = "linux")]
#[path = "cli/threads.rs"]
mod threads;
#[path = "cli/training.rs"]
mod training;

use place::{Place, TRAIN, values};
use trainer::weights_file::WeightsFile;

#[test]
fn exported_weights_can_be_imported_and_trained_further() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --out run"));
    place.good("export run/lenet.weights --format safetensors --out net.safetensors");
    place.good("import net.safetensors --out again.weights");
    place.good("export again.weights --format safetensors --out again.safetensors");
    assert!(place.read("net.safetensors") == place.read("again.safetensors"));
    place.good("export run/lenet.weights --format onnx --out net.onnx");
    place.good("import net.onnx --out onnx.weights");
    place.good("export onnx.weights --format safetensors --out onnx.safetensors");
    assert!(place.read("net.safetensors") == place.read("onnx.safetensors"));
    let about = place.good("summary net.onnx");
    assert!(about.contains("imported from ONNX"), "{about}");
    for (run, init) in [
        ("x", "run/lenet.weights"),
        ("y", "net.safetensors"),
        ("z", "net.onnx"),
    ] {
        place.good(&format!("{TRAIN} --max-steps 2 --init {init} --out {run}"));
        assert!(place.read("x/lenet.weights") == place.read(&format!("{run}/lenet.weights")));
    }
    place.good("export run/lenet.weights --format c --out lenet_weights.h");
    let header = place.text("lenet_weights.h");
    let declared = "\nstatic const float lenet_fc1_weight[120][256] = {";
    assert!(header.contains(declared), "{header}");
}

#[test]
fn evaluate_agrees_for_every_device_and_file_format() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --max-steps 2 --out run"));
    place.good("export run/lenet.weights --format safetensors --out net.safetensors");
    let expected = place.good("evaluate run/lenet.weights --data letters");
    let (accuracy, counts) = expected
        .strip_prefix("test acc ")
        .and_then(|rest| rest.split_once(" ("))
        .unwrap();
    let correct: f64 = counts.strip_suffix(" of 30)\n").unwrap().parse().unwrap();
    assert_eq!(accuracy, format!("{:.4}", correct / 30.0));
    for device in ["core", "cpu", "reference"] {
        let out = place.good(&format!(
            "evaluate net.safetensors --data letters --device {device}"
        ));
        assert_eq!(out, expected, "{device}");
    }
    let train = place.good(
        "evaluate run/lenet.weights --data letters --split train --logits logits.safetensors",
    );
    assert!(
        train.starts_with("train acc ") && train.ends_with(" of 96)\n"),
        "{train}"
    );
    let bytes = place.read("logits.safetensors");
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let logits = file.tensor("logits").unwrap();
    assert_eq!(
        (logits.shape(), logits.dtype()),
        (&[96, 10][..], safetensors::Dtype::F32)
    );
}

#[test]
fn compare_names_what_differs_and_where() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --max-steps 1 --out run"));
    place.good("export run/lenet.weights --format onnx --out net.onnx");
    place.good("evaluate net.onnx --data letters --logits logits.safetensors");
    for other in ["net.onnx", "logits.safetensors"] {
        let out = place.good(&format!(
            "compare run/lenet.weights {other} --data letters --per-layer"
        ));
        assert!(
            out.ends_with("\n0 of 30 images change class\nequal bit for bit\n"),
            "{out}"
        );
        assert_eq!(out.contains("fc1_weight"), other == "net.onnx", "{out}");
        assert_eq!(out.contains(" conv1 "), other == "net.onnx", "{out}");
    }

    let weights = WeightsFile::load(&place.path("run/lenet.weights")).unwrap();
    let mut params = *weights.weights().params;
    values(&mut params, "fc3_bias")[3] += 0.5;
    place.write(
        "other.safetensors",
        &trainer::safetensors::write_params(&params),
    );
    let compare = "compare run/lenet.weights other.safetensors --data letters --images 7";
    place.refused(
        compare,
        3,
        "run/lenet.weights and other.safetensors differ: fc3_bias by up to 5.00e-1, first at element 3; \
         --tolerance is 0",
    );
    let out = place.good(&format!("{compare} --tolerance 0.51"));
    assert!(
        out.ends_with(" of 7 images change class\nwithin 0.51\n"),
        "{out}"
    );
    place.refused(
        "compare other.safetensors logits.safetensors --data letters --tolerance 0.25",
        3,
        "other.safetensors and logits.safetensors differ: logits by up to 5.00e-1, first at image 0, element 3; \
         --tolerance is 0.25",
    );
    place.refused(
        "compare run/lenet.weights logits.safetensors --data letters --images 31",
        2,
        "--images 31: run/lenet.weights has 30 images",
    );
    place.unusable(
        "compare a b --tolerance nan",
        "invalid value 'nan' for '--tolerance <F>': must be 0 or above, and finite",
    );
}

#[test]
fn summary_shows_the_network_and_the_metadata_of_the_file() {
    let place = Place::new();
    let table = place.good("summary");
    for part in ["conv1", "6x12x12", "44,426", "281,640", "5,336"] {
        assert!(table.contains(part), "{part} in {table}");
    }
    place.good(&format!("{TRAIN} --max-steps 1 --out run --seed 9"));
    let about = place.good("summary run/lenet.weights");
    for part in [
        "self-test passed",
        "data set       letters",
        "seed           9",
        "batch size     32",
    ] {
        assert!(about.contains(part), "{part} in {about}");
    }
}

/// When `head` has closed the pipe, the program ends quietly, as others do. But a full disk is an error.
#[cfg(unix)]
#[test]
fn a_closed_output_ends_the_program_quietly() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --max-steps 1 --out run"));
    for arguments in [
        "bench --data letters --batch-size 32 --epochs 1",
        "compare run/lenet.weights run/lenet.weights --data letters",
        "completions bash",
        "data check --data letters",
        "data show --data letters --out sheet.png",
        "doctor --data letters",
        "evaluate run/lenet.weights --data letters --confusion",
        "export run/lenet.weights --format c --out lenet.h",
        "import run/lenet.weights --out new.weights",
        "man --out man1",
        "predict run/lenet.weights --data letters --index 0",
        "report run",
        "summary",
    ] {
        let quiet = (Some(141), String::new());
        assert_eq!(place.unread(arguments), quiet, "{arguments}");
    }
    #[cfg(target_os = "linux")]
    {
        let full = std::fs::File::create("/dev/full").unwrap();
        let run = place.process("summary").stdout(full).output().unwrap();
        let said =
            "error: standard output: cannot be written: No space left on device (os error 28)\n";
        assert_eq!(run.status.code(), Some(1));
        assert_eq!(String::from_utf8(run.stderr).unwrap(), said);
    }
}

#[test]
fn completions_and_manual_pages_contain_every_command() {
    let place = Place::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = place.good(&format!("completions {shell}"));
        for word in ["evaluate", "per-layer", "batch-size"] {
            assert!(script.contains(word), "{word} for {shell}");
        }
    }
    place.unusable("completions tcsh", "invalid value 'tcsh' for '<SHELL>'");
    place.good("man --out man1");
    let pages = place.list("man1");
    for page in ["trainer.1", "trainer-train.1", "trainer-device-evaluate.1"] {
        assert!(pages.iter().any(|name| name == page), "{page} in {pages:?}");
    }
    let page = place.text("man1/trainer-compare.1");
    assert!(page.contains(".TH trainer-compare 1"), "{page}");
    place.refused(
        "man --out man1",
        1,
        "man1/trainer.1: already exists and is not overwritten; choose another name or remove it",
    );
    // All pages are written or none, even if the page that exists is one of the last.
    std::fs::create_dir(place.path("man2")).unwrap();
    place.write("man2/trainer-report.1", b"mine");
    for (out, there) in [
        ("man2", "man2/trainer-report.1"),
        ("man2/trainer-report.1", "man2/trainer-report.1"),
    ] {
        place.refused(
            &format!("man --out {out}"),
            1,
            &format!(
                "{there}: already exists and is not overwritten; choose another name or remove it"
            ),
        );
    }
    assert_eq!(place.list("man2"), ["trainer-report.1"]);
}

/// Parses a JSON object, and checks that some fields have these values and that others are positive numbers.
fn figures(json: &str, exact: &[(&str, u32)], measured: &[&str]) -> serde_json::Value {
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    for (field, value) in exact {
        assert_eq!(json[field], *value, "{field} in {json}");
    }
    for field in measured {
        assert!(json[field].as_f64().unwrap() > 0.0, "{field} in {json}");
    }
    json
}

#[test]
fn bench_prints_every_figure_as_text_and_as_json() {
    let place = Place::new();
    let bench = "bench --data letters --batch-size 32 --epochs 1 --threads 2";
    let table = place.good(bench);
    for part in [
        ", 2 threads)",
        "training step",
        "epoch",
        "evaluation",
        "lenet_core::forward",
        "conv1 forward",
        "conv2 forward",
        "fc1 forward",
        "conv2 backward",
        "conv1 backward",
        "gradients of linear weights, Adam",
        "data",
        "463,320 multiply-adds",
    ] {
        assert!(table.contains(part), "{part} in {table}");
    }
    let json = figures(
        &place.good(&format!("{bench} --json")),
        &[
            ("threads", 2),
            ("batch_size", 32),
            ("images", 96),
            ("evaluation_images", 30),
        ],
        &[
            "step_ms",
            "epoch_s",
            "images_per_s",
            "gflops",
            "peak_gflops_one_thread",
            "peak_gflops",
            "share_of_peak",
            "evaluation_ms",
            "forward_us",
        ],
    );
    assert!(json["waiting_us"].is_f64(), "{json}");
    let phases = json["phases"].as_array().unwrap();
    assert_eq!(phases.len(), 13);
    for phase in phases {
        assert!(
            phase["phase"].is_string() && phase["us"].as_f64().unwrap() > 0.0,
            "{json}"
        );
        assert!(
            phase["gflops"].is_f64() && phase["share_of_peak"].is_f64(),
            "{json}"
        );
    }
}

/// Checks the table if everything is found, with programs that the test provides, and if nothing is. Training needs only the data.
#[cfg(unix)]
#[test]
fn doctor_lists_what_was_found_and_how_to_install_what_is_missing() {
    let place = Place::new();
    std::fs::create_dir(place.path("bin")).unwrap();
    for (program, says) in [
        ("qemu-system-arm", "QEMU emulator version 7.2"),
        ("probe-rs", "probe-rs 0.24"),
        ("rustc", "."), // Its folder of a target's libraries is the current one.
    ] {
        place.program(&format!("bin/{program}"), &format!("echo {says}"));
    }
    let doctor = |arguments: &str, path: &str| {
        let output = place
            .command(arguments)
            .env("PATH", place.path(path))
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let row = |table: &str, what: &str| {
        let row = table
            .lines()
            .find(|line| line.trim_start().starts_with(what))
            .unwrap();
        row.split_whitespace().collect::<Vec<_>>().join(" ")
    };

    let (code, table, err) = doctor("doctor --data letters", "bin");
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        row(&table, "data set"),
        "data set ok letters in letters: 96 training images, 30 test images"
    );
    assert!(row(&table, "cpu").starts_with("cpu ok "), "{table}");
    assert_eq!(row(&table, "QEMU"), "QEMU ok QEMU emulator version 7.2");
    assert_eq!(row(&table, "probe-rs"), "probe-rs ok probe-rs 0.24");
    let targets =
        "thumbv6m-none-eabi, thumbv7em-none-eabihf, thumbv7m-none-eabi, thumbv8m.main-none-eabihf";
    assert_eq!(
        row(&table, "Rust targets"),
        format!("Rust targets ok {targets}")
    );

    let (code, table, err) = doctor("doctor --data letters", "letters");
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let absent = "No such file or directory (os error 2)";
    for (what, program, remedy) in [
        (
            "QEMU",
            "qemu-system-arm",
            "to run firmware without a board: your package manager's qemu-system-arm",
        ),
        (
            "probe-rs",
            "probe-rs",
            "to flash a board: cargo install probe-rs-tools --locked",
        ),
        (
            "Rust targets",
            "rustc",
            "to build firmware: https://rustup.rs",
        ),
    ] {
        assert_eq!(
            row(&table, what),
            format!("{what} -- {program}: {absent} {remedy}")
        );
    }

    place.program("bin/rustc", "echo nowhere");
    let (_, table, _) = doctor("doctor --data letters", "bin");
    let missing = row(&table, "Rust targets");
    assert_eq!(
        missing,
        format!(
            "Rust targets -- no {targets} to build firmware: rustup target add {}",
            targets.replace(',', "")
        )
    );

    let (code, table, err) = doctor("doctor --data nowhere", "bin");
    assert_eq!(code, Some(1));
    assert_eq!(
        row(&table, "data set"),
        "data set -- not usable see the error below"
    );
    assert_eq!(
        err,
        "error: nowhere: no such folder; name the one of the data set with --data DIR\n"
    );
}
