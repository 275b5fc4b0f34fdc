//! The two branches behind the tee: frames for the model, and JPEGs for viewers.
//! Both drop first, scale second and convert last, because each step costs by the pixel. Not here: the head (`source`).

use super::jfif::ToJfif;
use super::rate::RateLimit;
use super::{Plan, Wires};
use crate::error::Result;
use crate::frame::delivered_size;
use crate::ingest::elements::{chain, failed, make, pad, set, set_named};
use crate::ingest::outlet::Picture;
use bytes::Bytes;
use gst::prelude::*;
use gst_video::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Frames between the tee and a branch's own thread. The older one goes; at these rates it is late by then anyway.
const WAITING: u32 = 2;
/// Smallest side of a JPEG, pixels.
const SMALLEST: u32 = 16;

/// What one branch does differently from the other.
struct Shape {
    fps: f64,
    /// GStreamer's name of the scaling method.
    method: &'static str,
    /// What the converter makes.
    format: gst::Caps,
    /// Size of the result for a source of the given display size.
    size: Box<dyn Fn(u32, u32) -> (u32, u32) + Send + Sync>,
    /// Asked for every frame, before any work is done on it.
    wanted: Box<dyn Fn() -> bool + Send + Sync>,
    encoder: Option<gst::Element>,
}

/// Frames for the model, into the window.
pub(super) fn model(pipeline: &gst::Pipeline, tee: &gst::Element, plan: &Plan, wires: &Wires) -> Result<()> {
    let shape = Shape {
        fps: plan.config.capture_fps,
        // Cubic with as many taps as the reduction needs: the reference processor's own kind of filter.
        method: "catrom",
        format: gst::Caps::builder("video/x-raw").field("format", "RGB").build(),
        size: Box::new(delivered_size),
        wanted: Box::new(|| true),
        encoder: None,
    };
    let wires_out = wires.clone();
    branch(pipeline, tee, shape, wires, move |sample| {
        let captured = captured(sample, wires_out.pulse.anchor);
        let Some(picture) = picture(sample, captured) else { return Err(gst::FlowError::Error) };
        if wires_out.outlet.frame(wires_out.session, picture) {
            wires_out.pulse.set_delivered();
        }
        Ok(gst::FlowSuccess::Ok)
    })
}

/// JPEGs for viewers, onto the bus, while there are any.
pub(super) fn jpeg(pipeline: &gst::Pipeline, tee: &gst::Element, plan: &Plan, wires: &Wires) -> Result<()> {
    let encoder = make("jpegenc")?;
    set(&encoder, "quality", i32::from(plan.config.jpeg_quality.clamp(1, 100)));
    let widest = plan.config.jpeg_width;
    let outlet = Arc::clone(&wires.outlet);
    let shape = Shape {
        fps: plan.config.jpeg_fps,
        method: "bilinear",
        format: gst::Caps::builder("video/x-raw").field("format", "I420").build(),
        size: Box::new(move |width, height| jpeg_size(width, height, widest)),
        wanted: Box::new(move || outlet.is_watched()),
        encoder: Some(encoder),
    };
    let wires_out = wires.clone();
    branch(pipeline, tee, shape, wires, move |sample| {
        let captured = captured(sample, wires_out.pulse.anchor);
        let Some(Ok(data)) = sample.buffer().map(gst::BufferRef::map_readable) else {
            return Err(gst::FlowError::Error);
        };
        wires_out.outlet.jpeg(wires_out.session, captured, Bytes::copy_from_slice(&data));
        Ok(gst::FlowSuccess::Ok)
    })
}

fn branch(
    pipeline: &gst::Pipeline,
    tee: &gst::Element,
    shape: Shape,
    wires: &Wires,
    mut deliver: impl FnMut(&gst::Sample) -> Result<gst::FlowSuccess, gst::FlowError> + Send + 'static,
) -> Result<()> {
    let queue = make("queue")?;
    set(&queue, "max-size-buffers", WAITING);
    set(&queue, "max-size-bytes", 0u32);
    set(&queue, "max-size-time", 0u64);
    set_named(&queue, "leaky", "downstream");
    // Phones write upright clips as lying ones with a tag; without a tag this does nothing.
    let flip = make("videoflip")?;
    set_named(&flip, "video-direction", "auto");
    let scale = make("videoscale")?;
    set(&scale, "add-borders", false);
    set_named(&scale, "method", shape.method);
    let size = make("capsfilter")?;
    let convert = make("videoconvert")?;
    let format = make("capsfilter")?;
    set(&format, "caps", shape.format);
    let sink = make("appsink")?;
    for (property, value) in [("sync", false), ("async", false), ("drop", true), ("wait-on-eos", false)] {
        set(&sink, property, value);
    }
    set(&sink, "enable-last-sample", false);
    set(&sink, "max-buffers", 1u32);
    let mut elements = vec![queue.clone(), flip, scale.clone(), size.clone(), convert, format];
    if let Some(encoder) = shape.encoder {
        full_range(&pad(&encoder, "sink")?);
        elements.push(encoder);
    }
    elements.push(sink.clone());
    chain(pipeline, &elements)?;
    follow_size(&pad(&scale, "sink")?, size, shape.size);
    limit(&pad(&queue, "sink")?, shape.fps, shape.wanted, wires.pulse.anchor);
    let sink = sink.downcast::<gst_app::AppSink>().map_err(|_| failed("appsink is none"))?;
    let callbacks = gst_app::AppSinkCallbacks::builder();
    sink.set_callbacks(
        callbacks.new_sample(move |sink| deliver(&sink.pull_sample().map_err(|_| gst::FlowError::Eos)?)).build(),
    );
    tee.link(&queue).map_err(|e| failed(&e.to_string()))
}

/// Sets the size behind the scaler anew whenever the source's own size changes.
fn follow_size(scaler: &gst::Pad, filter: gst::Element, size: Box<dyn Fn(u32, u32) -> (u32, u32) + Send + Sync>) {
    let _for_the_pads_life = scaler.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(event) = info.event()
            && let gst::EventView::Caps(caps) = event.view()
            && let Ok(video) = gst_video::VideoInfo::from_caps(caps.caps())
        {
            let (width, height) = size(display_width(&video), video.height());
            let side = |pixels| i32::try_from(pixels).unwrap_or(i32::MAX);
            let caps = gst::Caps::builder("video/x-raw")
                .field("width", side(width))
                .field("height", side(height))
                .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
                .build();
            set(&filter, "caps", caps);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Brings pictures on their way to the encoder to JFIF's meaning of numbers.
fn full_range(encoder: &gst::Pad) {
    let _for_the_pads_life = encoder.add_probe(gst::PadProbeType::BUFFER, |pad, info| {
        let video = pad.current_caps().and_then(|caps| gst_video::VideoInfo::from_caps(&caps).ok());
        if let (Some(video), Some(buffer)) = (video, info.buffer_mut())
            && let Some(to) = ToJfif::new(&video.colorimetry())
            && let Ok(mut frame) = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer.make_mut(), &video)
        {
            let (width, height) = (frame.width() as usize, frame.height() as usize);
            let stride = |plane: usize| video_stride(frame.plane_stride(), plane);
            let strides = [stride(0), stride(1), stride(2)];
            let [y, u, v, _] = frame.planes_data_mut();
            to.convert([(y, strides[0]), (u, strides[1]), (v, strides[2])], width, height);
        }
        gst::PadProbeReturn::Ok
    });
}

fn video_stride(strides: &[i32], plane: usize) -> usize {
    strides.get(plane).and_then(|stride| usize::try_from(*stride).ok()).unwrap_or(0)
}

/// Drops what is not wanted or too much, and stamps the rest with the time at which it left the decoder.
fn limit(input: &gst::Pad, fps: f64, wanted: Box<dyn Fn() -> bool + Send + Sync>, anchor: Instant) {
    let rate = Mutex::new(RateLimit::new(fps));
    let reference = stamp_caps();
    let _for_the_pads_life = input.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let now = Instant::now();
        let passes = wanted() && rate.lock().unwrap_or_else(PoisonError::into_inner).admit(now);
        if !passes {
            // Not Drop: with it the bindings 0.25 on GStreamer 1.22 print a CRITICAL for every frame.
            return gst::PadProbeReturn::Handled;
        }
        if let Some(buffer) = info.buffer_mut() {
            let since = u64::try_from(now.saturating_duration_since(anchor).as_nanos()).unwrap_or(u64::MAX - 1);
            let time = gst::ClockTime::from_nseconds(since);
            gst::ReferenceTimestampMeta::add(buffer.make_mut(), &reference, time, gst::ClockTime::NONE);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Names our stamp among others that a buffer may carry.
fn stamp_caps() -> gst::Caps {
    gst::Caps::new_empty_simple("timestamp/x-vidette-decoded")
}

/// When the frame of `sample` left the decoder.
fn captured(sample: &gst::SampleRef, anchor: Instant) -> Instant {
    let stamp = sample.buffer().and_then(|buffer| {
        let ours = stamp_caps();
        let mut stamps = buffer.iter_meta::<gst::ReferenceTimestampMeta>();
        stamps.find(|meta| meta.reference() == ours.as_ref()).map(|meta| meta.timestamp())
    });
    match stamp {
        Some(since) => anchor + Duration::from_nanos(since.nseconds()),
        // An element lost it. Now is later than then, so ages stay true or look worse.
        None => Instant::now(),
    }
}

/// Copies the pixels out, row by row where rows are padded.
fn picture(sample: &gst::SampleRef, captured: Instant) -> Option<Picture> {
    let video = gst_video::VideoInfo::from_caps(sample.caps()?).ok()?;
    let buffer = sample.buffer()?;
    // The frame knows the stride from the buffer's own description, which may differ from the usual one.
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &video).ok()?;
    let stride = usize::try_from(*frame.plane_stride().first()?).ok()?;
    let (width, height) = (frame.width(), frame.height());
    let (row, rows) = (width as usize * 3, height as usize);
    let data = frame.plane_data(0).ok()?;
    let mut rgb = Vec::with_capacity(row * rows);
    if stride == row {
        rgb.extend_from_slice(data.get(..row * rows)?);
    } else {
        for padded in data.chunks(stride.max(1)).take(rows) {
            rgb.extend_from_slice(padded.get(..row)?);
        }
    }
    let pts = buffer.pts().map(|pts| Duration::from_nanos(pts.nseconds()));
    (rgb.len() == row * rows).then(|| Picture { pts, captured, width, height, rgb: rgb.into() })
}

/// The width that the picture is meant to be shown with: pixels need not be square.
fn display_width(video: &gst_video::VideoInfo) -> u32 {
    let par = video.par();
    let (over, under) = (u64::try_from(par.numer()).unwrap_or(1), u64::try_from(par.denom()).unwrap_or(1));
    let width = u64::from(video.width()) * over.max(1) / under.max(1);
    u32::try_from(width).unwrap_or(u32::MAX).max(1)
}

/// No wider than `widest` (0: no limit), shape kept, both sides even.
fn jpeg_size(width: u32, height: u32, widest: u32) -> (u32, u32) {
    // The format itself ends at 65535 pixels a side.
    let limit = if widest == 0 { 65_534 } else { widest };
    let even = |side: u64| (u32::try_from(side).unwrap_or(u32::MAX).min(65_534) / 2 * 2).max(SMALLEST);
    let shown = width.max(1).min(limit);
    (even(u64::from(shown)), even(u64::from(height) * u64::from(shown) / u64::from(width.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jpegs_keep_their_shape_and_are_even() {
        assert_eq!(jpeg_size(1920, 1080, 1280), (1280, 720));
        assert_eq!(jpeg_size(640, 480, 1280), (640, 480));
        assert_eq!(jpeg_size(641, 479, 0), (640, 478));
        assert_eq!(jpeg_size(1, 1, 1280), (16, 16));
        assert_eq!(jpeg_size(0, u32::MAX, 1280), (16, 65_534));
    }

    #[test]
    fn wide_pixels_widen_the_picture() {
        gst::init().unwrap();
        let info =
            |par| gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 720, 576).par(par).build().unwrap();
        assert_eq!(display_width(&info(gst::Fraction::new(16, 15))), 768);
        assert_eq!(display_width(&info(gst::Fraction::new(1, 1))), 720);
    }
}
