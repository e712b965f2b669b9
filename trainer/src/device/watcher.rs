//! Cleans up after this process if it ends without doing so, even if it is killed.
//!
//! A shell waits at the other end of a pipe. Every end of this process closes the pipe, whether it returns, panics, or is
//! ended by a signal that cannot be caught; unless it said before that nothing is left to do, the shell then kills the
//! emulator and removes its folder. Without a Unix shell nobody watches.

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

/// What the shell does. The first argument is the folder; on the pipe come `pid N` and, for an orderly end, `done`.
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

/// The shell that waits. Dropping this tells it that nothing is left to do.
pub struct Watcher {
    #[cfg(unix)]
    shell: std::process::Child,
}

#[cfg(unix)]
impl Watcher {
    /// Starts to watch over a folder.
    ///
    /// # Errors
    /// The system's reason why the shell cannot be started.
    pub fn start(folder: &Path) -> io::Result<Self> {
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(folder)
            .current_dir("/")
            // A process group of its own, which signals to this one's do not reach.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { shell })
    }

    /// Watches over the process that a command will be, too. The process itself tells the shell before it becomes the
    /// command, so that there is no moment at which it runs unwatched.
    ///
    /// # Errors
    /// The system's reason why the pipe cannot be shared.
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
        // SAFETY: between fork and exec the closure asks for the process's number, formats it on the stack and writes it:
        // it neither allocates nor takes a lock, which another thread might have held at the fork.
        unsafe { command.pre_exec(tell) };
        Ok(())
    }
}

#[cfg(unix)]
impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(pipe) = &mut self.shell.stdin {
            // Where the shell is gone, nobody needs to be told.
            let _ = pipe.write_all(b"done\n");
        }
        let _ = self.shell.wait();
    }
}

#[cfg(not(unix))]
impl Watcher {
    /// Watches over nothing.
    ///
    /// # Errors
    /// None.
    pub fn start(_: &Path) -> io::Result<Self> {
        Ok(Self {})
    }

    /// Watches over nothing.
    ///
    /// # Errors
    /// None.
    pub fn watch(&self, _: &mut Command) -> io::Result<()> {
        Ok(())
    }
}
