//! `vidette pull`: brings a model of the catalogue onto the disk, with resume, checks and bounded
//! patience. Blocking; the caller gives it a thread. Not here: HTTP details (`hub`), the part on disk
//! (`partial`), drawing (`progress`).

use std::collections::HashMap;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ureq::http::StatusCode;

use super::catalog::{Entry, ModelFile, Role};
use super::hub::{Answer, Expected, Failure, Hub, Network};
use super::inspect;
use super::partial::{Origin, Partial, check_space, file_sha256, lock, write_error};
use super::progress::{Event, Progress};
use crate::backoff::Backoff;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::shutdown::Shutdown;

/// The hub itself.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// Bytes read at a time.
const CHUNK: usize = 256 << 10;
/// Longest wait that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);
/// How often a cancelled pull is noticed at the latest.
const TICK: Duration = Duration::from_millis(50);
/// Most requests for one file, however much each of them brought.
const MAX_REQUESTS: u32 = 500;

/// How to pull.
#[derive(Clone)]
pub struct PullOptions {
    /// `HF_ENDPOINT`, or the hub itself.
    pub endpoint: String,
    /// `HF_TOKEN`; sent to the endpoint only.
    pub token: Option<Secret<String>>,
    /// The folder of models; each model gets its own below it.
    pub dest: PathBuf,
    /// Also the files for speaking.
    pub voice: bool,
    /// Also the encoder for hearing, which Vidette does not use.
    pub audio: bool,
    /// Asked about twenty times a second; true ends the pull and keeps what is there.
    pub cancel: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Failures in a row, without a byte between them, before giving up.
    pub retries: u32,
    /// Shortest and longest wait between attempts.
    pub waits: (Duration, Duration),
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest silence of the server.
    pub idle_timeout: Duration,
    /// Such as `http://proxy.lan:3128`.
    pub proxy: Option<String>,
}

impl PullOptions {
    /// The usual ones: from the hub, with the voice, eight attempts.
    pub fn new(dest: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: DEFAULT_ENDPOINT.to_owned(),
            token: None,
            dest: dest.into(),
            voice: true,
            audio: false,
            cancel: Arc::new(|| false),
            retries: 8,
            waits: (Duration::from_secs(1), Duration::from_secs(30)),
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(30),
            proxy: None,
        }
    }

    /// The same, ended by `shutdown`.
    pub fn until(mut self, shutdown: Shutdown) -> Self {
        self.cancel = Arc::new(move || shutdown.is_shutdown());
        self
    }

    /// Whether a file of the catalogue belongs to what is pulled.
    pub fn wants(&self, file: &ModelFile) -> bool {
        match file.role {
            Role::Audio => self.audio,
            role => self.voice || !role.is_voice(),
        }
    }
}

/// What a pull did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The folder of the model.
    pub dir: PathBuf,
    /// The language model: what `MODEL_PATH` may name.
    pub language: PathBuf,
    /// All files, downloaded or already there.
    pub files: Vec<PathBuf>,
    /// Bytes that came over the network and were kept.
    pub downloaded: u64,
    /// What was taken on trust, one sentence each.
    pub notes: Vec<String>,
}

/// Brings all wanted files of `entry` below `options.dest`. Files that are there and whole are left
/// alone; what was cut goes on.
///
/// # Errors
/// A `pull_…` code for the network and the disk, a `model_…` code when a file is not what it should be.
pub fn pull(entry: &Entry, options: &PullOptions, progress: &mut dyn Progress) -> Result<Pulled> {
    let network =
        Network { connect: options.connect_timeout, idle: options.idle_timeout, proxy: options.proxy.clone() };
    let hub = Hub::new(&options.endpoint, options.token.clone(), &network)?;
    let agent = hub.agent();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // A read may wait for a silent server: whoever cancels must not wait with it.
        let watch = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if (options.cancel)() {
                    agent.shutdown();
                    return;
                }
                thread::park_timeout(TICK);
            }
        });
        let result = Puller { entry, options, hub, progress, listing: None, notes: Vec::new(), downloaded: 0 }.run();
        done.store(true, Ordering::Relaxed);
        watch.thread().unpark();
        result
    })
}

struct Puller<'a> {
    entry: &'a Entry,
    options: &'a PullOptions,
    hub: Hub,
    progress: &'a mut dyn Progress,
    /// The hub's own sizes and checksums, once they were asked for.
    listing: Option<HashMap<String, Expected>>,
    notes: Vec<String>,
    downloaded: u64,
}

/// What came of one request.
enum Step {
    Whole,
    /// The rest must be asked for again.
    Again {
        why: String,
        after: Option<Duration>,
    },
}

impl Puller<'_> {
    fn run(mut self) -> Result<Pulled> {
        let entry = self.entry;
        let dir = self.options.dest.join(&entry.dir);
        fs::create_dir_all(&dir).map_err(|e| write_error(&dir, &e))?;
        let _only_one = lock(&dir)?;
        let wanted: Vec<&ModelFile> = entry.files.iter().filter(|f| self.options.wants(f)).collect();
        let missing = wanted.iter().filter(|f| !dir.join(&f.local).exists()).filter_map(|f| {
            let mut part = dir.join(&f.local).into_os_string();
            part.push(".part");
            Some(f.bytes?.saturating_sub(fs::metadata(part).map_or(0, |m| m.len())))
        });
        check_space(&dir, missing.fold(0, u64::saturating_add))?;

        let mut files = Vec::new();
        for (i, file) in wanted.iter().enumerate() {
            let expected = self.expected(file)?;
            self.progress.event(Event::File {
                name: file.path.clone(),
                number: i + 1,
                of: wanted.len(),
                bytes: expected.bytes,
            });
            let target = dir.join(&file.local);
            let trusted = if self.is_here(&target, &expected)? {
                self.progress.event(Event::AlreadyHere);
                true
            } else {
                let verified = self.fetch(file, &target, expected)?;
                self.progress.event(Event::Done);
                verified
            };
            if let Err(error) = look_into(file.role, &target) {
                // A file without a known checksum is not worth keeping when it is no good.
                if !trusted {
                    fs::remove_file(&target).map_err(|e| write_error(&target, &e))?;
                }
                return Err(error);
            }
            files.push((file.role, target));
        }
        let of = |role| files.iter().find(|(r, _)| *r == role).map(|(_, path)| path.clone());
        let language = of(Role::Language).unwrap_or_default();
        if let Some(projector) = of(Role::Vision) {
            inspect::check_pair(
                &inspect::inspect_language_model(&language)?,
                &inspect::inspect_projector(&projector)?,
            )?;
        }
        let files = files.into_iter().map(|(_, path)| path).collect();
        Ok(Pulled { dir, language, files, downloaded: self.downloaded, notes: self.notes })
    }

    fn note(&mut self, text: String) {
        self.progress.event(Event::Note(text.clone()));
        self.notes.push(text);
    }

    fn check_cancel(&self) -> Result<()> {
        if !(self.options.cancel)() {
            return Ok(());
        }
        Err(Error::new(Kind::Unavailable, "pull_cancelled", "the download was stopped")
            .hint("run the same command again; it goes on where it stopped"))
    }

    /// Size and checksum from the catalogue, else from the hub.
    fn expected(&mut self, file: &ModelFile) -> Result<Expected> {
        let mut expected = Expected { bytes: file.bytes, sha256: file.sha256.clone() };
        if expected.bytes.is_some() && expected.sha256.is_some() {
            return Ok(expected);
        }
        if self.listing.is_none() {
            let listing = self.list()?;
            self.listing = Some(listing);
        }
        let told = self.listing.as_ref().and_then(|all| all.get(&file.path)).cloned().unwrap_or_default();
        if told != Expected::default() {
            self.note(format!(
                "{}: the catalogue does not know it whole; size and checksum are the hub's own",
                file.path
            ));
        }
        expected.bytes = expected.bytes.or(told.bytes);
        expected.sha256 = expected.sha256.or(told.sha256);
        Ok(expected)
    }

    /// The hub's list of files; empty when it has none, for a mirror may lack that.
    fn list(&mut self) -> Result<HashMap<String, Expected>> {
        let mut backoff = self.backoff()?;
        for _ in 0..=self.options.retries {
            self.check_cancel()?;
            match self.hub.listing(&self.entry.repo, &self.entry.revision) {
                Ok(listing) => return Ok(listing),
                Err(Failure::Retry { why, after }) => self.wait(why, after, &mut backoff)?,
                Err(Failure::Final(_)) => break,
            }
        }
        self.check_cancel()?;
        Ok(HashMap::new())
    }

    fn backoff(&self) -> Result<Backoff> {
        let (min, max) = self.options.waits;
        Backoff::try_new(min, max, 0.5)
            .map_err(|e| Error::internal("pull_waits", format!("the waits between attempts are wrong: {e}")))
    }

    fn wait(&mut self, why: String, after: Option<Duration>, backoff: &mut Backoff) -> Result<()> {
        let random = (RandomState::new().build_hasher().finish() >> 11) as f64 / (1u64 << 53) as f64;
        let own = backoff.next(random);
        let wait = after.map_or(own, |asked| asked.clamp(own, MAX_RETRY_AFTER.max(own)));
        self.progress.event(Event::Retry { why, wait });
        let end = Instant::now() + wait;
        loop {
            self.check_cancel()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(TICK));
        }
    }

    /// True when the file is there with the right size and checksum.
    fn is_here(&mut self, target: &Path, expected: &Expected) -> Result<bool> {
        let Ok(metadata) = fs::metadata(target) else { return Ok(false) };
        let shown = target.display();
        if !metadata.is_file() {
            return Err(Error::new(
                Kind::Conflict,
                "pull_write",
                format!("{shown}: something that is no file is in the way"),
            )
            .hint("move it away"));
        }
        if expected.bytes.is_some_and(|n| n != metadata.len()) {
            self.note(format!("{shown}: another file of {} bytes is there; it will be replaced", metadata.len()));
            return Ok(false);
        }
        let Some(sum) = &expected.sha256 else { return Ok(expected.bytes.is_some()) };
        self.progress.event(Event::Checking);
        let right = file_sha256(target)? == *sum;
        if !right {
            self.note(format!("{shown}: a file with another checksum is there; it will be replaced"));
        }
        Ok(right)
    }

    /// Downloads one file; true when its checksum was known and is right.
    fn fetch(&mut self, file: &ModelFile, target: &Path, mut expected: Expected) -> Result<bool> {
        let url = self.hub.file_url(&self.entry.repo, &self.entry.revision, &file.path)?;
        let mut part = Partial::open(target, url.as_str(), expected.bytes, expected.sha256.as_deref())?;
        self.progress.event(Event::At(part.len()));
        let mut backoff = self.backoff()?;
        let (mut failures, mut requests) = (0, 0);
        loop {
            self.check_cancel()?;
            if expected.bytes.is_some_and(|n| part.len() == n) {
                break;
            }
            if part.len() > 0 && part.etag().is_none() && expected.sha256.is_none() {
                // Nobody could tell whether the rest belongs to what is there.
                part.restart()?;
            }
            let before = part.len();
            let step = match self.hub.get(&url, part.len(), part.etag()) {
                Ok(answer) => self.take(answer, &mut part, &mut expected, url.as_str(), target),
                Err(Failure::Retry { why, after }) => Ok(Step::Again { why, after }),
                Err(Failure::Final(error)) => Err(error),
            };
            let (why, after) = match step {
                Ok(Step::Whole) => break,
                Ok(Step::Again { why, after }) => (why, after),
                Err(error) => {
                    // What is of the wrong size or content is no use to the next attempt either.
                    if matches!(error.code, "pull_size" | "pull_checksum") {
                        part.discard()?;
                    }
                    return Err(error);
                }
            };
            self.check_cancel()?;
            requests += 1;
            if part.len() > before {
                failures = 0;
                backoff.reset();
            }
            failures += 1;
            if failures > self.options.retries || requests > MAX_REQUESTS {
                return Err(Error::unavailable(
                    "pull_gave_up",
                    format!("gave up after {requests} attempts; the last one: {why}"),
                )
                .hint("run the same command again later; it goes on where it stopped"));
            }
            self.wait(why, after, &mut backoff)?;
        }
        self.verify(file, part, &expected)
    }

    /// Takes one answer into the part.
    fn take(
        &mut self,
        mut answer: Answer,
        part: &mut Partial,
        expected: &mut Expected,
        url: &str,
        target: &Path,
    ) -> Result<Step> {
        let again = |why: &str| Ok(Step::Again { why: format!("{url}: {why}"), after: None });
        if answer.status == StatusCode::RANGE_NOT_SATISFIABLE {
            part.restart()?;
            return again("the server does not know this part of the file; beginning anew");
        }
        if let (Some(own), Some(told)) = (&expected.sha256, &answer.linked.sha256)
            && own != told
        {
            return Err(checksum_error(url, told, own));
        }
        let whole = if answer.status == StatusCode::PARTIAL_CONTENT {
            let Some((first, whole)) = answer.range else {
                part.restart()?;
                return again("the server sent a part without saying which");
            };
            if first != part.len() || whole.zip(expected.bytes).is_some_and(|(a, b)| a != b) {
                part.restart()?;
                return again("the server sent another part than was asked for; beginning anew");
            }
            whole
        } else {
            if part.len() > 0 {
                part.restart()?;
                self.progress.event(Event::At(0));
            }
            answer.length
        };
        let told = whole.or(answer.linked.bytes);
        if let (Some(own), Some(told)) = (expected.bytes, told)
            && own != told
        {
            return Err(size_error(url, told, own));
        }
        // What the hub says on the way is better than nothing, and does not change between requests.
        expected.bytes = expected.bytes.or(told);
        expected.sha256 = expected.sha256.take().or(answer.linked.sha256.take());
        check_space(target.parent().unwrap_or(target), expected.bytes.unwrap_or(0).saturating_sub(part.len()))?;
        if part.len() == 0 {
            part.begin(Origin {
                url: url.to_owned(),
                etag: answer.etag.take(),
                bytes: expected.bytes,
                sha256: expected.sha256.clone(),
            })?;
        }
        self.stream(answer, part, expected, url)
    }

    fn stream(&mut self, mut answer: Answer, part: &mut Partial, expected: &Expected, url: &str) -> Result<Step> {
        let mut buffer = vec![0; CHUNK];
        loop {
            self.check_cancel()?;
            let n = match answer.body.read(&mut buffer) {
                Ok(n) => n,
                Err(error) => return Ok(Step::Again { why: format!("{url}: cut off: {error}"), after: None }),
            };
            if n == 0 {
                break;
            }
            if let Some(size) = expected.bytes.filter(|&size| part.len() + n as u64 > size) {
                return Err(size_error(url, part.len() + n as u64, size));
            }
            part.write(&buffer[..n])?;
            self.downloaded += n as u64;
            self.progress.event(Event::At(part.len()));
        }
        match expected.bytes {
            Some(size) if part.len() < size => {
                Ok(Step::Again { why: format!("{url}: ended after {} of {size} bytes", part.len()), after: None })
            }
            _ => Ok(Step::Whole),
        }
    }

    fn verify(&mut self, file: &ModelFile, part: Partial, expected: &Expected) -> Result<bool> {
        let sum = part.sha256();
        match &expected.sha256 {
            Some(right) if *right != sum => {
                part.discard()?;
                Err(checksum_error(&file.path, &sum, right))
            }
            Some(_) => part.finish().map(|()| true),
            None => {
                self.note(format!("{}: no checksum is known for it; it has the SHA-256 {sum}", file.path));
                part.finish().map(|()| false)
            }
        }
    }
}

fn size_error(what: &str, found: u64, expected: u64) -> Error {
    Error::invalid(
        "pull_size",
        format!("{what}: the server's file has {found} bytes or more where {expected} are expected"),
    )
    .hint("nothing of it was kept; a mirror may have another file: unset HF_ENDPOINT, or get a newer Vidette")
}

fn checksum_error(what: &str, found: &str, expected: &str) -> Error {
    Error::invalid("pull_checksum", format!("{what}: the SHA-256 is {found} where {expected} is expected"))
        .hint("nothing of it was kept; run the command again, and if it stays so distrust the mirror or the network")
}

fn look_into(role: Role, path: &Path) -> Result<()> {
    match role {
        Role::Language => inspect::inspect_language_model(path).map(drop),
        Role::Vision => inspect::inspect_projector(path).map(drop),
        _ => inspect::read_header(path).map(drop),
    }
}
