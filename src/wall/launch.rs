//! Starting the child: this same program with one end of a socket as its standard input, a pipe for its last words as
//! its standard output, a process group of its own (so that Ctrl-C in a terminal reaches the parent only), and no
//! more of the environment than it needs. Not here: what is said to it (`keeper`), what it does (`child`).

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The subcommand that people don't see.
pub(crate) const COMMAND: &str = "engine-child";
/// Most of its last words that are read, bytes.
const MAX_WORDS: u64 = 1024;
/// How long a child may take to be gone once it closed its end; then it is killed.
const LEAVE: Duration = Duration::from_millis(500);
/// How long the system may take to end a killed one.
const DIE: Duration = Duration::from_secs(2);
const GLANCE: Duration = Duration::from_millis(2);

/// How to start the child.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program; it must be this one.
    pub program: PathBuf,
    /// All of the child's environment.
    pub environment: Vec<(OsString, OsString)>,
    /// What it logs, a tracing filter.
    pub log: String,
    /// How long it may give no sign of life while it works; five times that while it loads.
    pub stall: Duration,
    /// Where llama.cpp's backends are looked for, if not at its own place.
    pub backends: Option<PathBuf>,
}

/// A child that was started, from the outside.
pub(super) struct Process {
    child: Child,
    words: Option<ChildStdout>,
}

impl Launch {
    /// This program, whatever has become of its file since it was started.
    pub fn own_program() -> PathBuf {
        PathBuf::from("/proc/self/exe")
    }

    /// Starts the child. The thread that calls this must outlive it: the child is told to die with it.
    pub(super) fn start(&self) -> io::Result<(Process, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut child = Command::new(&self.program)
            .arg0("vidette")
            .arg(COMMAND)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let words = child.stdout.take();
        Ok((Process { child, words }, ours))
    }
}

impl Process {
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, also when it hangs or was stopped.
    pub(super) fn kill(&mut self) {
        if let Err(error) = self.child.kill() {
            tracing::debug!(%error, "the engine's process could not be killed");
        }
    }

    /// Waits until it is gone, and kills it when that takes long. How it ended, and its last words. `None` when not
    /// even the system can end it.
    pub(super) async fn end(&mut self) -> Option<(ExitStatus, Option<String>)> {
        if let Some(status) = self.gone_within(LEAVE).await {
            return Some((status, self.words()));
        }
        self.kill();
        let status = self.gone_within(DIE).await?;
        Some((status, self.words()))
    }

    async fn gone_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + time;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < until => tokio::time::sleep(GLANCE).await,
                Ok(None) => return None,
                Err(error) => {
                    tracing::warn!(%error, "the engine's process can't be waited for");
                    return None;
                }
            }
        }
    }

    /// It is gone, so this does not wait.
    fn words(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        let read = self.words.take()?.take(MAX_WORDS).read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        read.ok().map(|_| text.trim().to_owned()).filter(|text| !text.is_empty())
    }
}
