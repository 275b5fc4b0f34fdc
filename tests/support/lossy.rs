//! A way to a LiveKit server on which packets get lost: a relay for its signalling, which has the server name the relay
//! as the place for media, and a relay for media, which drops what it is told to.
//! Not here: the server (`livekit.rs` beside this), what is expected.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Of `127.0.0.1:9` nobody listens.
const NOBODY: u16 = 9;

/// What was let through and what was not, both ways together.
#[derive(Default)]
struct Fate {
    /// Dropped of each hundred.
    percent: AtomicU64,
    passed: AtomicU64,
    dropped: AtomicU64,
}

impl Fate {
    fn drops(&self) -> bool {
        let dropped = RandomState::new().hash_one(0u8) % 100 < self.percent.load(Relaxed);
        (if dropped { &self.dropped } else { &self.passed }).fetch_add(1, Relaxed);
        dropped
    }
}

/// The relay; what it began ends with the test's process.
pub struct Lossy {
    pub port: u16,
    fate: Arc<Fate>,
}

impl Lossy {
    /// Before the server that signals on `signal` and has its media on `media`, both ports of 127.0.0.1. Loses nothing
    /// yet.
    pub fn start(signal: u16, media: u16) -> Self {
        let fate = Arc::new(Fate::default());
        // Names of ports are exchanged in texts whose lengths are told before them, so both have as many digits.
        let from = super::livekit::free(|port| UdpSocket::bind(("127.0.0.1", port)));
        let relayed = from.local_addr().unwrap().port();
        assert_eq!(media.to_string().len(), relayed.to_string().len());
        std::thread::spawn({
            let fate = Arc::clone(&fate);
            move || media_relay(&from, media, &fate)
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", signal)) else { continue };
                let named = move |text: &mut Vec<u8>| {
                    for (place, port) in ports(text) {
                        if port == media {
                            text.splice(place, relayed.to_string().into_bytes());
                        }
                    }
                };
                // Whoever learned the client's own addresses would send to them past the relay.
                let unnamed = |text: &mut Vec<u8>| {
                    for (place, _) in ports(text) {
                        let digits = place.len();
                        text.splice(place, format!("{NOBODY:0digits$}").into_bytes());
                    }
                };
                pump(client.try_clone().unwrap(), server.try_clone().unwrap(), unnamed);
                pump(server, client, named);
            }
        });
        Self { port, fate }
    }

    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// So many of each hundred packets get lost from now on, in each direction.
    pub fn lose(&self, percent: u64) {
        self.fate.percent.store(percent, Relaxed);
    }

    /// Packets let through and dropped so far.
    pub fn fate(&self) -> (u64, u64) {
        (self.fate.passed.load(Relaxed), self.fate.dropped.load(Relaxed))
    }
}

/// Packets of each client go on from a socket of its own, by which the server's answers come back.
fn media_relay(clients: &UdpSocket, media: u16, fate: &Arc<Fate>) {
    let mut known: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut packet = [0; 2048];
    while let Ok((length, client)) = clients.recv_from(&mut packet) {
        let onward = known.entry(client).or_insert_with(|| {
            let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
            socket.connect(("127.0.0.1", media)).unwrap();
            let (answers, back, fate) = (Arc::clone(&socket), clients.try_clone().unwrap(), Arc::clone(fate));
            std::thread::spawn(move || {
                let mut packet = [0; 2048];
                // An error tells of a server that was away for a moment.
                loop {
                    if let Ok(length) = answers.recv(&mut packet)
                        && !fate.drops()
                    {
                        let _client_gone = back.send_to(&packet[..length], client);
                    }
                }
            });
            socket
        });
        if !fate.drops() {
            let _server_gone = onward.send(&packet[..length]);
        }
    }
}

/// Where candidates of this host name their ports (RFC 8839: `… udp PRIORITY ADDRESS PORT typ host`), and the ports.
fn ports(text: &[u8]) -> Vec<(std::ops::Range<usize>, u16)> {
    let ends = text.windows(9).enumerate().filter(|(_, part)| part == b" typ host").map(|(end, _)| end);
    ends.filter_map(|end| {
        let digits = text[..end].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let port = std::str::from_utf8(&text[end - digits..end]).ok()?.parse().ok()?;
        Some((end - digits..end, port))
    })
    .collect()
}

/// Passes HTTP's heads and then WebSocket frames on (RFC 6455, section 5.2), each changed by `change`, whole and as long
/// as before.
fn pump(mut from: TcpStream, mut to: TcpStream, change: impl Fn(&mut Vec<u8>) + Send + 'static) {
    std::thread::spawn(move || {
        let _either_end_closed = (|| -> std::io::Result<()> {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                from.read_exact(&mut byte)?;
                head.push(byte[0]);
            }
            to.write_all(&head)?;
            loop {
                let mut begin = vec![0; 2];
                from.read_exact(&mut begin)?;
                let more = match begin[1] & 0x7f {
                    126 => 2,
                    127 => 8,
                    _ => 0,
                };
                begin.resize(2 + more, 0);
                from.read_exact(&mut begin[2..])?;
                let length = match more {
                    0 => u64::from(begin[1] & 0x7f),
                    _ => begin[2..].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
                };
                let mut mask = vec![0; if begin[1] & 0x80 == 0 { 0 } else { 4 }];
                from.read_exact(&mut mask)?;
                let mut body = vec![0; usize::try_from(length).unwrap()];
                from.read_exact(&mut body)?;
                let masked = |body: &mut Vec<u8>| {
                    body.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
                };
                masked(&mut body);
                change(&mut body);
                masked(&mut body);
                to.write_all(&[begin, mask, body].concat())?;
            }
        })();
        let _closed_already = from.shutdown(Shutdown::Both).and(to.shutdown(Shutdown::Both));
    });
}
