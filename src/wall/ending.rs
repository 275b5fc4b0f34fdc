//! How a child process came to its end, in plain words. Not here: what is done about it (`keeper`).

use crate::engine::{CRASHED, HUNG};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// What was seen at the wall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// We ended it, in order.
    Stopped,
    /// It closed its end: it is gone.
    Gone,
    /// It gave no sign of life for that long, or a multiple of it while it loads.
    Hung(Duration),
    /// It sent what no healthy child sends.
    Garbled(String),
    /// It could not be started.
    Unstarted(String),
    /// Its engine failed by its own account.
    Failed(String),
}

impl End {
    /// The code of the error of a look that this cut off.
    pub(super) fn code(&self) -> &'static str {
        if matches!(self, Self::Hung(_)) { HUNG } else { CRASHED }
    }

    /// A part of a sentence that begins with "the engine's process". `status` is how the operating system saw it end.
    pub(super) fn words(&self, status: Option<ExitStatus>) -> String {
        match self {
            Self::Stopped => "was ended".to_owned(),
            Self::Gone => status.map_or_else(|| "closed its connection".to_owned(), ended),
            Self::Hung(limit) => format!("gave no sign of life for {} s and was killed", limit.as_secs_f64()),
            Self::Garbled(what) => format!("sent what makes no sense ({what}) and was killed"),
            Self::Unstarted(why) => format!("could not be started: {why}"),
            Self::Failed(why) => format!("failed: {why}"),
        }
    }
}

fn ended(status: ExitStatus) -> String {
    let Some(signal) = status.signal() else {
        return format!("ended with exit code {}", status.code().unwrap_or(-1));
    };
    let name = signal_hook::low_level::signal_name(signal).unwrap_or("an unknown signal");
    let common = match name {
        "SIGKILL" => " (the system does this when memory runs out)",
        "SIGABRT" => " (a defect in native code, or a damaged model file)",
        "SIGSEGV" | "SIGBUS" | "SIGFPE" => " (a defect in native code)",
        "SIGILL" => " (this build does not fit this processor)",
        _ => "",
    };
    format!("was ended by {name}{common}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_and_exit_codes_are_named() {
        let gone = |raw| End::Gone.words(Some(ExitStatus::from_raw(raw)));
        assert_eq!(gone(9), "was ended by SIGKILL (the system does this when memory runs out)");
        assert!(gone(6).contains("SIGABRT") && gone(11).contains("SIGSEGV"), "{} {}", gone(6), gone(11));
        assert_eq!(gone(3 << 8), "ended with exit code 3");
        assert!(End::Hung(Duration::from_millis(1500)).words(None).contains("1.5 s"));
    }
}
