//! Cleans up after this process if it ends without doing so, even if it is killed.
//!
//! A shell waits at the other end of a pipe. Every end of this process closes the pipe, whether it returns, panics, or is
//! ended by a signal that cannot be caught; unless it said before that nothing is left to do, the shell then kills the
//! emulator and removes its folder. Without a Unix shell nobody watches.

use std::io;
use std::path::Path;

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
        use std::os::unix::process::CommandExt;
        use std::process::{Command, Stdio};
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

    /// Watches over a process, too.
    ///
    /// # Errors
    /// The system's reason why the shell cannot be told.
    pub fn watch(&mut self, pid: u32) -> io::Result<()> {
        self.tell(&format!("pid {pid}\n"))
    }

    fn tell(&mut self, line: &str) -> io::Result<()> {
        use std::io::Write;
        let pipe = self.shell.stdin.as_mut().expect("it is a pipe until drop");
        pipe.write_all(line.as_bytes())
    }
}

#[cfg(unix)]
impl Drop for Watcher {
    fn drop(&mut self) {
        // Where the shell is gone, nobody needs to be told.
        let _ = self.tell("done\n");
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
    pub fn watch(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }
}
