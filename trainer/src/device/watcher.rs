//! Cleans up after this process if it ends without doing so itself, even if it is killed.
//!
//! A shell waits at the other end of a pipe. The pipe closes when this process ends, whether it returns, panics, or is killed
//! by a signal that cannot be caught. Unless the process has written `done` before, the shell then kills the emulator and
//! removes its folder. Without a Unix shell there is no watcher.

use std::io;
use std::path::Path;
use std::process::Command;
#[cfg(unix)]
use std::{
    fs::File,
    io::Write,
    os::{fd::AsFd, unix::process::CommandExt},
    process::Stdio,
};

/// The shell's script. The first argument is the folder. The pipe carries `pid N` and, for an orderly end, `done`.
#[cfg(unix)]
const SCRIPT: &str = r#"
trap '' INT QUIT TERM HUP
PATH=$PATH:/usr/bin:/bin
pid=
while read -r word number; do
    case $word in
        pid) pid=$number ;;
        done) exit ;;
    esac
done
[ -z "$pid" ] || kill -KILL "$pid"
rm -rf -- "$1"
"#;

/// The waiting shell. Dropping this tells it that there is nothing to clean up.
pub struct Watcher {
    #[cfg(unix)]
    shell: std::process::Child,
}

#[cfg(unix)]
impl Watcher {
    /// Starts to watch over a folder.
    ///
    /// # Errors
    /// The system's error if the shell cannot be started.
    pub fn start(folder: &Path) -> io::Result<Self> {
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(folder)
            .current_dir("/")
            // A process group of its own, so that signals to this process's group do not reach the shell.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { shell })
    }

    /// Watches over the process that `command` will start, too. The new process reports its id to the shell before it executes
    /// the command, so it never runs unwatched.
    ///
    /// # Errors
    /// The system's error if the pipe cannot be shared.
    pub fn watch(&self, command: &mut Command) -> io::Result<()> {
        let pipe = self.shell.stdin.as_ref().expect("it is a pipe until drop");
        let mut pipe = File::from(pipe.as_fd().try_clone_to_owned()?);
        let tell = move || {
            let mut line = [0; 32];
            let mut rest = &mut line[..];
            writeln!(rest, "pid {}", std::process::id())?;
            let len = 32 - rest.len();
            pipe.write_all(&line[..len])
        };
        // SAFETY: between fork and exec, the closure gets the process id, formats it on the stack and writes it. It neither
        // allocates nor takes a lock, which another thread might have held at the fork.
        unsafe { command.pre_exec(tell) };
        Ok(())
    }
}

#[cfg(unix)]
impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(pipe) = &mut self.shell.stdin {
            // If the shell has ended, nobody needs to be told.
            let _ = pipe.write_all(b"done\n");
        }
        let _ = self.shell.wait();
    }
}

#[cfg(not(unix))]
impl Watcher {
    /// Does nothing.
    ///
    /// # Errors
    /// Never.
    pub fn start(_: &Path) -> io::Result<Self> {
        Ok(Self {})
    }

    /// Does nothing.
    ///
    /// # Errors
    /// Never.
    pub fn watch(&self, _: &mut Command) -> io::Result<()> {
        Ok(())
    }
}
