//! Counters, gauges and histograms of the whole program, in Prometheus' text format.
//! Not here: the HTTP route (`web`), logs (`telemetry`).

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicI64;

/// Label of everything that belongs to one stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StreamLabel {
    pub stream: String,
}

impl StreamLabel {
    /// The label for a stream's name.
    pub fn new(stream: &str) -> Self {
        Self { stream: stream.to_owned() }
    }
}

/// Label of what belongs to a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabel {
    device: String,
}

/// Buckets in seconds around what a look costs: a few milliseconds on a GPU, tens of seconds on a weak CPU.
const SECONDS: [f64; 14] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.6, 2.5, 5.0, 10.0, 30.0];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

type Counters = Family<StreamLabel, Counter>;
type Gauges = Family<StreamLabel, Gauge<i64, AtomicI64>>;
type Histograms = Family<StreamLabel, Histogram, fn() -> Histogram>;

/// Everything that is counted. Families make their series on first use.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Frames put into a stream's window.
    pub frames: Counters,
    /// Frames dropped from a window for its bounds (normal: the ring is full).
    pub frames_dropped: Counters,
    /// JPEGs encoded for viewers.
    pub jpegs: Counters,
    /// Connections to a source that delivered frames, after the first.
    pub reconnects: Counters,
    /// Failed attempts to open or keep a source.
    pub source_failures: Counters,
    /// Pipelines abandoned because they did not close in time.
    pub pipelines_abandoned: Counters,
    /// 1 while frames arrive.
    pub source_up: Gauges,
    /// Looks that the model answered with words.
    pub utterances: Counters,
    /// Looks that the model answered with "...".
    pub skips: Counters,
    /// Looks not taken because the scene had not changed.
    pub unchanged: Counters,
    /// Answers cut off by a new instruction or a stop.
    pub cancelled: Counters,
    /// Looks that failed in the engine.
    pub engine_errors: Counters,
    /// Jobs replaced by newer ones before the engine took them.
    pub jobs_dropped: Counters,
    /// Pictures that waited for the voice and went for newer ones.
    pub pictures_dropped: Counters,
    /// Tokens generated.
    pub tokens: Counters,
    /// Frames encoded by the vision tower.
    pub frames_encoded: Counters,
    /// Frames whose embedding was cached.
    pub frames_cached: Counters,
    /// Small pictures made for utterances.
    pub thumbnails: Counters,
    /// Those of them that went because there are enough newer ones (normal).
    pub thumbnails_dropped: Counters,
    /// Bytes of those that are kept.
    pub thumbnail_bytes: Gauges,
    /// From the newest frame's capture to the first token.
    pub first_token_seconds: Histograms,
    /// From the newest frame's capture to the last token.
    pub last_token_seconds: Histograms,
    /// From the oldest frame's capture to the last token.
    pub window_to_text_seconds: Histograms,
    /// From the job's start in the engine to the last token.
    pub inference_seconds: Histograms,
    /// From the newest frame's capture to the job's start in the engine.
    pub wait_seconds: Histograms,
    /// Encoding the look's frames.
    pub encode_seconds: Histograms,
    /// Decoding the prompt.
    pub prefill_seconds: Histograms,
    /// Writing the answer.
    pub decode_seconds: Histograms,
    /// Utterances spoken to their end.
    pub speech_spoken: Counters,
    /// Utterances whose sound was cut off by a new instruction or a stop.
    pub speech_cancelled: Counters,
    /// Utterances not spoken because their sound would have started too late.
    pub speech_late: Counters,
    /// Utterances not spoken because a newer one came while they waited.
    pub speech_replaced: Counters,
    /// Utterances not spoken, or not to their end, because nobody listens.
    pub speech_unheard: Counters,
    /// Utterances that the voice failed at.
    pub speech_failed: Counters,
    /// Utterances of which only the beginning is spoken, for their length.
    pub speech_shortened: Counters,
    /// Samples made, once for each listener that was to get them.
    pub audio_samples: Counters,
    /// Samples that a listener took.
    pub audio_samples_sent: Counters,
    /// Samples that a listener was too slow for.
    pub audio_samples_dropped: Counters,
    /// Listeners to the sound.
    pub audio_listeners: Gauges,
    /// The same four of the sources' own sound.
    pub source_audio_samples: Counters,
    pub source_audio_samples_sent: Counters,
    pub source_audio_samples_dropped: Counters,
    pub source_audio_listeners: Gauges,
    /// Samples that were there too early or too late to be played.
    pub source_audio_samples_skipped: Counters,
    /// From the newest frame's capture to the first audio sample.
    pub first_audio_seconds: Histograms,
    /// From the newest frame's capture to the last audio sample.
    pub last_audio_seconds: Histograms,
    /// From the first clause's being whole to the first audio sample.
    pub text_to_audio_seconds: Histograms,
    /// Times that the engine's process was started again after a crash or a hang.
    pub engine_restarts: Counter,
    /// Connections of HTTP clients open now.
    pub http_connections: Gauge<i64, AtomicI64>,
    /// Connections refused because too many were open.
    pub http_refused: Counter,
    /// Connections cut off because the client read too slowly.
    pub http_slow_clients: Counter,
    /// Connections that came to no TLS session: no handshake in time, plain HTTP, or a client that refused.
    pub tls_failures: Counter,
    /// Events that slow listeners did not get.
    pub events_lagged: Counter,
    process_memory: Gauge<i64, AtomicI64>,
    process_cpu: Gauge<i64, AtomicI64>,
    process_files: Gauge<i64, AtomicI64>,
    process_threads: Gauge<i64, AtomicI64>,
    /// Families, so that there is no series without a GPU.
    gpu_memory_used: Family<DeviceLabel, Gauge<i64, AtomicI64>>,
    gpu_memory: Family<DeviceLabel, Gauge<i64, AtomicI64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let histograms = || Histograms::new_with_constructor(seconds as fn() -> Histogram);
        let mut m = Self {
            registry: Registry::with_prefix("vidette"),
            frames: Family::default(),
            frames_dropped: Family::default(),
            jpegs: Family::default(),
            reconnects: Family::default(),
            source_failures: Family::default(),
            pipelines_abandoned: Family::default(),
            source_up: Family::default(),
            utterances: Family::default(),
            skips: Family::default(),
            unchanged: Family::default(),
            cancelled: Family::default(),
            engine_errors: Family::default(),
            jobs_dropped: Family::default(),
            pictures_dropped: Family::default(),
            tokens: Family::default(),
            frames_encoded: Family::default(),
            frames_cached: Family::default(),
            thumbnails: Family::default(),
            thumbnails_dropped: Family::default(),
            thumbnail_bytes: Family::default(),
            first_token_seconds: histograms(),
            last_token_seconds: histograms(),
            window_to_text_seconds: histograms(),
            inference_seconds: histograms(),
            wait_seconds: histograms(),
            encode_seconds: histograms(),
            prefill_seconds: histograms(),
            decode_seconds: histograms(),
            speech_spoken: Family::default(),
            speech_cancelled: Family::default(),
            speech_late: Family::default(),
            speech_replaced: Family::default(),
            speech_unheard: Family::default(),
            speech_failed: Family::default(),
            speech_shortened: Family::default(),
            audio_samples: Family::default(),
            audio_samples_sent: Family::default(),
            audio_samples_dropped: Family::default(),
            audio_listeners: Family::default(),
            source_audio_samples: Family::default(),
            source_audio_samples_sent: Family::default(),
            source_audio_samples_dropped: Family::default(),
            source_audio_listeners: Family::default(),
            source_audio_samples_skipped: Family::default(),
            first_audio_seconds: histograms(),
            last_audio_seconds: histograms(),
            text_to_audio_seconds: histograms(),
            engine_restarts: Counter::default(),
            http_connections: Gauge::default(),
            http_refused: Counter::default(),
            http_slow_clients: Counter::default(),
            tls_failures: Counter::default(),
            events_lagged: Counter::default(),
            process_memory: Gauge::default(),
            process_cpu: Gauge::default(),
            process_files: Gauge::default(),
            process_threads: Gauge::default(),
            gpu_memory_used: Family::default(),
            gpu_memory: Family::default(),
        };
        let r = &mut m.registry;
        r.register("frames", "Frames put into the window", m.frames.clone());
        r.register("frames_dropped", "Frames dropped from the window for its bounds", m.frames_dropped.clone());
        r.register("jpegs", "JPEGs encoded for viewers", m.jpegs.clone());
        r.register("source_reconnects", "Connections that delivered frames, after the first", m.reconnects.clone());
        r.register("source_failures", "Failed attempts to open or keep the source", m.source_failures.clone());
        r.register("pipelines_abandoned", "Pipelines that did not close in time", m.pipelines_abandoned.clone());
        r.register("source_up", "1 while frames arrive", m.source_up.clone());
        r.register("utterances", "Looks answered with words", m.utterances.clone());
        r.register("skips", "Looks answered with nothing to say", m.skips.clone());
        r.register("unchanged", "Looks not taken because the scene had not changed", m.unchanged.clone());
        r.register("cancelled", "Answers cut off by a new instruction or a stop", m.cancelled.clone());
        r.register("engine_errors", "Looks that failed in the engine", m.engine_errors.clone());
        r.register("jobs_dropped", "Jobs replaced by newer ones before they were taken", m.jobs_dropped.clone());
        r.register(
            "pictures_dropped",
            "Pictures that waited for the voice and went for newer ones",
            m.pictures_dropped.clone(),
        );
        r.register("tokens", "Tokens generated", m.tokens.clone());
        r.register("frames_encoded", "Frames encoded by the vision tower", m.frames_encoded.clone());
        r.register("frames_cached", "Frames whose embedding was cached", m.frames_cached.clone());
        r.register("thumbnails", "Small pictures made for utterances", m.thumbnails.clone());
        r.register("thumbnails_dropped", "Such pictures dropped for newer ones", m.thumbnails_dropped.clone());
        r.register("thumbnail_bytes", "Bytes of such pictures kept", m.thumbnail_bytes.clone());
        let s = || Unit::Seconds;
        r.register_with_unit(
            "first_token",
            "Newest frame's capture to first token",
            s(),
            m.first_token_seconds.clone(),
        );
        r.register_with_unit("last_token", "Newest frame's capture to last token", s(), m.last_token_seconds.clone());
        r.register_with_unit(
            "window_to_text",
            "Oldest frame's capture to last token",
            s(),
            m.window_to_text_seconds.clone(),
        );
        r.register_with_unit("inference", "Job start in the engine to last token", s(), m.inference_seconds.clone());
        r.register(
            "engine_restarts",
            "Starts of the engine's process after a crash or a hang",
            m.engine_restarts.clone(),
        );
        r.register("http_connections", "Open HTTP connections", m.http_connections.clone());
        r.register("http_refused", "HTTP connections refused for their number", m.http_refused.clone());
        r.register("http_slow_clients", "HTTP connections cut off for reading too slowly", m.http_slow_clients.clone());
        r.register("tls_failures", "Connections that came to no TLS session", m.tls_failures.clone());
        r.register("events_lagged", "Events that slow listeners did not get", m.events_lagged.clone());
        m.register_stages();
        m.register_sound();
        m.register_source_sound();
        m.register_process();
        m
    }

    /// The steps of one look; together they are what `inference` and `first_token` tell as one.
    fn register_stages(&mut self) {
        for (name, help, stage) in [
            ("wait", "Newest frame's capture to job start in the engine", &self.wait_seconds),
            ("encode", "Encoding a look's frames", &self.encode_seconds),
            ("prefill", "Decoding a look's prompt", &self.prefill_seconds),
            ("decode", "Writing an answer", &self.decode_seconds),
        ] {
            self.registry.register_with_unit(name, help, Unit::Seconds, stage.clone());
        }
    }

    /// What the whole program holds, under the names that every Prometheus dashboard knows.
    fn register_process(&mut self) {
        let r = &mut self.registry;
        r.register("process_resident_memory_bytes", "Resident memory", self.process_memory.clone());
        r.register("process_cpu_milliseconds", "Processor time of all threads so far", self.process_cpu.clone());
        r.register("process_open_fds", "Open file descriptors", self.process_files.clone());
        r.register("process_threads", "Threads", self.process_threads.clone());
        r.register("gpu_memory_used_bytes", "Memory of the GPU in use, by whomever", self.gpu_memory_used.clone());
        r.register("gpu_memory_bytes", "Memory of the GPU", self.gpu_memory.clone());
        let version = [("version", env!("CARGO_PKG_VERSION"))].map(|(k, v)| (k.to_owned(), v.to_owned()));
        r.register("build", "The program's version", Info::new(version.to_vec()));
    }

    /// Notes what the process holds now.
    pub fn note_process(&self, memory_bytes: Option<u64>, cpu_s: f64) {
        let entries = |folder: &str| std::fs::read_dir(folder).map_or(0, Iterator::count);
        let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.process_memory.set(memory_bytes.and_then(|b| i64::try_from(b).ok()).unwrap_or(0));
        self.process_cpu.set((cpu_s * 1e3) as i64);
        self.process_files.set(whole(entries("/proc/self/fd")));
        self.process_threads.set(whole(entries("/proc/self/task")));
    }

    /// Notes the memory of the GPU that is computed on, bytes used and in all; `None` without one.
    pub fn note_gpu(&self, gpu: Option<(&str, u64, u64)>) {
        self.gpu_memory_used.clear();
        self.gpu_memory.clear();
        let Some((device, used, total)) = gpu else { return };
        let label = DeviceLabel { device: device.to_owned() };
        let whole = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.gpu_memory_used.get_or_create(&label).set(whole(used));
        self.gpu_memory.get_or_create(&label).set(whole(total));
    }

    fn register_sound(&mut self) {
        let r = &mut self.registry;
        r.register("speech_spoken", "Utterances spoken to their end", self.speech_spoken.clone());
        r.register("speech_cancelled", "Utterances whose sound was cut off", self.speech_cancelled.clone());
        r.register("speech_late", "Utterances not spoken for being late", self.speech_late.clone());
        r.register("speech_replaced", "Utterances not spoken for a newer one", self.speech_replaced.clone());
        r.register("speech_unheard", "Utterances not spoken as nobody listens", self.speech_unheard.clone());
        r.register("speech_failed", "Utterances that the voice failed at", self.speech_failed.clone());
        r.register("speech_shortened", "Utterances too long to be spoken whole", self.speech_shortened.clone());
        r.register("audio_samples", "Samples made, for each listener", self.audio_samples.clone());
        r.register("audio_samples_sent", "Samples that a listener took", self.audio_samples_sent.clone());
        r.register("audio_samples_dropped", "Samples a listener was too slow for", self.audio_samples_dropped.clone());
        r.register("audio_listeners", "Listeners to the sound", self.audio_listeners.clone());
        let (first, last) = (self.first_audio_seconds.clone(), self.last_audio_seconds.clone());
        let s = || Unit::Seconds;
        r.register_with_unit("first_audio", "Newest frame's capture to first audio sample", s(), first);
        r.register_with_unit("last_audio", "Newest frame's capture to last audio sample", s(), last);
        let from_text = self.text_to_audio_seconds.clone();
        r.register_with_unit("text_to_audio", "First clause whole to first audio sample", s(), from_text);
    }

    fn register_source_sound(&mut self) {
        let r = &mut self.registry;
        let (made, sent) = (self.source_audio_samples.clone(), self.source_audio_samples_sent.clone());
        let (dropped, skipped) = (self.source_audio_samples_dropped.clone(), self.source_audio_samples_skipped.clone());
        r.register("source_audio_samples", "Samples of the source's sound, for each listener", made);
        r.register("source_audio_samples_sent", "Such samples that a listener took", sent);
        r.register("source_audio_samples_dropped", "Such samples a listener was too slow for", dropped);
        r.register("source_audio_listeners", "Listeners to the source's sound", self.source_audio_listeners.clone());
        r.register("source_audio_samples_skipped", "Samples not played for coming out of time", skipped);
    }

    /// The text that Prometheus reads.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a String can't fail.
        let _infallible = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_thing_appears_with_its_label() {
        let metrics = Metrics::new();
        metrics.frames.get_or_create(&StreamLabel::new("main")).inc_by(3);
        metrics.first_token_seconds.get_or_create(&StreamLabel::new("main")).observe(0.3);
        let text = metrics.encode();
        assert!(text.contains("vidette_frames_total{stream=\"main\"} 3"), "{text}");
        assert!(text.contains("vidette_first_token_seconds_bucket{le=\"0.35\",stream=\"main\"} 1"), "{text}");
    }

    #[test]
    fn a_gpu_has_series_only_while_there_is_one() {
        let metrics = Metrics::new();
        let series = || {
            let text = metrics.encode();
            text.lines().filter(|l| l.starts_with("vidette_gpu")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(series().is_empty());
        metrics.note_gpu(Some(("a card", 3, u64::MAX)));
        let used = "vidette_gpu_memory_used_bytes{device=\"a card\"} 3".to_owned();
        assert_eq!(series(), [used, format!("vidette_gpu_memory_bytes{{device=\"a card\"}} {}", i64::MAX)]);
        metrics.note_gpu(None);
        assert!(series().is_empty());
    }
}
