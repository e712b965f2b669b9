//! The environment of a test of the command line: a temporary folder with a small data set.

#![allow(dead_code, reason = "each test file takes what it needs")]

use assert_cmd::Command;
use lenet_core::network::{NAME, Params, TENSORS};
use std::path::PathBuf;
use tempfile::TempDir;

// The data sets of these tests have the shape of the default network, and many of the expected results are those of its layers.
const _: () = assert!(
    matches!(NAME.as_bytes(), b"lenet"),
    "these tests are for the default network: unset LENET_NETWORK"
);

/// Returns the values of a tensor of the default network. It is found by its name, because a field that another network lacks
/// would be a second error of the compiler, besides the sentence above.
pub fn values<'a>(params: &'a mut Params, name: &str) -> &'a mut [f32] {
    let tensor = TENSORS.iter().find(|tensor| tensor.name == name);
    let tensor = tensor.expect("the default network has it");
    &mut params.as_flat_mut()[tensor.offset..][..tensor.len()]
}

/// The names of the four files of a data set.
pub const FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// The arguments of a short training, with three steps per epoch, which takes some milliseconds.
pub const TRAIN: &str = "--data letters --batch-size 32 --epochs 2";

/// The arguments of a training that learns every class.
pub const LEARNT: &str = "--data letters --batch-size 8 --lr 0.003 --epochs 20";

pub fn idx(header: &[u32], bytes: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let mut file: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
    file.extend(bytes);
    file
}

/// Returns images with two bright rows each, whose position depends on the label.
pub fn images(count: u32) -> Vec<u8> {
    let pixels = (0..count as usize * 784).map(|i| {
        let (image, row) = (i / 784, i % 784 / 28);
        if row / 2 == image % 10 + 2 { 250 } else { 0 }
    });
    idx(&[0x803, count, 28, 28], pixels)
}

pub fn labels(count: u32) -> Vec<u8> {
    idx(&[0x801, count], (0..count).map(|image| (image % 10) as u8))
}

/// Returns the exit code, the output and the errors, without the warnings that such short trainings cause.
pub fn outcome(output: std::process::Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().expect("not killed");
    let errors = text(output.stderr);
    let told = errors
        .split_inclusive('\n')
        .filter(|line| !line.starts_with(AT_CHANCE) && !line.contains(NEAR_CHANCE));
    (code, text(output.stdout), told.collect())
}

/// The beginning of the warning about a network that has learnt nothing.
pub const AT_CHANCE: &str = "warning: still at chance: train acc 0.";

/// A part of the warning about imported weights that have learnt nothing.
pub const NEAR_CHANCE: &str = " is near chance (";

/// A temporary folder for one test, which is also the working directory of the program.
pub struct Place(TempDir);

impl Place {
    /// Creates a folder with a valid data set in `letters`, with 96 training images and 30 test images.
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(place.path("letters")).unwrap();
        // Test images must differ from training images, so they are a little darker.
        let test_images = images(30).into_iter().map(|byte| byte.min(240)).collect();
        let files = [images(96), labels(96), test_images, labels(30)];
        for (name, bytes) in FILES.iter().zip(files) {
            place.write(&format!("letters/{name}"), &bytes);
        }
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// Writes a program that runs a shell script.
    #[cfg(unix)]
    pub fn program(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        self.write(name, format!("#!/bin/sh\n{script}\n").as_bytes());
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path(name), executable).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    /// Returns the names in a folder, sorted.
    pub fn list(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn process(&self, arguments: &str) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trainer"));
        command
            .current_dir(self.0.path())
            .env_remove("LENET_DATA")
            // If there is a GPU, `auto` would use it.
            .env("CUDA_VISIBLE_DEVICES", "")
            .args(arguments.split_whitespace());
        command
    }

    /// Does the same as [`process`](Self::process), with signals set to their default or ignored by the `options` of the program
    /// `env`. This is needed because a test may run in the background of a script, where Ctrl-C is ignored.
    #[cfg(unix)]
    pub fn with_signals(&self, options: &[&str], arguments: &str) -> std::process::Command {
        let plain = self.process(arguments);
        if !cfg!(target_os = "linux") {
            return plain;
        }
        let mut command = std::process::Command::new("env");
        command
            .args(options)
            .arg(plain.get_program())
            .args(plain.get_args())
            .current_dir(self.0.path());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    pub fn command(&self, arguments: &str) -> Command {
        Command::from_std(self.process(arguments))
    }

    /// Runs the program, and returns the exit code, the output and the errors.
    pub fn run(&self, arguments: &str) -> (i32, String, String) {
        let output = self.command(arguments).output().unwrap();
        outcome(output)
    }

    /// Runs the program with a closed output, and returns the exit code and the errors.
    pub fn unread(&self, arguments: &str) -> (Option<i32>, String) {
        let (_, output) = std::io::pipe().unwrap();
        let run = self.process(arguments).stdout(output).output().unwrap();
        (run.status.code(), String::from_utf8(run.stderr).unwrap())
    }

    /// Runs the program, which must succeed, and returns the output.
    pub fn good(&self, arguments: &str) -> String {
        let (code, out, err) = self.run(arguments);
        assert_eq!((code, err.as_str()), (0, ""), "{arguments}: {out}");
        out
    }

    /// Runs the program, which must fail with this exit code and exactly this message, and leave the folder unchanged.
    pub fn refused(&self, arguments: &str, code: i32, sentence: &str) {
        let err = self.failed(arguments, code);
        assert_eq!(err, format!("error: {sentence}\n"), "{arguments}");
    }

    /// Does the same as [`refused`](Self::refused) for an error of clap, whose first line is `sentence`.
    pub fn unusable(&self, arguments: &str, sentence: &str) {
        let err = self.failed(arguments, 2);
        let first = err.lines().next().unwrap_or_default();
        assert_eq!(first, format!("error: {sentence}"), "{arguments}");
    }

    /// Runs the program, which must fail with this exit code and leave the folder unchanged, and returns its errors.
    pub fn failed(&self, arguments: &str, code: i32) -> String {
        let before = self.list(".");
        let (found, _, err) = self.run(arguments);
        assert_eq!(found, code, "{arguments}: {err}");
        assert_eq!(self.list("."), before, "{arguments}");
        err
    }
}
