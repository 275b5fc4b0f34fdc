//! A cause that happens again and again gets one line a second, which says how many were left out: a log must not fill
//! a disk, nor hide everything else. Not here: where lines go (`telemetry`).

use std::collections::HashMap;
use std::fmt::{self, Debug, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// Between two lines of one cause.
const QUIET: Duration = Duration::from_secs(1);
/// Causes that are remembered; beyond it the one that was silent for longest is forgotten.
const CAUSES: usize = 512;

/// Formats as `inner` does, what is not left out. Debug and trace lines are never left out: whoever asked for them wants
/// all.
#[derive(Debug)]
pub(super) struct Limited<F> {
    inner: F,
    causes: Mutex<Causes>,
}

impl<F> Limited<F> {
    pub(super) fn new(inner: F) -> Self {
        Self { inner, causes: Mutex::default() }
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let left_out = if *event.metadata().level() > Level::INFO {
            Some(0)
        } else {
            let cause = cause(event);
            self.causes.lock().unwrap_or_else(PoisonError::into_inner).admit(cause, Instant::now())
        };
        match left_out {
            // Nothing is written for it.
            None => Ok(()),
            Some(0) => self.inner.format_event(ctx, writer, event),
            Some(count) => {
                let mut line = String::new();
                self.inner.format_event(ctx, Writer::new(&mut line), event)?;
                writeln!(writer, "{} ({count} like it left out)", line.trim_end())
            }
        }
    }
}

/// When each cause had its last line, and how many it has missed since.
#[derive(Debug, Default)]
struct Causes(HashMap<u64, (Instant, u64)>);

impl Causes {
    /// How many lines of this cause were left out before this one; `None` when this one is left out too.
    fn admit(&mut self, cause: u64, now: Instant) -> Option<u64> {
        if let Some((last, left_out)) = self.0.get_mut(&cause) {
            if now.saturating_duration_since(*last) < QUIET {
                *left_out += 1;
                return None;
            }
            *last = now;
            return Some(std::mem::take(left_out));
        }
        if self.0.len() >= CAUSES
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (last, _))| *last).map(|(cause, _)| *cause)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(cause, (now, 0));
        Some(0)
    }
}

/// What makes two lines the same: where they come from, their stream, and their words. Numbers, which tell attempts,
/// times and ports, make no difference.
fn cause(event: &Event<'_>) -> u64 {
    let mut cause = Cause(DefaultHasher::new());
    event.metadata().callsite().hash(&mut cause.0);
    event.record(&mut cause);
    cause.0.finish()
}

struct Cause(DefaultHasher);

impl Visit for Cause {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A hasher takes everything.
        let _infallible = write!(Words { hasher: &mut self.0, exact: field.name() == "stream" }, "{value:?}");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _infallible = Words { hasher: &mut self.0, exact: field.name() == "stream" }.write_str(value);
    }

    fn record_f64(&mut self, _: &Field, _: f64) {}
    fn record_i64(&mut self, _: &Field, _: i64) {}
    fn record_u64(&mut self, _: &Field, _: u64) {}
    fn record_i128(&mut self, _: &Field, _: i128) {}
    fn record_u128(&mut self, _: &Field, _: u128) {}
}

struct Words<'h> {
    hasher: &'h mut DefaultHasher,
    exact: bool,
}

impl Write for Words<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes().filter(|byte| self.exact || !byte.is_ascii_digit()) {
            self.hasher.write_u8(byte);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(log: impl FnOnce()) -> Vec<String> {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(Level::DEBUG)
            .event_format(Limited::new(tracing_subscriber::fmt::format()))
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_cause_has_one_line_and_other_causes_have_theirs() {
        let lost = |stream: &str, why: &str, attempt: u32| {
            tracing::info!(stream, attempt, wait = 0.1 * f64::from(attempt), "source lost: {why}");
        };
        let begun = Instant::now();
        let found = lines(|| {
            for attempt in 0..100 {
                lost("cam1", &format!("refused at port {attempt}"), attempt);
                lost("cam2", "refused at port 1", attempt);
                lost("cam2", "no such host", attempt);
                tracing::warn!("another place");
            }
        });
        assert!(found.len() >= 4 && found.len() as u64 <= 4 * (begun.elapsed().as_secs() + 1), "{found:?}");
    }

    #[test]
    fn what_was_left_out_is_counted_and_debug_lines_never_are() {
        let found = lines(|| {
            for round in 0..3 {
                for _ in 0..10 {
                    tracing::error!("again");
                    tracing::debug!("detail");
                }
                if round == 0 {
                    std::thread::sleep(QUIET);
                }
            }
        });
        let told: Vec<&String> = found.iter().filter(|line| line.contains("again")).collect();
        assert!(told.len() >= 2 && told.iter().any(|line| line.ends_with(" like it left out)")), "{told:?}");
        assert_eq!(found.len() - told.len(), 30);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let (mut causes, now) = (Causes::default(), Instant::now());
        for cause in 0..10 * CAUSES as u64 {
            assert_eq!(causes.admit(cause, now + Duration::from_micros(cause)), Some(0));
        }
        assert_eq!(causes.0.len(), CAUSES);
    }
}
