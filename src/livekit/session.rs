//! One connection to a room, from joining to its end: signalling, one WebRTC connection to receive and one to send, as
//! LiveKit's protocol has them. What is lost is joined again from the start, with a fresh token: there is no resume.
//! Not here: when to join again (`room`), who is there (`people`), pictures (`intake`), sound (`voice`).

use super::intake::{Arrived, Intake};
use super::loss::Loss;
use super::opus::{PACKET_TIME, decodes};
use super::peer::{Peer, addresses, unreadable};
use super::people::{CameraTrack, People};
use super::voice::Voice;
use super::{LiveKitConfig, token};
use crate::audio::{AudioHub, FRAME_SAMPLES, SAMPLE_RATE};
use crate::frame::delivered_size;
use crate::shutdown::Shutdown;
use crate::webcam::{CameraFeed, Codec, RoomState};
use bytes::Bytes;
use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use livekit_signaling::{SignalClient, SignalEvent, SignalEvents, SignalOptions};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::format::Codec as RtpCodec;
use str0m::media::{Direction, Frequency, MediaData, MediaKind, MediaTime, Mid};
use str0m::{Event, Rtc};
use tokio::sync::{Notify, watch};

/// The protocol's version that this speaks: two WebRTC connections, no data channels of our own.
const PROTOCOL: u32 = 15;
/// Longest time to join.
const CONNECT: Duration = Duration::from_secs(10);
/// A server that answers no ping for so long is frozen or gone.
const SILENCE: Duration = Duration::from_secs(15);
/// Longest time without a media connection that was negotiated.
const MEDIA: Duration = Duration::from_secs(15);
/// Longest time to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// How often times are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The voice's stamps jump to the clock when they are so far behind it.
const VOICE_BEHIND: Duration = Duration::from_millis(500);
/// The track's name within this connection, which has no other.
const VOICE: &str = "vidette-voice";

/// What outlives a connection.
pub(super) struct Present {
    pub(super) stream: String,
    pub(super) room: String,
    pub(super) identity: String,
    pub(super) config: Arc<LiveKitConfig>,
    pub(super) feed: CameraFeed,
    pub(super) intake: Intake,
    /// The last connection joined the room.
    pub(super) met: bool,
}

/// How a connection ended.
pub(super) enum Ended {
    /// The program or the stream ends.
    Over,
    /// Nobody has been in the room for long.
    Empty,
    Lost(Loss),
}

/// Joins, and stays until something ends it. `joins` is how often the room was joined before.
pub(super) async fn run(
    present: &mut Present,
    voice: &mut watch::Receiver<Option<Arc<AudioHub>>>,
    knock: &Notify,
    shutdown: &Shutdown,
    joins: u64,
) -> Ended {
    let joined = tokio::select! {
        biased;
        () = shutdown.wait() => return Ended::Over,
        joined = Session::join(present) => joined,
    };
    let (mut session, mut events) = match joined {
        Ok(joined) => joined,
        Err(loss) => return Ended::Lost(loss),
    };
    present.met = true;
    tracing::info!(stream = present.stream, room = present.room, people = session.people.count(), "joined the room");
    present.feed.tell(|status| {
        (status.connected, status.reconnects) = (true, joins);
        (status.message, status.retry_in_s, status.attempt) = (None, None, 0);
    });
    let ended = session.stay(present, &mut events, voice, knock, shutdown).await;
    session.leave().await;
    ended
}

struct Session {
    signal: SignalClient,
    /// Receives.
    down: Peer,
    /// Sends.
    up: Peer,
    people: People,
    /// The part over which the taken camera came, where the server does not name it.
    camera_mid: Option<Mid>,
    subscribed: Option<String>,
    pending: Option<SdpPendingOffer>,
    voice: Option<Voice>,
    voice_asked: bool,
    voice_mid: Option<Mid>,
    /// The newest packet's stamp, samples.
    voice_time: u64,
    began: Instant,
    heard: Instant,
    /// When somebody was last here, or had asked to come.
    someone: Instant,
}

impl Session {
    async fn join(present: &Present) -> Result<(Self, SignalEvents), Loss> {
        let config = &present.config;
        let server = config.url.as_str();
        let token = token::own(config, &present.room, &present.identity, SystemTime::now())
            .map_err(|error| Loss::new(error.message))?;
        let mut options = SignalOptions::default();
        options.auto_subscribe = false;
        options.protocol_version = PROTOCOL;
        options.client_capabilities.clear();
        options.region_failover = false;
        options.sdk_options.sdk_version = Some(env!("CARGO_PKG_VERSION").to_owned());
        let connecting = SignalClient::connect(server, token.expose(), options, None);
        let (signal, join, events) = tokio::time::timeout(CONNECT, connecting)
            .await
            .map_err(|_| Loss::silent(CONNECT.as_secs()))?
            .map_err(|error| Loss::signal(server, &error))?;
        let port = config.url.port_or_known_default().unwrap_or(7880);
        let addresses = addresses(config.url.host_str().unwrap_or_default(), port).await;
        let rtc = || Rtc::builder().clear_codecs().enable_opus(true, false);
        let down = rtc()
            .enable_vp8(decodes("vp8dec"))
            .enable_vp9(decodes("vp9dec"))
            .enable_h264(decodes("avdec_h264") || decodes("openh264dec"));
        let now = Instant::now();
        let session = Self {
            signal,
            down: Peer::open(down, &addresses).await?,
            up: Peer::open(rtc(), &addresses).await?,
            people: People::new(&present.identity, join.other_participants),
            camera_mid: None,
            subscribed: None,
            pending: None,
            voice: None,
            voice_asked: false,
            voice_mid: None,
            voice_time: 0,
            began: now,
            heard: now,
            someone: now,
        };
        Ok((session, events))
    }

    async fn stay(
        &mut self,
        present: &mut Present,
        events: &mut SignalEvents,
        voice: &mut watch::Receiver<Option<Arc<AudioHub>>>,
        knock: &Notify,
        shutdown: &Shutdown,
    ) -> Ended {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let keyframe = Arc::clone(&present.feed.keyframe);
        self.follow_camera(present).await;
        loop {
            if let Err(loss) = self.drain(present).await {
                return Ended::Lost(loss);
            }
            let done = tokio::select! {
                () = shutdown.wait() => return Ended::Over,
                changed = present.feed.wanted.changed() => match changed {
                    Err(_) => return Ended::Over,
                    Ok(()) => {
                        if *present.feed.wanted.borrow_and_update() {
                            self.someone = Instant::now();
                        }
                        self.follow_camera(present).await;
                        Ok(())
                    }
                },
                event = events.recv() => match event {
                    None | Some(SignalEvent::Close(_)) => Err(Loss::broke()),
                    Some(SignalEvent::Message(message)) => {
                        self.heard = Instant::now();
                        self.answer(*message, present).await
                    }
                },
                done = self.down.step() => done,
                done = self.up.step() => done,
                packet = next_packet(&mut self.voice) => {
                    match packet {
                        Some(packet) => self.speak(packet),
                        // The stream's sound has ended, or its encoder; looked at again below.
                        None => self.voice = None,
                    }
                    Ok(())
                }
                () = keyframe.notified() => {
                    present.intake.need_keyframe();
                    Ok(())
                }
                () = knock.notified() => {
                    self.someone = Instant::now();
                    Ok(())
                }
                _ = look.tick() => {
                    match self.look(present, voice).await {
                        Some(ended) => return ended,
                        None => Ok(()),
                    }
                }
            };
            if let Err(loss) = done {
                return Ended::Lost(loss);
            }
        }
    }

    /// Sends what waits, and takes in what has come over both connections.
    async fn drain(&mut self, present: &mut Present) -> Result<(), Loss> {
        for event in self.down.drain().await? {
            if let Event::MediaData(data) = event {
                self.picture(data, present);
            }
        }
        // Nothing comes over it that matters here.
        self.up.drain().await.map(|_| ())
    }

    fn picture(&mut self, data: MediaData, present: &mut Present) {
        let Some(codec) = codec(data.params.spec().codec) else { return };
        let sid = self.down.track(data.mid);
        // Without a name for it, what comes is the one track that was asked for.
        if self.subscribed.is_none() || sid.is_some_and(|sid| Some(sid) != self.subscribed.as_deref()) {
            return;
        }
        self.camera_mid = Some(data.mid);
        let arrived = Arrived {
            codec,
            keyframe: data.is_keyframe(),
            contiguous: data.contiguous,
            time: Duration::try_from_secs_f64(data.time.as_seconds()).unwrap_or_default(),
            data: Bytes::copy_from_slice(&data.data),
        };
        if let Some(picture) = present.intake.take(arrived)
            && !present.feed.push(picture)
        {
            present.intake.need_keyframe();
        }
    }

    async fn answer(&mut self, message: Response, present: &mut Present) -> Result<(), Loss> {
        match message {
            Response::Offer(offer) => {
                let answer = self.down.accept_offer(&offer.sdp)?;
                self.send(Request::Answer(proto::SessionDescription {
                    r#type: "answer".to_owned(),
                    sdp: answer,
                    id: offer.id,
                    ..Default::default()
                }))
                .await;
            }
            Response::Answer(answer) => {
                if let Some(pending) = self.pending.take() {
                    let parsed = SdpAnswer::from_sdp_string(&answer.sdp).map_err(|_| unreadable())?;
                    self.up.rtc().sdp_api().accept_answer(pending, parsed).map_err(|_| unreadable())?;
                    self.up.expect();
                }
            }
            Response::Trickle(trickle) => match trickle.target() {
                proto::SignalTarget::Subscriber => self.down.candidate(&trickle.candidate_init),
                proto::SignalTarget::Publisher => self.up.candidate(&trickle.candidate_init),
            },
            Response::TrackPublished(track) if track.cid == VOICE && self.voice_mid.is_none() => {
                self.offer_voice(present).await;
            }
            Response::Update(update) => {
                self.people.update(&update.participants);
                self.follow_camera(present).await;
            }
            Response::Leave(leave) => return Err(Loss::told_to_leave(&leave)),
            _ => {}
        }
        Ok(())
    }

    /// Takes the camera that was switched on last, in the size that the model looks at, and tells who is there.
    async fn follow_camera(&mut self, present: &mut Present) {
        let wanted = *present.feed.wanted.borrow();
        let camera = self.people.newest_camera().cloned();
        let take = camera.as_ref().filter(|_| wanted).map(|camera| camera.sid.clone());
        if take != self.subscribed {
            if let Some(old) = self.subscribed.take() {
                self.subscribe(&old, false).await;
            }
            self.camera_mid = None;
            if let Some(camera) = camera.as_ref().filter(|_| wanted) {
                present.intake.begin(&camera.sid);
                self.subscribe(&camera.sid, true).await;
                self.ask_for_size(camera).await;
                self.subscribed = Some(camera.sid.clone());
                tracing::info!(stream = present.stream, who = camera.identity, "taking a camera of the room");
            }
        }
        let people = self.people.count();
        if people > 0 {
            self.someone = Instant::now();
        }
        present.feed.tell(|status| {
            status.state = if camera.is_some() { RoomState::Camera } else { RoomState::Waiting };
            status.people = people;
            status.muted = camera.as_ref().is_some_and(|camera| camera.muted);
            status.camera = camera.map(|camera| camera.identity);
        });
    }

    async fn subscribe(&self, sid: &str, subscribe: bool) {
        let track_sids = vec![sid.to_owned()];
        self.send(Request::Subscription(proto::UpdateSubscription { track_sids, subscribe, ..Default::default() }))
            .await;
    }

    /// Of a camera that sends several sizes at once the server picks the one that is enough.
    async fn ask_for_size(&self, camera: &CameraTrack) {
        if camera.width == 0 || camera.height == 0 {
            return;
        }
        let (width, height) = delivered_size(camera.width, camera.height);
        self.send(Request::TrackSetting(proto::UpdateTrackSettings {
            track_sids: vec![camera.sid.clone()],
            width,
            height,
            ..Default::default()
        }))
        .await;
    }

    /// What has to be done when time goes by.
    async fn look(&mut self, present: &mut Present, voice: &watch::Receiver<Option<Arc<AudioHub>>>) -> Option<Ended> {
        let now = Instant::now();
        if now.saturating_duration_since(self.heard) > SILENCE {
            return Some(Ended::Lost(Loss::silent(SILENCE.as_secs())));
        }
        if self.down.missing(now).max(self.up.missing(now)) > MEDIA {
            return Some(Ended::Lost(Loss::no_media(MEDIA.as_secs())));
        }
        if self.people.count() > 0 {
            self.someone = now;
        } else if now.saturating_duration_since(self.someone) > present.config.empty_grace {
            return Some(Ended::Empty);
        }
        // Also before anything came: its first key frame may have been lost.
        let camera = self.subscribed.as_deref().and_then(|sid| self.down.part(sid)).or(self.camera_mid);
        if let Some(mid) = camera
            && present.intake.ask(now)
        {
            self.down.ask_for_keyframe(mid);
        }
        let (asks, undecodable) = present.intake.losses();
        present.feed.tell(|status| (status.keyframes_asked, status.frames_undecodable) = (asks, undecodable));
        self.give_voice(voice).await;
        None
    }

    /// Listens to the stream's sound while somebody is here, and publishes it the first time.
    async fn give_voice(&mut self, voice: &watch::Receiver<Option<Arc<AudioHub>>>) {
        if self.people.count() == 0 {
            self.voice = None;
            return;
        }
        let Some(hub) = voice.borrow().clone() else { return };
        if !self.voice_asked {
            self.voice_asked = true;
            self.send(Request::AddTrack(proto::AddTrackRequest {
                cid: VOICE.to_owned(),
                name: "commentary".to_owned(),
                r#type: proto::TrackType::Audio as i32,
                source: proto::TrackSource::Microphone as i32,
                disable_red: true,
                ..Default::default()
            }))
            .await;
        }
        if self.voice.is_none() && self.voice_mid.is_some() {
            match Voice::start(&hub) {
                Ok(voice) => self.voice = Some(voice),
                Err(error) => tracing::warn!("the voice can't be sent to the LiveKit room: {error}"),
            }
        }
    }

    async fn offer_voice(&mut self, present: &Present) {
        let mut change = self.up.rtc().sdp_api();
        let (stream, track) = (Some("vidette".to_owned()), Some(VOICE.to_owned()));
        let mid = change.add_media(MediaKind::Audio, Direction::SendOnly, stream, track, None);
        let Some((offer, pending)) = change.apply() else { return };
        (self.voice_mid, self.pending) = (Some(mid), Some(pending));
        self.send(Request::Offer(proto::SessionDescription {
            r#type: "offer".to_owned(),
            sdp: offer.to_sdp_string(),
            id: 1,
            ..Default::default()
        }))
        .await;
        present.feed.tell(|status| status.voice = true);
    }

    /// Sends 20 ms of the voice.
    fn speak(&mut self, packet: Bytes) {
        let clock = self.began.elapsed();
        let due = u64::try_from(clock.as_micros() * u128::from(SAMPLE_RATE) / 1_000_000).unwrap_or(u64::MAX);
        let behind = VOICE_BEHIND.as_millis() as u64 / PACKET_TIME.as_millis() as u64 * FRAME_SAMPLES as u64;
        self.voice_time += FRAME_SAMPLES as u64;
        if due > self.voice_time + behind {
            self.voice_time = due;
        }
        let time = MediaTime::new(self.voice_time, Frequency::FORTY_EIGHT_KHZ);
        let Some(writer) = self.voice_mid.and_then(|mid| self.up.rtc().writer(mid)) else { return };
        let Some(pt) = writer.payload_params().find(|p| p.spec().codec == RtpCodec::Opus).map(|p| p.pt()) else {
            return;
        };
        if let Err(error) = writer.write(pt, Instant::now(), time, packet.to_vec()) {
            tracing::debug!(%error, "a packet of the voice was not sent");
        }
    }

    async fn send(&self, request: Request) {
        self.signal.send(request).await;
    }

    /// Says goodbye, without waiting for long.
    async fn leave(self) {
        let goodbye = async {
            let reason = proto::DisconnectReason::ClientInitiated as i32;
            self.send(Request::Leave(proto::LeaveRequest { reason, ..Default::default() })).await;
            self.signal.close().await;
        };
        if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
            tracing::debug!("the LiveKit server took no goodbye");
        }
    }
}

/// Waits for ever while there is no voice.
async fn next_packet(voice: &mut Option<Voice>) -> Option<Bytes> {
    match voice {
        Some(voice) => voice.packet().await,
        None => std::future::pending().await,
    }
}

fn codec(codec: RtpCodec) -> Option<Codec> {
    match codec {
        RtpCodec::Vp8 => Some(Codec::Vp8),
        RtpCodec::Vp9 => Some(Codec::Vp9),
        RtpCodec::H264 => Some(Codec::H264),
        _ => None,
    }
}
