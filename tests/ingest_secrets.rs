//! A planted password must not reach the log, whatever the level and whoever writes it. Alone in its program, because
//! log and GStreamer's levels are the process's.
#![cfg(feature = "ingest")]

#[path = "support/ingest_rig.rs"]
mod rig;

use gstreamer as gst;
use rig::{HttpPeer, Rig, free_port, h264, rtsp_server};
use std::io::Write;
use std::sync::{Arc, Mutex};

#[test]
#[ignore = "the other test runs it as a process of its own"]
fn rtsp_peer() {
    rig::serve_rtsp();
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_planted_password_is_in_no_log_line() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    vidette::ingest::init().unwrap();
    // Everything that GStreamer's own network parts can say.
    gst::log::set_default_threshold(gst::DebugLevel::Info);
    for category in ["rtspsrc", "rtsp", "souphttpsrc", "uri", "basesrc", "GST_PROPERTIES", "rtspconnection"] {
        gst::log::set_threshold_for_name(category, gst::DebugLevel::Trace);
    }
    let port = free_port();
    let _server = rtsp_server(port, &["basic", "admin", "pa:ss@w@rd"], &h264("smpte"));
    let http = HttpPeer::start(rig::tmp());
    let right = format!("rtsp://admin:pa:ss@w%40rd@127.0.0.1:{port}/live?token=t0ps3cret");
    let rig = Rig::playing(&right).await;
    rig.until("answer", 20.0, |s| s.width > 0 || s.fault.is_some()).await;
    for wrong in [
        format!("rtsp://other:pa:ss@w%40rd@127.0.0.1:{port}/live"),
        http.url("/401").replace("http://", "http://admin:pa:ss@w%40rd@"),
        "rtsp://admin:pa:ss@w%40rd@no-such-host.invalid/x".to_owned(),
        format!("rtsp://admin:pa:ss@w%40rd@127.0.0.1:{}/x", free_port()),
    ] {
        rig.source.start(&wrong).await.unwrap();
        let status = rig.fault().await;
        assert!(!format!("{status:?}").contains("ss@w"), "{status:?}");
    }
    for refused in ["ftp://admin:pa:ss@w%40rd@h/", "rtsp://admin:pa:ss@w%40rd@h:1:2/"] {
        let error = rig.source.start(refused).await.unwrap_err();
        assert!(!format!("{error:?} {error}").contains("ss@w"), "{error:?}");
    }
    rig.end().await;
    // The password did travel: this test would prove nothing otherwise.
    assert!(http.seen.lock().unwrap().iter().any(|line| line.contains("YWRtaW46cGE6c3NAd0ByZA==")));
    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(text.contains("source lost") && text.contains("gstreamer"), "nothing was logged");
    for (name, secret) in [
        ("as it was given", "ss@w%40rd"),
        ("decoded", "ss@w@rd"),
        ("encoded", "ss%40w%40rd"),
        ("in base64", "YWRtaW46cGE6c3NAd0ByZA"),
        ("of the query", "t0ps3cret"),
    ] {
        let line = text.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "the password {name} is in the log: {line:?}");
    }
}
