//! Logs: tracing to standard error, with every known secret masked on the way out, and one line a second for what
//! happens again and again.
//! Not here: counters (`metrics`), what is worth a line (whoever writes it).

mod repeats;

use crate::error::{Error, Result};
use crate::secret;
use std::io::{self, Write};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Starts logging. `filter` is a level or a tracing filter such as `info,vidette::ingest=debug`.
///
/// # Errors
/// When the filter can't be read or logging was started before.
pub fn start(filter: &str) -> Result<()> {
    let parsed = EnvFilter::try_new(filter).map_err(|e| {
        Error::invalid("log_filter", format!("the log filter can't be read: {e}"))
            .hint("use error, warn, info, debug or trace")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(MaskedStderr)
        .with_ansi(false)
        .event_format(repeats::Limited::new(tracing_subscriber::fmt::format()))
        .try_init()
        .map_err(|e| Error::internal("log_start", e.to_string()))
}

/// Writes each event to standard error, masked.
#[derive(Debug, Clone, Copy)]
struct MaskedStderr;

impl<'a> MakeWriter<'a> for MaskedStderr {
    type Writer = Masked<io::StderrLock<'static>>;

    fn make_writer(&'a self) -> Self::Writer {
        Masked(io::stderr().lock())
    }
}

/// Masks what passes. The formatter writes one whole event at a time, so no secret is cut in two.
struct Masked<W: Write>(W);

impl<W: Write> Write for Masked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.write_all(secret::mask(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_pass() {
        secret::remember("hunter2hunter2");
        let mut out = Vec::new();
        Masked(&mut out).write_all(b"password hunter2hunter2 was refused\n").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "password *** was refused\n");
    }
}
