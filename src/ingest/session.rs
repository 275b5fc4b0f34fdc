//! One connection at work: a thread of its own holds the pipeline, a task watches its notices and its signs of life.
//! Not here: what to do when it ends (`supervisor`, `states`).
//!
//! Building, starting, seeking and closing may block on a dead camera, so they run on the thread. The task never waits
//! for it without a limit: a thread that does not come back is left behind and counted.

use super::config::IngestConfig;
use super::fault::Failure;
use super::outlet::{Outlet, SessionId};
use super::pipeline::{self, Notice, Plan, Wires};
use super::pulse::{Facts, Pulse};
use super::spec::SourceSpec;
use crate::error::{Error, Result};
use crate::source::SourceFault;
use gst::prelude::*;
use gstreamer as gst;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Notices waiting for the task; the first ones stay when it is full.
const NOTICES: usize = 64;
/// Jobs waiting for the thread. Only a rewind is ever asked for, one at a time.
const JOBS: usize = 1;
/// How often signs of life are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A file plays for at least so long before it starts again: a single picture must not spin.
const SHORTEST_ROUND: Duration = Duration::from_millis(500);
/// HLS comes in pieces of up to ten seconds.
const HLS_STALL: Duration = Duration::from_secs(20);
/// A file may rest on a slow disk, or on one picture.
const FILE_STALL: Duration = Duration::from_secs(30);
const FOREVER: Duration = Duration::MAX;
/// An error of an HTTP source may be followed by where it redirects to.
const REDIRECT_FOLLOWS: Duration = Duration::from_millis(500);

/// What the thread is asked to do.
#[derive(Debug)]
enum Job {
    /// The stream ended: start it again if `again`, and if it can be.
    AtEnd { again: bool },
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Failed(Failure),
    /// The server gave another address.
    Redirected {
        location: String,
    },
    /// It played to its end and is not to start again.
    Finished,
    /// It played to its end and can only start again by being opened again.
    PlayedOut,
}

/// What is worth showing while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// Frames arrive, of this kind. Told at the first frame and at every change.
    Frames(Facts),
    /// Frames have arrived for long enough.
    Stable,
}

/// A connection. [`Session::close`] it; dropping it closes it without a look at the result.
#[derive(Debug)]
pub(super) struct Session {
    plan: Plan,
    pulse: Arc<Pulse>,
    outlet: Arc<Outlet>,
    notices: mpsc::Receiver<Notice>,
    /// Dropping it tells the thread to close the pipeline.
    jobs: mpsc::Sender<Job>,
    closed: oneshot::Receiver<()>,
    started: Instant,
}

impl Session {
    /// Starts to connect.
    ///
    /// # Errors
    /// When the machine has no thread left.
    pub(super) fn start(id: SessionId, plan: Plan, outlet: Arc<Outlet>) -> Result<Self> {
        let started = Instant::now();
        let pulse = Arc::new(Pulse::new(started));
        let (notices_in, notices) = mpsc::channel(NOTICES);
        let (jobs, jobs_out) = mpsc::channel(JOBS);
        let (closed_in, closed) = oneshot::channel();
        let wires = Wires { session: id, outlet: Arc::clone(&outlet), pulse: Arc::clone(&pulse), notices: notices_in };
        let thread_plan = plan.clone();
        outlet.open_for(id);
        std::thread::Builder::new()
            .name(format!("ingest-{}", id.0))
            .spawn(move || {
                hold(&thread_plan, &wires, jobs_out);
                let _nobody_may_wait_any_more = closed_in.send(());
            })
            .map_err(|e| Error::unavailable("no_thread", format!("a thread for the video source can't start: {e}")))?;
        Ok(Self { plan, pulse, outlet, notices, jobs, closed, started })
    }

    /// The signs of life of its pipeline.
    pub(super) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// What is known of the stream.
    pub(super) fn facts(&self) -> Facts {
        self.pulse.facts()
    }

    /// True once a picture came.
    pub(super) fn has_delivered(&self) -> bool {
        self.pulse.has_delivered()
    }

    /// Watches the connection until it ends. Dropping the future is safe: nothing in it is half done.
    pub(super) async fn run(&mut self, mut progress: impl FnMut(Progress)) -> End {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut watch = Watch::new(&self.plan.config, self.started);
        let mut missing = None;
        let mut round = self.started;
        loop {
            let notice = tokio::select! {
                biased;
                notice = self.notices.recv() => notice,
                _ = look.tick() => {
                    if let Some(end) = watch.look(&self.plan.spec, &self.pulse, Instant::now(), &mut progress) {
                        return end;
                    }
                    continue;
                }
            };
            match notice {
                None => return End::Failed(Failure::new(SourceFault::Other, "the video pipeline ended by itself")),
                Some(Notice::Missing(what)) => missing = Some(what),
                Some(Notice::Failed(failure)) => return End::Failed(failure),
                Some(Notice::Redirect { location }) => return End::Redirected { location },
                Some(Notice::Error(error)) => {
                    let redirected = error.http_status.is_some_and(|status| (300..400).contains(&status));
                    if redirected && let Some(location) = self.location().await {
                        return End::Redirected { location };
                    }
                    return End::Failed(Failure::from_gst(&self.plan.spec, &error, missing.as_deref()));
                }
                Some(Notice::Eos) => {
                    if let Some(end) = self.at_end(&mut round).await {
                        return end;
                    }
                }
                Some(Notice::Rewound) => {
                    round = Instant::now();
                    self.pulse.beat(round);
                }
                Some(Notice::Finished) => return End::Finished,
                Some(Notice::NotSeekable) if self.plan.spec.is_file() => return End::PlayedOut,
                Some(Notice::NotSeekable) => {
                    return End::Failed(Failure::ended(&self.plan.spec, self.pulse.has_delivered()));
                }
            }
        }
    }

    /// The stream ended. Decides whether that is the end of the connection, or a job for the thread.
    async fn at_end(&self, round: &mut Instant) -> Option<End> {
        let (spec, looping) = (&self.plan.spec, self.plan.config.looping);
        if !self.pulse.has_delivered() || !matches!(spec, SourceSpec::File(_) | SourceSpec::Http(_)) {
            return Some(End::Failed(Failure::ended(spec, self.pulse.has_delivered())));
        }
        if spec.is_file() && !looping {
            return Some(End::Finished);
        }
        let rest = SHORTEST_ROUND.saturating_sub(round.elapsed());
        tokio::time::sleep(rest).await;
        let asked = self.jobs.try_send(Job::AtEnd { again: looping });
        asked.is_err().then(|| End::Failed(Failure::ended(spec, true)))
    }

    /// Where a redirect leads: the source says so in a message of its own, just after its error.
    async fn location(&mut self) -> Option<String> {
        let found = async {
            while let Some(notice) = self.notices.recv().await {
                if let Notice::Redirect { location } = notice {
                    return Some(location);
                }
            }
            None
        };
        tokio::time::timeout(REDIRECT_FOLLOWS, found).await.ok().flatten()
    }

    /// Closes the connection. False when that took longer than `limit`: its thread is left behind, and can deliver
    /// nothing more.
    pub(super) async fn close(self, limit: Duration) -> bool {
        self.outlet.close();
        self.pulse.close();
        drop(self.jobs);
        tokio::time::timeout(limit, self.closed).await.is_ok()
    }
}

/// The thread: builds the pipeline, starts it, does the jobs, and closes it when nobody can ask for any more.
fn hold(plan: &Plan, wires: &Wires, mut jobs: mpsc::Receiver<Job>) {
    let pipeline = match pipeline::build(plan, wires) {
        Ok(pipeline) => pipeline,
        Err(failure) => {
            wires.tell(Notice::Failed(failure));
            return;
        }
    };
    if pipeline.set_state(gst::State::Playing).is_err() {
        // The element that refused has posted the reason by now; this is for the case that it did not.
        wires.tell(Notice::Failed(Failure::new(SourceFault::Other, "the video pipeline can't start")));
    }
    while let Some(Job::AtEnd { again }) = jobs.blocking_recv() {
        wires.tell(at_end(&pipeline, again));
    }
    // Closed from here as well, for a session that was dropped.
    wires.pulse.close();
    if let Err(error) = pipeline.set_state(gst::State::Null) {
        tracing::debug!(%error, "a pipeline did not close cleanly");
    }
    if let Some(bus) = pipeline.bus() {
        bus.unset_sync_handler();
    }
}

fn at_end(pipeline: &gst::Pipeline, again: bool) -> Notice {
    let mut seeking = gst::query::Seeking::new(gst::Format::Time);
    let seekable = pipeline.query(&mut seeking) && seeking.result().0;
    match (seekable, again) {
        (false, _) => Notice::NotSeekable,
        (true, false) => Notice::Finished,
        (true, true) => {
            let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
            match pipeline.seek_simple(flags, gst::ClockTime::ZERO) {
                Ok(()) => Notice::Rewound,
                Err(_) => Notice::NotSeekable,
            }
        }
    }
}

/// The watchdog: says when a connection has come to life, is well, or is dead without saying so.
#[derive(Debug)]
struct Watch {
    connect_timeout: Duration,
    stall_timeout: Duration,
    stable_after: Duration,
    started: Instant,
    first: Option<Instant>,
    shown: Option<Facts>,
    stable: bool,
}

impl Watch {
    fn new(config: &IngestConfig, started: Instant) -> Self {
        Self {
            connect_timeout: config.connect_timeout,
            stall_timeout: config.stall_timeout,
            stable_after: config.stable_after,
            started,
            first: None,
            shown: None,
            stable: false,
        }
    }

    fn look(
        &mut self,
        spec: &SourceSpec,
        pulse: &Pulse,
        now: Instant,
        progress: &mut impl FnMut(Progress),
    ) -> Option<End> {
        let patience = match spec {
            SourceSpec::File(_) => self.stall_timeout.max(FILE_STALL),
            // It is alive while the room says so; the supervisor looks after it.
            SourceSpec::Webcam => FOREVER,
            _ if pulse.is_hls() => self.stall_timeout.max(HLS_STALL),
            _ => self.stall_timeout,
        };
        if pulse.has_delivered() {
            let first = *self.first.get_or_insert(now);
            let facts = pulse.facts();
            if self.shown.as_ref() != Some(&facts) {
                progress(Progress::Frames(facts.clone()));
                self.shown = Some(facts);
            }
            if !self.stable && now.saturating_duration_since(first) >= self.stable_after {
                self.stable = true;
                progress(Progress::Stable);
            }
        }
        let silent = pulse.last_beat().map(|beat| now.saturating_duration_since(beat));
        match silent {
            Some(silent) if silent > patience => End::Failed(Failure::stalled(spec, silent.as_secs_f64())).into(),
            // HLS must fetch a playlist and a whole piece before the first picture.
            None if patience != FOREVER
                && now.saturating_duration_since(self.started) > self.connect_patience(pulse) =>
            {
                End::Failed(Failure::connect_timeout(spec, self.connect_patience(pulse).as_secs_f64())).into()
            }
            _ => None,
        }
    }

    fn connect_patience(&self, pulse: &Pulse) -> Duration {
        if pulse.is_hls() { self.connect_timeout.max(HLS_STALL) } else { self.connect_timeout }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::policy::Policy;

    fn fault(end: Option<End>) -> Option<SourceFault> {
        match end {
            Some(End::Failed(failure)) => Some(failure.fault),
            _ => None,
        }
    }

    #[test]
    fn the_watchdog_tells_life_health_and_silent_death() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let spec = SourceSpec::parse("rtsp://h/s", &Policy::default()).unwrap();
        let pulse = Pulse::new(start);
        let mut watch = Watch::new(&IngestConfig::default(), start);
        let mut told = Vec::new();
        let mut look = |now, pulse: &Pulse| watch.look(&spec, pulse, now, &mut |p| told.push(p));
        assert_eq!(fault(look(at(9.9), &pulse)), None);
        assert_eq!(fault(look(at(10.1), &pulse)), Some(SourceFault::ConnectTimeout));
        pulse.beat(at(10.2));
        pulse.set_size(64, 48);
        pulse.set_delivered();
        assert_eq!(fault(look(at(10.3), &pulse)), None);
        pulse.beat(at(20.0));
        assert_eq!(fault(look(at(20.4), &pulse)), None);
        assert_eq!(fault(look(at(24.9), &pulse)), None);
        assert_eq!(fault(look(at(25.1), &pulse)), Some(SourceFault::Stalled));
        pulse.set_hls();
        assert_eq!(fault(look(at(39.0), &pulse)), None);
        assert_eq!(fault(look(at(40.1), &pulse)), Some(SourceFault::Stalled));
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[1], Progress::Stable);
    }
}
