//! Where pictures leave: numbers them, counts them, and hands them to the stream's window and bus.
//! Not here: making them (`pipeline`).

use super::sound::Sound;
use crate::audio::AudioHub;
use crate::bus::Bus;
use crate::frame::{Frame, Jpeg};
use crate::metrics::{Metrics, StreamLabel};
use crate::window::SharedWindow;
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Names one connection, so that a pipeline that was left behind can't deliver any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionId(pub(super) u64);

/// A decoded picture, not yet numbered.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) pts: Option<Duration>,
    pub(super) captured: Instant,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) rgb: Bytes,
}

/// The stream's exits, shared by all of its connections, one of which may use them at a time.
#[derive(Debug)]
pub(super) struct Outlet {
    window: Arc<SharedWindow>,
    bus: Arc<Bus>,
    sound: Sound,
    metrics: Arc<Metrics>,
    label: StreamLabel,
    door: Mutex<Door>,
}

#[derive(Debug, Default)]
struct Door {
    open_for: Option<SessionId>,
    next_frame: u64,
    next_jpeg: u64,
    ring_dropped: u64,
}

impl Outlet {
    pub(super) fn new(
        stream: &str,
        window: Arc<SharedWindow>,
        bus: Arc<Bus>,
        hub: Arc<AudioHub>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let label = StreamLabel::new(stream);
        // Made here, so that they are shown as zero before anything came.
        for family in [&metrics.frames, &metrics.frames_dropped, &metrics.jpegs] {
            drop(family.get_or_create(&label));
        }
        let ring_dropped = window.level().2;
        let sound = Sound::new(hub, Arc::clone(&metrics), label.clone());
        Self { window, bus, sound, metrics, label, door: Mutex::new(Door { ring_dropped, ..Door::default() }) }
    }

    /// From now on only `session` may deliver.
    pub(super) fn open_for(&self, session: SessionId) {
        self.lock().open_for = Some(session);
    }

    /// Nobody may deliver.
    pub(super) fn close(&self) {
        self.lock().open_for = None;
    }

    /// Closes, and forgets the pictures of the source that was open.
    pub(super) fn clear(&self) {
        let mut door = self.lock();
        door.open_for = None;
        self.window.clear();
        self.bus.clear_picture();
        self.sound.clear();
    }

    /// True while somebody watches, so that JPEGs are wanted.
    pub(super) fn is_watched(&self) -> bool {
        self.bus.viewers() > 0
    }

    /// The source's sound, for who paces it.
    pub(super) fn sound(&self) -> &Sound {
        &self.sound
    }

    /// Takes samples of 48 kHz, one channel. False when the session may not deliver any more.
    pub(super) fn hear(&self, session: SessionId, samples: &[i16]) -> bool {
        let open = self.lock().open_for == Some(session);
        if open {
            self.sound.push(samples);
        }
        open
    }

    /// Puts a frame into the window. False when the session may not deliver any more.
    pub(super) fn frame(&self, session: SessionId, picture: Picture) -> bool {
        #[cfg(feature = "leak-on-purpose")]
        std::mem::forget(std::hint::black_box(vec![1u8; 64 * 1024]));
        let mut door = self.lock();
        if door.open_for != Some(session) {
            return false;
        }
        let wall = SystemTime::now().checked_sub(picture.captured.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        let Picture { pts, captured, width, height, rgb } = picture;
        self.window.push(Arc::new(Frame { seq: door.next_frame, pts, captured, wall, width, height, rgb }));
        door.next_frame += 1;
        self.metrics.frames.get_or_create(&self.label).inc();
        let dropped = self.window.level().2;
        let new = dropped.saturating_sub(door.ring_dropped);
        self.metrics.frames_dropped.get_or_create(&self.label).inc_by(new);
        door.ring_dropped = dropped;
        true
    }

    /// Shows a JPEG to viewers. False when the session may not deliver any more.
    pub(super) fn jpeg(&self, session: SessionId, captured: Instant, data: Bytes) -> bool {
        let mut door = self.lock();
        if door.open_for != Some(session) {
            return false;
        }
        self.bus.show(Arc::new(Jpeg { seq: door.next_jpeg, captured, data }));
        door.next_jpeg += 1;
        self.metrics.jpegs.get_or_create(&self.label).inc();
        true
    }

    fn lock(&self) -> MutexGuard<'_, Door> {
        // The numbers are whole after every step, so a poisoned lock still holds a sound door.
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Bounds;

    fn picture() -> Picture {
        let rgb = Bytes::from_static(&[0; 3]);
        Picture { pts: None, captured: Instant::now(), width: 1, height: 1, rgb }
    }

    #[test]
    fn only_the_open_session_delivers_and_numbers_go_on() {
        let window = Arc::new(SharedWindow::new(Bounds { frames: 1, bytes: 100 }));
        let (bus, metrics) = (Arc::new(Bus::new()), Arc::new(Metrics::new()));
        let hub = Arc::new(AudioHub::of_source("main", Arc::clone(&metrics)));
        let outlet = Outlet::new("main", Arc::clone(&window), Arc::clone(&bus), hub, Arc::clone(&metrics));
        assert!(!outlet.frame(SessionId(1), picture()));
        outlet.open_for(SessionId(1));
        assert!(outlet.frame(SessionId(1), picture()));
        outlet.open_for(SessionId(2));
        assert!(!outlet.frame(SessionId(1), picture()));
        assert!(outlet.frame(SessionId(2), picture()));
        assert!(outlet.jpeg(SessionId(2), Instant::now(), Bytes::from_static(b"x")));
        assert_eq!(*window.bell().borrow(), Some(1));
        let text = metrics.encode();
        assert!(text.contains("vidette_frames_total{stream=\"main\"} 2"), "{text}");
        assert!(text.contains("vidette_frames_dropped_total{stream=\"main\"} 1"), "{text}");
        outlet.clear();
        assert!(!outlet.frame(SessionId(2), picture()));
        assert!(window.level().0 == 0 && bus.pictures().borrow().is_none());
    }
}
