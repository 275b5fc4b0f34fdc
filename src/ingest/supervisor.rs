//! The task that keeps one stream's source alive: takes commands, connects, waits, connects again, tells the status.
//! Not here: the rules of it (`states`), one connection (`session`), a camera in a room (`webcam`).

mod webcam;

use super::config::IngestConfig;
use super::fault::{Failure, subject};
use super::gate;
use super::outlet::{Outlet, SessionId};
use super::pipeline::Plan;
use super::policy::Policy;
use super::session::{End, Progress, Session};
use super::spec::{NetSource, SourceSpec};
use super::states::{Course, Loss, Next};
use crate::audio::AudioHub;
use crate::bus::Bus;
use crate::error::{Error, Kind, Result};
use crate::metrics::{Metrics, StreamLabel};
use crate::secret::SafeUrl;
use crate::shutdown::Shutdown;
use crate::source::{AskedBy, COMMANDS, SourceCommand, SourceFault, SourceHandle, SourceState, SourceStatus};
use crate::webcam::Camera;
use crate::window::SharedWindow;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Redirects followed before a server is said to lead in circles.
const HOPS: usize = 5;
/// Between two openings of a file that can't be rewound.
const REOPEN: Duration = Duration::from_millis(500);

/// Starts the supervisor of the stream `name`. It ends with `shutdown`, its pipeline closed, or when all handles are
/// dropped. `camera` brings the pictures of the source `webcam`, which is refused without it. Call it within a tokio
/// runtime, after [`super::init`].
pub fn spawn(
    name: &str,
    config: IngestConfig,
    window: Arc<SharedWindow>,
    bus: Arc<Bus>,
    metrics: Arc<Metrics>,
    camera: Option<Camera>,
    shutdown: Shutdown,
) -> (SourceHandle, JoinHandle<()>) {
    let sound = Arc::new(AudioHub::of_source(name, Arc::clone(&metrics)));
    spawn_with_sound(name, config, window, (bus, sound), metrics, camera, shutdown)
}

/// The same, with the source's own sound for those who listen to `sound`, which ends with the supervisor.
pub fn spawn_with_sound(
    name: &str,
    config: IngestConfig,
    window: Arc<SharedWindow>,
    (bus, sound): (Arc<Bus>, Arc<AudioHub>),
    metrics: Arc<Metrics>,
    camera: Option<Camera>,
    shutdown: Shutdown,
) -> (SourceHandle, JoinHandle<()>) {
    // Senders wait when it is full.
    let (commands_in, commands) = mpsc::channel(COMMANDS);
    let (status, status_out) = watch::channel(SourceStatus::default());
    let config = Arc::new(config);
    let orders = Orders { commands, shutdown, config: Arc::clone(&config), webcam: camera.is_some() };
    let outlet = Arc::new(Outlet::new(name, window, bus, sound, Arc::clone(&metrics)));
    let supervisor = Supervisor {
        outlet: Arc::clone(&outlet),
        board: Board::new(name, status, metrics),
        sound: config.sound,
        delivered: false,
        config,
        sessions: 0,
        camera,
    };
    let task = async move {
        tokio::select! {
            () = supervisor.run(orders) => {}
            () = outlet.sound().play() => {}
        }
    };
    (SourceHandle::new(commands_in, status_out), tokio::spawn(task))
}

/// What the supervisor is told from outside.
enum Order {
    /// Open this one instead. The string was understood; the caller is told when the status speaks of it.
    Start {
        spec: SourceSpec,
        asked_by: AskedBy,
        course: Box<Course>,
        reply: oneshot::Sender<Result<()>>,
    },
    Stop {
        reply: oneshot::Sender<()>,
    },
    End,
}

/// Where orders come from.
struct Orders {
    commands: mpsc::Receiver<SourceCommand>,
    shutdown: Shutdown,
    config: Arc<IngestConfig>,
    /// There is a room whose camera can be taken.
    webcam: bool,
}

impl Orders {
    /// The next order. Strings that can't be understood are answered here and change nothing. Dropping the future
    /// loses no command.
    async fn next(&mut self) -> Order {
        loop {
            let command = tokio::select! {
                biased;
                () = self.shutdown.wait() => return Order::End,
                command = self.commands.recv() => command,
            };
            match command {
                None => return Order::End,
                Some(SourceCommand::Stop { reply }) => return Order::Stop { reply },
                Some(SourceCommand::Start { source, asked_by, reply }) => {
                    match self.understand(source.expose(), asked_by) {
                        Ok((spec, course)) => return Order::Start { spec, asked_by, course, reply },
                        Err(error) => {
                            let _the_caller_may_have_left = reply.send(Err(error));
                        }
                    }
                }
            }
        }
    }

    fn understand(&self, source: &str, asked_by: AskedBy) -> Result<(SourceSpec, Box<Course>)> {
        let policy = self.config.policy_for(asked_by);
        let spec = SourceSpec::parse(source, policy)?;
        if spec == SourceSpec::Webcam && !self.webcam {
            return Err(Error::unavailable("livekit_off", "the source webcam needs LiveKit, which is off")
                .hint("set LIVEKIT_ENABLED=true with LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET"));
        }
        if let (SourceSpec::File(file), AskedBy::Client) = (&spec, asked_by)
            && let Err(error) = policy.check_file(file)
            && error.kind == Kind::Denied
        {
            // Told at once; a file that is not there yet is waited for.
            return Err(error);
        }
        Ok((spec, Box::new(Course::new(&self.config)?)))
    }
}

struct Supervisor {
    outlet: Arc<Outlet>,
    board: Board,
    config: Arc<IngestConfig>,
    sessions: u64,
    /// The source's sound is asked for as well.
    sound: bool,
    /// The newest connection gave a picture.
    delivered: bool,
    camera: Option<Camera>,
}

impl Supervisor {
    async fn run(mut self, mut orders: Orders) {
        let mut order = orders.next().await;
        loop {
            order = match order {
                Order::End => break,
                Order::Stop { reply } => {
                    self.outlet.clear();
                    self.board.stopped();
                    let _the_caller_may_have_left = reply.send(());
                    orders.next().await
                }
                Order::Start { spec, asked_by, course, reply } => {
                    self.outlet.clear();
                    self.board.started(&spec);
                    let _the_caller_may_have_left = reply.send(Ok(()));
                    match (spec, self.camera.take()) {
                        (SourceSpec::Webcam, Some(mut camera)) => {
                            camera.want(true);
                            let order = self.keep_webcam(&mut camera, *course, &mut orders).await;
                            camera.want(false);
                            self.camera = Some(camera);
                            order
                        }
                        (spec, camera) => {
                            self.camera = camera;
                            self.keep(&spec, asked_by, *course, &mut orders).await
                        }
                    }
                }
            };
        }
        self.outlet.close();
        self.board.stopped();
    }

    /// Keeps `spec` alive until the next order.
    async fn keep(&mut self, spec: &SourceSpec, asked_by: AskedBy, mut course: Course, orders: &mut Orders) -> Order {
        self.sound = self.config.sound;
        loop {
            course.connect();
            self.board.show(&course);
            let end = match self.follow(spec, asked_by, &mut course, orders).await {
                Ok(end) => end,
                Err(order) => return order,
            };
            let wait = match end {
                Outcome::Ended => {
                    course.ended();
                    self.board.show(&course);
                    return orders.next().await;
                }
                Outcome::Again => REOPEN,
                Outcome::Lost(failure, loss) => {
                    if self.config.sound && loss.rtsp && !self.delivered && may_be_the_sound(failure.fault) {
                        self.sound = !self.sound;
                    }
                    let next = course.lost(loss, random());
                    self.board.failed(&course, &failure, next);
                    match next {
                        Next::AtOnce => continue,
                        Next::After(wait) => wait,
                    }
                }
            };
            tokio::select! {
                biased;
                order = orders.next() => return order,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One attempt, through as many redirects as are allowed.
    async fn follow(
        &mut self,
        spec: &SourceSpec,
        asked_by: AskedBy,
        course: &mut Course,
        orders: &mut Orders,
    ) -> Result<Outcome, Order> {
        let mut target = spec.clone();
        for _ in 0..HOPS {
            tokio::select! {
                biased;
                order = orders.next() => return Err(order),
                checked = check(&target, asked_by, &self.config) => if let Err(failure) = checked {
                    return Ok(lost(spec, failure, false));
                },
            }
            let plan = Plan {
                spec: target.clone(),
                config: Arc::clone(&self.config),
                asked_by,
                udp: course.udp(),
                hardware: course.hardware(),
                sound: self.sound,
                feed: None,
            };
            match self.connect(plan, course, orders).await? {
                (End::Redirected { location }, _) => {
                    match redirected(&target, &location, self.config.policy_for(asked_by)) {
                        Ok(next) => target = next,
                        Err(failure) => return Ok(lost(spec, failure, false)),
                    }
                }
                (End::Failed(failure), hardware) => return Ok(lost(spec, failure, hardware)),
                (End::Finished, _) => return Ok(Outcome::Ended),
                (End::PlayedOut, _) => return Ok(Outcome::Again),
            }
        }
        let message = format!("the server at {spec} redirects more than {HOPS} times");
        Ok(lost(spec, Failure::new(SourceFault::Network, message), false))
    }

    /// One connection, closed again when it has ended or an order has come.
    async fn connect(&mut self, plan: Plan, course: &mut Course, orders: &mut Orders) -> Result<(End, bool), Order> {
        self.sessions += 1;
        self.delivered = false;
        let mut session = match Session::start(SessionId(self.sessions), plan, Arc::clone(&self.outlet)) {
            Ok(session) => session,
            Err(error) => return Ok((End::Failed(Failure::from_error(&error)), false)),
        };
        let board = &mut self.board;
        let end = tokio::select! {
            biased;
            order = orders.next() => Err(order),
            end = session.run(|progress| board.progress(course, progress)) => Ok(end),
        };
        if let Ok(End::Failed(failure)) = &end
            && failure.fault == SourceFault::Stalled
        {
            // Told before the pipeline is closed, which may take a while with a dead camera.
            self.board.stalled(failure);
        }
        let hardware = session.facts().hardware;
        self.delivered = session.has_delivered();
        if !session.close(self.config.close_timeout).await {
            self.board.abandoned();
        }
        end.map(|end| (end, hardware))
    }
}

/// A camera may refuse what it offers: then its video is tried without its sound, in turns.
fn may_be_the_sound(fault: SourceFault) -> bool {
    use SourceFault as F;
    !matches!(fault, F::Network | F::Auth | F::NotFound | F::Ended | F::Forbidden)
}

/// How an attempt ended.
enum Outcome {
    Ended,
    /// Open it again, without calling it a failure.
    Again,
    Lost(Failure, Loss),
}

fn lost(spec: &SourceSpec, failure: Failure, hardware: bool) -> Outcome {
    let loss = Loss { fault: failure.fault, hardware, rtsp: matches!(spec, SourceSpec::Rtsp(_)) };
    Outcome::Lost(failure, loss)
}

/// Checks the addresses of a source that has any. What is contacted in the end is checked once more (`gate`), but only here
/// can be said what is wrong.
async fn check(spec: &SourceSpec, asked_by: AskedBy, config: &Arc<IngestConfig>) -> Result<(), Failure> {
    let Some(net) = spec.net() else { return Ok(()) };
    let (url, config) = (net.url.expose().clone(), Arc::clone(config));
    let limit = config.connect_timeout;
    // The system's resolver blocks, and may take longer than anybody wants to wait.
    let resolving = tokio::task::spawn_blocking(move || config.policy_for(asked_by).resolve(&url));
    let unknown = |why: &str| Failure::new(SourceFault::Network, format!("{} can't be reached: {why}", subject(spec)));
    match tokio::time::timeout(limit, resolving).await {
        Ok(Ok(Ok(addresses))) => {
            if asked_by == AskedBy::Operator {
                gate::let_operator(&addresses);
            }
            Ok(())
        }
        Ok(Ok(Err(error))) if error.kind == Kind::Unavailable => {
            Err(unknown("its name is not known to this machine; check the name and the network"))
        }
        Ok(Ok(Err(error))) => Err(Failure::from_error(&error)),
        Ok(Err(_)) | Err(_) => Err(unknown("its name was not resolved in time; check the network")),
    }
}

/// The source to which `target` was redirected, when it is allowed.
fn redirected(target: &SourceSpec, location: &str, policy: &Policy) -> Result<SourceSpec, Failure> {
    let forbidden = || Failure::forbidden(target, location);
    let base = target.net().ok_or_else(forbidden)?;
    let url = base.url.expose().join(location).map_err(|_| forbidden())?;
    if !matches!(url.scheme(), "http" | "https") || policy.check_url(&url).is_err() {
        return Err(forbidden());
    }
    let same_origin = url.origin() == base.url.expose().origin();
    let (url, own) = SafeUrl::split(url);
    // A password is for the server that it was given for.
    let credentials = own.or_else(|| base.credentials.clone().filter(|_| same_origin));
    Ok(SourceSpec::Http(NetSource { url, credentials }))
}

/// The wall clock, for people; nothing is timed by it.
fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A number in `[0, 1)` that differs from time to time; it only spreads waits.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

/// Where the state is shown: status, metrics, and one log line a change.
struct Board {
    stream: String,
    status: watch::Sender<SourceStatus>,
    metrics: Arc<Metrics>,
    label: StreamLabel,
}

impl Board {
    fn new(stream: &str, status: watch::Sender<SourceStatus>, metrics: Arc<Metrics>) -> Self {
        let label = StreamLabel::new(stream);
        // Made here, so that they are shown as zero before anything happened.
        for family in [&metrics.source_failures, &metrics.reconnects, &metrics.pipelines_abandoned] {
            drop(family.get_or_create(&label));
        }
        let board = Self { stream: stream.to_owned(), status, metrics, label };
        board.up(false);
        board
    }

    /// Changes the status, and notes when its state began.
    fn change(&self, change: impl FnOnce(&mut SourceStatus)) {
        self.status.send_modify(|status| {
            let before = status.state;
            change(status);
            if status.state != before {
                status.since_unix_ms = unix_ms();
            }
        });
    }

    fn up(&self, up: bool) {
        self.metrics.source_up.get_or_create(&self.label).set(i64::from(up));
    }

    fn started(&self, spec: &SourceSpec) {
        let pipelines_abandoned = self.status.borrow().pipelines_abandoned;
        let source = Some(spec.to_string());
        let fresh = SourceStatus { since_unix_ms: unix_ms(), ..SourceStatus::default() };
        self.status.send_replace(SourceStatus { source, pipelines_abandoned, ..fresh });
        tracing::info!(stream = self.stream, source = %spec, "source set");
    }

    fn stopped(&self) {
        self.up(false);
        let was = self.status.borrow().clone();
        let fresh = SourceStatus { since_unix_ms: unix_ms(), ..SourceStatus::default() };
        self.status.send_replace(SourceStatus { pipelines_abandoned: was.pipelines_abandoned, ..fresh });
        if was.state != SourceState::Stopped {
            tracing::info!(stream = self.stream, "source stopped");
        }
    }

    /// A state without a fault: connecting, or played to the end.
    fn show(&self, course: &Course) {
        self.up(false);
        self.change(|status| {
            status.state = course.state();
            status.attempt = course.attempts();
            (status.retry_in_s, status.next_attempt) = (None, None);
            if course.state() == SourceState::Ended {
                (status.message, status.fault) = (None, None);
            }
        });
        let state = course.state();
        if state == SourceState::Ended {
            tracing::info!(stream = self.stream, "source played to its end");
        } else {
            tracing::debug!(stream = self.stream, ?state, attempt = course.attempts(), "source");
        }
    }

    fn progress(&self, course: &mut Course, progress: Progress) {
        let facts = match progress {
            Progress::Stable => {
                course.stable();
                self.change(|status| status.attempt = course.attempts());
                return;
            }
            Progress::Frames(facts) => facts,
        };
        let first = course.state() != SourceState::Streaming;
        if course.first_frame() {
            self.metrics.reconnects.get_or_create(&self.label).inc();
        }
        self.up(true);
        self.change(|status| {
            status.state = course.state();
            (status.message, status.fault, status.retry_in_s, status.next_attempt) = (None, None, None, None);
            (status.width, status.height) = (facts.width, facts.height);
            status.audio = facts.sound;
            status.decoder.clone_from(&facts.decoder);
            status.attempt = course.attempts();
            status.reconnects = course.reconnects();
        });
        if first {
            let decoder = facts.decoder.unwrap_or_default();
            let (width, height) = (facts.width, facts.height);
            tracing::info!(stream = self.stream, width, height, decoder, "source streaming");
        }
    }

    /// Frames stopped coming; the pipeline is about to be closed.
    fn stalled(&self, failure: &Failure) {
        self.up(false);
        self.change(|status| {
            status.state = SourceState::Stalled;
            status.message = Some(failure.message.clone());
            status.fault = Some(failure.fault);
            (status.last_error, status.last_error_unix_ms) = (status.message.clone(), Some(unix_ms()));
        });
    }

    fn failed(&self, course: &Course, failure: &Failure, next: Next) {
        self.up(false);
        self.metrics.source_failures.get_or_create(&self.label).inc();
        let retry_in_s = match next {
            Next::AtOnce => 0.0,
            Next::After(wait) => wait.as_secs_f64(),
        };
        self.change(|status| {
            status.state = course.state();
            status.message = Some(failure.message.clone());
            status.fault = Some(failure.fault);
            status.attempt = course.attempts();
            status.retry_in_s = Some(retry_in_s);
            status.next_attempt = Instant::now().checked_add(Duration::from_secs_f64(retry_in_s));
            (status.last_error, status.last_error_unix_ms) = (status.message.clone(), Some(unix_ms()));
        });
        let (fault, attempt) = (failure.fault, course.attempts());
        tracing::info!(stream = self.stream, ?fault, attempt, retry_in_s, "source lost: {}", failure.message);
        if !failure.detail.is_empty() {
            tracing::debug!(stream = self.stream, detail = failure.detail, "GStreamer's own words");
        }
    }

    fn abandoned(&self) {
        self.metrics.pipelines_abandoned.get_or_create(&self.label).inc();
        self.change(|status| status.pipelines_abandoned += 1);
        tracing::warn!(stream = self.stream, "a video pipeline did not close in time and was left behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::policy::Policy;

    #[test]
    fn redirects_stay_with_http_and_keep_the_password_at_home() {
        let config = IngestConfig::default();
        let from = SourceSpec::parse("http://u:geheim77@h:81/a/b", &Policy::default()).unwrap();
        let to = |location| redirected(&from, location, &config.policy);
        let credentials = |spec: SourceSpec| spec.net().and_then(|net| net.credentials.clone());
        let near = to("../c").unwrap();
        assert_eq!(near.to_string(), "http://h:81/c");
        assert!(credentials(near).is_some());
        let far = to("http://other/c").unwrap();
        assert!(credentials(far).is_none());
        for bad in ["file:///etc/passwd", "rtsp://h/x", "data:,x", "http://169.254.169.254/", "http://[bad"] {
            let failure = to(bad).unwrap_err();
            assert_eq!(failure.fault, SourceFault::Forbidden, "{bad}");
            assert!(!failure.message.contains("geheim"));
        }
    }

    #[test]
    fn random_numbers_are_in_range() {
        assert!((0..1000).map(|_| random()).all(|r| (0.0..1.0).contains(&r)));
    }
}
