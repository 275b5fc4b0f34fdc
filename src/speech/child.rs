//! A child process that reads a little text and writes sound: never waited for longer than told, gone when dropped.
//! Not here: what the child is and what its output means (`espeak`).

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// Most input that is taken: less than a pipe holds, so that writing it never waits for the child.
pub(super) const MAX_INPUT: usize = 4096;
/// Most of the child's complaints that are read, bytes.
const MAX_COMPLAINT: usize = 512;
/// How long the child may take to end after it closed its output.
const FAREWELL: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_millis(20);

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    Bytes(usize),
    /// Nothing in the time.
    Quiet,
    End,
}

/// A running child, with whatever it starts in a process group of its own.
pub(super) struct Child(std::process::Child);

impl Child {
    /// Starts the program with nothing but the given environment, and gives it its input.
    pub(super) fn start<'a>(
        program: &Path,
        arguments: &[&str],
        environment: impl IntoIterator<Item = (&'a str, &'a OsStr)>,
        input: &[u8],
    ) -> io::Result<Self> {
        if input.len() > MAX_INPUT {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the text is too long for the pipe"));
        }
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let mut child = Self(child);
        if let Some(mut stdin) = child.0.stdin.take()
            && let Err(error) = stdin.write_all(input)
        {
            // It closed its input early; its exit code says why.
            tracing::debug!(%error, "the speech program did not read its text");
        }
        Ok(child)
    }

    /// Reads some output; waits for it for at most `wait`.
    pub(super) fn read(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<Output> {
        let Some(stdout) = &mut self.0.stdout else { return Ok(Output::End) };
        read_within(stdout, buffer, wait)
    }

    /// After the end of its output: how it ended, and what it had to say about that. `None` when it does not end.
    pub(super) fn end(mut self) -> io::Result<Option<(ExitStatus, String)>> {
        let mut complaint = vec![0; MAX_COMPLAINT];
        let mut length = 0;
        if let Some(stderr) = &mut self.0.stderr {
            while let Output::Bytes(more) = read_within(stderr, &mut complaint[length..], PATIENCE)? {
                length += more;
            }
        }
        let complaint = String::from_utf8_lossy(&complaint[..length]).into_owned();
        let mut waited = Duration::ZERO;
        while waited < FAREWELL {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some((status, complaint)));
            }
            std::thread::sleep(PATIENCE / 10);
            waited += PATIENCE / 10;
        }
        Ok(None)
    }
}

fn read_within(pipe: &mut (impl Read + AsFd), buffer: &mut [u8], wait: Duration) -> io::Result<Output> {
    if buffer.is_empty() {
        return Ok(Output::End);
    }
    let timeout = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: i64::from(wait.subsec_nanos()) };
    let ready = match poll(&mut [PollFd::new(&pipe.as_fd(), PollFlags::IN)], Some(&timeout)) {
        Err(rustix::io::Errno::INTR) => 0,
        ready => ready?,
    };
    if ready == 0 {
        return Ok(Output::Quiet);
    }
    Ok(match pipe.read(buffer)? {
        0 => Output::End,
        bytes => Output::Bytes(bytes),
    })
}

impl Drop for Child {
    fn drop(&mut self) {
        // Once it was waited for, its number may be another process's.
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            let gone = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let reaped = self.0.wait();
            tracing::debug!(?gone, ?reaped, "ended the speech program");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn shell(script: &str, input: &[u8]) -> Child {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Child::start(Path::new("/bin/sh"), &["-c", script], [("PATH", path.as_os_str())], input).unwrap()
    }

    fn all(child: &mut Child) -> Vec<u8> {
        let (mut out, mut buffer) = (Vec::new(), [0; 100]);
        loop {
            match child.read(&mut buffer, Duration::from_secs(10)).unwrap() {
                Output::Bytes(n) => out.extend_from_slice(&buffer[..n]),
                Output::Quiet => panic!("nothing came"),
                Output::End => return out,
            }
        }
    }

    #[test]
    fn input_goes_in_and_output_and_complaints_come_out() {
        let mut child = shell("cat; echo 'went wrong' >&2; exit 3", b"some text");
        assert_eq!(all(&mut child), b"some text");
        let (status, complaint) = child.end().unwrap().unwrap();
        assert_eq!((status.code(), complaint.trim()), (Some(3), "went wrong"));
    }

    #[test]
    fn a_child_that_reads_nothing_and_one_that_says_nothing_hold_nobody_up() {
        let mut child = shell("exit 0", &[b'x'; MAX_INPUT]);
        assert_eq!(all(&mut child), b"");
        let mut child = shell("sleep 100", b"");
        assert_eq!(child.read(&mut [0; 10], Duration::from_millis(1)).unwrap(), Output::Quiet);
    }

    #[test]
    fn dropping_it_ends_its_own_children_too() {
        let mut child = shell("sleep 1000 & echo $!; wait", b"");
        let mut pid = [0; 20];
        let Output::Bytes(length) = child.read(&mut pid, Duration::from_secs(10)).unwrap() else { panic!("no number") };
        let pid = String::from_utf8_lossy(&pid[..length]).trim().to_owned();
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(!state().is_empty() && !state().contains(") Z "));
        drop(child);
        let begun = Instant::now();
        // Whoever adopted it reaps it; a zombie is gone as well.
        while !(state().is_empty() || state().contains(") Z ")) {
            assert!(begun.elapsed() < Duration::from_secs(10), "{}", state());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn only_the_given_environment_is_handed_on() {
        let mut child = shell("env | cut -d= -f1 | sort | tr '\\n' ' '", b"");
        let names = String::from_utf8(all(&mut child)).unwrap();
        assert!(names.split(' ').all(|n| ["PATH", "PWD", "OLDPWD", "SHLVL", "_", ""].contains(&n)), "{names}");
    }
}
