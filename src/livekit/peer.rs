//! One WebRTC connection: str0m, which does no I/O by itself, on UDP sockets of this machine.
//! Not here: what is negotiated and why (`session`). There is no TURN and no ICE over TCP: UDP must reach the server.

use super::loss::Loss;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::change::SdpOffer;
use str0m::media::{KeyframeRequestKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcConfig};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Datagrams that wait to be read (about half a second of video). The newest goes, as it would on the wire.
const WAITING: usize = 512;
/// Larger ones are no RTP.
const LONGEST: usize = 2048;
/// Remote candidates that are listened to.
const CANDIDATES: usize = 64;
/// An address of nobody (RFC 5737), to ask which interface leads out. Nothing is sent to it.
const OUT: &str = "192.0.2.1:9";

struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// One connection and its sockets, which close when it is dropped.
pub(super) struct Peer {
    rtc: Rtc,
    sockets: Vec<(SocketAddr, Arc<UdpSocket>)>,
    readers: Vec<JoinHandle<()>>,
    inbox: mpsc::Receiver<Datagram>,
    deadline: Instant,
    /// Since when there should be a connection and is none.
    missing_since: Option<Instant>,
    candidates: usize,
    parts: BTreeMap<String, Part>,
}

impl Peer {
    /// A connection from `addresses` of this machine.
    ///
    /// # Errors
    /// When no socket can be opened.
    pub(super) async fn open(config: RtcConfig, addresses: &[IpAddr]) -> Result<Self, Loss> {
        let now = Instant::now();
        let (mut rtc, mut sockets, mut readers) = (config.build(now), Vec::new(), Vec::new());
        let (inbox_in, inbox) = mpsc::channel(WAITING);
        for address in addresses {
            let bound = async {
                let socket = UdpSocket::bind((*address, 0)).await?;
                Ok::<_, std::io::Error>((socket.local_addr()?, Arc::new(socket)))
            };
            let Ok((local, socket)) = bound.await else { continue };
            let Ok(candidate) = Candidate::host(local, Protocol::Udp) else { continue };
            rtc.add_local_candidate(candidate);
            readers.push(tokio::spawn(read(Arc::clone(&socket), local, inbox_in.clone())));
            sockets.push((local, socket));
        }
        if sockets.is_empty() {
            return Err(Loss::new("no UDP socket can be opened for the LiveKit room's media"));
        }
        let (missing_since, candidates, parts) = (None, 0, BTreeMap::new());
        Ok(Self { rtc, sockets, readers, inbox, deadline: now, missing_since, candidates, parts })
    }

    /// The connection's own state, to negotiate. [`Self::drain`] it after each change.
    pub(super) fn rtc(&mut self) -> &mut Rtc {
        &mut self.rtc
    }

    /// It was negotiated, so from now on it should stand.
    pub(super) fn expect(&mut self) {
        if !self.rtc.is_connected() {
            self.missing_since.get_or_insert_with(Instant::now);
        }
    }

    /// For how long it should have stood and did not.
    pub(super) fn missing(&self, now: Instant) -> Duration {
        self.missing_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Sends what is to be sent, and gives what has happened.
    ///
    /// # Errors
    /// When the connection is beyond repair.
    pub(super) async fn drain(&mut self) -> Result<Vec<Event>, Loss> {
        let mut events = Vec::new();
        loop {
            match self.rtc.poll_output().map_err(|e| broken(&e))? {
                Output::Timeout(at) => {
                    self.deadline = at;
                    break;
                }
                Output::Transmit(out) => {
                    let socket = self.sockets.iter().find(|(local, _)| *local == out.source);
                    if let Some((_, socket)) = socket
                        && let Err(error) = socket.send_to(&out.contents, out.destination).await
                    {
                        // As good as lost on the way.
                        tracing::trace!(%error, "a datagram was not sent");
                    }
                }
                Output::Event(Event::IceConnectionStateChange(state)) => {
                    tracing::debug!(?state, "ICE");
                    if state == IceConnectionState::Disconnected {
                        self.expect_again();
                    }
                }
                Output::Event(Event::Connected) => self.missing_since = None,
                Output::Event(event) => events.push(event),
            }
        }
        // ICE that comes back by itself tells no `Connected`.
        if self.rtc.is_connected() {
            self.missing_since = None;
        }
        if !self.rtc.is_alive() {
            return Err(Loss::new("the LiveKit server closed the media connection"));
        }
        Ok(events)
    }

    fn expect_again(&mut self) {
        self.missing_since.get_or_insert_with(Instant::now);
    }

    /// Waits for a datagram or the next deadline, and takes it in. Giving up the wait loses nothing.
    ///
    /// # Errors
    /// When the connection is beyond repair.
    pub(super) async fn step(&mut self) -> Result<(), Loss> {
        tokio::select! {
            Some(datagram) = self.inbox.recv() => {
                let Ok(contents) = datagram.bytes.as_slice().try_into() else { return Ok(()) };
                let received =
                    Receive { proto: Protocol::Udp, source: datagram.from, destination: datagram.to, contents };
                let input = Input::Receive(Instant::now(), received);
                // What comes from elsewhere is nobody's fault.
                if self.rtc.accepts(&input) {
                    self.rtc.handle_input(input).map_err(|e| broken(&e))?;
                }
            }
            () = tokio::time::sleep_until(self.deadline.into()) => {
                self.rtc.handle_input(Input::Timeout(Instant::now())).map_err(|e| broken(&e))?;
            }
        }
        Ok(())
    }

    /// Takes in an offer, and gives the answer to it. Drain it afterwards.
    ///
    /// # Errors
    /// When nothing can be made of it.
    pub(super) fn accept_offer(&mut self, sdp: &str) -> Result<String, Loss> {
        let parsed = SdpOffer::from_sdp_string(sdp).map_err(|_| unreadable())?;
        for (mid, part) in parts_of(sdp) {
            let Some(before) = self.parts.insert(mid.clone(), part.clone()) else { continue };
            if before != part {
                // LiveKit gives a part of the connection that has become free to the next track. str0m would go on with
                // the numbers of the track before, and drop the new one's packets where theirs are lower; and it would
                // ask the old one for key frames. So the part begins anew, as str0m itself does it with a section
                // that has another `mid`.
                self.rtc.direct_api().remove_media(Mid::from(mid.as_str()));
            }
        }
        let answer = self.rtc.sdp_api().accept_offer(parsed).map_err(|_| unreadable())?;
        self.expect();
        Ok(answer.to_sdp_string())
    }

    /// The track that comes over that part.
    pub(super) fn track(&self, mid: Mid) -> Option<&str> {
        self.parts.get(&mid.to_string()).map(|part| part.track.as_str())
    }

    /// The part over which that track comes.
    pub(super) fn part(&self, track: &str) -> Option<Mid> {
        self.parts.iter().find(|(_, part)| part.track == track).map(|(mid, _)| Mid::from(mid.as_str()))
    }

    /// Takes in a candidate of the server, as browsers write it.
    pub(super) fn candidate(&mut self, init: &str) {
        #[derive(serde::Deserialize)]
        struct Init {
            candidate: String,
        }
        let parsed = serde_json::from_str::<Init>(init).ok();
        let candidate = parsed.and_then(|init| Candidate::from_sdp_string(&init.candidate).ok());
        if let Some(candidate) = candidate
            && self.candidates < CANDIDATES
        {
            self.candidates += 1;
            self.rtc.add_remote_candidate(candidate);
        }
    }

    /// Asks the sender of `mid` for a picture that can be decoded by itself.
    pub(super) fn ask_for_keyframe(&mut self, mid: Mid) {
        if let Some(mut writer) = self.rtc.writer(mid)
            && let Err(error) = writer.request_keyframe(None, KeyframeRequestKind::Pli)
        {
            tracing::debug!(%error, "a key frame can't be asked for yet");
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.readers.iter().for_each(JoinHandle::abort);
    }
}

async fn read(socket: Arc<UdpSocket>, to: SocketAddr, inbox: mpsc::Sender<Datagram>) {
    let mut buffer = vec![0; LONGEST];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                match inbox.try_send(Datagram { from, to, bytes }) {
                    Ok(()) => {}
                    Err(mpsc::error::TrySendError::Full(_)) => tracing::trace!("a datagram found no room"),
                    Err(mpsc::error::TrySendError::Closed(_)) => return,
                }
            }
            // An earlier datagram met a closed port. Not at once again, should it go on.
            Err(error) => {
                tracing::trace!(%error, "a UDP socket");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// What to say of a session description that can't be used.
pub(super) fn unreadable() -> Loss {
    Loss::new("the LiveKit server's session description can't be used")
}

fn broken(error: &str0m::error::RtcError) -> Loss {
    Loss::new(format!("the media connection with the LiveKit server failed: {error}"))
}

/// This machine's addresses from which the server can be reached: on the way to its host, and on the way out, for
/// a server beside us that gives its outer address.
pub(super) async fn addresses(host: &str, port: u16) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let resolved = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await;
    let towards = resolved.into_iter().flatten().chain(OUT.parse());
    for target in towards {
        let any: IpAddr = if target.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        let leads = async {
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(target).await?;
            socket.local_addr()
        };
        if let Ok(local) = leads.await
            && !found.contains(&local.ip())
        {
            found.push(local.ip());
        }
    }
    found
}

/// What comes over one part of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The track's name.
    pub(super) track: String,
    /// Of its packets; those that are sent again have another.
    ssrc: Option<u32>,
}

/// What comes over which part of the connection, by an offer's `a=mid`, `a=msid` (RFC 8830) and `a=ssrc` lines
/// (RFC 5576). Parts over which nothing comes are not told.
pub(super) fn parts_of(sdp: &str) -> BTreeMap<String, Part> {
    let mut parts = BTreeMap::new();
    for section in sdp.split("\nm=").skip(1) {
        let lines = |name: &'static str| section.lines().filter_map(move |l| l.trim_end().strip_prefix(name));
        let track = lines("a=msid:").next().and_then(|msid| msid.split_whitespace().nth(1));
        if let (Some(mid), Some(track)) = (lines("a=mid:").next(), track) {
            // The packets' own stands before that of packets that are sent again.
            let ssrc = lines("a=ssrc:").next().and_then(|l| l.split_whitespace().next()?.parse().ok());
            parts.insert(mid.to_owned(), Part { track: track.to_owned(), ssrc });
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use str0m::media::{Direction, MediaKind};

    #[test]
    fn tracks_are_found_by_their_section() {
        let sdp = "v=0\r\ns=-\r\nm=application 9 x\r\na=mid:0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n\
                   a=msid:PA_x|s TR_abc\r\na=ssrc:7 cname:x\r\na=ssrc:8 cname:x\r\n\
                   m=video 0 x\r\na=inactive\r\na=mid:2\r\n";
        let part = Part { track: "TR_abc".to_owned(), ssrc: Some(7) };
        assert_eq!(parts_of(sdp).into_iter().collect::<Vec<_>>(), [("1".to_owned(), part)]);
        assert!(parts_of("").is_empty() && parts_of("\nm=").is_empty());
    }

    /// A part of the connection that another track gets forgets the first one's packets, and only then.
    #[tokio::test]
    async fn a_part_that_another_track_gets_begins_anew() {
        let mut server = Rtc::builder().build(Instant::now());
        let mut change = server.sdp_api();
        let names = |n: u8| (Some(format!("PA_{n}")), Some(format!("TR_{n}")));
        let mid = change.add_media(MediaKind::Video, Direction::SendOnly, names(1).0, names(1).1, None);
        let (offer, _pending) = change.apply().unwrap();
        let first = offer.to_sdp_string();
        let part = parts_of(&first).remove(&mid.to_string()).unwrap();
        let ssrc = part.ssrc.unwrap();
        let second = first.replace("TR_1", "TR_2").replace(&ssrc.to_string(), "77");

        let mut peer = Peer::open(Rtc::builder(), &["127.0.0.1".parse().unwrap()]).await.unwrap();
        let ssrc_now = |peer: &mut Peer| peer.rtc().direct_api().stream_rx_by_mid(mid, None).map(|s| *s.ssrc());
        for _ in 0..2 {
            assert!(peer.accept_offer(&first).unwrap().contains("a=recvonly"));
            assert_eq!((ssrc_now(&mut peer), peer.track(mid)), (Some(ssrc), Some("TR_1")));
        }
        assert!(peer.accept_offer(&second).unwrap().contains("a=recvonly"));
        assert_eq!((ssrc_now(&mut peer), peer.track(mid)), (Some(77), Some("TR_2")));
        assert!(peer.rtc().direct_api().stream_rx(&ssrc.into()).is_none(), "nothing of the first is left");
        assert!(peer.accept_offer("v=0").is_err());
    }

    #[tokio::test]
    async fn the_way_to_this_machine_begins_at_it() {
        let found = addresses("127.0.0.1", 7880).await;
        assert_eq!(found.first().map(ToString::to_string).as_deref(), Some("127.0.0.1"));
    }
}
