//! The voice as a whole: one utterance at a time, from [`Synthesizer::begin`] over [`Synthesizer::push`] to
//! [`Synthesizer::finish`]. One thread uses it; another may cancel. Not here: the stages.

use super::chunks::{CHUNK, Chunker, TextChunk};
use super::device::{Device, Half, Uses};
use super::files::SpeechFiles;
use super::language::{Language, LanguageFile};
use super::model::ContextSizes;
use super::noise::Random;
use super::projector::{Projector, ProjectorFile};
use super::sampler::SpeechSampling;
use super::token2wav::{SoundFiles, SoundTimes, Token2Wav};
use crate::cancel::CancelFlag;
use crate::error::{Error, Kind, Result};
use std::time::{Duration, Instant};

/// Most codes for one text chunk: 20 seconds for ten tokens, as in the reference.
const MOST_CODES: usize = 500;
/// Codes that wait for the sound while the speech model writes on (2 s); it waits when they are so many.
const CODES_AHEAD: usize = 50;
const SAMPLER: u64 = 1;

/// How the voice is loaded.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Options {
    /// Use a GPU if there is one.
    pub gpu: bool,
    pub threads: usize,
    /// Positions of the speech model that one reply may take; 25 are a second of speech, and its text comes on top.
    pub positions: u32,
    /// Keys and values of the speech model in 32-bit floats: for comparisons, twice the memory.
    pub exact: bool,
    /// Euler steps of the flow. The voice's file fixes them: another number is an error.
    pub steps: Option<usize>,
    pub sampling: SpeechSampling,
    /// The speech model writes codes while the sound of those before is made. The samples are the same.
    pub side_by_side: bool,
    /// Computations are kept for their next run, and on a GPU everything runs a few times while loading, so that the first
    /// utterance takes no longer than the others.
    pub keep: bool,
    /// On a GPU, the sound's large matrices and caches are held in 16-bit floats: half the memory.
    pub half: bool,
}

impl Default for Options {
    fn default() -> Self {
        let sampling = SpeechSampling::default();
        Self {
            gpu: true,
            threads: 2,
            positions: 4096,
            exact: false,
            steps: None,
            sampling,
            side_by_side: true,
            keep: true,
            half: true,
        }
    }
}

fn check(cancel: &CancelFlag) -> Result<()> {
    if cancel.is_set() {
        return Err(Error::new(Kind::Unavailable, "speech_cancelled", "the utterance was cancelled"));
    }
    Ok(())
}

/// Where the time of one utterance went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Projector and condition rows.
    pub conditions: Duration,
    /// Speech language model and sampling.
    pub language: Duration,
    pub sound: SoundTimes,
    /// Codes written.
    pub codes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Speaking,
    /// An error or a cancellation has left half a state behind.
    Broken,
}

/// The voice.
pub struct Synthesizer {
    device: Device,
    projector: Projector,
    pub(super) language: Language,
    pub(super) sound: Token2Wav,
    sampling: SpeechSampling,
    side_by_side: bool,
    stage: Stage,
    // What follows belongs to the utterance.
    chunker: Chunker,
    pub(super) history: Vec<i32>,
    random: Random,
    cancel: CancelFlag,
    times: Times,
}

/// The files, opened and checked.
struct Opened {
    projector: ProjectorFile,
    language: LanguageFile,
    sound: SoundFiles,
}

impl Opened {
    fn open(files: &SpeechFiles, steps: Option<usize>) -> Result<Self> {
        let projector = ProjectorFile::open(files)?;
        let language = LanguageFile::open(files)?;
        let sound = SoundFiles::open(files, steps)?;
        let (ours, theirs) = (projector.width, language.sizes.width);
        if ours != theirs {
            let what = format!("it makes rows of {ours}, {} takes {theirs}", files.tts.display());
            return Err(projector.file.refuse("speech_files_mixed", what));
        }
        let (written, known) = (language.sizes.codes, sound.sizes.encoder.codes);
        if written != known {
            let what = format!(
                "{}: it knows {known} audio codes, {} writes {written}",
                files.flow_extra.display(),
                files.tts.display()
            );
            return Err(Error::invalid("speech_files_mixed", what).hint("take all files of the voice from one place"));
        }
        Ok(Self { projector, language, sound })
    }
}

/// What the files of a voice say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspected {
    /// Width of the hidden states that it takes: the language model's that it belongs to.
    pub hidden_width: usize,
    /// Text tokens that it knows.
    pub text_tokens: usize,
}

/// Looks into all files of a voice and whether they belong together, without loading them.
///
/// # Errors
/// A sentence that names the file, what is wrong with it and what to do.
pub fn inspect(files: &SpeechFiles) -> Result<Inspected> {
    let opened = Opened::open(files, None)?;
    Ok(Inspected { hidden_width: opened.projector.input, text_tokens: opened.language.sizes.text_rows })
}

/// As [`inspect`], and whether the voice belongs to the language model: one with states of that width and so many tokens.
///
/// # Errors
/// As there, or `speech_files_mixed`.
pub fn inspect_for(files: &SpeechFiles, width: usize, tokens: usize) -> Result<Inspected> {
    let inspected = inspect(files)?;
    let mixed = |file: &std::path::Path, what: String| {
        let hint = "take language model and voice from one place: `vidette pull minicpm-o-4.5 --voice`";
        Err(Error::invalid("speech_files_mixed", format!("{}: {what}", file.display())).hint(hint))
    };
    if inspected.hidden_width != width {
        let wants = inspected.hidden_width;
        let what = format!("it is for a language model of width {wants}, but the one that is used has {width}");
        return mixed(&files.projector, what);
    }
    if inspected.text_tokens < tokens {
        let knows = inspected.text_tokens;
        let what = format!("it knows {knows} text tokens, but the language model that is used has {tokens}");
        return mixed(&files.tts, what);
    }
    Ok(inspected)
}

impl Synthesizer {
    /// Inspects the files and loads them.
    ///
    /// # Errors
    /// As [`inspect`], and `speech_memory`, `speech_device`, `speech_model_load`.
    pub fn load(files: &SpeechFiles, options: &Options) -> Result<Self> {
        let opened = Opened::open(files, options.steps)?;
        let threads = options.threads.clamp(1, 256);
        let half = if options.half { Half::OnGpu } else { Half::Nowhere };
        let device = Device::open(options.gpu, threads, Uses { keep: options.keep, half })?;
        let context = ContextSizes {
            positions: options.positions,
            threads: i32::try_from(threads).unwrap_or(1),
            gpu_layers: if options.gpu { -1 } else { 0 },
            exact: options.exact,
        };
        let silence = opened.language.sizes.silence;
        let mut own = Self {
            projector: Projector::load(&opened.projector, &device)?,
            language: Language::load(opened.language, context)?,
            sound: Token2Wav::load(&opened.sound, silence, &device)?,
            device,
            sampling: options.sampling,
            side_by_side: options.side_by_side,
            stage: Stage::Idle,
            chunker: Chunker::default(),
            history: Vec::new(),
            random: Random::new(0, SAMPLER),
            cancel: CancelFlag::default(),
            times: Times::default(),
        };
        if options.keep && own.device.is_card() {
            own.warm()?;
        }
        Ok(own)
    }

    /// Runs every part as often as it takes until it is ready for the first utterance.
    fn warm(&mut self) -> Result<()> {
        // Of the sound first: what is kept lies in memory that grows with the largest of it.
        self.sound.warm()?;
        let width = self.projector.input;
        for _ in 0..3 {
            self.language.begin();
            let text = self.language.text_rows(&[0; CHUNK])?;
            let rows = self.projector.conditions(&self.device, &vec![1.0; CHUNK * width], &text)?;
            self.language.condition(rows, false)?;
            for _ in 0..CHUNK {
                self.language.code(0)?;
            }
        }
        self.language.begin();
        Ok(())
    }

    /// How many computations are kept; none when the device can't do all of one without the CPU.
    pub fn computations(&self) -> usize {
        self.projector.kept() + self.sound.kept()
    }

    /// Bytes on the device by what takes them, without the speech model and what the device's driver needs for itself.
    pub fn bytes(&self) -> Vec<(&'static str, usize)> {
        let mut out = vec![("projector", self.projector.bytes())];
        out.extend(self.sound.bytes());
        out.push(("computing", self.device.computing()));
        out
    }

    /// Width of the hidden states that [`push`](Self::push) takes: the language model's.
    pub fn hidden_width(&self) -> usize {
        self.projector.input
    }

    /// Name of what computes, such as `CPU` or `CUDA0`.
    pub fn device(&self) -> &str {
        self.device.name()
    }

    /// Starts an utterance and forgets the last one, finished or not. The same seed and the same input give the same
    /// samples on the same machine. Whoever sets the flag ends the utterance: the next step that looks gives
    /// `speech_cancelled`.
    ///
    /// # Errors
    /// `speech_compute` when the device fails.
    pub fn begin(&mut self, seed: u64) -> Result<CancelFlag> {
        self.stage = Stage::Broken;
        self.language.begin();
        self.sound.begin(seed)?;
        self.chunker = Chunker::default();
        self.history.clear();
        self.random = Random::new(seed, SAMPLER);
        self.cancel = CancelFlag::default();
        self.times = Times::default();
        self.stage = Stage::Speaking;
        Ok(self.cancel.clone())
    }

    /// Makes ready for the next utterance, which then begins sooner. Ends one that is not finished.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn rest(&mut self) -> Result<()> {
        self.begin(0)?;
        self.stage = Stage::Idle;
        Ok(())
    }

    /// Takes text tokens of the reply (without its terminator) and their hidden states: the last layer's output after
    /// the final norm at the position that consumed the token, [`hidden_width`](Self::hidden_width) numbers each. States
    /// may come later than their tokens. Returns the samples that could be made, 24 kHz, -0.99 to 0.99.
    ///
    /// # Errors
    /// `speech_not_begun`, `speech_input`, `speech_cancelled`, `speech_too_long` (what was made so far can still be
    /// finished), or a failure of a stage, after which only [`begin`](Self::begin) helps.
    pub fn push(&mut self, tokens: &[i32], hidden: &[f32]) -> Result<Vec<f32>> {
        let mut out = Vec::new();
        self.push_with(tokens, hidden, &mut |samples| out.extend(samples))?;
        Ok(out)
    }

    /// [`push`](Self::push) that hands the sound over second by second.
    ///
    /// # Errors
    /// As there; what was handed over stays good.
    pub fn push_with(&mut self, tokens: &[i32], hidden: &[f32], sink: &mut dyn FnMut(Vec<f32>)) -> Result<()> {
        self.speaking()?;
        let width = self.projector.input;
        let done = self.chunker.push(tokens, hidden, width).and_then(|()| self.chunks(false, sink));
        self.kept(done)
    }

    /// From now on this flag ends the utterance, in place of that which [`begin`](Self::begin) gave.
    pub fn watch(&mut self, cancel: &CancelFlag) {
        self.cancel = cancel.clone();
    }

    /// Speaks exactly these tokens as one text chunk; with `last` it ends the reply, like [`finish_with`](Self::finish_with).
    /// For a caller that counts out the chunks itself: [`CHUNK`](super::CHUNK) tokens, fewer only in the last.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn chunk_with(
        &mut self,
        tokens: &[i32],
        hidden: &[f32],
        last: bool,
        sink: &mut dyn FnMut(Vec<f32>),
    ) -> Result<()> {
        self.speaking()?;
        let width = self.projector.input;
        if tokens.is_empty() || tokens.len() > CHUNK || hidden.len() != tokens.len() * width {
            let what = format!(
                "{} tokens with {} numbers of hidden states, of which a row has {width}",
                tokens.len(),
                hidden.len()
            );
            return Err(Error::internal("speech_input", what));
        }
        let chunk = TextChunk { tokens: tokens.to_vec(), hidden: hidden.to_vec(), last };
        let done = check(&self.cancel).and_then(|()| self.chunk(&chunk, sink));
        self.kept(done)?;
        if last { self.finish_with(sink) } else { Ok(()) }
    }

    /// Ends the reply: speaks what is left and gives its samples. In all there are (3 + codes) · 960 of them; a reply
    /// without tokens has none.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(&mut self) -> Result<Vec<f32>> {
        let mut out = Vec::new();
        self.finish_with(&mut |samples| out.extend(samples))?;
        Ok(out)
    }

    /// [`finish`](Self::finish) that hands the sound over second by second.
    ///
    /// # Errors
    /// As there.
    pub fn finish_with(&mut self, sink: &mut dyn FnMut(Vec<f32>)) -> Result<()> {
        self.speaking()?;
        let done = self.chunks(true, sink);
        let done = self.kept(done).and_then(|()| {
            if self.times.codes == 0 && self.language.positions().0 == 0 {
                return Ok(());
            }
            let cancel = self.cancel.clone();
            let done = self.sound.finish(&|| check(&cancel)).map(&mut *sink);
            self.kept(done)
        });
        if done.is_ok() {
            self.stage = Stage::Idle;
        }
        done
    }

    /// Where the time of this utterance has gone so far.
    pub fn times(&self) -> Times {
        Times { sound: self.sound.times(), ..self.times }
    }

    fn speaking(&self) -> Result<()> {
        if self.stage == Stage::Speaking {
            return Ok(());
        }
        let what = match self.stage {
            Stage::Broken => "the utterance was cancelled or has failed",
            _ => "no utterance was begun",
        };
        Err(Error::new(Kind::Conflict, "speech_not_begun", what).hint("begin a new one"))
    }

    /// Remembers that a failure has left half a state behind.
    fn kept<T>(&mut self, done: Result<T>) -> Result<T> {
        match &done {
            Err(e) if e.code == "speech_too_long" => self.chunker = Chunker::default(),
            Err(_) => self.stage = Stage::Broken,
            Ok(_) => {}
        }
        done
    }

    fn chunks(&mut self, ended: bool, sink: &mut dyn FnMut(Vec<f32>)) -> Result<()> {
        while let Some(chunk) = self.chunker.next(ended, self.projector.input)? {
            check(&self.cancel)?;
            self.chunk(&chunk, sink)?;
        }
        Ok(())
    }

    /// Speaks one text chunk: codes until the end code, the most that are allowed, or the end of the model's positions.
    fn chunk(&mut self, chunk: &TextChunk, sink: &mut dyn FnMut(Vec<f32>)) -> Result<()> {
        let start = Instant::now();
        let text = self.language.text_rows(&chunk.tokens)?;
        let rows = self.projector.conditions(&self.device, &chunk.hidden, &text)?;
        self.times.conditions += start.elapsed();
        let start = Instant::now();
        let logits = self.language.condition(rows, chunk.last)?;
        let code = self.sampling.draw(logits, &self.history, &mut self.random)?;
        self.times.language += start.elapsed();
        // Two halves of the voice that share nothing but codes.
        let mut pen = Pen {
            language: &mut self.language,
            sampling: self.sampling,
            history: &mut self.history,
            random: &mut self.random,
            cancel: &self.cancel,
            times: &mut self.times,
        };
        let (sound, cancel) = (&mut self.sound, &self.cancel);
        let mut hear = |code| {
            sound.push(code, &|| check(cancel)).map(|samples| {
                if let Some(samples) = samples {
                    sink(samples);
                }
            })
        };
        if !self.side_by_side {
            return pen.write(code, &mut |code| hear(code).map(|()| true));
        }
        std::thread::scope(|scope| {
            let (codes, written) = std::sync::mpsc::sync_channel(CODES_AHEAD);
            // Whatever ends the hearing ends the writing at its next code.
            let writing = scope.spawn(move || pen.write(code, &mut |code| Ok(codes.send(code).is_ok())));
            let heard = written.iter().try_for_each(&mut hear);
            drop(written);
            let panicked = |_| Err(Error::internal("speech_compute", "the speech model's thread stopped on a defect"));
            let wrote = writing.join().unwrap_or_else(panicked);
            heard.and(wrote)
        })
    }
}

/// The half of the voice that writes codes.
struct Pen<'a> {
    language: &'a mut Language,
    sampling: SpeechSampling,
    history: &'a mut Vec<i32>,
    random: &'a mut Random,
    cancel: &'a CancelFlag,
    times: &'a mut Times,
}

impl Pen<'_> {
    /// Writes codes from the first on to `tell`, until there is the end code, the most that are allowed, the end of the
    /// model's positions, or `tell` says that nobody wants more.
    fn write(&mut self, mut code: i32, tell: &mut dyn FnMut(i32) -> Result<bool>) -> Result<()> {
        let end = self.language.sizes().codes;
        for _ in 0..MOST_CODES {
            check(self.cancel)?;
            if usize::try_from(code) == Ok(end) {
                break;
            }
            self.history.push(code);
            self.times.codes += 1;
            if !tell(code)? {
                break;
            }
            let start = Instant::now();
            let Some(logits) = self.language.code(code)? else { break };
            code = self.sampling.draw(logits, self.history, self.random)?;
            self.times.language += start.elapsed();
        }
        Ok(())
    }
}
