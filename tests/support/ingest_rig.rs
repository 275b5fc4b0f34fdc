//! A stream under test, and the real peers it is tested against: an RTSP server in a process of its own, VLC, an HTTP
//! server, clips made by ffmpeg. Not here: what is expected of them (`tests/ingest_*.rs`).
#![allow(dead_code)] // Every test file takes its own part of this.

use gstreamer as gst;
use gstreamer_rtsp_server::prelude::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use vidette::audio::AudioHub;
use vidette::bus::Bus;
use vidette::frame::Frame;
use vidette::ingest::{IngestConfig, spawn_with_sound};
use vidette::metrics::Metrics;
use vidette::shutdown::{Trigger, pair};
use vidette::source::{SourceHandle, SourceState, SourceStatus};
use vidette::window::{Bounds, SharedWindow};

/// One stream with everything that hangs on it.
pub struct Rig {
    pub window: Arc<SharedWindow>,
    pub bus: Arc<Bus>,
    pub sound: Arc<AudioHub>,
    pub metrics: Arc<Metrics>,
    pub source: SourceHandle,
    pub trigger: Trigger,
    pub task: tokio::task::JoinHandle<()>,
}

/// Waits and limits short enough for tests.
pub fn quick() -> IngestConfig {
    IngestConfig {
        capture_fps: 10.0,
        reconnect_delay: Duration::from_millis(300),
        max_reconnect_delay: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(8),
        stall_timeout: Duration::from_secs(2),
        stable_after: Duration::from_secs(2),
        ..IngestConfig::default()
    }
}

impl Rig {
    pub fn new(config: IngestConfig) -> Self {
        vidette::ingest::init().unwrap();
        let window = Arc::new(SharedWindow::new(Bounds { frames: 64, bytes: 256 << 20 }));
        let (bus, metrics) = (Arc::new(Bus::new()), Arc::new(Metrics::new()));
        let (trigger, shutdown) = pair();
        let sound = Arc::new(AudioHub::of_source("main", Arc::clone(&metrics)));
        let (source, task) = spawn_with_sound(
            "main",
            config,
            Arc::clone(&window),
            (Arc::clone(&bus), Arc::clone(&sound)),
            Arc::clone(&metrics),
            None,
            shutdown,
        );
        Self { window, bus, sound, metrics, source, trigger, task }
    }

    /// A rig with [`quick`] limits that has started `source`.
    pub async fn playing(source: &str) -> Self {
        let rig = Self::new(quick());
        rig.source.start(source).await.unwrap();
        rig
    }

    pub fn status(&self) -> SourceStatus {
        self.source.status().borrow().clone()
    }

    /// The first status that `wanted` is true of, within `seconds`.
    pub async fn until(&self, what: &str, seconds: f64, wanted: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        let mut status = self.source.status();
        let found = tokio::time::timeout(Duration::from_secs_f64(seconds), status.wait_for(|s| wanted(s))).await;
        match found {
            Ok(Ok(found)) => found.clone(),
            other => panic!("no {what} within {seconds} s ({}): {:?}", other.is_ok(), self.status()),
        }
    }

    pub async fn streaming(&self) -> SourceStatus {
        self.until("streaming", 20.0, |s| s.state == SourceState::Streaming).await
    }

    /// The first status with a fault.
    pub async fn fault(&self) -> SourceStatus {
        self.until("fault", 20.0, |s| s.fault.is_some()).await
    }

    /// Waits until frame number `seq` is in the window and gives the newest.
    pub async fn frame(&self, seq: u64) -> Arc<Frame> {
        let mut bell = self.window.bell();
        let rung = tokio::time::timeout(Duration::from_secs(20), bell.wait_for(|n| n.is_some_and(|n| n >= seq)));
        rung.await.unwrap_or_else(|_| panic!("no frame {seq}: {:?}", self.status())).unwrap();
        self.all().pop().unwrap()
    }

    /// All frames in the window.
    pub fn all(&self) -> Vec<Arc<Frame>> {
        self.window.pick(vidette::window::Pick { frames: usize::MAX, stride: 1 })
    }

    pub fn metric(&self, line: &str) -> f64 {
        let text = self.metrics.encode();
        let found = text.lines().find_map(|l| l.strip_prefix(&format!("vidette_{line}{{stream=\"main\"}} ")));
        found.unwrap_or_else(|| panic!("no {line} in {text}")).parse().unwrap()
    }

    /// Ends everything and returns how long that took.
    pub async fn end(self) -> Duration {
        let start = Instant::now();
        self.trigger.fire();
        tokio::time::timeout(Duration::from_secs(10), self.task).await.unwrap().unwrap();
        start.elapsed()
    }
}

/// The pixel at a share of width and height.
pub fn pixel(frame: &Frame, x: f64, y: f64) -> [u8; 3] {
    let (column, row) = ((f64::from(frame.width) * x) as usize, (f64::from(frame.height) * y) as usize);
    let at = (row * frame.width as usize + column) * 3;
    frame.rgb[at..at + 3].try_into().unwrap()
}

/// Asserts that two colours are about the same.
pub fn assert_colour(found: [u8; 3], expected: [u8; 3]) {
    let far = found.iter().zip(expected).any(|(a, b)| a.abs_diff(b) > 16);
    assert!(!far, "colour is {found:?}, expected {expected:?}");
}

/// A process that ends with its owner.
pub struct Peer(pub Child);

impl Drop for Peer {
    fn drop(&mut self) {
        self.signal("KILL");
        let _ended = self.0.wait();
    }
}

impl Peer {
    pub fn signal(&self, name: &str) {
        let _sent = Command::new("kill").args([format!("-{name}"), self.0.id().to_string()]).status();
    }
}

/// A port that nobody uses now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Where made files go.
pub fn tmp() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("ingest");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// A clip made by ffmpeg, once a process: `ffmpeg -y … FILE`.
pub fn clip(name: &str, arguments: &str) -> PathBuf {
    static MADE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    let path = tmp().join(format!("{}-{name}", std::process::id()));
    let mut made = MADE.lock().unwrap();
    if !made.contains(&path) {
        let ran = Command::new("ffmpeg").args(["-v", "error", "-y"]).args(arguments.split(' ')).arg(&path).status();
        assert!(ran.expect("ffmpeg is installed").success(), "ffmpeg could not make {name}");
        made.push(path.clone());
    }
    path
}

/// Three seconds of H.264 with sound, 640x360, 25 per second.
pub fn street() -> PathBuf {
    clip(
        "street.mp4",
        "-f lavfi -i testsrc2=s=640x360:r=25 -f lavfi -i sine -t 3 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 25 \
         -c:a aac -movflags +faststart",
    )
}

const PEER: &str = "VIDETTE_TEST_RTSP_PEER";

/// An RTSP server (gst-rtsp-server) in a process of its own: this test program, run anew for its test `rtsp_peer`.
/// `login` is empty, or `basic` or `digest` followed by user and password.
pub fn rtsp_server(port: u16, login: &[&str], launch: &str) -> Peer {
    let arguments = [&[&port.to_string(), launch], login].concat().join("\u{1f}");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "rtsp_peer", "--nocapture"])
        .env(PEER, arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    let ready = lines.lines().map_while(Result::ok).any(|line| line.contains("peer is ready"));
    assert!(ready, "the RTSP server did not start");
    Peer(child)
}

/// H.264 of a painted picture, for [`rtsp_server`].
pub fn h264(pattern: &str) -> String {
    format!(
        "( videotestsrc is-live=true pattern={pattern} ! video/x-raw,width=640,height=480,framerate=25/1 ! x264enc \
         tune=zerolatency speed-preset=ultrafast key-int-max=12 ! rtph264pay name=pay0 )"
    )
}

/// The body of the test `rtsp_peer`: does nothing unless it is run by [`rtsp_server`].
pub fn serve_rtsp() {
    let Ok(arguments) = std::env::var(PEER) else { return };
    let arguments: Vec<&str> = arguments.split('\u{1f}').collect();
    gst::init().unwrap();
    let server = gstreamer_rtsp_server::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service(arguments[0]);
    let factory = gstreamer_rtsp_server::RTSPMediaFactory::new();
    factory.set_launch(arguments[1]);
    factory.set_shared(true);
    factory.set_latency(0);
    let told = jumps_file(arguments[0]);
    factory.connect_media_configure(move |_, media| {
        if let Ok(bin) = media.element().downcast::<gst::Bin>()
            && bin.by_name("jumps").is_some()
        {
            jump(&bin.by_name("pay0").unwrap().static_pad("src").unwrap(), told.clone());
        }
    });
    if let [kind, user, password] = arguments[2..] {
        let auth = gstreamer_rtsp_server::RTSPAuth::new();
        let token = gstreamer_rtsp_server::RTSPToken::builder().field("media.factory.role", "user").build();
        if kind == "digest" {
            auth.set_supported_methods(gstreamer_rtsp::RTSPAuthMethod::Digest);
            auth.add_digest(user, password, &token);
        } else {
            auth.add_basic(&gstreamer_rtsp_server::RTSPAuth::make_basic(user, password), &token);
        }
        server.set_auth(Some(&auth));
        let role = gst::Structure::builder("user").field("media.factory.access", true);
        factory.add_role_from_structure(&role.field("media.factory.construct", true).build());
    }
    server.mount_points().unwrap().add_factory("/live", factory);
    let _source = server.attach(None).unwrap();
    println!("\npeer is ready");
    gst::glib::MainLoop::new(None, false).run();
}

/// Ticks of RTP's clock for video in an hour.
const HOUR: u32 = 3600 * 90_000;
/// What a clock does that jumps, each for a second of 25 frames.
pub const JUMPS: [&str; 7] =
    ["an hour ahead", "an hour back", "the same for every frame", "backwards", "0", "as it should be", "anything"];

/// H.264 whose RTP time stamps do all of [`JUMPS`] in turn, again and again, for [`rtsp_server`].
pub fn jumping() -> String {
    h264("ball").replace("! rtph264pay", "! identity name=jumps ! rtph264pay")
}

/// Where the server at this port notes how many jumps its clock has made.
pub fn jumps_file(port: &str) -> PathBuf {
    tmp().join(format!("jumps-{port}"))
}

/// Rewrites the RTP time stamps of what passes.
fn jump(pad: &gst::Pad, told: PathBuf) {
    let counted = Mutex::new((0u32, None));
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
        let rewrite = |buffer: &mut gst::BufferRef| {
            let (frames, last) = &mut *counted.lock().unwrap();
            let Ok(mut packet) = buffer.map_writable() else { return };
            let stamp = u32::from_be_bytes(packet[4..8].try_into().unwrap());
            // All packets of a frame share its stamp.
            if last.replace(stamp) != Some(stamp) {
                *frames += 1;
                if *frames % 25 == 0 {
                    std::fs::write(&told, (*frames / 25).to_string()).unwrap();
                }
            }
            let (lap, within) = (*frames / 25 % JUMPS.len() as u32, *frames % 25);
            let new = match lap {
                0 => stamp.wrapping_add(HOUR),
                1 => stamp.wrapping_sub(HOUR),
                2 => stamp.wrapping_sub(within * 3600),
                3 => stamp.wrapping_sub(within * 7200),
                4 => 0,
                5 => stamp,
                _ => frames.wrapping_mul(2_654_435_761),
            };
            packet[4..8].copy_from_slice(&new.to_be_bytes());
        };
        match &mut info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => rewrite(buffer.make_mut()),
            Some(gst::PadProbeData::BufferList(list)) => {
                let list = list.make_mut();
                (0..list.len()).for_each(|at| rewrite(list.get_mut(at).unwrap()));
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

/// VLC as an RTSP server of a file. It refuses to run as root, so another user is taken then.
pub fn vlc_server(port: u16, file: &Path) -> Peer {
    let public = std::env::temp_dir().join(format!("vidette-vlc-{}.mp4", std::process::id()));
    std::fs::copy(file, &public).unwrap();
    let root = String::from_utf8(Command::new("id").arg("-u").output().unwrap().stdout).unwrap().trim() == "0";
    // Each of these becomes the next, so that ending the child ends VLC.
    let mut command = if root { Command::new("setpriv") } else { Command::new("cvlc") };
    if root {
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "env", "HOME=/tmp", "cvlc"]);
    }
    let sout = format!("#rtp{{sdp=rtsp://127.0.0.1:{port}/live}}");
    let child = command
        .args(["-q", "--no-audio", "--loop"])
        .arg(&public)
        .args(["--sout", &sout, "--sout-keep"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("VLC is installed");
    let peer = Peer(child);
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "VLC did not start");
        std::thread::sleep(Duration::from_millis(100));
    }
    peer
}

/// A small HTTP server: what it answers is decided by path. Files lie under `root`.
pub struct HttpPeer {
    pub port: u16,
    /// Request lines and Authorization headers that came.
    pub seen: Arc<Mutex<Vec<String>>>,
}

impl HttpPeer {
    pub fn start(root: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, log) = (root.clone(), Arc::clone(&log));
                std::thread::spawn(move || {
                    let _a_client_may_leave = answer(stream, &root, port, &log);
                });
            }
        });
        Self { port, seen }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

fn answer(mut stream: TcpStream, root: &Path, port: u16, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let Some(request) = lines.first() else { return Ok(()) };
    log.lock().unwrap().extend(lines.iter().filter(|l| l.starts_with("GET") || l.starts_with("Auth")).cloned());
    let path = request.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap_or("/").to_owned();
    let redirect =
        |to: &str| format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    match path.as_str() {
        "/mjpeg" => mjpeg(stream, usize::MAX, false),
        "/stall" => mjpeg(stream, 20, true),
        "/die" => mjpeg(stream, 20, false),
        "/401" => stream.write_all(
            b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ),
        "/to-file" => stream.write_all(redirect("file:///etc/passwd").as_bytes()),
        "/to" => stream.write_all(redirect(request.split([' ', '?']).nth(2).unwrap_or("/")).as_bytes()),
        "/to-mjpeg" => stream.write_all(redirect("/mjpeg").as_bytes()),
        "/to-itself" => stream.write_all(redirect(&format!("http://127.0.0.1:{port}/to-itself")).as_bytes()),
        "/page" => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 31\r\nConnection: close\r\n\r\n<html><body>hello</body></html>\n"),
        _ => file(stream, &root.join(path.trim_start_matches('/')), &lines),
    }
}

fn file(mut stream: TcpStream, path: &Path, headers: &[String]) -> std::io::Result<()> {
    let Ok(mut file) = std::fs::File::open(path) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let mut data = Vec::new();
    file.read_to_end(&mut data)?;
    let from = headers.iter().find_map(|h| h.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let from: usize = from.and_then(|r| r.split('-').next().and_then(|n| n.parse().ok())).unwrap_or(0).min(data.len());
    let (status, last) = (if from > 0 { "206 Partial Content" } else { "200 OK" }, data.len().max(1) - 1);
    write!(
        stream,
        "HTTP/1.1 {status}\r\nAccept-Ranges: bytes\r\nContent-Range: bytes {from}-{last}/{}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        data.len(),
        data.len() - from
    )?;
    stream.write_all(&data[from..])
}

/// Twenty-five frames a second of one JPEG, `frames` of them; then silence or the end.
fn mjpeg(mut stream: TcpStream, frames: usize, stall: bool) -> std::io::Result<()> {
    static JPEG: OnceLock<Vec<u8>> = OnceLock::new();
    let jpeg = JPEG.get_or_init(|| {
        let picture = image::RgbImage::from_pixel(640, 360, image::Rgb([0, 0, 255]));
        let mut bytes = Vec::new();
        image::codecs::jpeg::JpegEncoder::new(&mut bytes).encode_image(&picture).unwrap();
        bytes
    });
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\nConnection: close\r\n\r\n",
    )?;
    for _ in 0..frames {
        write!(stream, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len())?;
        stream.write_all(jpeg)?;
        stream.write_all(b"\r\n")?;
        std::thread::sleep(Duration::from_millis(40));
    }
    if stall {
        std::thread::sleep(Duration::from_secs(120));
    }
    Ok(())
}
