//! One connection as a GStreamer pipeline: source, decoder, one tee, and two branches (`branch`).
//! Built from elements and properties, never from text. Not here: running it (`session`).

mod branch;
mod decoder;
mod feed;
mod guard;
mod jfif;
mod pace;
mod rate;
mod sound;
mod source;

pub(super) use feed::Feed;

use super::config::IngestConfig;
use super::elements::{chain, factory_name, make, pad, set};
use super::fault::{Failure, GstError};
use super::outlet::{Outlet, SessionId};
use super::policy::Policy;
use super::pulse::Pulse;
use super::spec::SourceSpec;
use crate::source::AskedBy;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;

/// What to connect to, and how.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) spec: SourceSpec,
    pub(super) config: Arc<IngestConfig>,
    /// Who named the source.
    pub(super) asked_by: AskedBy,
    /// RTP over UDP instead of TCP.
    pub(super) udp: bool,
    /// Hardware decoders may be tried.
    pub(super) hardware: bool,
    /// The source's sound is taken as well.
    pub(super) sound: bool,
    /// Where a webcam's pictures come in.
    pub(super) feed: Option<Feed>,
}

impl Plan {
    /// What this source may lead to.
    fn policy(&self) -> &Policy {
        self.config.policy_for(self.asked_by)
    }
}

/// What the pipeline tells the one that runs it.
#[derive(Debug)]
pub(super) enum Notice {
    /// GStreamer reported an error; nothing more comes.
    Error(GstError),
    /// We found that this must not go on.
    Failed(Failure),
    /// GStreamer lacks a plugin; the error that follows says no more than that.
    Missing(String),
    /// The server answered with another address.
    Redirect { location: String },
    /// The stream ended.
    Eos,
    /// It ended and was started again.
    Rewound,
    /// It ended, has an end, and is not to start again.
    Finished,
    /// It ended and can't be started again.
    NotSeekable,
}

/// Notices to a session. Bounded; when it is full the first ones count, as the first error is the cause of the rest.
pub(super) type Notices = mpsc::Sender<Notice>;

/// The ends that pipeline callbacks hold.
#[derive(Debug, Clone)]
pub(super) struct Wires {
    pub(super) session: SessionId,
    pub(super) outlet: Arc<Outlet>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) notices: Notices,
}

impl Wires {
    /// Tells the session. Never waits: callbacks run on GStreamer's streaming threads.
    pub(super) fn tell(&self, notice: Notice) {
        if let Err(error) = self.notices.try_send(notice) {
            tracing::debug!(%error, "a notice of the pipeline was dropped");
        }
    }
}

/// Builds the pipeline of `plan`, in state NULL.
///
/// # Errors
/// When the source can't be there (a missing file), or GStreamer lacks an element.
pub(super) fn build(plan: &Plan, wires: &Wires) -> Result<gst::Pipeline, Failure> {
    let ready = source::check(plan)?;
    assemble(plan, wires, &ready).map_err(|error| Failure::from_error(&error))
}

fn assemble(plan: &Plan, wires: &Wires, ready: &source::Ready) -> crate::error::Result<gst::Pipeline> {
    let pipeline = gst::Pipeline::new();
    // No sink waits for the clock, so which one it is matters only in that it never goes away.
    pipeline.use_clock(Some(&gst::SystemClock::obtain()));
    listen(&pipeline, wires)?;
    guard::watch_elements(&pipeline, plan, wires);
    let tee = make("tee")?;
    set(&tee, "allow-not-linked", true);
    chain(&pipeline, std::slice::from_ref(&tee))?;
    let head = pad(&tee, "sink")?;
    watch_frames(&head, plan, wires);
    branch::model(&pipeline, &tee, plan, wires)?;
    branch::jpeg(&pipeline, &tee, plan, wires)?;
    source::add(&pipeline, &head, plan, wires, ready)?;
    Ok(pipeline)
}

/// Takes messages off the bus as they are posted; nothing is left to pile up there.
fn listen(pipeline: &gst::Pipeline, wires: &Wires) -> crate::error::Result<()> {
    let bus = pipeline.bus().ok_or_else(|| super::elements::failed("the pipeline has no message bus"))?;
    let wires = wires.clone();
    bus.set_sync_handler(move |_, message| {
        if let Some(notice) = notice(message) {
            wires.tell(notice);
        }
        gst::BusSyncReply::Drop
    });
    Ok(())
}

fn notice(message: &gst::Message) -> Option<Notice> {
    match message.view() {
        gst::MessageView::Eos(_) => Some(Notice::Eos),
        gst::MessageView::Error(error) => {
            let element = message.src().and_then(|s| s.downcast_ref::<gst::Element>());
            let http_status = error.details().and_then(|d| d.get::<u32>("http-status-code").ok());
            Some(Notice::Error(GstError {
                error: error.error(),
                debug: error.debug().map(|d| d.to_string()).unwrap_or_default(),
                element: element.map(factory_name).unwrap_or_default(),
                http_status,
            }))
        }
        gst::MessageView::Element(_) => {
            let structure = message.structure()?;
            match structure.name().as_str() {
                "missing-plugin" => {
                    let kind = structure.get::<&str>("type").unwrap_or_default();
                    let detail = structure.get::<&str>("detail").unwrap_or_default();
                    let name = structure.get::<&str>("name").unwrap_or_default();
                    Some(Notice::Missing(if kind == "urisource" { format!("urisource-{detail}") } else { name.into() }))
                }
                "http-headers" => {
                    let status = structure.get::<u32>("http-status-code").ok()?;
                    let headers = structure.get::<gst::Structure>("response-headers").ok()?;
                    let location = headers.get::<String>("Location").or_else(|_| headers.get("location")).ok()?;
                    (300..400).contains(&status).then_some(Notice::Redirect { location })
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// At the entrance of the tee: paces files, notes signs of life and the picture's size, refuses what is too large.
fn watch_frames(head: &gst::Pad, plan: &Plan, wires: &Wires) {
    // Cameras set their own pace; a file or a server would send as fast as it can be decoded.
    let paced = matches!(plan.spec, SourceSpec::File(_) | SourceSpec::Http(_));
    let pacer = Mutex::new(paced.then(pace::Pacer::default));
    let (wires, max_pixels) = (wires.clone(), plan.config.max_pixels);
    let what = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
    let _for_the_pads_life = head.add_probe(what, move |_, info| {
        let mut pacer = pacer.lock().unwrap_or_else(PoisonError::into_inner);
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                if let Some(wait) = pacer.as_mut().and_then(|pacer| pacer.wait(Instant::now(), buffer.pts())) {
                    wires.pulse.sleep(wait);
                }
                let now = Instant::now();
                if let Some(running) = pacer.as_ref().and_then(|pacer| pacer.running(buffer.pts())) {
                    wires.pulse.set_shown(now, running);
                }
                wires.pulse.beat(now);
            }
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::Segment(segment) => {
                    if let (Some(pacer), Some(time)) = (pacer.as_mut(), segment.segment().downcast_ref()) {
                        pacer.set_segment(time);
                    }
                }
                gst::EventView::Caps(caps) => {
                    if let Ok(video) = gst_video::VideoInfo::from_caps(caps.caps()) {
                        let (width, height) = (video.width(), video.height());
                        if !guard::fits(width, height, max_pixels) {
                            wires.tell(Notice::Failed(Failure::too_large(width, height, max_pixels)));
                            return gst::PadProbeReturn::Handled;
                        }
                        wires.pulse.set_size(width, height);
                    }
                }
                _ => {}
            },
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}
