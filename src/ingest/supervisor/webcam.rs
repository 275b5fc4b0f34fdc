//! The source `webcam`: decodes the camera that the room's participant hands over, through the same pipeline and with
//! the same rules as every other source. A room without a camera, a muted camera and a lost connection are states of
//! the room, not failures of the decoder, and are shown as such.
//! Not here: the room, its connection and its backoff (`livekit`).

use super::{Board, Order, Orders, Supervisor, random, unix_ms};
use crate::ingest::fault::Failure;
use crate::ingest::outlet::SessionId;
use crate::ingest::pipeline::{Feed, Plan};
use crate::ingest::session::{End, Progress, Session};
use crate::ingest::spec::SourceSpec;
use crate::ingest::states::{Course, Loss, Next};
use crate::source::{AskedBy, SourceFault, SourceState};
use crate::webcam::{Camera, Encoded, RoomState, RoomStatus};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Progress notes between two looks at them; a note that finds no room is one of many alike.
const NOTES: usize = 16;
/// How often silence is looked for.
const LOOK: Duration = Duration::from_millis(500);
/// Times the stall timeout after which pictures that don't decode are given up.
const UNDECODED: u32 = 3;

/// How a time of decoding ended.
enum Ended {
    Order(Order),
    /// The camera or the connection is gone; the room's status says why.
    Gone,
    /// Another track begins with this picture.
    Other(Encoded),
    Failed(Failure, bool),
}

impl Supervisor {
    /// Keeps the room's camera on the stream until the next order.
    pub(super) async fn keep_webcam(&mut self, camera: &mut Camera, mut course: Course, orders: &mut Orders) -> Order {
        // What still waits there is from another time.
        while camera.frames.try_recv().is_ok() {}
        let mut first = None;
        loop {
            let picture = match first.take().filter(|picture: &Encoded| picture.keyframe) {
                Some(picture) => picture,
                None => match self.await_picture(camera, orders).await {
                    Ok(picture) => picture,
                    Err(order) => return order,
                },
            };
            course.connect();
            self.board.show(&course);
            match self.decode(picture, camera, &mut course, orders).await {
                Ended::Order(order) => return order,
                Ended::Gone => {}
                Ended::Other(picture) => first = Some(picture),
                Ended::Failed(failure, hardware) => {
                    let loss = Loss { fault: failure.fault, hardware, rtsp: false };
                    let next = course.lost(loss, random());
                    self.board.failed(&course, &failure, next);
                    let Next::After(wait) = next else { continue };
                    if let Some(order) = pause(wait, camera, orders).await {
                        return order;
                    }
                }
            }
        }
    }

    /// Shows what the room is at, until a picture comes that can be decoded by itself.
    async fn await_picture(&mut self, camera: &mut Camera, orders: &mut Orders) -> Result<Encoded, Order> {
        let mut told = None;
        loop {
            let status = camera.status.borrow_and_update().clone();
            self.board.room(&status, told.replace(status.state));
            tokio::select! {
                biased;
                order = orders.next() => return Err(order),
                changed = camera.status.changed() => if changed.is_err() {
                    self.board.room(&gone(), told);
                    return Err(orders.next().await);
                },
                picture = camera.frames.recv() => match picture {
                    Some(picture) if picture.keyframe => return Ok(picture),
                    Some(_) => camera.ask_for_keyframe(),
                    None => {
                        self.board.room(&gone(), told);
                        return Err(orders.next().await);
                    }
                },
            }
        }
    }

    /// One pipeline, for as long as pictures of one track come.
    async fn decode(&mut self, first: Encoded, camera: &mut Camera, course: &mut Course, orders: &mut Orders) -> Ended {
        let feed = match Feed::new(first.codec) {
            Ok(feed) => feed,
            Err(error) => return Ended::Failed(Failure::from_error(&error), false),
        };
        self.sessions += 1;
        let plan = Plan {
            spec: SourceSpec::Webcam,
            config: Arc::clone(&self.config),
            asked_by: AskedBy::Operator,
            udp: false,
            hardware: course.hardware(),
            sound: false,
            feed: Some(feed.clone()),
        };
        let mut session = match Session::start(SessionId(self.sessions), plan, Arc::clone(&self.outlet)) {
            Ok(session) => session,
            Err(error) => return Ended::Failed(Failure::from_error(&error), false),
        };
        let track = first.track;
        let mut silence = Silence::new(self.config.stall_timeout, Instant::now());
        silence.set_muted(camera.status.borrow_and_update().muted, Instant::now());
        // A picture was lost here, and those that depend on it are of no use.
        let mut broken = !feed.push(first);
        if broken {
            camera.lost(true);
        }
        let pulse = session.pulse();
        let (notes_in, mut notes) = mpsc::channel::<Progress>(NOTES);
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = {
            let mut run = pin!(session.run(move |note| {
                let _one_of_many_alike = notes_in.try_send(note);
            }));
            loop {
                tokio::select! {
                    biased;
                    order = orders.next() => break Ended::Order(order),
                    Some(note) = notes.recv() => self.board.progress(course, note),
                    end = &mut run => break failed(end),
                    changed = camera.status.changed() => {
                        let status = camera.status.borrow_and_update();
                        if changed.is_err() || !status.connected || status.camera.is_none() {
                            break Ended::Gone;
                        }
                        silence.set_muted(status.muted, Instant::now());
                    }
                    picture = camera.frames.recv() => match picture {
                        None => break Ended::Gone,
                        Some(picture) if picture.track != track => break Ended::Other(picture),
                        Some(picture) => {
                            silence.picture(Instant::now());
                            let before = broken && !picture.keyframe;
                            // A pipeline that takes no more has an error, which is on its way.
                            let taken = !before && feed.push(picture);
                            if !taken {
                                camera.lost(!broken);
                            }
                            broken = !taken;
                        }
                    },
                    _ = look.tick() => {}
                }
                match silence.look(Instant::now(), pulse.last_beat()) {
                    None => {}
                    Some(Look::Quiet(why)) => self.board.quiet(course, why),
                    Some(Look::Flows) => self.board.flows(course),
                    Some(Look::AskForKeyframe) => camera.ask_for_keyframe(),
                    Some(Look::Undecodable) => {
                        let why = "the camera in the LiveKit room sends pictures that can't be decoded";
                        break Ended::Failed(Failure::new(SourceFault::BadStream, why), false);
                    }
                }
            }
        };
        let hardware = session.facts().hardware;
        if !session.close(self.config.close_timeout).await {
            self.board.abandoned();
        }
        match ended {
            Ended::Failed(failure, _) => Ended::Failed(failure, hardware),
            ended => ended,
        }
    }
}

fn failed(end: End) -> Ended {
    let failure = match end {
        End::Failed(failure) => failure,
        End::Redirected { .. } | End::Finished | End::PlayedOut => {
            Failure::new(SourceFault::Ended, "the decoder of the LiveKit room's camera ended by itself")
        }
    };
    Ended::Failed(failure, false)
}

/// Waits, and throws away what comes in that time.
async fn pause(wait: Duration, camera: &mut Camera, orders: &mut Orders) -> Option<Order> {
    let mut over = pin!(tokio::time::sleep(wait));
    loop {
        tokio::select! {
            biased;
            order = orders.next() => return Some(order),
            () = &mut over => return None,
            Some(_) = camera.frames.recv() => {}
        }
    }
}

/// The status of a room whose participant has ended.
fn gone() -> RoomStatus {
    let message = Some("the room's participant has ended; the program is shutting down".to_owned());
    RoomStatus { state: RoomState::Retrying, message, ..RoomStatus::default() }
}

/// What a look at the times tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// No pictures come, or none are decoded.
    Quiet(&'static str),
    /// They come again.
    Flows,
    AskForKeyframe,
    Undecodable,
}

const MUTED: &str = "the camera in the LiveKit room is muted; pictures come again when its owner turns it on";
const SILENT: &str = "the camera in the LiveKit room is still there, but sends no pictures";
const UNREADABLE: &str = "the pictures of the camera in the LiveKit room can't be decoded for the moment";

/// Tells silence that is meant (muted), silence that is not, and pictures that nothing can be made of. Time is an
/// argument.
#[derive(Debug)]
struct Silence {
    limit: Duration,
    muted: bool,
    /// When pictures began to come, the first time or after a silence.
    began: Instant,
    /// When the newest encoded picture came.
    came: Instant,
    asked: Instant,
    told: Option<&'static str>,
}

impl Silence {
    fn new(limit: Duration, now: Instant) -> Self {
        Self { limit, muted: false, began: now, came: now, asked: now, told: None }
    }

    fn set_muted(&mut self, muted: bool, now: Instant) {
        if self.muted && !muted {
            (self.came, self.began) = (now, now);
        }
        self.muted = muted;
    }

    fn picture(&mut self, now: Instant) {
        if now.saturating_duration_since(self.came) > self.limit {
            self.began = now;
        }
        self.came = now;
    }

    /// What is new at `now`, if anything. `decoded` is when a picture last left the decoder.
    fn look(&mut self, now: Instant, decoded: Option<Instant>) -> Option<Look> {
        let coming = now.saturating_duration_since(self.came) <= self.limit;
        let since = now.saturating_duration_since(decoded.unwrap_or(self.began).max(self.began));
        let why = match (self.muted, coming) {
            // A muted camera still sends what was on its way.
            (true, _) => Some(MUTED),
            (false, false) => Some(SILENT),
            (false, true) if since > self.limit => Some(UNREADABLE),
            (false, true) => None,
        };
        if why == Some(UNREADABLE) && since > self.limit * UNDECODED {
            return Some(Look::Undecodable);
        }
        if why != self.told {
            let flows = self.told.is_some() && why.is_none();
            self.told = why;
            return if flows { Some(Look::Flows) } else { why.map(Look::Quiet) };
        }
        if matches!(why, Some(SILENT | UNREADABLE)) && now.saturating_duration_since(self.asked) > self.limit {
            self.asked = now;
            return Some(Look::AskForKeyframe);
        }
        None
    }
}

impl Board {
    /// The room has no camera for us yet, or is not reached.
    fn room(&self, room: &RoomStatus, before: Option<RoomState>) {
        self.up(false);
        let lost = room.state == RoomState::Retrying;
        if lost && before != Some(RoomState::Retrying) {
            self.metrics.source_failures.get_or_create(&self.label).inc();
        }
        let waiting = match room.state {
            RoomState::Away => Some("nobody is in the LiveKit room: a page asks for its token first"),
            RoomState::Waiting => Some("in the LiveKit room; nobody's camera is on"),
            RoomState::Camera if room.muted => Some(MUTED),
            RoomState::Camera | RoomState::Connecting | RoomState::Retrying => None,
        };
        self.change(|status| {
            status.state = if lost { SourceState::Retrying } else { SourceState::Connecting };
            if room.state == RoomState::Camera && room.muted {
                status.state = SourceState::Stalled;
            }
            // While it connects again the last failure stays to be read.
            if room.state != RoomState::Connecting {
                status.message = room.message.clone().or(waiting.map(str::to_owned));
                status.fault = lost.then_some(SourceFault::Network);
            }
            if lost {
                (status.last_error, status.last_error_unix_ms) = (status.message.clone(), Some(unix_ms()));
            }
            (status.attempt, status.retry_in_s) = (room.attempt, room.retry_in_s);
            let wait = room.retry_in_s.and_then(|s| Duration::try_from_secs_f64(s).ok());
            status.next_attempt = wait.and_then(|wait| Instant::now().checked_add(wait));
        });
    }

    fn quiet(&self, course: &mut Course, why: &str) {
        self.up(false);
        course.quiet();
        self.change(|status| {
            status.state = SourceState::Stalled;
            (status.message, status.fault) = (Some(why.to_owned()), Some(SourceFault::Stalled));
            if why != MUTED {
                (status.last_error, status.last_error_unix_ms) = (status.message.clone(), Some(unix_ms()));
            }
        });
        tracing::info!(stream = self.stream, "{why}");
    }

    fn flows(&self, course: &mut Course) {
        let _no_other_connection = course.first_frame();
        self.up(true);
        self.change(|status| {
            status.state = course.state();
            (status.message, status.fault) = (None, None);
        });
        tracing::info!(stream = self.stream, "pictures come again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_apart_from_muting_and_from_what_can_not_be_decoded() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut silence = Silence::new(Duration::from_secs(5), start);
        assert_eq!(silence.look(at(1.0), Some(at(1.0))), None);
        silence.set_muted(true, at(1.2));
        assert_eq!(silence.look(at(1.5), Some(at(1.0))), Some(Look::Quiet(MUTED)));
        assert_eq!(silence.look(at(100.0), Some(at(1.0))), None, "for as long as it likes");
        silence.set_muted(false, at(100.0));
        silence.picture(at(100.0));
        assert_eq!(silence.look(at(100.1), Some(at(100.1))), Some(Look::Flows));
        assert_eq!(silence.look(at(105.2), Some(at(100.1))), Some(Look::Quiet(SILENT)));
        assert_eq!(silence.look(at(105.3), Some(at(100.1))), Some(Look::AskForKeyframe));
        silence.picture(at(150.0));
        assert_eq!(silence.look(at(150.1), Some(at(100.1))), Some(Look::Flows));
        for second in 151..=155 {
            silence.picture(at(f64::from(second)));
        }
        assert_eq!(silence.look(at(155.2), Some(at(100.1))), Some(Look::Quiet(UNREADABLE)));
        assert_eq!(silence.look(at(155.3), Some(at(155.3))), Some(Look::Flows));
        for second in 156..=171 {
            silence.picture(at(f64::from(second)));
        }
        assert_eq!(silence.look(at(171.0), Some(at(155.3))), Some(Look::Undecodable));
    }
}
