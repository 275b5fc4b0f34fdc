//! One stream's speaker on paused time, with a voice that hums: what is heard when, what is not spoken, and what is
//! told about it. Not here: real voices (`tests/voice.rs`).

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, watch};
use vidette::audio::{AudioFrame, AudioListener, FADE_SAMPLES, FRAME_SAMPLES, FRAME_TIME, Heard, Wants};
use vidette::bus::{Bus, Event, Numbered, Speech, SpeechPhase};
use vidette::metrics::Metrics;
use vidette::shutdown::{self, Trigger};
use vidette::speech::{CancelFlag, Clause, ClauseEvent, ClauseHandle, Pacing, Speaker, Voice, VoiceState, VoiceStatus};

const RATE: u32 = 24_000;
const PAUSE: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(6);
const HUM: i16 = 8_000;

/// Hums for 100 ms for each letter; fails at "fail", and never answers to "hang".
struct Hummer {
    status: watch::Sender<VoiceStatus>,
    asked: Mutex<Vec<Clause>>,
    hanging: Mutex<Vec<(mpsc::Sender<ClauseEvent>, CancelFlag)>>,
}

impl Voice for Hummer {
    fn submit(&self, clause: Clause) -> ClauseHandle {
        let (handle, events, cancel) = ClauseHandle::pair();
        if clause.text.contains("hang") {
            self.hanging.lock().unwrap().push((events, cancel));
        } else if clause.text.contains("fail") {
            let failed = ClauseEvent::Failed { code: "hoarse".into(), message: "the voice is hoarse".into() };
            events.try_send(failed).unwrap();
        } else {
            let letters = clause.text.chars().filter(|c| c.is_alphanumeric()).count();
            let samples = vec![HUM; letters * RATE as usize / 10];
            events.try_send(ClauseEvent::Pcm { rate: RATE, samples }).unwrap();
            events.try_send(ClauseEvent::Done { cut: false }).unwrap();
        }
        self.asked.lock().unwrap().push(clause);
        handle
    }

    fn status(&self) -> watch::Receiver<VoiceStatus> {
        self.status.subscribe()
    }
}

struct Stage {
    voice: Arc<Hummer>,
    speaker: Arc<Speaker>,
    events: broadcast::Receiver<Arc<Numbered>>,
    metrics: Arc<Metrics>,
    trigger: Trigger,
    captured: Instant,
}

impl Stage {
    fn new() -> Self {
        let ready = VoiceStatus { state: VoiceState::Ready, name: Some("hummer"), ..VoiceStatus::default() };
        let voice =
            Arc::new(Hummer { status: watch::Sender::new(ready), asked: Mutex::default(), hanging: Mutex::default() });
        let (bus, metrics) = (Arc::new(Bus::new()), Arc::new(Metrics::new()));
        let events = bus.subscribe(None).live;
        let (trigger, shutdown) = shutdown::pair();
        let pacing = Pacing { pause_after: PAUSE, max_delay: MAX_DELAY, picture_delay: None };
        let door = Arc::clone(&voice) as Arc<dyn Voice>;
        let (speaker, _task) = Speaker::spawn("main", door, pacing, bus, Arc::clone(&metrics), shutdown);
        let captured = tokio::time::Instant::now().into_std();
        Self { voice, speaker, events, metrics, trigger, captured }
    }

    async fn listened() -> (Self, AudioListener) {
        let stage = Self::new();
        let listener = stage.speaker.hub().listen(Wants::Everything);
        settle().await;
        (stage, listener)
    }

    fn say(&self, utterance: u64, text: &str) {
        self.speaker.say(utterance, self.captured, text.into());
    }

    fn say_all(&self, utterance: u64, text: &str) {
        self.say(utterance, text);
        self.speaker.end(utterance);
    }

    fn asked(&self) -> Vec<String> {
        self.voice.asked.lock().unwrap().iter().map(|c| c.text.clone()).collect()
    }

    /// What was told of the sound since the last call.
    fn told(&mut self) -> Vec<Speech> {
        let mut told = vec![];
        while let Ok(numbered) = self.events.try_recv() {
            if let Event::Speech(speech) = &numbered.event {
                told.push(speech.clone());
            }
        }
        told
    }

    fn phases(&mut self) -> Vec<(u64, SpeechPhase)> {
        self.told().into_iter().map(|s| (s.utterance, s.phase)).collect()
    }

    fn counted(&self, metric: &str) -> u64 {
        let line = format!("vidette_{metric}_total{{stream=\"main\"}} ");
        self.metrics.encode().lines().find_map(|l| l.strip_prefix(&line)).map_or(0, |n| n.parse().unwrap())
    }
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// The frames of so much time, none of them missing.
async fn hear(listener: &mut AudioListener, time: Duration) -> Vec<Arc<AudioFrame>> {
    let frames = time.as_millis() / FRAME_TIME.as_millis();
    let mut heard = vec![];
    for _ in 0..frames {
        match listener.next().await {
            Some(Heard::Frame(frame)) => heard.push(frame),
            other => panic!("{other:?}"),
        }
    }
    heard
}

fn samples(frame: &AudioFrame) -> Vec<i16> {
    frame.pcm.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect()
}

fn is_loud(frame: &AudioFrame) -> bool {
    samples(frame).iter().any(|s| s.abs() > HUM / 2)
}

/// Length of each stretch of loud (true) or silent frames, in frames.
fn stretches(frames: &[Arc<AudioFrame>]) -> Vec<(bool, usize)> {
    let mut out: Vec<(bool, usize)> = vec![];
    for frame in frames {
        match out.last_mut() {
            Some((loud, length)) if *loud == is_loud(frame) => *length += 1,
            _ => out.push((is_loud(frame), 1)),
        }
    }
    out
}

#[tokio::test(start_paused = true)]
async fn clauses_are_heard_while_the_text_is_being_written() {
    let (mut stage, mut listener) = Stage::listened().await;
    stage.say(1, "abcdefghijklmno. And");
    let frames = hear(&mut listener, Duration::from_secs(1)).await;
    assert!(frames.iter().any(|f| is_loud(f)), "nothing was heard before the text's end");
    assert_eq!(stage.asked(), ["abcdefghijklmno."]);
    assert!(stage.speaker.first_audio(1).is_some() && stage.speaker.first_audio(2).is_none());
    assert_eq!(stage.speaker.status().utterance, Some(1));
    stage.say(1, " so on.");
    stage.speaker.end(1);
    let frames = [frames, hear(&mut listener, Duration::from_secs(4)).await].concat();
    // 15 + 7 letters of 100 ms without a gap, though the rates differ, and the clock missed no beat.
    let loud = frames.iter().filter(|f| is_loud(f)).count();
    assert!((109..=112).contains(&loud), "{loud} frames");
    assert!(frames.windows(2).all(|w| w[1].seq == w[0].seq + 1 && w[1].at - w[0].at == FRAME_TIME));
    let told = stage.told();
    assert_eq!(told.iter().map(|s| s.phase).collect::<Vec<_>>(), [SpeechPhase::Begun, SpeechPhase::Spoken]);
    let (first, last) = (told[0].first_audio_ms.unwrap(), told[1].last_audio_ms.unwrap());
    assert_eq!((told[0].last_audio_ms, told[1].first_audio_ms), (None, Some(first)));
    assert!((told[1].audio_ms - 2_200.0).abs() < 1.0, "{told:?}");
    assert!((last - first - 2_200.0).abs() < 50.0, "{told:?}");
    assert_eq!((stage.counted("speech_spoken"), stage.speaker.status().spoken), (1, 1));
    let metrics = stage.metrics.encode();
    for name in ["first_audio", "last_audio", "text_to_audio"] {
        assert!(metrics.contains(&format!("vidette_{name}_seconds_count{{stream=\"main\"}} 1")), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn utterances_do_not_overlap_and_the_newest_wins() {
    let (mut stage, mut listener) = Stage::listened().await;
    stage.say_all(1, "aaaabbbbccccdddd.");
    let first = hear(&mut listener, Duration::from_millis(500)).await;
    for utterance in 2..5 {
        stage.say_all(utterance, "eeeeffffgggg.");
    }
    let frames = [first, hear(&mut listener, Duration::from_secs(5)).await].concat();
    let lengths = stretches(&frames);
    let (pause, loud) = (PAUSE.as_millis() as usize / 20, |n: usize| lengths[n].1);
    let shape: Vec<_> = lengths.iter().map(|(loud, _)| *loud).collect();
    let at = usize::from(!shape[0]);
    assert_eq!(shape[at..], [true, false, true, false], "{lengths:?}");
    assert!(loud(at).abs_diff(80) <= 2 && loud(at + 2).abs_diff(60) <= 2, "{lengths:?}");
    assert!(loud(at + 1) >= pause && loud(at + 1) <= pause + 5, "{lengths:?}");
    use SpeechPhase::{Begun, Replaced, Spoken};
    assert_eq!(stage.phases(), [(1, Begun), (2, Replaced), (3, Replaced), (1, Spoken), (4, Begun), (4, Spoken)]);
    assert_eq!((stage.counted("speech_replaced"), stage.counted("speech_spoken")), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_would_come_too_late_is_not_spoken() {
    let (mut stage, mut listener) = Stage::listened().await;
    // Eight seconds long; the next one would wait for seven of them.
    stage.say_all(1, &"abcdefgh".repeat(10));
    hear(&mut listener, Duration::from_secs(1)).await;
    stage.say_all(2, "Old news by then.");
    hear(&mut listener, Duration::from_secs(9)).await;
    use SpeechPhase::{Begun, Late, Spoken};
    assert_eq!(stage.phases(), [(1, Begun), (1, Spoken), (2, Late)]);
    // A voice that takes too long for its first sound.
    stage.say_all(3, "hang");
    hear(&mut listener, MAX_DELAY + Duration::from_secs(1)).await;
    assert_eq!(stage.phases(), [(3, Late)]);
    assert!(stage.voice.hanging.lock().unwrap()[0].1.is_set(), "the voice still works for nobody");
    assert_eq!(stage.counted("speech_late"), 2);
    stage.say_all(4, "Fresh news now.");
    hear(&mut listener, Duration::from_secs(3)).await;
    assert_eq!(stage.phases(), [(4, Begun), (4, Spoken)]);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_fades_the_sound_at_once_and_takes_back_what_waits() {
    let (mut stage, mut listener) = Stage::listened().await;
    stage.say_all(1, &"abcdefgh".repeat(5));
    let before = hear(&mut listener, Duration::from_secs(1)).await;
    assert!(is_loud(before.last().unwrap()));
    stage.say_all(2, "This waits.");
    stage.speaker.cancel();
    let after = hear(&mut listener, Duration::from_secs(2)).await;
    let quiet = after.iter().position(|f| samples(f).iter().all(|s| *s == 0)).unwrap();
    assert!(quiet as u32 * FRAME_TIME <= Duration::from_millis(200), "{quiet} frames later");
    assert!(after[quiet..].iter().all(|f| samples(f).iter().all(|s| *s == 0)), "it came back");
    // Long after the hum's own beginning.
    let end: Vec<i16> = before[45..].iter().chain(&after).flat_map(|f| samples(f)).collect();
    let steepest = end.windows(2).map(|w| (w[1] - w[0]).abs()).max().unwrap();
    assert!(steepest <= HUM / FADE_SAMPLES as i16 + 100, "a step of {steepest} clicks");
    use SpeechPhase::{Begun, Cancelled, Spoken};
    assert_eq!(stage.phases(), [(1, Begun), (2, Cancelled), (1, Cancelled)]);
    assert_eq!(stage.counted("speech_cancelled"), 2);
    // A cancel of nothing is none, and the next one is spoken.
    stage.speaker.cancel();
    stage.say_all(3, "hi there");
    hear(&mut listener, Duration::from_secs(3)).await;
    assert_eq!(stage.phases(), [(3, Begun), (3, Spoken)]);
}

#[tokio::test(start_paused = true)]
async fn a_clause_with_the_voice_is_cancelled_too() {
    let (stage, mut listener) = Stage::listened().await;
    stage.say_all(1, "hang");
    hear(&mut listener, Duration::from_millis(100)).await;
    assert!(!stage.voice.hanging.lock().unwrap()[0].1.is_set());
    stage.speaker.cancel();
    settle().await;
    assert!(stage.voice.hanging.lock().unwrap()[0].1.is_set());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_listens_to_costs_nothing() {
    let mut stage = Stage::new();
    stage.say_all(1, "Nobody hears this.");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((stage.asked(), stage.speaker.hub().frames()), (vec![], 0));
    assert_eq!(stage.counted("speech_unheard"), 1);
    let mut listener = stage.speaker.hub().listen(Wants::Everything);
    stage.say(1, " Nor is it begun in its middle.");
    stage.say_all(2, "Now somebody listens.");
    hear(&mut listener, Duration::from_secs(1)).await;
    assert_eq!(stage.asked(), ["Now somebody listens."]);
    stage.say_all(3, "Waits for nobody.");
    drop(listener);
    settle().await;
    let frames = stage.speaker.hub().frames();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.speaker.hub().frames(), frames, "the clock runs for nobody");
    use SpeechPhase::{Begun, Unheard};
    assert_eq!(stage.phases(), [(2, Begun), (3, Unheard), (2, Unheard)]);
}

#[tokio::test(start_paused = true)]
async fn who_wants_speech_only_gets_no_silence_between_utterances() {
    let (stage, mut everything) = Stage::listened().await;
    let mut speech = stage.speaker.hub().listen(Wants::Speech);
    stage.say_all(1, "abcdefghij");
    hear(&mut everything, Duration::from_secs(3)).await;
    let mut heard = vec![];
    while let Some(Heard::Frame(frame)) = speech.try_next() {
        heard.push(frame);
    }
    assert!(heard.len().abs_diff(50) <= 1, "{}", heard.len());
    assert!(heard.iter().all(|f| f.utterance == Some(1)));
    assert!(heard.windows(2).all(|w| w[1].seq == w[0].seq + 1));
    let account = stage.speaker.hub().status()[1].account;
    assert_eq!(account.offered, (heard.len() * FRAME_SAMPLES) as u64);
}

#[tokio::test(start_paused = true)]
async fn a_voice_that_fails_is_told_and_the_next_words_are_spoken() {
    let (mut stage, mut listener) = Stage::listened().await;
    stage.say_all(1, "fail");
    hear(&mut listener, Duration::from_millis(200)).await;
    // In the middle: what was made before it is played.
    stage.say_all(2, "abcdefghijklmno. Then fail.");
    hear(&mut listener, Duration::from_secs(3)).await;
    stage.say_all(3, "Well again now.");
    hear(&mut listener, Duration::from_secs(3)).await;
    use SpeechPhase::{Begun, Failed, Spoken};
    assert_eq!(stage.phases(), [(1, Failed), (2, Begun), (2, Failed), (3, Begun), (3, Spoken)]);
    // While there is no voice, nothing is asked of it; its state is told.
    let asked = stage.asked().len();
    let gone = VoiceStatus {
        state: VoiceState::Unavailable,
        name: Some("hummer"),
        reason: Some("gone".into()),
        ..VoiceStatus::default()
    };
    stage.voice.status.send_replace(gone);
    stage.say_all(4, "Not spoken.");
    hear(&mut listener, Duration::from_secs(1)).await;
    assert_eq!(stage.asked().len(), asked);
    assert_eq!(stage.speaker.status().reason.as_deref(), Some("gone"));
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_pronounced_is_never_handed_to_the_voice() {
    let (mut stage, mut listener) = Stage::listened().await;
    for (utterance, text) in (1..).zip(["...", "…", "🐕🐕", "?!", "<>", "\u{1}\u{1b}"]) {
        stage.say_all(utterance, text);
        hear(&mut listener, Duration::from_millis(200)).await;
    }
    assert_eq!((stage.asked(), stage.phases()), (vec![], vec![]));
    stage.say_all(9, &"x".repeat(100_000));
    hear(&mut listener, Duration::from_secs(1)).await;
    assert!(stage.asked().iter().all(|text| text.chars().count() <= vidette::speech::MAX_CLAUSE));
    assert_eq!(stage.counted("speech_shortened"), 1);
    assert!(stage.voice.asked.lock().unwrap().iter().zip(0..).all(|(clause, index)| clause.index == index));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_held_up_catches_up_and_nobody_loses_a_frame() {
    let (stage, mut listener) = Stage::listened().await;
    hear(&mut listener, Duration::from_secs(1)).await;
    let hub = Arc::clone(stage.speaker.hub());
    let reading = tokio::spawn(async move { hear(&mut listener, Duration::from_secs(12)).await });
    settle().await;
    // As when the machine is busy with something else for ten seconds.
    tokio::time::advance(Duration::from_secs(10)).await;
    let heard = reading.await.unwrap();
    assert!(heard.windows(2).all(|w| w[1].seq == w[0].seq + 1));
    assert!(hub.frames() >= 650, "{}", hub.frames());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_program_ends_the_sound() {
    let (stage, mut listener) = Stage::listened().await;
    stage.say_all(1, "abcdefghij");
    hear(&mut listener, Duration::from_millis(100)).await;
    stage.trigger.fire();
    while let Some(heard) = listener.next().await {
        assert!(matches!(heard, Heard::Frame(_)));
    }
}
