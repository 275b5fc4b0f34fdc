//! RTSP against real servers: gst-rtsp-server in a process of its own, and VLC.
#![cfg(feature = "ingest")]

#[path = "support/ingest_rig.rs"]
mod rig;

use rig::{Rig, assert_colour, free_port, h264, pixel, quick, rtsp_server};
use std::time::{Duration, Instant};
use vidette::frame::delivered_size;
use vidette::source::{SourceFault, SourceState};

#[test]
#[ignore = "the other tests run it as a process of its own"]
fn rtsp_peer() {
    rig::serve_rtsp();
}

fn url(port: u16) -> String {
    format!("rtsp://127.0.0.1:{port}/live")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn frames_arrive_in_order_in_the_models_size_and_in_colour() {
    for (pattern, colour) in [("red", [255, 0, 0]), ("blue", [0, 0, 255])] {
        let port = free_port();
        let _server = rtsp_server(port, &[], &h264(pattern));
        let rig = Rig::playing(&url(port)).await;
        let status = rig.streaming().await;
        assert_eq!((status.width, status.height), (640, 480));
        assert_eq!(status.decoder.as_deref(), Some("avdec_h264"));
        assert_eq!((status.fault, status.reconnects, status.attempt), (None, 0, 1));
        let frame = rig.frame(15).await;
        assert_eq!((frame.width, frame.height), delivered_size(640, 480));
        assert_eq!(frame.rgb.len(), (frame.width * frame.height * 3) as usize);
        assert_colour(pixel(&frame, 0.5, 0.5), colour);
        assert!(frame.captured.elapsed() < Duration::from_secs(2));
        let frames = rig.all();
        assert!(
            frames.windows(2).all(|w| w[1].seq == w[0].seq + 1 && w[1].captured > w[0].captured && w[1].pts > w[0].pts)
        );
        // Ten a second, give or take the machine's load.
        let gap = (frames[15].captured - frames[5].captured).as_secs_f64();
        assert!((0.8..1.6).contains(&gap), "ten frames took {gap} s");
        assert_eq!(rig.metric("source_up"), 1.0);
        assert!(rig.metric("frames_total") >= 15.0);
        assert!(rig.end().await < Duration::from_secs(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_wrong_password_is_named_and_never_shown_and_the_right_one_works() {
    let port = free_port();
    let _server = rtsp_server(port, &["digest", "admin", "pa:ss@w@rd"], &h264("smpte"));
    let rig = Rig::playing(&format!("rtsp://admin:geheim77@127.0.0.1:{port}/live")).await;
    let status = rig.fault().await;
    assert_eq!((status.fault, status.state), (Some(SourceFault::Auth), SourceState::Retrying));
    assert_eq!(status.source.as_deref(), Some(url(port).as_str()));
    // Waiting rarely mends a password: the longest wait at once.
    assert_eq!(status.retry_in_s, Some(2.0));
    assert!(status.message.as_deref().unwrap().contains("refused the user name or password"), "{status:?}");
    assert!(!format!("{status:?}").contains("geheim"), "{status:?}");
    rig.source.start(&format!("rtsp://admin:pa:ss@w%40rd@127.0.0.1:{port}/live")).await.unwrap();
    rig.streaming().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_died_and_came_back_is_found_again() {
    let port = free_port();
    let server = rtsp_server(port, &[], &h264("smpte"));
    let rig = Rig::playing(&url(port)).await;
    rig.streaming().await;
    let before = rig.frame(3).await.seq;
    drop(server);
    let lost = rig.until("retrying", 5.0, |s| s.state == SourceState::Retrying).await;
    assert!(matches!(lost.fault, Some(SourceFault::Ended | SourceFault::Network)), "{lost:?}");
    let refused = rig.until("refusal", 5.0, |s| s.fault == Some(SourceFault::Network)).await;
    assert!(refused.message.as_deref().unwrap().contains("can't be reached"), "{refused:?}");
    let _server = rtsp_server(port, &[], &h264("smpte"));
    let status = rig.streaming().await;
    assert_eq!((status.reconnects, status.fault), (1, None));
    // Numbers go on where they were.
    assert!(rig.frame(before + 3).await.seq > before);
    assert_eq!(rig.metric("source_reconnects_total"), 1.0);
    assert!(rig.metric("source_failures_total") >= 2.0);
    // Frames that keep coming are stable, and then nothing counts as an attempt any more.
    rig.until("stable", 6.0, |s| s.attempt == 0).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_frozen_server_is_noticed_and_found_again() {
    let port = free_port();
    let server = rtsp_server(port, &[], &h264("smpte"));
    let rig = Rig::playing(&url(port)).await;
    rig.frame(3).await;
    server.signal("STOP");
    let frozen = Instant::now();
    let status = rig.until("stall", 8.0, |s| s.state == SourceState::Stalled).await;
    assert!(frozen.elapsed() <= quick().stall_timeout * 2, "noticed after {:?}", frozen.elapsed());
    assert_eq!(status.fault, Some(SourceFault::Stalled));
    server.signal("CONT");
    rig.until("return", 20.0, |s| s.state == SourceState::Streaming && s.reconnects == 1).await;
    assert_eq!(rig.status().pipelines_abandoned, 0);
    assert!(rig.end().await < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn vlc_which_offers_udp_only_is_played_without_a_wait() {
    let port = free_port();
    let _server = rig::vlc_server(port, &rig::street());
    let config = vidette::ingest::IngestConfig { reconnect_delay: Duration::from_secs(2), ..quick() };
    let rig = Rig::new(config);
    rig.source.start(&url(port)).await.unwrap();
    let status = rig.streaming().await;
    assert_eq!((status.width, status.height), (640, 360));
    // The first attempt was refused over TCP; the second went over UDP at once.
    assert_eq!(status.attempt, 2, "{status:?}");
    rig.frame(3).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn addresses_that_do_not_work_say_why() {
    let port = free_port();
    let _server = rtsp_server(port, &[], &h264("smpte"));
    for (source, fault, words) in [
        (format!("rtsp://127.0.0.1:{port}/none"), SourceFault::NotFound, "check the path"),
        ("rtsp://no-such-host.invalid/live".to_owned(), SourceFault::Network, "can't be reached"),
        (format!("rtsp://127.0.0.1:{}/live", free_port()), SourceFault::Network, "can't be reached"),
    ] {
        let rig = Rig::playing(&source).await;
        let status = rig.fault().await;
        assert_eq!(status.fault, Some(fault), "{status:?}");
        assert!(status.message.as_deref().unwrap().contains(words), "{status:?}");
        assert_eq!(status.state, SourceState::Retrying);
        rig.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn sound_alone_is_no_video() {
    let port = free_port();
    let launch = "( audiotestsrc is-live=true ! audioconvert ! mulawenc ! rtppcmupay name=pay0 )";
    let _server = rtsp_server(port, &[], launch);
    let rig = Rig::playing(&url(port)).await;
    let status = rig.until("refusal", 20.0, |s| s.retry_in_s.is_some_and(|s| s > 0.0)).await;
    assert_eq!(status.fault, Some(SourceFault::BadStream), "{status:?}");
    assert!(status.message.as_deref().unwrap().contains("no video"), "{status:?}");
    rig.end().await;
}
