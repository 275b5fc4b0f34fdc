//! A camera's network fails in every way that a cable, a router or a server can, and the stream comes back by itself,
//! says what is wrong meanwhile, and keeps nothing. Each test prints its figures (`--nocapture`); what it asserts does
//! not depend on the machine's speed. Not here: processes that die or freeze (`ingest_rtsp`).
#![cfg(feature = "ingest")]

#[path = "support/faults.rs"]
mod faults;
#[path = "support/ingest_rig.rs"]
mod rig;

use faults::{FaultProxy, Mode, answering, cpu_seconds, held, rtsp_describe};
use rig::{HttpPeer, JUMPS, Rig, clip, free_port, h264, jumping, quick, rtsp_server, tmp};
use std::time::{Duration, Instant};
use vidette::ingest::IngestConfig;
use vidette::source::{SourceFault, SourceState};

#[test]
#[ignore = "the other tests run it as a process of its own"]
fn rtsp_peer() {
    rig::serve_rtsp();
}

/// Waits as an operator has them, and everything else short.
fn patient() -> IngestConfig {
    IngestConfig {
        reconnect_delay: Duration::from_millis(100),
        max_reconnect_delay: Duration::from_millis(1600),
        connect_timeout: Duration::from_secs(3),
        stall_timeout: Duration::from_secs(2),
        ..quick()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_rtsp_camera_comes_back_after_every_kind_of_loss() {
    let port = free_port();
    let _server = rtsp_server(port, &[], &h264("smpte"));
    // Cut off within the answer to DESCRIBE.
    comes_back(port, Mode::CutAfter(500), |port| format!("rtsp://127.0.0.1:{port}/live")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_camera_comes_back_after_every_kind_of_loss() {
    let peer = HttpPeer::start(tmp());
    // Cut off within the first picture.
    comes_back(peer.port, Mode::CutAfter(500), |port| format!("http://127.0.0.1:{port}/mjpeg")).await;
}

async fn comes_back(server: u16, cut: Mode, url: impl Fn(u16) -> String) {
    let proxy = FaultProxy::start(server).await;
    let rig = Rig::new(patient());
    rig.source.start(&url(proxy.port)).await.unwrap();
    rig.streaming().await;
    let lost = [SourceFault::Network, SourceFault::Ended, SourceFault::BadStream];
    let silent = [SourceFault::Stalled, SourceFault::ConnectTimeout];
    let losses = [
        (Mode::Reset, &lost[..2]),
        (Mode::Refuse, &lost[..2]),
        (Mode::Blackhole, &silent[..]),
        (Mode::HalfOpen, &silent[..]),
        (cut, &lost[..]),
    ];
    for ((mode, faults), returns) in losses.into_iter().zip(1..) {
        let begun = Instant::now();
        proxy.set(mode);
        let lost = rig.until("loss", 20.0, |s| s.state != SourceState::Streaming && s.fault.is_some()).await;
        let noticed = begun.elapsed();
        assert!(faults.contains(&lost.fault.unwrap()), "{mode:?}: {lost:?}");
        assert!(lost.message.as_deref().is_some_and(|m| m.len() > 20), "{mode:?}: {lost:?}");
        // Long enough for several attempts.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_ne!(rig.status().state, SourceState::Streaming, "{mode:?}");
        proxy.set(Mode::Pass);
        let mended = Instant::now();
        rig.until("return", 30.0, |s| s.state == SourceState::Streaming && s.reconnects >= returns).await;
        println!("{mode:?}: noticed after {noticed:.2?}, back {:.2?} after it was mended", mended.elapsed());
        let status = rig.status();
        assert_eq!((status.fault, status.message), (None, None));
    }
    assert!(rig.end().await < Duration::from_secs(5));
}

/// H.264, then motion JPEG in another size, then H.264 again: cameras do this when somebody sets them anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_comes_back_with_another_codec_and_size_is_followed() {
    let port = free_port();
    let jpeg = "( videotestsrc is-live=true pattern=red ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! jpegenc ! \
                rtpjpegpay name=pay0 )";
    let rig = Rig::new(patient());
    let mut decoders = Vec::new();
    for (launch, width) in [(h264("smpte"), 640), (jpeg.to_owned(), 320), (h264("smpte"), 640)] {
        let server = rtsp_server(port, &[], &launch);
        if decoders.is_empty() {
            rig.source.start(&format!("rtsp://127.0.0.1:{port}/live")).await.unwrap();
        }
        let seen = rig.until("this picture", 30.0, |s| s.state == SourceState::Streaming && s.width == width).await;
        decoders.push(seen.decoder.unwrap());
        drop(server);
        rig.until("loss", 20.0, |s| s.state != SourceState::Streaming).await;
    }
    println!("decoders in turn: {decoders:?}");
    assert!(decoders[0] != decoders[1] && decoders[0] == decoders[2], "{decoders:?}");
    rig.end().await;
}

/// A head, and then nothing: every attempt ends by itself, and when it sends after all, it is watched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_answers_and_never_sends_is_asked_again() {
    let peer = HttpPeer::start(tmp());
    let sends = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (asked, video) = (std::sync::Arc::clone(&sends), peer.url("/mjpeg"));
    let port = answering(move |_| {
        Some(if asked.load(std::sync::atomic::Ordering::SeqCst) {
            format!("HTTP/1.1 302 Found\r\nLocation: {video}\r\nContent-Length: 0\r\n\r\n").into_bytes()
        } else {
            b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n".to_vec()
        })
    })
    .await;
    let rig = Rig::new(IngestConfig { connect_timeout: Duration::from_secs(1), ..patient() });
    rig.source.start(&format!("http://127.0.0.1:{port}/x")).await.unwrap();
    let told = rig.until("three attempts", 30.0, |s| s.attempt >= 3 && s.fault.is_some()).await;
    assert_eq!(told.fault, Some(SourceFault::ConnectTimeout), "{told:?}");
    sends.store(true, std::sync::atomic::Ordering::SeqCst);
    rig.streaming().await;
    assert_eq!(rig.status().pipelines_abandoned, 0);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_grow_while_it_is_away_and_flapping_does_not_reset_them() {
    let peer = HttpPeer::start(tmp());
    let proxy = FaultProxy::start(peer.port).await;
    let rig = Rig::new(IngestConfig { stable_after: Duration::from_secs(60), ..patient() });
    let mut status = rig.source.status();
    let waits = tokio::spawn(async move {
        let mut waits = std::collections::BTreeMap::new();
        while status.changed().await.is_ok() {
            let now = status.borrow_and_update().clone();
            if let (SourceState::Retrying, Some(wait)) = (now.state, now.retry_in_s) {
                waits.insert(now.attempt, wait);
            }
        }
        waits
    });
    proxy.set(Mode::Refuse);
    let cpu = (Instant::now(), cpu_seconds());
    rig.source.start(&format!("http://127.0.0.1:{}/mjpeg", proxy.port)).await.unwrap();
    rig.until("attempts", 30.0, |s| s.attempt >= 6).await;
    let down = (cpu_seconds() - cpu.1) / cpu.0.elapsed().as_secs_f64();
    for _ in 0..4 {
        proxy.set(Mode::Pass);
        rig.until("up", 20.0, |s| s.state == SourceState::Streaming).await;
        proxy.set(Mode::Reset);
        rig.until("down", 20.0, |s| s.state != SourceState::Streaming).await;
    }
    rig.end().await;
    let waits = waits.await.unwrap();
    println!("waits {waits:.2?}; {:.1} % of a core while it was refused", down * 100.0);
    for (attempt, wait) in &waits {
        let most = (0.1 * 2f64.powi(*attempt as i32 - 1)).min(1.6);
        assert!((most * 0.9 - 1e-6..=most + 1e-6).contains(wait), "{waits:?}");
    }
    // A loss whose wait was over before it was looked at may be missing, but not most of them.
    assert!(waits.len() >= 6 && waits.keys().max() >= Some(&8), "{waits:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_never_says_goodbye_holds_nothing_up() {
    let port = free_port();
    let _server = rtsp_server(port, &[], &h264("smpte"));
    let proxy = FaultProxy::start(port).await;
    let rig = Rig::new(patient());
    let source = format!("rtsp://127.0.0.1:{}/live", proxy.port);
    for what in ["stop", "start another", "end"] {
        proxy.set(Mode::Pass);
        rig.source.start(&source).await.unwrap();
        rig.streaming().await;
        proxy.set(Mode::Blackhole);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let begun = Instant::now();
        match what {
            "stop" => rig.source.stop().await.unwrap(),
            "start another" => {
                rig.source.start("test:ball@320x240").await.unwrap();
                rig.until("the other", 20.0, |s| s.width == 320).await;
            }
            _ => break,
        }
        println!("{what} took {:.2?}; {} pipelines left behind", begun.elapsed(), rig.status().pipelines_abandoned);
    }
    println!("end took {:.2?}", rig.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_lie_are_found_out() {
    const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n";
    let video = format!("{SDP}m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track1\r\n");
    let long = format!("{SDP}{}", "a=x:y\r\n".repeat(100_000));
    let rtsp: Vec<(&str, Vec<u8>, Option<usize>)> = vec![
        ("no media", SDP.into(), None),
        ("no description", Vec::new(), None),
        ("a description of zeros", vec![0; 4096], None),
        ("a media type that is none", format!("{SDP}m=hologram 0 RTP/AVP 96\r\n").into(), None),
        ("a port that is none", format!("{SDP}m=video 99999999999 RTP/AVP 96\r\n").into(), None),
        ("no payload type", format!("{SDP}m=video 0 RTP/AVP\r\n").into(), None),
        ("parameter sets that are none", format!("{video}a=fmtp:96 sprop-parameter-sets=AAAA,////\r\n").into(), None),
        ("a size that is none", format!("{video}a=framesize:96 99999999-99999999\r\n").into(), None),
        ("a hundred thousand lines", long.into(), None),
        ("a length beyond what comes", video.clone().into(), Some(1 << 20)),
        ("a length beyond all memory", video.clone().into(), Some(1 << 40)),
        ("video that never comes", video.clone().into(), None),
    ];
    let rig = Rig::new(IngestConfig { connect_timeout: Duration::from_secs(2), ..patient() });
    let before = held("self").kib;
    for (what, sdp, length) in rtsp {
        let length = length.unwrap_or(sdp.len());
        let port = answering(move |request| Some(rtsp_describe(request, &sdp, length))).await;
        told(&rig, what, &format!("rtsp://127.0.0.1:{port}/live")).await;
    }
    for (what, answer) in [
        ("nothing at all", Vec::new()),
        ("not RTSP", b"hello\r\n\r\n".to_vec()),
        ("an endless head", b"RTSP/1.0 200 OK\r\n".iter().chain(b"X: y\r\n".repeat(200_000).iter()).copied().collect()),
        ("noise", (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
    ] {
        let silent = answer.is_empty();
        let port = answering(move |_| (!silent).then(|| answer.clone())).await;
        told(&rig, what, &format!("rtsp://127.0.0.1:{port}/live")).await;
    }
    let grown = held("self").kib.saturating_sub(before);
    println!("memory grew by {grown} KiB");
    assert!(grown < 200 << 10, "{grown} KiB");
    rig.end().await;
}

/// The source must fail with a sentence, and nothing else.
async fn told(rig: &Rig, what: &str, source: &str) {
    rig.source.start(source).await.unwrap();
    let status = rig.fault().await;
    println!("{what}: {:?}, {}", status.fault.unwrap(), status.message.as_deref().unwrap_or_default());
    assert!(status.message.as_deref().is_some_and(|m| m.len() > 20), "{what}: {status:?}");
    assert_eq!(rig.window.level().0, 0, "{what}");
}

/// JPEGs whose heads claim other sizes than their data have, in one stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_that_claim_any_size_break_nothing() {
    let picture = image::RgbImage::from_pixel(320, 240, image::Rgb([0, 128, 255]));
    let mut good = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut good).encode_image(&picture).unwrap();
    let claiming = |width: u16, height: u16| {
        let mut jpeg = good.clone();
        let at = jpeg.windows(2).position(|w| w[0] == 0xff && w[1] == 0xc0).expect("a frame header");
        jpeg[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
        jpeg[at + 7..at + 9].copy_from_slice(&width.to_be_bytes());
        jpeg
    };
    let before = held("self").kib;
    for (width, height) in
        [(16_000, 16_000), (65_535, 65_535), (0, 0), (0, 240), (320, 0), (1, 1), (65_535, 1), (321, 241)]
    {
        let parts = [vec![good.clone(); 12], vec![claiming(width, height); 3], vec![good.clone(); 12]].concat();
        let body: Vec<u8> = parts
            .iter()
            .flat_map(|jpeg| {
                let head = format!("--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len());
                [head.as_bytes(), jpeg, b"\r\n"].concat()
            })
            .collect();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n";
        let answer = [head.as_bytes(), &body].concat();
        let port = answering(move |_| Some(answer.clone())).await;
        let rig = Rig::new(patient());
        rig.source.start(&format!("http://127.0.0.1:{port}/mjpeg")).await.unwrap();
        rig.until("end", 20.0, |s| s.fault.is_some()).await;
        let status = rig.status();
        println!("{width}x{height}: {:?}, {}", status.fault, status.message.unwrap_or_default());
        for frame in rig.all() {
            assert_eq!(frame.rgb.len(), (frame.width * frame.height * 3) as usize);
        }
        rig.end().await;
    }
    let grown = held("self").kib.saturating_sub(before);
    println!("memory grew by {grown} KiB");
    assert!(grown < 300 << 10, "{grown} KiB");
}

/// Watches for some seconds: how many frames came, the longest time without one, and how often a time stamp did not
/// follow the one before.
async fn watched(rig: &Rig, seconds: f64) -> (usize, Duration, usize) {
    let (begun, mut next) = (Instant::now(), 0);
    let (mut frames, mut longest, mut jumps): (usize, _, usize) = (0, Duration::ZERO, 0);
    let mut last: Option<std::sync::Arc<vidette::frame::Frame>> = None;
    while begun.elapsed() < Duration::from_secs_f64(seconds) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for frame in rig.window.read_from(next).expect("the window holds more than what comes meanwhile") {
            if let Some(last) = &last {
                assert!(frame.seq > last.seq && frame.captured >= last.captured, "{} after {}", frame.seq, last.seq);
                longest = longest.max(frame.captured - last.captured);
                let step = frame.pts.zip(last.pts).and_then(|(new, old)| new.checked_sub(old));
                jumps += usize::from(!step.is_some_and(|step| step > Duration::ZERO && step < Duration::from_secs(2)));
            }
            (next, frames) = (frame.seq + 1, frames + 1);
            last = Some(frame);
        }
    }
    (frames, longest, jumps)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cameras_clock_may_jump_as_it_likes() {
    let port = free_port();
    let _server = rtsp_server(port, &[], &jumping());
    let rig = Rig::new(patient());
    rig.source.start(&format!("rtsp://127.0.0.1:{port}/live")).await.unwrap();
    rig.streaming().await;
    // Each jump comes twice.
    let seconds = 2.0 * JUMPS.len() as f64 + 1.0;
    let (frames, longest, jumps) = watched(&rig, seconds).await;
    let status = rig.status();
    println!(
        "RTSP, {JUMPS:?}: {frames} frames of {:.0}, longest time without one {longest:.2?}, {jumps} stamps that did not \
         follow, {} reconnects",
        10.0 * seconds,
        status.reconnects
    );
    let laps = std::fs::read_to_string(rig::jumps_file(&port.to_string())).expect("the camera's clock jumped");
    println!("laps of its clock: {laps}");
    assert!(laps.parse::<usize>().unwrap() >= JUMPS.len(), "{laps}");
    // Whatever the camera's clock says, the pictures go on, in order.
    assert!(frames > 3 * JUMPS.len() && longest < Duration::from_secs(8), "{status:?}");
    rig.until("streaming still", 20.0, |s| s.state == SourceState::Streaming).await;
    assert_eq!(rig.status().pipelines_abandoned, 0);
    assert!(rig.end().await < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_files_time_stamps_may_jump_as_they_like() {
    let piece = |name: &str, from: &str| {
        let made = clip(
            name,
            &format!(
                "-f lavfi -i testsrc2=s=320x240:r=25 -t 1 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 25 \
                 -output_ts_offset {from} -f mpegts"
            ),
        );
        std::fs::read(made).unwrap()
    };
    let (now, later) = (piece("now.ts", "1"), piece("later.ts", "3601"));
    let whole = tmp().join(format!("{}-jumps.ts", std::process::id()));
    // An hour ahead, an hour back, and the same once more.
    std::fs::write(&whole, [&now[..], &later, &now, &now].concat()).unwrap();
    let rig = Rig::new(patient());
    rig.source.start(whole.to_str().unwrap()).await.unwrap();
    rig.streaming().await;
    let (frames, longest, jumps) = watched(&rig, 10.0).await;
    let status = rig.status();
    println!(
        "a file: {frames} frames of 100, longest time without one {longest:.2?}, {jumps} stamps that did not follow, {:?}",
        status.message
    );
    assert!(frames > 20, "{status:?}");
    rig.end().await;
}
