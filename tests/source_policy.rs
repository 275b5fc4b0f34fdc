//! Source strings that come over the API run nothing, read nothing outside of the media folder, and reach no forbidden
//! address, whether named outright, by a name, a redirect or a playlist. Listeners on the forbidden addresses count.
//! Not here: how addresses and files are judged one by one (`ingest::policy`).
#![cfg(feature = "ingest")]

#[path = "support/ingest_rig.rs"]
mod rig;

use rig::{HttpPeer, Rig, clip, quick};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vidette::error::Kind;
use vidette::ingest::{Files, IngestConfig, Policy};
use vidette::source::{AskedBy, SourceFault};

/// Strings that must not get anywhere. `MARK` is where a shell or a pipeline description would leave a file.
const HOSTILE: &[&str] = &[
    "rtsp://x/ ! filesink location=MARK",
    "rtsp://x/\" ! filesink location=MARK",
    "videotestsrc num-buffers=1 ! filesink location=MARK",
    "test:ball ! filesink location=MARK",
    "test:ball;touch MARK",
    "$(touch MARK)",
    "`touch MARK`",
    "; touch MARK",
    "| touch MARK",
    "& touch MARK &",
    "a.mp4\ntouch MARK",
    "exec:touch MARK",
    "exec:/bin/touch#MARK",
    "echo:touch MARK",
    "ffmpeg:MARK",
    "pipe:MARK",
    "subfile,,start,0,end,0,,:/etc/passwd",
    "concat:/etc/passwd|/etc/hosts",
    "gst-launch:fakesrc ! filesink location=MARK",
    "playbin://file:///etc/passwd",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "FILE:///etc/passwd",
    "file:/etc/passwd",
    "file:etc/passwd",
    "/etc/passwd",
    "../../../../../../etc/passwd",
    "./../../../../../../../etc/passwd",
    "/proc/self/environ",
    "/proc/self/fd/0",
    "/dev/stdin",
    "/dev/null",
    "/dev/mem",
    "/dev/video0/../mem",
    "/dev/v4l/../mem",
    "/dev/fd/0",
    "data:video/mp4;base64,AAAA",
    "data:text/plain,x",
    "ftp://127.0.0.1/x",
    "smb://127.0.0.1/x",
    "gopher://127.0.0.1:6379/_INFO",
    "udp://127.0.0.1:5000",
    "rtmp://127.0.0.1/x",
    "srt://127.0.0.1:1",
    "tcp://127.0.0.1:1",
    "unix:/run/docker.sock",
    "ws://127.0.0.1/",
    "view-source:http://127.0.0.1/",
    "http:\\\\127.0.0.1\\",
    "http://127.0.0.1\\@cam.example/",
    "rtsp://cam.example\\@127.0.0.1/",
    "http://a b/",
    "http://h/\r\nHost: evil",
    "rtsp://h/\r\nX: 1",
    "rtsp://h/\0",
    "http://",
    "rtsp:///",
    "rtsp://@/",
    "rtsp://:554/",
    "http://[::1",
    "http://[fe80::1%25lo]/",
    "http://[fe80::1%lo]/",
    "\u{202e}rtsp://h/",
];

/// Names of what lies in the folders where something could have been made.
fn files(folders: &[&Path]) -> BTreeSet<String> {
    let list = |folder: &&Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string()).collect::<Vec<_>>()
    };
    folders.iter().flat_map(list).collect()
}

/// Processes that this one has started and that still run.
fn children() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    tasks.flat_map(|task| of(task).split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn for_clients(media: &Path) -> IngestConfig {
    let client_policy = Policy { files: Files::Under(vec![media.to_owned()]), ..Policy::default() };
    IngestConfig { client_policy, ..quick() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn hostile_strings_make_no_file_and_no_process() {
    let (work, media) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let rig = Rig::new(for_clients(media.path()));
    let mark = work.path().join("made");
    let here = std::env::current_dir().unwrap();
    let folders = [work.path(), media.path(), here.as_path()];
    let (before, started) = (files(&folders), children());
    for text in HOSTILE {
        let source = text.replace("MARK", mark.to_str().unwrap());
        // What reads as the name of a file that is not there is waited for under the media folder, and nowhere else.
        match rig.source.start_for(&source, AskedBy::Client).await {
            Err(error) => assert!(matches!(error.kind, Kind::Invalid | Kind::Denied), "{text}: {error}"),
            Ok(()) => {
                let status = rig.fault().await;
                let harmless = matches!(status.fault, Some(SourceFault::NotFound | SourceFault::Forbidden));
                assert!(harmless, "{text} was taken: {status:?}");
            }
        }
    }
    assert_eq!(files(&folders), before, "a file was made");
    assert_eq!(children(), started, "a process was started");
    assert_eq!(rig.window.level().0, 0);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn files_over_the_api_are_those_of_the_media_folder() {
    let media = tempfile::tempdir().unwrap();
    let video = clip("media.mp4", "-f lavfi -i testsrc2=s=320x240:r=25 -t 1 -c:v libx264 -preset ultrafast");
    std::fs::copy(&video, media.path().join("a.mp4")).unwrap();
    std::os::unix::fs::symlink(&video, media.path().join("out.mp4")).unwrap();
    let rig = Rig::new(for_clients(media.path()));
    for (source, good) in [
        ("a.mp4".to_owned(), true),
        (media.path().join("a.mp4").display().to_string(), true),
        (format!("file://{}", media.path().join("a.mp4").display()), true),
        ("out.mp4".to_owned(), false),
        (video.display().to_string(), false),
        (format!("{}/../{}", media.path().display(), video.display()), false),
    ] {
        let told = rig.source.start_for(&source, AskedBy::Client).await;
        if good {
            told.unwrap();
            rig.streaming().await;
        } else {
            let error = told.unwrap_err();
            assert_eq!(error.kind, Kind::Denied, "{source}: {error}");
            assert!(error.hint.as_deref().unwrap().contains("MEDIA_DIR"), "{error:?}");
        }
    }
    // The operator is free.
    rig.source.start(video.to_str().unwrap()).await.unwrap();
    rig.streaming().await;
    rig.end().await;
}

/// A listener on an address that must not be reached: connections that came, and bytes that came over them.
struct Forbidden {
    at: SocketAddr,
    connections: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
}

impl Forbidden {
    fn listen(at: &str) -> Self {
        let at: SocketAddr = at.parse().unwrap();
        let listener = TcpListener::bind(at).unwrap();
        let (connections, bytes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seen, read) = (Arc::clone(&connections), Arc::clone(&bytes));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                seen.fetch_add(1, Ordering::SeqCst);
                let read = Arc::clone(&read);
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(n @ 1..) = stream.read(&mut buffer) {
                        read.fetch_add(n, Ordering::SeqCst);
                    }
                });
            }
        });
        Self { at, connections, bytes }
    }

    fn seen(&self) -> (usize, usize) {
        (self.connections.load(Ordering::SeqCst), self.bytes.load(Ordering::SeqCst))
    }
}

/// An RTSP server that answers every request with this head (CSeq is added), and notes the requests.
fn rtsp_answering(answer: String) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&requests);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let mut number = String::new();
            for line in lines {
                if let Some(cseq) = line.strip_prefix("CSeq:") {
                    number = cseq.trim().to_owned();
                }
                if line.is_empty() && write!(stream, "{}", answer.replace("CSEQ", &number)).is_err() {
                    break;
                }
                log.lock().unwrap().push(line);
            }
        }
    });
    (port, requests)
}

const PLAYLIST: &str = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n";

/// In a network of its own, where the forbidden addresses are this machine's.
#[test]
fn forbidden_addresses_are_not_contacted() {
    let hosts = rig::tmp().join(format!("{}-hosts", std::process::id()));
    std::fs::write(&hosts, "127.0.0.1 localhost\n169.254.169.254 metadata.test\n127.0.0.2 inner.test\n").unwrap();
    let script = format!(
        "mount --bind {} /etc/hosts && ip link set lo up && ip address add 169.254.169.254/32 dev lo && \
         exec \"$0\" --ignored --exact within_a_network_of_its_own --nocapture",
        hosts.display()
    );
    let own = std::env::current_exe().unwrap();
    let output = Command::new("unshare").args(["-rnm", "sh", "-c", &script]).arg(own).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    if !said.contains("in a network of its own") {
        let why = String::from_utf8_lossy(&output.stderr);
        println!("skipped: this machine gives no network namespace to its users: {why}");
        return;
    }
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "the other test runs it in a network of its own"]
async fn within_a_network_of_its_own() {
    println!("in a network of its own");
    let metadata = ["169.254.169.254:80", "169.254.169.254:554", "[::1]:8199"].map(Forbidden::listen);
    let inner = ["127.0.0.2:80", "127.0.0.2:554", "127.0.0.2:8554"].map(Forbidden::listen);
    let hole = UdpSocket::bind("169.254.169.254:5000").unwrap();
    hole.set_nonblocking(true).unwrap();
    let dir = tempfile::tempdir_in(rig::tmp()).unwrap();
    let piece = clip("piece.ts", "-f lavfi -i testsrc2=s=320x240:r=25 -t 2 -c:v libx264 -preset ultrafast");
    std::fs::copy(&piece, dir.path().join("piece.ts")).unwrap();
    for (name, first) in [("first", "http://169.254.169.254/a.ts"), ("name", "http://metadata.test/a.ts")] {
        std::fs::write(dir.path().join(format!("{name}.m3u8")), format!("{PLAYLIST}#EXTINF:2,\n{first}\n")).unwrap();
    }
    let second = format!("{PLAYLIST}#EXTINF:2,\npiece.ts\n#EXTINF:2,\nhttp://metadata.test/b.ts\n#EXT-X-ENDLIST\n");
    std::fs::write(dir.path().join("second.m3u8"), second).unwrap();
    let key = "#EXT-X-KEY:METHOD=AES-128,URI=\"http://169.254.169.254/key\"\n#EXTINF:2,\npiece.ts\n#EXT-X-ENDLIST\n";
    std::fs::write(dir.path().join("key.m3u8"), format!("{PLAYLIST}{key}")).unwrap();
    let variant = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttp://169.254.169.254/v.m3u8\n";
    std::fs::write(dir.path().join("variant.m3u8"), variant).unwrap();
    let peer = HttpPeer::start(dir.path().to_owned());
    let moved = |to: &str| rtsp_answering(format!("RTSP/1.0 302 Moved\r\nCSeq: CSEQ\r\nLocation: {to}\r\n\r\n")).0;
    let (to_metadata, to_inner) = (moved("rtsp://169.254.169.254/live"), moved("rtsp://127.0.0.2:8554/live"));

    let open = IngestConfig { max_reconnect_delay: Duration::from_millis(300), ..for_clients(dir.path()) };
    let own_port = Policy { own_port: Some(8199), ..open.client_policy.clone() };
    let closed = Policy { private: false, ..own_port.clone() };
    for (policy, sources, forbidden) in [
        (
            own_port,
            vec![
                "http://169.254.169.254/latest/meta-data".to_owned(),
                "rtsp://169.254.169.254/live".to_owned(),
                "http://0xa9fea9fe/".to_owned(),
                "rtsp://2852039166/".to_owned(),
                "http://[::ffff:169.254.169.254]/".to_owned(),
                "http://metadata.test/latest".to_owned(),
                "rtsp://metadata.test/live".to_owned(),
                "http://[::1]:8199/api/mjpeg".to_owned(),
                "http://localhost:8199/api/mjpeg".to_owned(),
                peer.url("/to?http://169.254.169.254/latest"),
                peer.url("/to?http://metadata.test/latest"),
                peer.url("/to?rtsp://metadata.test/live"),
                peer.url("/to?//169.254.169.254/latest"),
                peer.url("/first.m3u8"),
                peer.url("/name.m3u8"),
                peer.url("/second.m3u8"),
                peer.url("/key.m3u8"),
                peer.url("/variant.m3u8"),
                format!("rtsp://user:geheim77@127.0.0.1:{to_metadata}/live"),
            ],
            &metadata[..],
        ),
        (
            closed,
            vec![
                "http://127.0.0.2/".to_owned(),
                "rtsp://127.0.0.2/live".to_owned(),
                "rtsp://0x7f000002/live".to_owned(),
                "http://127.2/".to_owned(),
                "http://[::ffff:127.0.0.2]/".to_owned(),
                "http://inner.test/".to_owned(),
                "rtsp://inner.test/live".to_owned(),
                "rtsp://inner.test:8554/live".to_owned(),
                format!("rtsp://127.0.0.1:{to_inner}/live"),
            ],
            &inner[..],
        ),
    ] {
        vidette::ingest::guard_connections(&policy);
        let rig = Rig::new(IngestConfig { client_policy: policy, ..open.clone() });
        for source in sources {
            if rig.source.start_for(&source, AskedBy::Client).await.is_ok() {
                // A playlist with one good piece may play on for as long as it has that.
                let mut status = rig.source.status();
                let fault = status.wait_for(|s| s.fault.is_some());
                let _either_way = tokio::time::timeout(Duration::from_secs(5), fault).await.is_ok();
                // Once more, by way of the wait.
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            for listener in forbidden {
                assert_eq!(listener.seen(), (0, 0), "{source} reached {}", listener.at);
            }
        }
        rig.end().await;
    }
    let mut packet = [0; 64];
    assert!(hole.recv(&mut packet).is_err(), "a packet was sent");
}
