//! Measures the ingest side on this machine: what a stream costs, and how old a frame is when it reaches the window.
//! Not here: expectations (`tests`), the figures themselves (`docs/INGEST.md`).
//!
//! ```text
//! measure_ingest serve PORT [CLIP]        an RTSP server: CLIP, or a painted picture with a burnt-in clock
//! measure_ingest cost SOURCE SECONDS [JPEG_FPS]
//!                                         percent of one core, with a viewer of JPEG_FPS if given
//! measure_ingest latency SOURCE SECONDS   from the burnt-in clock to the window, milliseconds
//! measure_ingest watch SOURCE SECONDS     the log and each change of the status
//! ```

use gstreamer as gst;
use gstreamer_rtsp_server::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use vidette::bus::Bus;
use vidette::ingest::{IngestConfig, spawn, timecode};
use vidette::metrics::Metrics;
use vidette::shutdown::{Trigger, pair};
use vidette::source::SourceHandle;
use vidette::window::{Bounds, SharedWindow};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Left out of every measurement: plugins are loaded and connections made in it.
const WARM_UP: Duration = Duration::from_secs(4);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", port] => serve(port, &painted()),
        ["serve", port, clip] => {
            serve(port, &format!("( filesrc location=\"{clip}\" ! qtdemux ! h264parse ! rtph264pay name=pay0 )"))
        }
        ["cost", source, seconds] => cost(source, seconds.parse()?, None).await,
        ["cost", source, seconds, fps] => cost(source, seconds.parse()?, Some(fps.parse()?)).await,
        ["latency", source, seconds] => latency(source, seconds.parse()?).await,
        ["watch", source, seconds] => watch(source, seconds.parse()?).await,
        _ => Err("give serve, cost, latency or watch; the head of this file says how".into()),
    }
}

struct Rig {
    window: Arc<SharedWindow>,
    bus: Arc<Bus>,
    source: SourceHandle,
    trigger: Trigger,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    async fn start(source: &str, config: IngestConfig) -> Result<Self> {
        vidette::ingest::init()?;
        let window = Arc::new(SharedWindow::new(Bounds { frames: 16, bytes: 1 << 30 }));
        let bus = Arc::new(Bus::new());
        let (trigger, shutdown) = pair();
        let (handle, task) =
            spawn("main", config, Arc::clone(&window), Arc::clone(&bus), Arc::new(Metrics::new()), None, shutdown);
        handle.start(source).await?;
        Ok(Self { window, bus, source: handle, trigger, task })
    }

    async fn end(self) -> Result<()> {
        self.trigger.fire();
        Ok(self.task.await?)
    }
}

async fn cost(source: &str, seconds: u64, viewer: Option<f64>) -> Result<()> {
    let config = IngestConfig { jpeg_fps: viewer.unwrap_or(25.0), ..IngestConfig::default() };
    let rig = Rig::start(source, config).await?;
    let pictures = viewer.map(|_| rig.bus.pictures());
    tokio::time::sleep(WARM_UP).await;
    let jpegs = || pictures.as_ref().and_then(|p| p.borrow().as_ref().map(|jpeg| jpeg.seq)).unwrap_or(0);
    let (cpu, first, first_jpeg, start) = (cpu_seconds()?, *rig.window.bell().borrow(), jpegs(), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let wall = start.elapsed().as_secs_f64();
    let percent = (cpu_seconds()? - cpu) / wall * 100.0;
    let frames = rig.window.bell().borrow().unwrap_or(0) - first.unwrap_or(0);
    let rates = (frames as f64 / wall, (jpegs() - first_jpeg) as f64 / wall);
    println!("{percent:.1} % of a core; {:.1} RGB frames and {:.1} JPEGs per second", rates.0, rates.1);
    rig.end().await
}

/// Processor time of this process so far: fields 14 and 15 of `/proc/self/stat`, in ticks of 10 ms.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|t| t.parse::<f64>().ok()).ok_or("no processor time");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

async fn latency(source: &str, seconds: u64) -> Result<()> {
    let config = IngestConfig { capture_fps: 100.0, ..IngestConfig::default() };
    let rig = Rig::start(source, config).await?;
    let mut bell = rig.window.bell();
    let start = Instant::now();
    let (mut to_window, mut to_decoder, mut first) = (Vec::new(), Vec::new(), None);
    while start.elapsed() < WARM_UP + Duration::from_secs(seconds) {
        if !matches!(tokio::time::timeout(Duration::from_secs(1), bell.changed()).await, Ok(Ok(()))) {
            continue;
        }
        let now = micros(SystemTime::now());
        let newest = rig.window.pick(vidette::window::Pick { frames: 1, stride: 1 });
        let Some(frame) = newest.first() else { continue };
        first.get_or_insert(start.elapsed());
        let burnt = timecode::read(&frame.rgb, frame.width as usize, frame.height as usize);
        if let Some(burnt) = burnt.filter(|_| start.elapsed() > WARM_UP) {
            to_window.push(timecode::between(burnt, now) as f64 / 1000.0);
            to_decoder.push(timecode::between(burnt, micros(frame.wall)) as f64 / 1000.0);
        }
    }
    println!("first frame after {:.2} s; {} frames", first.unwrap_or_default().as_secs_f64(), to_window.len());
    for (name, mut times) in [("to the window", to_window), ("to the decoder's exit", to_decoder)] {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
        println!("clock {name}: p50 {:.1} ms, p95 {:.1} ms", at(0.5), at(0.95));
    }
    rig.end().await
}

async fn watch(source: &str, seconds: u64) -> Result<()> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
    let rig = Rig::start(source, IngestConfig::default()).await?;
    let mut status = rig.source.status();
    let end = tokio::time::sleep(Duration::from_secs(seconds));
    tokio::pin!(end);
    loop {
        println!("{}", serde_json::to_string(&*status.borrow_and_update())?);
        tokio::select! {
            changed = status.changed() => changed?,
            () = &mut end => return rig.end().await,
        }
    }
}

fn micros(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()).unwrap_or(0)
}

fn painted() -> String {
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=1280,height=720,framerate=25/1 \
     ! identity name=stamp ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 bitrate=4000 \
     ! rtph264pay name=pay0 config-interval=-1 )"
        .to_owned()
}

fn serve(port: &str, launch: &str) -> Result<()> {
    gst::init()?;
    let server = gstreamer_rtsp_server::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service(port);
    let factory = gstreamer_rtsp_server::RTSPMediaFactory::new();
    factory.set_launch(launch);
    factory.set_shared(true);
    factory.set_latency(0);
    factory.connect_media_configure(|_, media| {
        let stamp = media.element().downcast::<gst::Bin>().ok().and_then(|bin| bin.by_name("stamp"));
        if let Some(pad) = stamp.and_then(|stamp| stamp.static_pad("src")) {
            pad.add_probe(gst::PadProbeType::BUFFER, burn);
        }
    });
    server.mount_points().ok_or("no mount points")?.add_factory("/live", factory);
    let _source = server.attach(None)?;
    println!("rtsp://127.0.0.1:{port}/live");
    gst::glib::MainLoop::new(None, false).run();
    Ok(())
}

fn burn(pad: &gst::Pad, info: &mut gst::PadProbeInfo<'_>) -> gst::PadProbeReturn {
    let video = pad.current_caps().and_then(|caps| gst_video::VideoInfo::from_caps(&caps).ok());
    if let (Some(video), Some(buffer)) = (video, info.buffer_mut())
        && let Ok(mut frame) = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer.make_mut(), &video)
    {
        let stride = frame.plane_stride().first().map_or(0, |s| *s as usize);
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        if let Ok(luma) = frame.plane_data_mut(0) {
            timecode::burn(luma, stride, width, height, micros(SystemTime::now()));
        }
    }
    gst::PadProbeReturn::Ok
}
