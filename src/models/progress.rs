//! What a download tells the one who waits for it, and the bar that a terminal shows of it.
//! Not here: downloading (`pull`).

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A file comes next: its name, its number (from 1) of how many, its size if known.
    File { name: String, number: usize, of: usize, bytes: Option<u64> },
    /// Bytes of the current file that are on disk now.
    At(u64),
    /// Bytes on disk are being read again for the checksum.
    Checking,
    /// Something failed and is tried again after a wait.
    Retry { why: String, wait: Duration },
    /// The current file is whole and checked.
    Done,
    /// The current file was already there, whole.
    AlreadyHere,
    /// Something worth knowing, as a sentence.
    Note(String),
}

/// Someone who is told. Any closure that takes an [`Event`] is one.
pub trait Progress {
    /// Takes note of one event; must not block for long.
    fn event(&mut self, event: Event);
}

impl<F: FnMut(Event)> Progress for F {
    fn event(&mut self, event: Event) {
        self(event);
    }
}

/// A progress bar on standard error; it stays silent when that is no terminal.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    name: String,
}

impl Default for Bar {
    fn default() -> Self {
        Self { bar: ProgressBar::hidden(), name: String::new() }
    }
}

impl Bar {
    fn begin(&mut self, name: String, number: usize, of: usize, bytes: Option<u64>) {
        let bar = bytes.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let template = if bytes.is_some() {
            "{prefix} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {msg}"
        } else {
            "{prefix} {spinner} {binary_bytes} {binary_bytes_per_sec} {msg}"
        };
        // A template that is wrong would show the default bar, which does no harm.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(format!("[{number}/{of}] {name}"));
        self.bar = bar;
        self.name = name;
    }
}

impl Progress for Bar {
    fn event(&mut self, event: Event) {
        match event {
            Event::File { name, number, of, bytes } => self.begin(name, number, of, bytes),
            Event::At(bytes) => {
                self.bar.set_position(bytes);
                self.bar.set_message("");
            }
            Event::Checking => self.bar.set_message("checking"),
            Event::Retry { why, wait } => {
                self.bar.println(format!("{}: {why}; again in {:.0} s", self.name, wait.as_secs_f64().ceil()));
            }
            Event::Done => self.bar.finish_with_message("done"),
            Event::AlreadyHere => self.bar.finish_with_message("already here"),
            Event::Note(text) => self.bar.println(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_takes_every_event() {
        let mut bar = Bar::default();
        for bytes in [None, Some(10)] {
            bar.event(Event::File { name: "a".into(), number: 1, of: 2, bytes });
            bar.event(Event::At(5));
            bar.event(Event::Checking);
            bar.event(Event::Retry { why: "cut".into(), wait: Duration::from_secs(1) });
            bar.event(Event::Note("note".into()));
            bar.event(Event::Done);
            bar.event(Event::AlreadyHere);
        }
    }
}
