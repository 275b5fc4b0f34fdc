//! The looks that are at work, each at its own stage: their frames are encoded one by one, and what they have for the
//! language model goes into one batch, so that many streams share each pass over the weights.
//! Not here: the thread and loading (`worker`), who waits (`mailbox`), cells and batches (`session`).

use super::choice::Chooser;
use super::ffi::Token;
use super::mailbox::Mailbox;
use super::row::Ticket;
use super::session::{Look, Session, Turn};
use super::speech_tokens::SpeechTokens;
use super::template::Layout;
use super::utf8::Utf8Stream;
use super::vision::{EncodedFrame, Eye};
use super::{Job, JobEvent, JobFinish, Pulse};
use crate::cancel::CancelFlag;
use crate::error::{Error, Result};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::Scope;
use std::time::Instant;

/// Choices made by one thread in turn, at least, and most threads for them: starting one takes about as long as half a
/// choice among 150,000 tokens. Among few tokens a choice takes no time.
const CHOICES_A_THREAD: usize = 3;
const CHOOSING_THREADS: usize = 4;
const LARGE_VOCABULARY: usize = 30_000;

/// Everything that a look needs, and the looks.
pub struct Desk<'m> {
    layout: Layout,
    speech: SpeechTokens,
    session: Session<'m>,
    eye: Eye<'m>,
    /// Most looks at work at once; no more than the session has slots.
    at_once: usize,
    pulse: Arc<Pulse>,
    /// Longest at work first.
    running: Vec<Running>,
}

struct Running {
    ticket: Ticket,
    stage: Stage,
}

enum Stage {
    Frames(Seeing),
    Answer(Box<Answer>),
}

/// Until all frames have embeddings.
#[derive(Default)]
struct Seeing {
    /// The job's next frame that has none yet.
    next: usize,
    /// Those that have, as long as the prompt is not begun.
    encoded: Vec<Rc<EncodedFrame>>,
    /// So many were made for it.
    fresh: u32,
    /// The prompt, where it is decoded as the frames come.
    look: Option<Look>,
    /// All frames are ordered, and it was seen whether the prompt can begin.
    ordered: bool,
    begun: bool,
}

impl Seeing {
    /// Begins the prompt before all frames are there, if it is known how many of them fit.
    fn begin(&mut self, job: &Job, layout: &Layout, session: &mut Session<'_>, eye: &mut Eye<'_>) -> Result<()> {
        self.begun = true;
        let Some(tokens) = eye.frame_tokens() else { return Ok(()) };
        let prompt = layout.tokens(session.model(), &job.prompt, job.for_voice);
        self.next = session.fit(&prompt, &vec![tokens; job.frames.len()], job.max_tokens)?;
        let mut first = Vec::new();
        while let Some(encoded) = job.frames.get(self.next).and_then(|frame| eye.cached(&job.stream, frame.seq)) {
            first.push(encoded);
            self.next += 1;
        }
        self.look = Some(session.begin(&job.stream, prompt, first)?);
        Ok(())
    }

    /// The whole prompt, once all frames are there.
    fn whole(&mut self, job: &Job, layout: &Layout, session: &mut Session<'_>) -> Result<Look> {
        let mut look = match self.look.take() {
            Some(look) => look,
            None => {
                let prompt = layout.tokens(session.model(), &job.prompt, job.for_voice);
                let tokens: Vec<usize> = self.encoded.iter().map(|frame| frame.tokens).collect();
                let left_out = session.fit(&prompt, &tokens, job.max_tokens)?;
                session.begin(&job.stream, prompt, self.encoded.split_off(left_out))?
            }
        };
        look.close();
        Ok(look)
    }
}

/// From the prompt to the last token.
struct Answer {
    look: Look,
    chooser: Chooser,
    piece: Piece,
    written: u32,
    /// Chosen, and not in the cells yet.
    token: Option<Token>,
}

impl<'m> Desk<'m> {
    /// A desk for at most `at_once` looks.
    pub fn new(
        layout: Layout,
        speech: SpeechTokens,
        session: Session<'m>,
        eye: Eye<'m>,
        at_once: usize,
        pulse: Arc<Pulse>,
    ) -> Self {
        Self { layout, speech, session, eye, at_once: at_once.max(1), pulse, running: Vec::new() }
    }

    /// From now on frames are encoded on threads of their own, and each prompt is decoded as its frames come.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn work_ahead<'scope>(&mut self, scope: &'scope Scope<'scope, '_>) -> Result<()>
    where
        'm: 'scope,
    {
        self.eye.work_ahead(scope)
    }

    /// Works until the mailbox is closed and everything at work has ended.
    pub fn serve(&mut self, mailbox: &Mailbox) {
        while self.take_on(mailbox) {
            self.let_go();
            self.see();
            let worked = self.batch();
            if let Some(ahead) = self.eye.ahead().filter(|_| !worked && !self.running.is_empty()) {
                ahead.wait();
            }
        }
    }

    /// Takes looks on while there is room; waits for one when nothing is at work. False once there will be none.
    fn take_on(&mut self, mailbox: &Mailbox) -> bool {
        while self.running.len() < self.at_once {
            let next = if self.running.is_empty() {
                self.pulse.work(false);
                let next = mailbox.take();
                self.pulse.work(true);
                next
            } else {
                mailbox.take_now()
            };
            let Some(ticket) = next else { break };
            say(&ticket, JobEvent::Started { at: Instant::now() });
            if ticket.job.frames.is_empty() {
                say(&ticket, JobEvent::Failed(Error::invalid("job_without_frames", "there is no frame to look at")));
                continue;
            }
            self.running.push(Running { ticket, stage: Stage::Frames(Seeing::default()) });
        }
        !self.running.is_empty()
    }

    /// Ends those that nobody wants any more.
    fn let_go(&mut self) {
        for i in (0..self.running.len()).rev() {
            if self.running[i].ticket.cancel.is_set() {
                self.finish(i, Ok(JobFinish::Cancelled));
            }
        }
    }

    /// Takes the frames that were encoded on threads of their own; without such threads encodes one, of the look that is
    /// longest at work: the others' answers go on between two frames.
    fn see(&mut self) {
        let ahead = self.eye.ahead().is_some();
        let mut i = 0;
        while i < self.running.len() {
            match self.see_for(i, ahead) {
                Ok(true) if !ahead => return,
                Ok(_) => i += 1,
                Err(e) => self.finish(i, Err(e)),
            }
        }
    }

    /// True when one of this look's frames was taken.
    fn see_for(&mut self, i: usize, ahead: bool) -> Result<bool> {
        let Self { running, eye, session, layout, pulse, .. } = self;
        // A prompt in two parts takes longer than in one, so others at work would wait.
        let alone = running.len() == 1;
        let Running { ticket, stage } = &mut running[i];
        let Stage::Frames(seeing) = stage else { return Ok(false) };
        let job = &ticket.job;
        if ahead && !seeing.begun && seeing.next == 0 && alone {
            seeing.begin(job, layout, session, eye)?;
        }
        if !seeing.ordered {
            let mut rest = job.frames[seeing.next..].iter();
            seeing.ordered = rest.all(|frame| eye.order(&job.stream, frame, job.urgent));
        }
        let mut taken = false;
        while let Some(frame) = job.frames.get(seeing.next).filter(|frame| !eye.awaits(&job.stream, frame.seq)) {
            let (encoded, made) = eye.look(&job.stream, frame)?;
            pulse.beat();
            seeing.fresh += u32::from(made);
            seeing.next += 1;
            taken = true;
            match &mut seeing.look {
                Some(look) => look.add(encoded),
                None => seeing.encoded.push(encoded),
            }
            if !ahead {
                break;
            }
        }
        if seeing.next == job.frames.len() {
            say(ticket, JobEvent::Encoded { at: Instant::now(), encoded: seeing.fresh });
            let answer = Answer {
                look: seeing.whole(job, layout, session)?,
                chooser: Chooser::new(&job.sampling, session.model().n_vocab(), fresh_seed()),
                piece: Piece::default(),
                written: 0,
                token: None,
            };
            *stage = Stage::Answer(Box::new(answer));
        }
        Ok(taken)
    }

    /// One batch for all that have something for it, and what comes of it. False when nobody has.
    fn batch(&mut self) -> bool {
        let spoken = |run: &Running| run.ticket.job.for_voice;
        let writing = |run: &Running| matches!(&run.stage, Stage::Answer(answer) if answer.token.is_some());
        let waiting = |run: &Running| match &run.stage {
            Stage::Frames(seeing) => seeing.look.as_ref().is_some_and(Look::has_more),
            Stage::Answer(answer) => answer.token.is_none(),
        };
        // With hidden states kept, every token of a prompt would ask for logits: prompts get a batch of their own.
        if self.running.iter().any(|run| writing(run) && spoken(run)) {
            self.run(writing, true);
            self.run(waiting, false);
            true
        } else {
            self.run(|run| writing(run) || waiting(run), false)
        }
    }

    fn run(&mut self, takes_part: impl Fn(&Running) -> bool, hidden: bool) -> bool {
        let part: Vec<usize> = (0..self.running.len()).filter(|i| takes_part(&self.running[*i])).collect();
        if part.is_empty() {
            return false;
        }
        // A batch can be broken off for its one owner only.
        self.session.watch(&match part.as_slice() {
            [only] => self.running[*only].ticket.cancel.clone(),
            _ => CancelFlag::default(),
        });
        let mut turns: Vec<_> = self
            .running
            .iter_mut()
            .filter(|run| takes_part(run))
            .filter_map(|run| match &mut run.stage {
                Stage::Answer(answer) => Some(Turn { look: &mut answer.look, token: answer.token }),
                Stage::Frames(seeing) => seeing.look.as_mut().map(|look| Turn { look, token: None }),
            })
            .collect();
        let done = self.session.step(&mut turns, &mut self.eye, hidden);
        drop(turns);
        let mut chosen = if done.is_ok() { self.choose(&part) } else { Vec::new() };
        // From the last on: an ended look leaves the row.
        for i in part.into_iter().rev() {
            let next = match &done {
                Ok(()) => self.go_on(i, chosen.pop().flatten()),
                Err(e) => Err(e.clone()),
            };
            match next {
                Ok(None) => {}
                Ok(Some(finish)) => self.finish(i, Ok(finish)),
                Err(e) => self.finish(i, Err(e)),
            }
        }
        true
    }

    /// After a batch: the next token of each of these that has logits. Choosing takes a pass over all logits, so many are
    /// chosen side by side.
    fn choose(&mut self, part: &[usize]) -> Vec<Option<Result<Token>>> {
        let Self { running, session, speech, .. } = self;
        let spoken = running.iter().any(|run| run.ticket.job.for_voice);
        let unspeakable = if spoken { speech.unspeakable(session.model()) } else { &[] };
        let mut part = part.iter().copied().peekable();
        let mut chosen = Vec::new();
        let mut choices = Vec::new();
        for (i, run) in running.iter_mut().enumerate() {
            if part.next_if_eq(&i).is_none() {
                continue;
            }
            if let Stage::Answer(answer) = &mut run.stage
                && answer.look.has_logits()
            {
                let banned = if run.ticket.job.for_voice { unspeakable } else { &[] };
                choices.push((chosen.len(), &mut answer.chooser, session.logits(&answer.look), banned));
            }
            chosen.push(None);
        }
        let choose = |(at, chooser, logits, banned): (usize, &mut Chooser, Result<&[f32]>, &[bool])| {
            (at, logits.and_then(|logits| chooser.choose(logits, banned)))
        };
        let threads = (choices.len() / CHOICES_A_THREAD).min(CHOOSING_THREADS);
        if threads < 2 || session.model().n_vocab() < LARGE_VOCABULARY {
            for (at, token) in choices.into_iter().map(choose) {
                chosen[at] = Some(token);
            }
            return chosen;
        }
        for (at, token) in side_by_side(choices, threads, choose) {
            chosen[at] = Some(token);
        }
        chosen
    }

    /// After a batch: tells what it brought and takes the next token. How the answer ended, if it did.
    fn go_on(&mut self, i: usize, chosen: Option<Result<Token>>) -> Result<Option<JobFinish>> {
        let Running { ticket, stage } = &mut self.running[i];
        let Stage::Answer(answer) = stage else { return Ok(None) };
        let Answer { look, piece, written, token, .. } = answer.as_mut();
        if !look.has_logits() {
            return Ok(None);
        }
        let job = &ticket.job;
        match token.take() {
            None => {
                let tokens = u32::try_from(look.decoded + look.reused).unwrap_or(u32::MAX);
                say(ticket, JobEvent::Prefilled { at: Instant::now(), tokens });
            }
            // The state is that of the position that consumes the token, so a spoken token's text waited for it.
            Some(_) if job.for_voice => {
                piece.hidden.extend_from_slice(self.session.hidden(look)?);
                piece.say(ticket);
            }
            Some(_) => {}
        }
        if *written == job.max_tokens {
            return Ok(Some(JobFinish::Length));
        }
        #[cfg(debug_assertions)]
        super::fault::strike();
        let chosen = chosen.unwrap_or_else(|| Err(Error::internal("engine_sample", "no token was chosen")))?;
        if self.session.model().ends_turn(chosen) || self.speech.end == Some(chosen) {
            return Ok(Some(JobFinish::Stop));
        }
        *written += 1;
        piece.push(chosen, &self.session.model().piece(chosen));
        *token = Some(chosen);
        if !job.for_voice {
            piece.say(ticket);
            if *written == job.max_tokens {
                return Ok(Some(JobFinish::Length));
            }
        }
        Ok(None)
    }

    /// A look leaves with its last events. Whatever went wrong is told to its owner and harms no other.
    fn finish(&mut self, i: usize, how: Result<JobFinish>) {
        let Running { ticket, stage } = self.running.remove(i);
        let mut tokens = 0;
        match stage {
            Stage::Answer(answer) => {
                let Answer { look, mut piece, written, .. } = *answer;
                tokens = written;
                self.session.end(look);
                if matches!(how, Ok(JobFinish::Stop | JobFinish::Length)) {
                    piece.end(&ticket);
                }
            }
            Stage::Frames(seeing) => {
                let Job { stream, frames, .. } = &ticket.job;
                // Another look of the stream, if there is one, may want the same frames.
                let alone = self.running.iter().all(|run| run.ticket.job.stream != *stream);
                if let Some(ahead) = self.eye.ahead().filter(|_| alone) {
                    frames.iter().for_each(|frame| ahead.forget(stream, frame.seq));
                }
                if let Some(look) = seeing.look {
                    self.session.end(look);
                }
            }
        }
        let last = match how {
            Ok(finish) => JobEvent::Done { at: Instant::now(), tokens, finish },
            Err(_) if ticket.cancel.is_set() => {
                JobEvent::Done { at: Instant::now(), tokens, finish: JobFinish::Cancelled }
            }
            Err(e) => JobEvent::Failed(e),
        };
        say(&ticket, last);
        self.pulse.end_of_look();
    }
}

/// `work` on each of `items`, by so many threads; in their order, without those whose thread panicked.
fn side_by_side<T: Send, R: Send>(items: Vec<T>, threads: usize, work: impl Fn(T) -> R + Copy + Send) -> Vec<R> {
    let size = items.len().div_ceil(threads.max(1)).max(1);
    let mut rest = items.into_iter();
    std::thread::scope(|scope| {
        let mut working = Vec::new();
        while rest.len() > 0 {
            let share: Vec<T> = rest.by_ref().take(size).collect();
            working.push(scope.spawn(move || share.into_iter().map(work).collect::<Vec<R>>()));
        }
        working.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
    })
}

/// Waits for the owner when its queue is full: it always reads, or is gone.
fn say(ticket: &Ticket, event: JobEvent) {
    // An owner that is gone has set the cancel flag by dropping its handle.
    let _owner_is_gone = ticket.events.blocking_send(event);
}

/// The tokens whose text is not told yet.
#[derive(Default)]
struct Piece {
    utf8: Utf8Stream,
    text: String,
    tokens: Vec<Token>,
    hidden: Vec<f32>,
}

impl Piece {
    fn push(&mut self, token: Token, bytes: &[u8]) {
        self.tokens.push(token);
        self.text.push_str(&self.utf8.push(bytes));
    }

    /// Tells the text with what it was made of, if there is any.
    fn say(&mut self, ticket: &Ticket) {
        if self.text.is_empty() {
            return;
        }
        let (text, tokens) = (std::mem::take(&mut self.text), std::mem::take(&mut self.tokens));
        let hidden = std::mem::take(&mut self.hidden);
        say(ticket, JobEvent::Text { at: Instant::now(), text, tokens, hidden });
    }

    /// Tells what half a character there is at the end.
    fn end(&mut self, ticket: &Ticket) {
        self.text.push_str(&self.utf8.finish());
        self.say(ticket);
    }
}

/// A seed that differs from job to job; it only has to vary, not to be secret.
fn fresh_seed() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0) & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use super::side_by_side;

    #[test]
    fn side_by_side_is_what_it_is_in_turn() {
        for (count, threads) in [(0, 4), (1, 4), (7, 4), (16, 4), (5, 1), (3, 0)] {
            let doubled = side_by_side((0..count).collect(), threads, |i: usize| i * 2);
            assert_eq!(doubled, (0..count).map(|i| i * 2).collect::<Vec<_>>(), "{count} by {threads}");
        }
    }
}
