//! The source's own sound: taken off the pipeline as it comes, and decoded in a small pipeline of its own while somebody
//! listens. So it costs nothing when nobody does, and whatever is wrong with it does not touch the video.
//! Not here: playing it (`ingest::sound`).

use super::{Plan, Wires};
use crate::audio::SAMPLE_RATE;
use crate::error::Result;
use crate::ingest::elements::{chain, failed, make, pad, set, set_named};
use crate::ingest::spec::SourceSpec;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Encoded pieces that wait for the decoder; of more the oldest goes.
const WAITING: u64 = 100;
/// Sound is handed on so much before the picture of the same moment: it waits before it is played as well.
const AHEAD: Duration = Duration::from_millis(150);
/// Sound that belongs to a picture longer gone than this is not played.
const LATE: Duration = Duration::from_millis(500);
/// Longest that sound waits for its picture at once. Beyond it, time stamps have jumped.
const EARLY: Duration = Duration::from_secs(10);

/// Tells whether a pad gives sound, encoded or not.
pub(super) fn is_sound(pad: &gst::Pad) -> bool {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    caps.structure(0).is_some_and(|s| {
        s.name().starts_with("audio/") || (s.name() == "application/x-rtp" && s.get::<&str>("media") == Ok("audio"))
    })
}

/// Puts an end to `from` that decodes what comes while somebody listens.
pub(super) fn take(pipeline: &gst::Pipeline, from: &gst::Pad, plan: &Plan, wires: &Wires) -> Result<()> {
    let sink = make("appsink")?;
    for (property, value) in [("sync", false), ("async", false), ("drop", true), ("wait-on-eos", false)] {
        set(&sink, property, value);
    }
    set(&sink, "enable-last-sample", false);
    set(&sink, "max-buffers", 1u32);
    pipeline.add(&sink).map_err(|e| failed(&e.to_string()))?;
    let input = pad(&sink, "sink")?;
    let sink = sink.downcast::<gst_app::AppSink>().map_err(|_| failed("appsink is none"))?;
    let mut ear = Ear {
        wires: wires.clone(),
        paced: matches!(plan.spec, SourceSpec::File(_) | SourceSpec::Http(_)),
        decoder: None,
        hopeless: false,
    };
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        // Whatever becomes of it: to the source all went well.
        ear.hear(&sample);
        Ok(gst::FlowSuccess::Ok)
    });
    sink.set_callbacks(callbacks.build());
    sink.sync_state_with_parent().map_err(|e| failed(&e.to_string()))?;
    from.link(&input).map_err(|e| failed(&format!("the sound can't be linked: {e}")))?;
    wires.pulse.set_sound(true);
    Ok(())
}

/// What hears one source.
struct Ear {
    wires: Wires,
    /// The source does not come at its own pace.
    paced: bool,
    decoder: Option<Decoder>,
    /// It can't be decoded here.
    hopeless: bool,
}

impl Ear {
    fn hear(&mut self, sample: &gst::Sample) {
        if self.hopeless || !self.wires.outlet.sound().is_wanted() {
            self.decoder = None;
            return;
        }
        let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps()) else { return };
        if self.paced && !self.is_due(sample) {
            return;
        }
        if self.decoder.as_ref().is_some_and(|d| !d.fits(caps, buffer.pts())) {
            self.decoder = None;
        }
        if self.decoder.is_none() {
            self.decoder = Decoder::new(caps, &self.wires).inspect_err(|error| tracing::debug!(%error, "sound")).ok();
        }
        let Some(decoder) = self.decoder.as_mut().filter(|d| !d.broken.load(Ordering::Relaxed)) else {
            tracing::info!(caps = %caps.structure(0).map(|s| s.name().to_string()).unwrap_or_default(),
                "the source's sound can't be decoded here; the video goes on without it");
            (self.hopeless, self.decoder) = (true, None);
            self.wires.pulse.set_sound(false);
            return;
        };
        decoder.push(buffer);
    }

    /// Waits until the picture of the same moment is nearly due. False when that is over.
    fn is_due(&self, sample: &gst::Sample) -> bool {
        let running = || {
            let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
            Some(Duration::from_nanos(segment.to_running_time(sample.buffer()?.pts()?)?.nseconds()))
        };
        let (Some(running), Some((at, shown))) = (running(), self.wires.pulse.shown()) else { return true };
        // Pictures may have stopped coming; sound goes on from the last.
        let now = shown + Instant::now().saturating_duration_since(at);
        if running + LATE < now {
            return false;
        }
        let wait = running.saturating_sub(now).saturating_sub(AHEAD);
        if !wait.is_zero() && wait <= EARLY {
            self.wires.pulse.sleep(wait);
        }
        true
    }
}

/// Decodes encoded sound to samples of 48 kHz, one channel, and hands them out.
struct Decoder {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    caps: gst::Caps,
    last: Option<gst::ClockTime>,
    /// It reported an error and gives nothing any more.
    broken: Arc<AtomicBool>,
}

impl Decoder {
    fn new(caps: &gst::CapsRef, wires: &Wires) -> Result<Self> {
        let caps = caps.to_owned();
        let pipeline = gst::Pipeline::new();
        let source = make("appsrc")?;
        set(&source, "caps", &caps);
        set_named(&source, "format", "time");
        set_named(&source, "leaky-type", "downstream");
        for (property, value) in [("max-buffers", WAITING), ("max-bytes", 0), ("max-time", 0)] {
            set(&source, property, value);
        }
        let decodebin = make("decodebin")?;
        let convert = make("audioconvert")?;
        let resample = make("audioresample")?;
        let format = make("capsfilter")?;
        let raw = gst::Caps::builder("audio/x-raw").field("format", "S16LE").field("layout", "interleaved");
        set(
            &format,
            "caps",
            raw.field("rate", i32::try_from(SAMPLE_RATE).unwrap_or(0)).field("channels", 1i32).build(),
        );
        let sink = make("appsink")?;
        for (property, value) in [("sync", false), ("async", false), ("enable-last-sample", false)] {
            set(&sink, property, value);
        }
        chain(&pipeline, &[convert.clone(), resample, format, sink.clone()])?;
        pipeline.add_many([&source, &decodebin]).map_err(|e| failed(&e.to_string()))?;
        source.link(&decodebin).map_err(|e| failed(&e.to_string()))?;
        let head = pad(&convert, "sink")?.downgrade();
        decodebin.connect_pad_added(move |_, pad| {
            if let Some(head) = head.upgrade().filter(|head| !head.is_linked())
                && let Err(error) = pad.link(&head)
            {
                tracing::debug!(%error, "decoded sound can't be linked");
            }
        });
        let sink = sink.downcast::<gst_app::AppSink>().map_err(|_| failed("appsink is none"))?;
        sink.set_callbacks(deliver(wires.clone()));
        let broken = Arc::new(AtomicBool::new(false));
        let (bus, flag) = (pipeline.bus().ok_or_else(|| failed("the sound has no message bus"))?, Arc::clone(&broken));
        bus.set_sync_handler(move |_, message| {
            if matches!(message.view(), gst::MessageView::Error(_)) {
                flag.store(true, Ordering::Relaxed);
            }
            gst::BusSyncReply::Drop
        });
        let source = source.downcast::<gst_app::AppSrc>().map_err(|_| failed("appsrc is none"))?;
        let decoder = Self { pipeline, source, caps, last: None, broken };
        decoder.pipeline.set_state(gst::State::Playing).map_err(|e| failed(&e.to_string()))?;
        Ok(decoder)
    }

    /// False when it must be made anew for what comes now: another format, or time that turned back.
    fn fits(&self, caps: &gst::CapsRef, pts: Option<gst::ClockTime>) -> bool {
        self.caps.as_ref() == caps
            && self.last.is_none_or(|last| pts.is_none_or(|pts| pts + gst::ClockTime::SECOND >= last))
    }

    fn push(&mut self, buffer: gst::Buffer) {
        self.last = buffer.pts().or(self.last);
        if let Err(error) = self.source.push_buffer(buffer) {
            tracing::trace!(%error, "a piece of sound was not taken");
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        if let Err(error) = self.pipeline.set_state(gst::State::Null) {
            tracing::debug!(%error, "the sound's pipeline did not close cleanly");
        }
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
    }
}

fn deliver(wires: Wires) -> gst_app::AppSinkCallbacks {
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let Some(Ok(data)) = sample.buffer().map(gst::BufferRef::map_readable) else {
            return Err(gst::FlowError::Error);
        };
        let samples: Vec<i16> = data.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
        let _false_when_the_connection_is_over = wires.outlet.hear(wires.session, &samples);
        Ok(gst::FlowSuccess::Ok)
    });
    callbacks.build()
}
