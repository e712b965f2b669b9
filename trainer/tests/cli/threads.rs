//! How many threads run, and what is said where they cannot.

use crate::place::{Place, TRAIN, outcome};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

/// The program behind a limit of the shell's.
fn limited(place: &Place, limit: &str, arguments: &str) -> std::process::Output {
    let plain = place.process(arguments);
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(plain.get_current_dir().unwrap())
        .env_remove("LENET_DATA")
        .env("CUDA_VISIBLE_DEVICES", "");
    command.output().unwrap()
}

/// 1,024 stacks of 2 MiB do not fit into 1 GB, whoever asks; a limit of processes does not hold for root.
#[test]
fn threads_that_cannot_be_started_are_a_sentence() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --max-steps 1 --out run"));
    for command in [
        &format!("{TRAIN} --out new"),
        "evaluate run/lenet.weights --data letters",
        "bench --data letters --batch-size 32 --epochs 1",
    ] {
        let before = place.list(".");
        let output = limited(&place, "-v 1000000", &format!("{command} --threads 1024"));
        let (code, out, err) = outcome(output);
        assert_eq!((code, out.as_str()), (1, ""), "{command}: {err}");
        assert_eq!(
            err,
            "error: cannot start 1024 threads: Resource temporarily unavailable (os error 11). Use fewer (--threads, or \
             RAYON_NUM_THREADS), or raise the limit of processes or of memory (ulimit -u, ulimit -v)\n"
        );
        assert_eq!(place.list("."), before, "{command}");
    }
    for command in [
        "predict run/lenet.weights --data letters --index 0",
        "compare run/lenet.weights run/lenet.weights --data letters",
        "data check --data letters",
        "doctor --data letters",
        "report run",
        "device evaluate --data letters --port none",
    ] {
        let limit = "-v 1000000; export RAYON_NUM_THREADS=1024";
        let output = limited(&place, limit, command);
        let (code, _, err) = outcome(output);
        assert_eq!(code, 1, "{command}: {err}");
        assert!(
            err.starts_with("error: cannot start one thread per core: Resource temporarily"),
            "{command}: {err}"
        );
    }
    for command in ["train", "evaluate run/lenet.weights", "bench"] {
        place.unusable(
            &format!("{command} --threads 65535"),
            "invalid value '65535' for '--threads <N>': 65535 is not in 0..=1024",
        );
    }
}

/// Whatever computes, and with the test at the end of a training: one pool for the backend, one for all else.
#[test]
fn threads_are_as_many_as_asked_for() {
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

/// How many threads a process has in its life, by what the system says again and again until it ends.
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
