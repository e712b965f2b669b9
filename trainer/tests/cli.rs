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
#[cfg(target_os = "linux")]
#[path = "cli/threads.rs"]
mod threads;

use crc::{CRC_32_ISO_HDLC, Crc};
use lenet_core::plan::Description;
use lenet_core::weights::PARAMS_OFFSET;
use place::{AT_CHANCE, FILES, LEARNT, Place, TRAIN, idx, images, labels, values};
use trainer::weights_file::WeightsFile;

#[test]
fn a_run_prints_lines_like_the_course_and_writes_its_files() {
    let place = Place::new();
    let out = place.good(&format!("{TRAIN} --out run --seed 5 --threads 2"));
    assert!(
        out.contains("data letters: 96 training images, 30 test images\ntraining on cpu"),
        "{out}"
    );
    for epoch in 1..=2 {
        let start = format!("epoch {epoch}, ");
        let line = out.lines().find(|line| line.starts_with(&start)).unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let [
            _,
            _,
            "loss",
            loss,
            "train",
            "acc",
            train,
            "test",
            "acc",
            test,
            "time",
            time,
            "sec",
        ] = words[..]
        else {
            panic!("{line}");
        };
        for (number, decimals) in [(loss, 4), (train, 3), (test, 3)] {
            let number = number.strip_suffix(',').unwrap();
            assert!(number.parse::<f64>().unwrap() >= 0.0, "{line}");
            assert_eq!(
                number.split('.').nth(1).map(str::len),
                Some(decimals),
                "{line}"
            );
        }
        assert_eq!(time.split('.').nth(1).map(str::len), Some(1), "{line}");
    }
    assert!(
        out.contains("\nweights run/lenet.weights\nsha256 of the parameters "),
        "{out}"
    );

    assert_eq!(
        place.list("run"),
        [
            "config.toml",
            "confusion.png",
            "confusion.svg",
            "curves.png",
            "curves.svg",
            "filters.png",
            "filters.svg",
            "last.checkpoint",
            "lenet.weights",
            "metrics.csv",
            "report.html",
            "samples.png",
            "steps.csv",
        ]
    );
    let metrics = place.text("run/metrics.csv");
    assert_eq!(
        metrics.lines().next(),
        Some("epoch,train_loss,train_acc,test_acc,seconds")
    );
    assert_eq!(metrics.lines().count(), 1 + 2);
    let steps = place.text("run/steps.csv");
    assert_eq!(steps.lines().next(), Some("step,loss"));
    assert_eq!(steps.lines().count(), 1 + 2 * 3);
    let config = place.text("run/config.toml");
    for setting in [
        "epochs = 2",
        "batch_size = 32",
        "lr = 0.001",
        "seed = 5",
        "order = \"shuffled\"",
    ] {
        assert!(config.contains(setting), "{setting} in {config}");
    }
}

#[test]
fn the_default_folder_is_named_after_date_and_seed() {
    let place = Place::new();
    place.good(&format!("train {TRAIN} --max-steps 1 --seed 12"));
    let runs = place.list("runs");
    let [run] = runs.as_slice() else {
        panic!("{runs:?}")
    };
    let shape: String = run
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "00000000-000000-seed00");
    assert!(run.ends_with("-seed12"), "{run}");
}

#[test]
fn the_same_seed_gives_the_same_weights_for_any_threads() {
    let place = Place::new();
    for (run, options) in [
        ("a", "--threads 1"),
        ("b", "--threads 7"),
        ("c", "--threads 1 --seed 1"),
    ] {
        place.good(&format!("{TRAIN} --out {run} {options}"));
    }
    assert!(place.read("a/lenet.weights") == place.read("b/lenet.weights"));
    assert!(place.read("a/lenet.weights") != place.read("c/lenet.weights"));
}

#[test]
fn max_steps_counts_across_epochs_for_every_device_and_order() {
    let place = Place::new();
    for (run, options) in [
        ("a", "--device reference --order sequential"),
        ("b", "--device cpu --order shuffled"),
        ("c", "--device auto"),
    ] {
        let out = place.good(&format!("{TRAIN} --max-steps 4 --out {run} {options}"));
        assert!(out.contains("\nepoch 2, "), "{out}");
        assert_eq!(
            place.text(&format!("{run}/steps.csv")).lines().count(),
            1 + 4,
            "{run}"
        );
    }
}

#[test]
fn a_validation_split_selects_the_epoch_and_the_test_images_are_used_once() {
    let place = Place::new();
    place.good(&format!("{LEARNT} --out learnt"));
    // The learning rate is so small that nothing more is learnt, so the first epoch remains the best.
    let options =
        "--data letters --batch-size 32 --val-split 0.25 --lr 1e-12 --init learnt/lenet.weights";
    let out = place.good(&format!("{options} --epochs 50 --patience 3 --out run"));
    assert!(
        out.contains("\ndata letters: 72 training images, 24 validation images, 30 test images\n"),
        "{out}"
    );
    let epochs = |word: &str| out.lines().filter(|line| line.contains(word)).count();
    assert_eq!((epochs(", val acc "), epochs("test acc ")), (4, 1), "{out}");
    assert!(out.contains("\nbest epoch 1: val acc "), "{out}");
    assert!(out.contains("\nweights run/lenet.weights\n"), "{out}");
    let metrics = place.text("run/metrics.csv");
    assert!(metrics.starts_with("epoch,train_loss,train_acc,val_acc,seconds\n1,"));
    assert_eq!(metrics.lines().count(), 1 + 4);
    assert_eq!(place.text("run/steps.csv").lines().count(), 1 + 4 * 3);
    // The best parameters are those after the first epoch.
    place.good(&format!("{options} --epochs 1 --out first"));
    assert!(place.read("run/best.weights") == place.read("first/best.weights"));
    let about = place.good("summary run/best.weights");
    for part in [
        ", best epoch on 0.25 held out for validation",
        "epochs         1\n",
    ] {
        assert!(about.contains(part), "{part} in {about}");
    }
    assert!(place.read("run/lenet.weights") == place.read("run/best.weights"));
    place.refused(
        "--resume run --epochs 60",
        2,
        "ended after 4 epochs by --patience; continue with a larger one",
    );
    // With more patience, the run continues as if it had had this patience from the start.
    let out = place.good("--resume run --epochs 60 --patience 5");
    assert!(
        out.contains("\nepoch 5, ") && out.contains("\nepoch 6, ") && !out.contains("\nepoch 7, ")
    );
    assert!(place.text("run/config.toml").contains("patience = 5\n"));
    // The largest patience never ends.
    let out = place.good("--resume run --epochs 7 --patience 4294967295");
    assert!(out.contains("\nepoch 7, "), "{out}");
}

#[test]
fn patience_does_not_count_epochs_before_anything_is_learnt() {
    let place = Place::new();
    let flat = "--data letters --batch-size 32 --val-split 0.25 --lr 1e-12 --epochs 9 --patience 2";
    let output = place.command(&format!("{flat} --out flat")).output();
    let output = output.unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|s| String::from_utf8(s).unwrap());
    assert!(out.contains("\nepoch 9, "), "{out}");
    assert!(err.starts_with(AT_CHANCE), "{err}");
}

#[test]
fn quiet_prints_nothing_and_json_prints_one_object_per_line() {
    let place = Place::new();
    assert_eq!(place.good(&format!("{TRAIN} --quiet --out quiet")), "");
    // Without a terminal, there is neither a progress bar nor curves.
    let text = place.good(&format!("{TRAIN} --out text"));
    assert!(
        !text.contains(['\u{1b}', '\r']) && !text.contains("by epoch"),
        "{text}"
    );
    let out = place.good(&format!(
        "{TRAIN} --log-format json --val-split 0.25 --device cpu --out run"
    ));
    let objects: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let events: Vec<&str> = objects
        .iter()
        .map(|o| o["event"].as_str().unwrap())
        .collect();
    assert_eq!(events, ["start", "epoch", "epoch", "end"]);
    assert_eq!(objects[0]["run"], "run");
    assert_eq!(objects[0]["config"]["batch_size"], 32);
    assert_eq!(objects[0]["config"]["data"]["train"], 72);
    assert_eq!(objects[2]["epoch"], 2);
    assert!(objects[2]["val_acc"].is_number() && objects[2]["test_acc"].is_null());
    let [first, second] = [1, 2].map(|epoch| objects[epoch]["val_acc"].as_f64().unwrap());
    assert_eq!(objects[3]["best_epoch"], if second > first { 2 } else { 1 });
    let (correct, accuracy) = (&objects[3]["correct"], &objects[3]["test_acc"]);
    assert_eq!(correct.as_f64().unwrap() / 30.0, accuracy.as_f64().unwrap());
    assert_eq!(objects[3]["weights"], "run/lenet.weights");
}

#[test]
fn a_network_that_has_learnt_nothing_gives_a_warning() {
    let place = Place::new();
    let helps = "; try more --epochs or a smaller --batch-size\n";
    for (options, at_chance) in [(TRAIN, true), (LEARNT, false)] {
        for form in ["", "--quiet", "--log-format json"] {
            let mut command = place.command(&format!("{options} {form} --out run"));
            let output = command.output().unwrap();
            let [out, err] = [output.stdout, output.stderr].map(|s| String::from_utf8(s).unwrap());
            match at_chance {
                true => assert!(err.starts_with(AT_CHANCE) && err.ends_with(helps), "{err}"),
                false => assert_eq!(err, ""),
            }
            let told = out.contains(&format!("\"at_chance\":{at_chance}"));
            assert_eq!(told, form.ends_with("json"), "{out}");
            std::fs::remove_dir_all(place.path("run")).unwrap();
        }
    }
}

#[test]
fn training_on_a_single_class_gives_a_warning_and_no_advice() {
    let place = Place::new();
    for (file, count) in [(FILES[1], 96), (FILES[3], 30)] {
        let labels = idx(&[0x801, count], vec![3; count as usize]);
        place.write(&format!("letters/{file}"), &labels);
    }
    let (code, _, err) = place.run(&format!("{TRAIN} --out run"));
    let warning = "warning: all training images are of class 3, so there is nothing to learn: add images of other classes\n";
    assert!(code == 0 && err.ends_with(warning), "{err}");
}

#[test]
fn options_change_the_weights_and_are_recorded_in_the_file() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --out plain"));
    for (option, told) in [
        (
            "--lr-schedule cosine",
            ", cosine learning rate over 2 epochs",
        ),
        ("--weight-decay 0.5", ", weight decay 0.5"),
        ("--augment", ", shifted and mirrored images"),
        ("--average 2", ", mean over about the last 2 steps"),
    ] {
        place.good(&format!("{TRAIN} {option} --out run"));
        assert!(
            place.read("run/lenet.weights") != place.read("plain/lenet.weights"),
            "{option}"
        );
        let about = place.good("summary run/lenet.weights");
        assert!(about.contains(told), "{option}: {about}");
        std::fs::remove_dir_all(place.path("run")).unwrap();
    }
}

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

#[test]
fn nothing_is_overwritten() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --max-steps 1 --out run"));
    let file = "run/lenet.weights";
    let before = place.read(file);
    let listed = place.list("run");
    let taken = "already exists and is not overwritten; choose another name or remove it";
    // There is no message about a training if the training does not begin.
    assert_eq!(
        place.run(&format!("{TRAIN} --out run")),
        (1, String::new(), format!("error: run: {taken}\n"))
    );
    for command in [
        format!("export {file} --format safetensors --out {file}"),
        format!("import {file} --out {file}"),
        format!("evaluate {file} --data letters --logits {file}"),
    ] {
        place.refused(&command, 1, &format!("{file}: {taken}"));
    }
    assert!(place.read(file) == before);
    assert_eq!(place.list("run"), listed);
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --max-steps 1 --out run"));
    let err = place.failed("import run/lenet.weights --out no/such.weights", 1);
    assert!(
        err.starts_with("error: no/such.weights: cannot be written: No such file or directory"),
        "{err}"
    );
    place.refused(
        &format!("{TRAIN} --out run/lenet.weights/below"),
        1,
        "run/lenet.weights/below: cannot be created: Not a directory (os error 20)",
    );
}

#[test]
fn settings_out_of_range_are_refused_with_the_range() {
    let place = Place::new();
    let (lr, share) = (
        "must be above 0 and at most 1000",
        "must be above 0 and below 1",
    );
    for (arguments, sentence) in [
        (
            "--epochs 0",
            "invalid value '0' for '--epochs <N>': 0 is not in 1..=100000",
        ),
        (
            "--batch-size 0",
            "invalid value '0' for '--batch-size <N>': 0 is not in 1..=65536",
        ),
        ("--lr 0", &format!("invalid value '0' for '--lr <F>': {lr}")),
        (
            "--lr=-1",
            &format!("invalid value '-1' for '--lr <F>': {lr}"),
        ),
        (
            "--lr nan",
            &format!("invalid value 'nan' for '--lr <F>': {lr}"),
        ),
        (
            "--lr inf",
            &format!("invalid value 'inf' for '--lr <F>': {lr}"),
        ),
        (
            "--device tpu",
            "invalid value 'tpu' for '--device <DEVICE>'",
        ),
        (
            "--order random",
            "invalid value 'random' for '--order <ORDER>'",
        ),
        (
            "--weight-decay 2",
            "invalid value '2' for '--weight-decay <F>': must be 0 to 1",
        ),
        (
            "--weight-decay nan",
            "invalid value 'nan' for '--weight-decay <F>': must be 0 to 1",
        ),
        (
            "--val-split 0",
            &format!("invalid value '0' for '--val-split <F>': {share}"),
        ),
        (
            "--val-split 1",
            &format!("invalid value '1' for '--val-split <F>': {share}"),
        ),
        (
            "--val-split nan",
            &format!("invalid value 'nan' for '--val-split <F>': {share}"),
        ),
        (
            "--average 0",
            "invalid value '0' for '--average <N>': 0 is not in 1..=100000",
        ),
        (
            "--lr-schedule step",
            "invalid value 'step' for '--lr-schedule <LR_SCHEDULE>'",
        ),
        ("--patience -1", "unexpected argument '-1' found"),
        (
            "--quiet --log-format json",
            "the argument '--quiet' cannot be used with '--log-format <LOG_FORMAT>'",
        ),
        (
            "evaluate",
            "the following required arguments were not provided:",
        ),
    ] {
        place.unusable(arguments, sentence);
    }
    for option in ["max-steps", "patience"] {
        let err = place.failed(&format!("--{option} 0"), 2);
        let sentence = format!("error: invalid value '0' for '--{option} <N>': 0 is not in 1..");
        assert!(err.starts_with(&sentence), "{err}");
    }
    place.failed("frobnicate", 2);
    for (option, sentence) in [
        (
            "--patience 2",
            "--patience needs --val-split: the test images choose nothing",
        ),
        (
            "--val-split 0.001",
            "--val-split 0.001 leaves 96 images for training and 0 for validation",
        ),
    ] {
        place.refused(&format!("{TRAIN} {option}"), 2, sentence);
    }
}

#[test]
fn a_diverging_run_stops_at_once_and_writes_nothing() {
    let place = Place::new();
    // With parameters near overflow, the first loss is not finite.
    let mut params = trainer::init::initial_params(0);
    values(&mut params, "fc3_weight").fill(3e38);
    values(&mut params, "fc3_weight")[..84].fill(-3e38);
    place.write(
        "huge.safetensors",
        &trainer::safetensors::write_params(&params),
    );
    let err = place.failed(
        &format!("{TRAIN} --init huge.safetensors --out run --lr 2"),
        1,
    );
    assert!(
        err.starts_with("error: epoch 1, batch 1: loss is "),
        "{err}"
    );
    let end = ". Training diverged; try a smaller --lr (it is 2). Nothing was written\n";
    assert!(err.ends_with(end), "{err}");
}

#[test]
fn bad_data_is_refused_by_name() {
    let [train_images, train_labels, ..] = FILES;
    let mut shorter = images(96);
    shorter.truncate(12_345);
    let mut longer = images(96);
    longer.push(0);
    let mut label = labels(96);
    label[8 + 51] = 37;
    for (name, bytes, problem) in [
        (
            train_images,
            b"<!DOCTYPE html>".to_vec(),
            "neither gzip nor IDX (starts with \"<!DOCTYPE html>\", a web page; download the file itself)",
        ),
        (train_images, vec![], "empty; expected an IDX file"),
        (
            train_images,
            labels(96),
            "magic 0x00000801, a label file; expected 0x00000803, an image file",
        ),
        (
            train_labels,
            images(1),
            "magic 0x00000803, an image file; expected 0x00000801, a label file",
        ),
        (
            train_images,
            shorter,
            "promises 75280 bytes (96 records), has 12345",
        ),
        (
            train_images,
            longer,
            "promises 75280 bytes (96 records), has more",
        ),
        (
            train_images,
            idx(&[0x803, 1, 32, 32], [0; 1024]),
            "images of 32x32 pixels; this network takes 28x28",
        ),
        (
            train_images,
            idx(&[0x803, 0, 28, 28], []),
            "holds 0 records",
        ),
        (
            train_images,
            idx(&[0x803, u32::MAX, 28, 28], []),
            "promises 4294967295 records; at most 1048576 are read",
        ),
        (
            train_labels,
            label,
            "label 37 at index 51; this network has 10 classes, 0 to 9",
        ),
        (train_labels, labels(95), "95 labels for 96 images"),
    ] {
        let place = Place::new();
        place.write(&format!("letters/{name}"), &bytes);
        place.refused(
            &format!("{TRAIN} --out run"),
            1,
            &format!("letters/{name}: {problem}"),
        );
    }
}

#[test]
fn a_missing_or_incomplete_data_set_is_described() {
    let place = Place::new();
    place.refused(
        "--data nowhere",
        1,
        "nowhere: no such folder; name the one of the data set with --data DIR",
    );
    std::fs::remove_file(place.path("letters").join(FILES[3])).unwrap();
    place.refused(
        "--data letters",
        1,
        "letters: no t10k-labels-idx1-ubyte, gzipped or not. The folder has 3 files (t10k-images-idx3-ubyte, \
         train-images-idx3-ubyte, train-labels-idx1-ubyte). A data set is four IDX files: train-images-idx3-ubyte, \
         train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (or the first two with --test-split)",
    );
}

#[test]
fn a_modified_fashion_mnist_needs_an_option() {
    let place = Place::new();
    std::fs::rename(place.path("letters"), place.path("fashion-mnist")).unwrap();
    let train = "--data fashion-mnist --batch-size 32 --max-steps 1 --out run";
    let err = place.failed(train, 1);
    let start =
        "error: fashion-mnist/train-images-idx3-ubyte: SHA-256 of the uncompressed file is ";
    assert!(err.starts_with(start), "{err}");
    assert!(
        err.ends_with("; copy it again, or pass --allow-modified\n"),
        "{err}"
    );
    place.good(&format!("{train} --allow-modified"));
}

#[test]
fn lenet_data_takes_precedence_over_the_repository() {
    let place = Place::new();
    let output = place
        .command("--batch-size 32 --max-steps 1 --out run")
        .env("LENET_DATA", "letters")
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.contains("data letters: 96 "), "{out}");
}

#[test]
fn bad_weights_are_refused_by_name() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --max-steps 1 --out run"));
    let good = place.read("run/lenet.weights");
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut longer = good.clone();
    longer.push(0);
    // A file with this parameter and a correct checksum.
    let with = |value: f32| {
        let mut bytes = good.clone();
        bytes[PARAMS_OFFSET + 3 * 4..][..4].copy_from_slice(&value.to_le_bytes());
        let (covered, checksum) = bytes.split_last_chunk_mut().unwrap();
        *checksum = Crc::<u32>::new(&CRC_32_ISO_HDLC)
            .checksum(covered)
            .to_le_bytes();
        bytes
    };
    let not_finite = "conv1_weight[3] is NaN or infinite";
    let again = "; copy it again from where it came";
    for (bytes, problem) in [
        (vec![], format!("truncated: ends after 0 bytes{again}")),
        (b"{\"a\": 1}".to_vec(), "not a LeNet weights file (starts with 7b 22 61 22)".to_owned()),
        (
            b"PK\x03\x04 archive/data.pkl".to_vec(),
            "not a LeNet weights file (starts with 50 4b 03 04). It looks like a PyTorch pickle, which is not read \
             because it can run code; save it as safetensors: safetensors.torch.save_file(net.state_dict(), \
             \"net.safetensors\")"
                .to_owned(),
        ),
        (
            changed(4),
            "file format 3, this program reads 2; use the release of the program that wrote it, or train again"
                .to_owned(),
        ),
        (
            [&good[..8], &[0; 8], &good[16..20], b"other", &[0; 27], &good[52..]].concat(),
            "a file of the network `other`, this program is built for `lenet`; build it with LENET_NETWORK=other (or the path of its description)"
                .to_owned(),
        ),
        (good[..1000].to_vec(), format!("truncated: ends after 1000 bytes{again}")),
        (with(f32::NAN), not_finite.to_owned()),
        (with(f32::NEG_INFINITY), not_finite.to_owned()),
        (longer, format!("1 bytes follow the end of the file{again}")),
    ] {
        place.write("bad", &bytes);
        for command in [
            "evaluate bad --data letters",
            "summary bad",
            "import bad --out new",
            "export bad --format safetensors --out new",
            "--data letters --batch-size 32 --init bad --out new",
        ] {
            place.refused(command, 1, &format!("bad: {problem}"));
        }
    }
    place.write("bad", &changed(5000));
    let err = place.failed("summary bad", 1);
    assert!(err.starts_with("error: bad: damaged: checksum "), "{err}");
    assert!(err.ends_with(&format!("{again}\n")), "{err}");
    let (_, out, _) = place.run("summary bad");
    assert_eq!(out, "");
    place.refused(
        "summary none",
        1,
        "none: cannot be read: No such file or directory (os error 2)",
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
fn an_onnx_model_of_another_network_is_refused() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --max-steps 1 --out run"));
    place.good("export run/lenet.weights --format onnx --out net.onnx");
    let good = place.read("net.onnx");
    // Replace the first sigmoid by another function whose name has the same length.
    let at = good.windows(7).position(|bytes| bytes == b"Sigmoid");
    let mut other = good.clone();
    other[at.unwrap()..][..7].copy_from_slice(b"Hardmax");
    place.write("other.onnx", &other);
    place.refused(
        "import other.onnx --out new.weights",
        1,
        &format!(
            "other.onnx: the graph does not fit this network: Hardmax \"conv1_sigmoid\": conv1 (conv2d 5x5, max pool 2, sigmoid) of \
             this network has no such operator. This network is {}",
            Description(&lenet_core::network::LAYERS)
        ),
    );
    place.write("cut.onnx", &good[..1000]);
    let err = place.failed("evaluate cut.onnx --data letters", 1);
    assert!(
        err.starts_with("error: cut.onnx: broken ONNX file: "),
        "{err}"
    );
}

#[test]
fn unknown_tensors_are_listed_with_the_expected_ones() {
    use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
    let place = Place::new();
    let mut params = trainer::init::initial_params(0);
    let good = trainer::safetensors::write_params(&params);
    let file = SafeTensors::deserialize(&good).unwrap();
    // Transpose fc.0, and give fc.4.bias another name.
    let tensors = file
        .tensors()
        .into_iter()
        .map(|(name, view)| match name.as_str() {
            "fc.0.weight" => (
                name,
                TensorView::new(Dtype::F32, vec![256, 120], view.data()).unwrap(),
            ),
            "fc.4.bias" => ("out.bias".to_owned(), view),
            _ => (name, view),
        });
    place.write("net.safetensors", &serialize(tensors, None).unwrap());
    place.refused(
        "import net.safetensors --out new.weights",
        1,
        "net.safetensors: the tensors do not fit this network:\
         \n  fc.0.weight: found F32 [256, 120], expected F32 [120, 256] (its transpose would fit)\
         \n  fc.4.bias: missing, expected F32 [10]\
         \n  out.bias: not a tensor of this network",
    );

    let integers = [0; 4 * 10];
    let tensors = file
        .tensors()
        .into_iter()
        .map(|(name, view)| match name.as_str() {
            "fc.4.bias" => (
                name,
                TensorView::new(Dtype::I32, vec![10], &integers).unwrap(),
            ),
            _ => (name, view),
        });
    place.write("integers.safetensors", &serialize(tensors, None).unwrap());
    place.refused(
        "import integers.safetensors --out new.weights",
        1,
        "integers.safetensors: the tensors do not fit this network:\
         \n  fc.4.bias: found I32 [10], expected F32 [10]",
    );

    for value in [f32::NAN, f32::INFINITY] {
        values(&mut params, "fc1_weight")[3] = value;
        place.write(
            "nan.safetensors",
            &trainer::safetensors::write_params(&params),
        );
        place.refused(
            "import nan.safetensors --out new.weights",
            1,
            "nan.safetensors: fc1_weight[3] is NaN or infinite",
        );
    }
    // A subnormal number is valid: it is exported and imported bit for bit, and passes the self-test.
    values(&mut params, "fc1_weight")[3] = -f32::from_bits(3);
    let subnormal = trainer::safetensors::write_params(&params);
    place.write("tiny.safetensors", &subnormal);
    place.good("import tiny.safetensors --out tiny.weights");
    place.good("export tiny.weights --format safetensors --out again.safetensors");
    assert!(place.read("again.safetensors") == subnormal);

    place.write("broken.safetensors", &good[..good.len() - 1]);
    let err = place.failed("import broken.safetensors --out new.weights", 1);
    assert!(
        err.starts_with("error: broken.safetensors: broken safetensors file: "),
        "{err}"
    );
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
