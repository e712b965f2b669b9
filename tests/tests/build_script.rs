//! Tests which description of a network the build script of `lenet-core` finds, and when cargo runs the script again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A workspace with the build script, the shipped network `lenet`, and descriptions named `net.rs` in three folders.
struct Workspace(TempDir);

impl Workspace {
    fn new() -> Self {
        let workspace = Self(tempfile::tempdir().unwrap());
        for folder in ["core/networks", "below", "out"] {
            fs::create_dir_all(workspace.path(folder)).unwrap();
        }
        for file in ["core/networks/lenet.rs", "net.rs", "core/net.rs"] {
            fs::write(workspace.path(file), "").unwrap();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lenet-core/build.rs");
        let compiler = std::env::var_os("RUSTC").unwrap_or("rustc".into());
        let mut compile = Command::new(compiler);
        compile.args(["--edition", "2024", "-o"]);
        compile.arg(workspace.path("build")).arg(script);
        assert!(compile.status().unwrap().success());
        workspace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    /// Runs the script from a folder. Returns the description that it found, and what it tells cargo to watch.
    fn run(&self, network: &str, folder: &str) -> (String, Vec<String>) {
        let mut script = Command::new(self.path("build"));
        script
            .env("LENET_NETWORK", network)
            .env("PWD", self.path(folder))
            .env("CARGO_MANIFEST_DIR", self.path("core"))
            .env("OUT_DIR", self.path("out"));
        let output = script.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let root = format!("{}/", self.path("").display());
        let root = root.replace("//", "/");
        let printed = String::from_utf8(output.stdout).unwrap();
        let watched = printed
            .lines()
            .filter_map(|line| {
                let line = line.strip_prefix("cargo::rerun-if-")?;
                Some(line.replace(&root, ""))
            })
            .collect();
        let module = fs::read_to_string(self.path("out/network.rs")).unwrap();
        let (_, rest) = module.split_once("#[path = \"").unwrap();
        let (found, _) = rest.split_once('"').unwrap();
        (found.replace(&root, ""), watched)
    }
}

#[test]
fn cargo_runs_the_script_again_when_the_name_may_lead_to_another_file() {
    let workspace = Workspace::new();
    let always = ["env-changed=LENET_NETWORK", "changed=build.rs"];
    let check = |network: &str, folder: &str, expected: &str, watches: &[&str]| {
        let (found, watched) = workspace.run(network, folder);
        assert_eq!(found, expected, "{network} from {folder}");
        assert_eq!(
            watched,
            [&always, watches].concat(),
            "{network} from {folder}"
        );
    };
    // The name of a shipped network means the same everywhere.
    let shipped = "core/networks/lenet.rs";
    for folder in ["", "below"] {
        check(
            "lenet",
            folder,
            shipped,
            &["changed=core/networks/lenet.rs"],
        );
    }
    // A relative path depends on the current folder, and on the files that would be nearer.
    let relative = ["changed=core/networks", "env-changed=PWD"];
    let watches = |files: &[&'static str]| [&relative, files].concat();
    let here = watches(&["changed=core/net.rs"]);
    check("net.rs", "core", "core/net.rs", &here);
    let root = watches(&["changed=below/net.rs", "changed=core/networks/../../net.rs"]);
    check("net.rs", "below", "net.rs", &root);
    fs::write(workspace.path("below/net.rs"), "").unwrap();
    let nearer = watches(&["changed=below/net.rs"]);
    check("net.rs", "below", "below/net.rs", &nearer);
    let absolute = workspace.path("below/net.rs");
    let watches = ["changed=core/networks", "changed=below/net.rs"];
    check(absolute.to_str().unwrap(), "core", "below/net.rs", &watches);
}
