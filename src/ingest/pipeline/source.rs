//! The head of a pipeline: the element that opens the source, and the decoder behind it up to raw video.
//! Not here: whether a source string is allowed (`spec`), elements that GStreamer adds by itself (`guard`).

use super::decoder::Picker;
use super::{Notice, Plan, Wires, guard, sound};
use crate::error::Result;
use crate::ingest::elements::{chain, failed, make, pad, set, set_named};
use crate::ingest::fault::{Failure, subject};
use crate::ingest::pattern::TestPattern;
use crate::ingest::spec::{NetSource, SourceSpec};
use crate::ingest::{redact, timecode};
use crate::source::SourceFault;
use gst::prelude::*;
use gst_video::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long `rtspsrc` may take to say goodbye to a server.
const GOODBYE: gst::ClockTime = gst::ClockTime::from_mseconds(100);

/// A source that was looked at and may be opened.
#[derive(Debug)]
pub(super) struct Ready {
    /// The file or device with links resolved.
    path: PathBuf,
}

/// Looks at files and devices before GStreamer does, which says less clearly what is wrong with them.
///
/// # Errors
/// When there is none, it is of the wrong kind, or it may not be read.
pub(super) fn check(plan: &Plan) -> Result<Ready, Failure> {
    let who = subject(&plan.spec);
    let fails = |fault, what: &str| Err(Failure::new(fault, format!("{who} {what}")));
    match &plan.spec {
        SourceSpec::File(path) => {
            let path = plan.policy().check_file(path).map_err(|e| Failure::from_error(&e))?;
            match std::fs::metadata(&path) {
                Err(error) => fails(SourceFault::NotFound, &format!("can't be looked at: {error}")),
                Ok(meta) if meta.is_dir() => fails(SourceFault::BadStream, "is a folder; give one video file"),
                Ok(meta) if !meta.is_file() => fails(SourceFault::BadStream, "is no regular file"),
                Ok(meta) if meta.len() == 0 => fails(SourceFault::BadStream, "is empty"),
                Ok(_) => match std::fs::File::open(&path) {
                    Ok(_) => Ok(Ready { path }),
                    Err(error) => fails(SourceFault::Other, &format!("can't be read: {error}; check its permissions")),
                },
            }
        }
        SourceSpec::Device(path) => match std::fs::metadata(path) {
            Err(_) => fails(SourceFault::NotFound, "does not exist; plug the camera in, or list cameras with v4l2-ctl"),
            Ok(meta) if !meta.file_type().is_char_device() => fails(SourceFault::Device, "is no camera"),
            Ok(_) => Ok(Ready { path: path.clone() }),
        },
        SourceSpec::Rtsp(net) | SourceSpec::Http(net) => {
            redact::remember(net);
            Ok(Ready { path: PathBuf::new() })
        }
        SourceSpec::Test(_) | SourceSpec::Webcam => Ok(Ready { path: PathBuf::new() }),
    }
}

/// Adds everything before `head` to `pipeline`.
pub(super) fn add(pipeline: &gst::Pipeline, head: &gst::Pad, plan: &Plan, wires: &Wires, ready: &Ready) -> Result<()> {
    match &plan.spec {
        SourceSpec::Rtsp(net) => rtsp(pipeline, head, plan, wires, net),
        SourceSpec::Http(net) => http(pipeline, head, plan, wires, net),
        SourceSpec::File(_) => file(pipeline, head, plan, wires, &ready.path),
        SourceSpec::Device(_) => device(pipeline, head, plan, wires, &ready.path),
        SourceSpec::Test(pattern) => test(pipeline, head, *pattern),
        SourceSpec::Webcam => webcam(pipeline, head, plan, wires),
    }
}

fn rtsp(pipeline: &gst::Pipeline, head: &gst::Pad, plan: &Plan, wires: &Wires, net: &NetSource) -> Result<()> {
    let config = &plan.config;
    let source = make("rtspsrc")?;
    set(&source, "location", net.url.expose().as_str());
    guard::watch_requests(&source, wires, plan);
    credentials(&source, net);
    set_named(&source, "protocols", if plan.udp { "udp+udp-mcast" } else { "tcp" });
    set(&source, "latency", u32::try_from(config.rtsp_latency.as_millis()).unwrap_or(u32::MAX));
    set(&source, "drop-on-latency", true);
    set(&source, "tcp-timeout", micros(config.connect_timeout));
    // The time without UDP packets after which it would try TCP by itself.
    set(&source, "timeout", micros(config.stall_timeout));
    set(&source, "teardown-timeout", GOODBYE.nseconds());
    // Set up the first video stream, and the first with sound: nothing else is fetched.
    let taken = Mutex::new([None::<u32>; 2]);
    let wanted: &[&str] = if plan.sound { &["video", "audio"] } else { &["video"] };
    let _for_its_life = source.connect("select-stream", false, move |values| {
        let number = values.get(1).and_then(|v| v.get::<u32>().ok());
        let caps = values.get(2).and_then(|v| v.get::<gst::Caps>().ok());
        let media = caps.as_ref().and_then(|c| c.structure(0)).and_then(|s| s.get::<&str>("media").ok());
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let place =
            wanted.iter().zip(taken.iter_mut()).find(|(wanted, _)| media == Some(**wanted)).map(|(_, place)| place);
        let selected = place.is_some_and(|place| {
            let free = place.is_none() || *place == number;
            if free {
                *place = number;
            }
            free
        });
        Some(selected.to_value())
    });
    let decodebin = add_decodebin(pipeline, head, plan, wires)?;
    pipeline.add(&source).map_err(|e| failed(&e.to_string()))?;
    let input = pad(&decodebin, "sink")?.downgrade();
    // Once all that was set up has begun, and it is sound alone.
    let (weak_input, spec, notify) = (input.clone(), plan.spec.clone(), wires.clone());
    source.connect_no_more_pads(move |_| {
        if weak_input.upgrade().is_some_and(|input| !input.is_linked()) {
            notify.tell(Notice::Failed(Failure::no_video(&spec)));
        }
    });
    let (weak_pipeline, own_plan, own_wires) = (pipeline.downgrade(), plan.clone(), wires.clone());
    source.connect_pad_added(move |_, pad| {
        if sound::is_sound(pad) {
            let taken = weak_pipeline.upgrade().map(|pipeline| sound::take(&pipeline, pad, &own_plan, &own_wires));
            if let Some(Err(error)) = taken {
                tracing::debug!(%error, "an RTSP stream's sound can't be had");
            }
            return;
        }
        if let Some(input) = input.upgrade().filter(|input| !input.is_linked())
            && let Err(error) = pad.link(&input)
        {
            tracing::debug!(%error, "an RTSP stream can't be linked");
        }
    });
    Ok(())
}

fn http(pipeline: &gst::Pipeline, head: &gst::Pad, plan: &Plan, wires: &Wires, net: &NetSource) -> Result<()> {
    let source = make("souphttpsrc")?;
    set(&source, "location", net.url.expose().as_str());
    credentials(&source, net);
    // Redirects are followed by the supervisor, after the check that the first address passed as well.
    set(&source, "automatic-redirect", false);
    set(&source, "iradio-mode", false);
    set(&source, "retries", 0i32);
    set(&source, "timeout", u32::try_from(plan.config.connect_timeout.as_secs()).unwrap_or(u32::MAX).max(1));
    opened(pipeline, head, plan, wires, source)
}

fn file(pipeline: &gst::Pipeline, head: &gst::Pad, plan: &Plan, wires: &Wires, path: &Path) -> Result<()> {
    let source = make("filesrc")?;
    let path = path.to_str().ok_or_else(|| failed("the file's name is no UTF-8"))?;
    set(&source, "location", path);
    opened(pipeline, head, plan, wires, source)
}

fn device(pipeline: &gst::Pipeline, head: &gst::Pad, plan: &Plan, wires: &Wires, path: &Path) -> Result<()> {
    let source = make("v4l2src")?;
    let path = path.to_str().ok_or_else(|| failed("the device's name is no UTF-8"))?;
    set(&source, "device", path);
    set(&source, "do-timestamp", true);
    opened(pipeline, head, plan, wires, source)
}

fn webcam(pipeline: &gst::Pipeline, head: &gst::Pad, plan: &Plan, wires: &Wires) -> Result<()> {
    let feed = plan.feed.as_ref().ok_or_else(|| failed("nobody feeds the camera's pictures"))?;
    opened(pipeline, head, plan, wires, feed.element())
}

fn opened(pipeline: &gst::Pipeline, head: &gst::Pad, plan: &Plan, wires: &Wires, source: gst::Element) -> Result<()> {
    let decodebin = add_decodebin(pipeline, head, plan, wires)?;
    pipeline.add(&source).map_err(|e| failed(&e.to_string()))?;
    source.link(&decodebin).map_err(|e| failed(&e.to_string()))
}

fn test(pipeline: &gst::Pipeline, head: &gst::Pad, pattern: TestPattern) -> Result<()> {
    let source = make("videotestsrc")?;
    set(&source, "is-live", true);
    set_named(&source, "pattern", pattern.name);
    let filter = make("capsfilter")?;
    let side = |pixels| i32::try_from(pixels).unwrap_or(i32::MAX);
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        // Named, because nothing else would say by which matrix they are painted.
        .field("colorimetry", "bt601")
        .field("width", side(pattern.width))
        .field("height", side(pattern.height))
        .field("framerate", gst::Fraction::new(side(pattern.fps), 1))
        .build();
    set(&filter, "caps", caps);
    let mut elements = vec![source, filter.clone()];
    // A clock that people can read, where the plugin is there; the strip that programs read is there always.
    if let Ok(overlay) = make("timeoverlay") {
        set_named(&overlay, "valignment", "bottom");
        elements.push(overlay);
    }
    chain(pipeline, &elements)?;
    burn_time(&pad(&filter, "src")?);
    let last = elements.last().map_or_else(|| pad(&filter, "src"), |last| pad(last, "src"))?;
    last.link(head).map(|_| ()).map_err(|e| failed(&e.to_string()))
}

fn burn_time(from: &gst::Pad) {
    let _for_the_pads_life = from.add_probe(gst::PadProbeType::BUFFER, |pad, info| {
        let video = pad.current_caps().and_then(|caps| gst_video::VideoInfo::from_caps(&caps).ok());
        if let (Some(video), Some(buffer)) = (video, info.buffer_mut()) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            if let Ok(mut frame) = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer.make_mut(), &video) {
                let stride = frame.plane_stride().first().map_or(0, |s| usize::try_from(*s).unwrap_or(0));
                let (width, height) = (frame.width() as usize, frame.height() as usize);
                if let Ok(luma) = frame.plane_data_mut(0) {
                    timecode::burn(luma, stride, width, height, u64::try_from(now.as_micros()).unwrap_or(0));
                }
            }
        }
        gst::PadProbeReturn::Ok
    });
}

fn credentials(source: &gst::Element, net: &NetSource) {
    if let Some(credentials) = &net.credentials {
        set(source, "user-id", credentials.user.expose().as_str());
        set(source, "user-pw", credentials.password.expose().as_str());
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Adds a decodebin whose first video is linked to `head`, whose first sound is taken undecoded, and everything else
/// thrown away.
fn add_decodebin(pipeline: &gst::Pipeline, head: &gst::Pad, plan: &Plan, wires: &Wires) -> Result<gst::Element> {
    let decodebin = make("decodebin")?;
    pipeline.add(&decodebin).map_err(|e| failed(&e.to_string()))?;
    let (weak_head, weak_pipeline, notify) = (head.downgrade(), pipeline.downgrade(), wires.clone());
    let (own_plan, heard) = (plan.clone(), AtomicBool::new(!plan.sound));
    decodebin.connect_pad_added(move |_, pad| {
        let (Some(head), Some(pipeline)) = (weak_head.upgrade(), weak_pipeline.upgrade()) else { return };
        if sound::is_sound(pad) && !heard.swap(true, Ordering::Relaxed) {
            match sound::take(&pipeline, pad, &own_plan, &notify) {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "the source's sound can't be had"),
            }
        }
        if let Err(error) = take(&pipeline, &head, pad) {
            notify.tell(Notice::Failed(Failure::from_error(&error)));
        }
    });
    let (weak_head, spec, notify) = (head.downgrade(), plan.spec.clone(), wires.clone());
    decodebin.connect_no_more_pads(move |_| {
        if weak_head.upgrade().is_some_and(|head| !head.is_linked()) {
            notify.tell(Notice::Failed(Failure::no_video(&spec)));
        }
    });
    let (max_pixels, notify) = (plan.config.max_pixels, wires.clone());
    let _for_its_life = decodebin.connect("autoplug-continue", false, move |values| {
        let caps = values.get(2).and_then(|v| v.get::<gst::Caps>().ok());
        Some(goes_on(caps.as_ref(), max_pixels, &notify).to_value())
    });
    choose_decoder(&decodebin, Picker::new(plan.config.decoder, plan.hardware));
    Ok(decodebin)
}

/// Tells whether decodebin should decode a stream further.
fn goes_on(caps: Option<&gst::Caps>, max_pixels: u64, wires: &Wires) -> bool {
    let Some(structure) = caps.and_then(|caps| caps.structure(0)) else { return true };
    let side = |name| structure.get::<i32>(name).ok().and_then(|side| u32::try_from(side).ok());
    // A parser knows the size before any decoder has reserved memory for it.
    if let (Some(width), Some(height)) = (side("width"), side("height"))
        && !guard::fits(width, height, max_pixels)
    {
        wires.tell(Notice::Failed(Failure::too_large(width, height, max_pixels)));
        return false;
    }
    let unwanted = ["audio/", "text/", "subpicture/", "closedcaption/"];
    !unwanted.iter().any(|kind| structure.name().starts_with(kind))
}

fn choose_decoder(decodebin: &gst::Element, picker: Picker) {
    // The type is the plugin's own; the crate has no name for it.
    let known = gst::glib::Type::from_name("GstAutoplugSelectResult");
    let value = |kind, nick| gst::glib::EnumClass::with_type(kind).and_then(|class| class.to_value_by_nick(nick));
    let Some(kind) = known.filter(|kind| value(*kind, "try").is_some() && value(*kind, "skip").is_some()) else {
        tracing::debug!("this decodebin can't be told which decoder to take");
        return;
    };
    let _for_its_life = decodebin.connect("autoplug-select", false, move |values| {
        let caps = values.get(2).and_then(|v| v.get::<gst::Caps>().ok());
        let factory = values.get(3).and_then(|v| v.get::<gst::ElementFactory>().ok());
        let skipped = caps.zip(factory).is_some_and(|(caps, factory)| picker.skips(&factory, &caps));
        value(kind, if skipped { "skip" } else { "try" })
    });
}

/// Links a decoded pad to `head` if it is the first video, else lets it run into the sand.
fn take(pipeline: &gst::Pipeline, head: &gst::Pad, pad: &gst::Pad) -> Result<()> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let video = caps.structure(0).is_some_and(|s| s.name().starts_with("video/x-raw"));
    if video && !head.is_linked() {
        return pad.link(head).map(|_| ()).map_err(|e| failed(&format!("the video can't be linked: {e}")));
    }
    // Without anything behind it a stream would hold up the others.
    let sink = make("fakesink")?;
    set(&sink, "async", false);
    set(&sink, "sync", false);
    set(&sink, "enable-last-sample", false);
    pipeline.add(&sink).map_err(|e| failed(&e.to_string()))?;
    sink.sync_state_with_parent().map_err(|e| failed(&e.to_string()))?;
    let input = sink.static_pad("sink").ok_or_else(|| failed("fakesink has no pad"))?;
    pad.link(&input).map(|_| ()).map_err(|e| failed(&e.to_string()))
}
