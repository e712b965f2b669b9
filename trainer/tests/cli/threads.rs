//! Tests the number of threads, and the error if the system cannot start them.

use crate::place::{Place, TRAIN, outcome};
use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Runs the program with a limit of one thread. The limit has no effect for root, so root runs the program as another user.
fn single(place: &Place, arguments: &str) -> std::process::Output {
    let everybody = |path: PathBuf| {
        let permissions = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(path, permissions).unwrap();
    };
    let program = place.path("bin/trainer");
    if !program.exists() {
        // Another user may have no access to the folder in which the program was built, so copy it.
        std::fs::create_dir(place.path("bin")).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_trainer"), &program).unwrap();
        everybody(place.path("."));
        everybody(program.clone());
    }
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = Command::new(if is_root { "setpriv" } else { "env" });
    if is_root {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    command
        .args(["prlimit", "--nproc=1"])
        .arg(program)
        .args(arguments.split_whitespace())
        .current_dir(place.path("."))
        .env_remove("LENET_DATA")
        .env("CUDA_VISIBLE_DEVICES", "");
    command.output().unwrap()
}

#[test]
fn threads_that_cannot_be_started_are_an_error() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --max-steps 1 --out run"));
    let remedy = "Use fewer (--threads, or RAYON_NUM_THREADS), or raise the limit of processes or of memory (ulimit -u, \
                  ulimit -v)";
    for (command, threads) in [
        (&*format!("{TRAIN} --out new --threads 7"), "7 threads"),
        (&*format!("{TRAIN} --out new"), "one thread per core"),
        (
            "evaluate run/lenet.weights --data letters --threads 1",
            "a thread",
        ),
        (
            "bench --data letters --batch-size 32 --epochs 1 --threads 7",
            "7 threads",
        ),
        (
            "predict run/lenet.weights --data letters --index 0",
            "one thread per core",
        ),
        (
            "compare run/lenet.weights run/lenet.weights --data letters",
            "one thread per core",
        ),
        ("data check --data letters", "one thread per core"),
        ("doctor --data letters", "one thread per core"),
        ("report run", "one thread per core"),
        (
            "device evaluate --data letters --port none",
            "one thread per core",
        ),
    ] {
        let (code, out, err) = outcome(single(&place, command));
        assert_eq!((code, out.as_str()), (1, ""), "{command}: {err}");
        assert_eq!(
            err,
            format!(
                "error: cannot start {threads}: Resource temporarily unavailable (os error 11). {remedy}\n"
            ),
            "{command}"
        );
    }
    assert!(!place.path("new").exists());
    // A command that needs no threads succeeds.
    let (code, _, err) = outcome(single(&place, "summary run/lenet.weights"));
    assert_eq!((code, err.as_str()), (0, ""));
    for command in ["train", "evaluate run/lenet.weights", "bench"] {
        place.unusable(
            &format!("{command} --threads 65535"),
            "invalid value '65535' for '--threads <N>': 65535 is not in 0..=1024",
        );
    }
}

/// There must be one pool for the backend and one for everything else, such as the test at the end of a training.
#[test]
fn the_number_of_threads_is_the_requested_one() {
    let place = Place::new();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../data");
    let evaluate =
        format!("evaluate {data}/lenet.weights --data {data}/fashion-mnist --split train");
    for (command, expected) in [
        (format!("{evaluate} --threads 11"), 1 + 11),
        (format!("{evaluate} --threads 11 --device cpu"), 1 + 2 * 11),
        (
            format!("--data {data}/fashion-mnist --epochs 1 --out run --device cpu --threads 11"),
            1 + 2 * 11,
        ),
    ] {
        assert_eq!(threads_of(&place, &command), expected, "{command}");
    }
}

/// Returns how many threads a process has had in total, by listing them repeatedly until it ends.
fn threads_of(place: &Place, arguments: &str) -> usize {
    let mut child = place
        .process(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let tasks = format!("/proc/{}/task", child.id());
    let mut seen = BTreeSet::new();
    while child.try_wait().unwrap().is_none() {
        for task in std::fs::read_dir(&tasks).into_iter().flatten().flatten() {
            seen.insert(task.file_name());
        }
    }
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments}: {err}");
    seen.len()
}
