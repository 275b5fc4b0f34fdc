//! Looks in the KV cache: each one's kept prefix, its frames, the rest, and its answer token by token; several at once
//! in one batch. Not here: whose turn it is (`worker`), how pictures become embeddings
//! (`vision`), which token comes next (`choice`).

use super::ffi::{Context, Entry, Input, Model, Token};
use super::template::PromptTokens;
use super::tower::Part;
use super::vision::{EncodedFrame, Eye};
use super::{CancelFlag, Pulse};
use crate::error::{Error, Result};
use std::rc::Rc;
use std::sync::Arc;

/// Cells that a stream's own slot must hold more of a prompt for its answer to be written there and not in the first
/// free one: about a frame's.
const WORTH_A_GAP: usize = 60;

/// Any token does for what is forgotten again.
const FILLER: [Token; 1] = [0];

/// What one sequence of the cache holds.
#[derive(Default)]
struct Slot {
    stream: Option<Arc<str>>,
    /// A look is in it.
    busy: bool,
    /// What is in the cells from position 0 on and may serve the next look: text, then frames.
    held: Held,
    /// Rises with use; the free slot with the least is taken when a stream has none.
    used: u64,
}

/// The part of a prompt that looks of one stream share from the beginning on.
#[derive(Default, Clone)]
struct Held {
    prefix: Vec<Token>,
    /// After the whole prefix. Kept alive, so that the same address is the same frame.
    frames: Vec<Rc<EncodedFrame>>,
}

impl Held {
    /// What both begin with: (tokens of the prefix, frames after the whole of it).
    fn shared(&self, other: &Self) -> (usize, usize) {
        let tokens = self.prefix.iter().zip(&other.prefix).take_while(|(a, b)| a == b).count();
        let whole = tokens == self.prefix.len() && tokens == other.prefix.len();
        let frames = self.frames.iter().zip(&other.frames).take_while(|(a, b)| whole && Rc::ptr_eq(a, b)).count();
        (tokens, frames)
    }

    /// Cells of what both begin with.
    fn cells_shared(&self, other: &Self) -> usize {
        let (tokens, frames) = self.shared(other);
        tokens + self.frames[..frames].iter().map(|frame| frame.tokens).sum::<usize>()
    }

    /// Cuts it back to the first of these.
    fn cut(&mut self, tokens: usize, frames: usize) {
        self.prefix.truncate(tokens);
        self.frames.truncate(frames);
    }

    /// In cells.
    fn len(&self) -> usize {
        self.prefix.len() + self.frames.iter().map(|frame| frame.tokens).sum::<usize>()
    }
}

/// The context with its slots, each serving one stream at a time.
pub struct Session<'m> {
    model: &'m Model,
    context: Context<'m>,
    slots: Vec<Slot>,
    clock: u64,
    /// Gaps between the sequences of a batch are filled.
    bridge: bool,
}

/// A prompt on its way into the cells, and then its answer. Must be given back with [`Session::end`].
pub struct Look {
    slot: usize,
    position: i32,
    /// What the next look may share of it.
    shares: Held,
    /// What of the prompt is not decoded yet begins in the first of these.
    rest: Vec<Piece>,
    /// Tokens or rows of `rest[0]` that are decoded.
    offset: usize,
    /// What comes after the last frame, while frames may still come.
    suffix: Option<Vec<Token>>,
    /// Tokens that were or will be decoded for the prompt, and those found in the cache.
    pub decoded: usize,
    pub reused: usize,
    /// Where the last batch has its logits.
    output: Option<i32>,
}

/// A part of a prompt.
enum Piece {
    Tokens(Vec<Token>),
    Part(Rc<EncodedFrame>, usize),
}

impl Piece {
    /// In tokens or rows.
    fn len(&self) -> usize {
        match self {
            Self::Tokens(tokens) => tokens.len(),
            Self::Part(frame, i) => match &frame.parts[*i] {
                Part::Tokens(tokens) => tokens.len(),
                Part::Image(image) => image.tokens,
            },
        }
    }

    /// The `i`th token or row.
    fn input(&self, i: usize, width: usize) -> Input<'_> {
        match self {
            Self::Tokens(tokens) => Input::Tokens(&tokens[i..=i]),
            Self::Part(frame, part) => match &frame.parts[*part] {
                Part::Tokens(tokens) => Input::Tokens(&tokens[i..=i]),
                Part::Image(image) => Input::Rows(&image.rows[i * width..(i + 1) * width]),
            },
        }
    }
}

impl Look {
    /// True once the whole prompt is in the cells.
    pub fn prompt_is_in(&self) -> bool {
        self.rest.is_empty() && self.suffix.is_none()
    }

    /// True while something of the prompt is there to be decoded.
    pub fn has_more(&self) -> bool {
        !self.rest.is_empty()
    }

    /// The prompt's next frame.
    pub fn add(&mut self, frame: Rc<EncodedFrame>) {
        self.decoded += frame.tokens;
        self.rest.extend((0..frame.parts.len()).map(|i| Piece::Part(Rc::clone(&frame), i)));
        self.rest.retain(|piece| piece.len() > 0);
        self.shares.frames.push(frame);
    }

    /// No frame comes after this: the rest of the prompt does.
    pub fn close(&mut self) {
        if let Some(suffix) = self.suffix.take().filter(|suffix| !suffix.is_empty()) {
            self.decoded += suffix.len();
            self.rest.push(Piece::Tokens(suffix));
        }
    }

    /// True when the last [`Session::step`] made logits for it.
    pub fn has_logits(&self) -> bool {
        self.output.is_some()
    }

    /// The number of its slot.
    #[cfg(test)]
    pub fn place(&self) -> usize {
        self.slot
    }

    fn sequence(&self) -> i32 {
        self.slot as i32
    }
}

/// A look's part in a step.
pub struct Turn<'a> {
    pub look: &'a mut Look,
    /// The answer's next token; `None` while the prompt is not in.
    pub token: Option<Token>,
}

impl<'m> Session<'m> {
    /// A session with one slot for each sequence of `context`.
    pub fn new(model: &'m Model, context: Context<'m>, slots: usize) -> Self {
        let slots = (0..slots.max(1)).map(|_| Slot::default()).collect();
        Self { model, context, slots, clock: 0, bridge: false }
    }

    /// Whether gaps between the sequences of a batch are to be filled, so that one pass over the weights serves all of
    /// them: worth it where a pass costs more than some rows, as on a GPU.
    #[must_use]
    pub fn bridging(self, bridge: bool) -> Self {
        Self { bridge, ..self }
    }

    /// From now on every step of work beats this pulse.
    pub fn tell(&mut self, pulse: &Arc<Pulse>) {
        self.context.tell(pulse);
    }

    /// Tokens that a prompt and its answer may take.
    pub fn budget(&self) -> usize {
        self.context.tokens_per_sequence()
    }

    /// How many of the oldest frames must be left out so that prompt and answer fit, from the frames' tokens; computed
    /// before anything is decoded.
    ///
    /// # Errors
    /// When not even one frame fits.
    pub fn fit(&self, prompt: &PromptTokens, frames: &[usize], max_tokens: u32) -> Result<usize> {
        let fixed = prompt.prefix.len() + prompt.suffix.len() + max_tokens as usize;
        let (budget, mut left_out) = (self.budget(), 0);
        let mut total = fixed + frames.iter().sum::<usize>();
        while total > budget && left_out + 1 < frames.len() {
            total -= frames[left_out];
            left_out += 1;
        }
        if total > budget {
            return Err(Error::invalid(
                "prompt_too_long",
                format!("the look needs {total} tokens but a stream has {budget}"),
            )
            .hint("shorten the instruction, lower MAX_TOKENS or raise CONTEXT_TOKENS"));
        }
        Ok(left_out)
    }

    /// Takes a look on with its first frames; what the stream's slot already holds of its prefix and of these frames is
    /// kept. Nothing is decoded yet. More frames may be [added](Look::add) until it is [closed](Look::close).
    ///
    /// # Errors
    /// When every slot has a look in it.
    pub fn begin(&mut self, stream: &Arc<str>, prompt: PromptTokens, frames: Vec<Rc<EncodedFrame>>) -> Result<Look> {
        let wanted = Held { prefix: prompt.prefix, frames };
        let slot = self
            .slot_for(stream, &wanted)
            .ok_or_else(|| Error::internal("engine_slots", "every slot has a look in it"))?;
        let (tokens, kept_frames) = self.keep(slot, &wanted);
        let kept = self.slots[slot].held.len();
        let Held { prefix, mut frames } = wanted;
        let rest = vec![Piece::Tokens(prefix[tokens..].to_vec())];
        let new = frames.split_off(kept_frames);
        self.slots[slot].busy = true;
        let mut look = Look {
            slot,
            position: i32::try_from(kept).unwrap_or(i32::MAX),
            decoded: prefix.len() - tokens,
            shares: Held { prefix, frames },
            rest,
            offset: 0,
            suffix: Some(prompt.suffix),
            reused: kept,
            output: None,
        };
        look.rest.retain(|piece| piece.len() > 0);
        new.into_iter().for_each(|frame| look.add(frame));
        Ok(look)
    }

    /// Gives a look's slot free. Its prefix and frames stay if the whole prompt came in.
    pub fn end(&mut self, look: Look) {
        let slot = &mut self.slots[look.slot];
        slot.busy = false;
        if !look.prompt_is_in() {
            // Whatever half of it is in the cells is not what `held` says.
            slot.held = Held::default();
            self.context.truncate(look.slot as i32, 0);
        }
    }

    /// One batch: the next token of each answer, and as much of the prompts, in their order, as there is room for.
    /// `hidden` keeps the hidden state of each answer's token; no prompt may come along then.
    ///
    /// # Errors
    /// When llama.cpp fails or the flag of [`watch`](Self::watch) is set; then none of these looks can go on.
    pub fn step(&mut self, turns: &mut [Turn<'_>], eye: &mut Eye<'_>, hidden: bool) -> Result<()> {
        turns.iter_mut().for_each(|turn| turn.look.output = None);
        self.context.keep_hidden(hidden);
        if eye.needs_helper()
            && let Some(turn) = turns.iter_mut().find(|turn| turn.token.is_none())
        {
            return self.fill_with_helper(turn.look, eye);
        }
        let (width, room) = (self.model.n_embd(), self.context.batch_size());
        // (turn that it is for, if any; entry)
        let mut entries: Vec<(Option<usize>, Entry<'_>)> = Vec::with_capacity(room.min(1024));
        for answering in [true, false] {
            let those = turns.iter().enumerate().filter(|(_, turn)| turn.token.is_some() == answering);
            for (number, turn) in those {
                let (sequence, mut position) = (turn.look.sequence(), turn.look.position);
                let token = turn.token.as_ref().map(std::slice::from_ref);
                let mut add = |input, logits| {
                    entries.push((Some(number), Entry { sequence, position, input, logits }));
                    position += 1;
                    entries.len() < room
                };
                match token {
                    Some(token) => {
                        if !add(Input::Tokens(token), true) {
                            break;
                        }
                    }
                    None => {
                        if !turn.look.each_rest(width, &mut add) {
                            break;
                        }
                    }
                }
            }
        }
        let fillers = if self.bridge { self.fillers(&entries, room) } else { Vec::new() };
        entries.extend(fillers.iter().map(|(sequence, position)| {
            let input = Input::Tokens(&FILLER);
            (None, Entry { sequence: *sequence, position: *position, input, logits: false })
        }));
        // llama.cpp passes once over the weights for each run of neighbouring sequences in rising order
        // (llama-batch.cpp: split_equal), so order decides how much is shared.
        entries.sort_by_key(|(_, entry)| entry.sequence);
        // (entries of it, index of the one with logits)
        let mut shares = vec![(0usize, None); turns.len()];
        for (at, (number, entry)) in entries.iter().enumerate() {
            if let Some(share) = number.and_then(|number| shares.get_mut(number)) {
                share.0 += 1;
                if entry.logits {
                    share.1 = i32::try_from(at).ok();
                }
            }
        }
        let entries: Vec<Entry<'_>> = entries.into_iter().map(|(_, entry)| entry).collect();
        let done = self.context.step(&entries);
        drop(entries);
        for (sequence, position) in fillers {
            self.context.truncate(sequence, position);
        }
        done?;
        for (turn, (taken, output)) in turns.iter_mut().zip(shares) {
            turn.look.position += i32::try_from(taken).unwrap_or(i32::MAX);
            turn.look.output = output;
            if turn.token.is_none() {
                turn.look.advance_prompt(taken);
                self.note_held(turn.look);
            }
        }
        Ok(())
    }

    /// What fills the gaps between the sequences of a batch, as (sequence, position): a token in each idle sequence that
    /// has room for it, to be taken out of its cells again. A row more costs a GPU far less than another pass.
    fn fillers(&self, entries: &[(Option<usize>, Entry<'_>)], room: usize) -> Vec<(i32, i32)> {
        let mut taken = vec![false; self.slots.len()];
        for (_, entry) in entries {
            if let Some(taken) = usize::try_from(entry.sequence).ok().and_then(|s| taken.get_mut(s)) {
                *taken = true;
            }
        }
        let (Some(first), Some(last)) = (taken.iter().position(|t| *t), taken.iter().rposition(|t| *t)) else {
            return Vec::new();
        };
        let cells = i32::try_from(self.budget()).unwrap_or(i32::MAX);
        (first..last)
            .filter(|slot| !taken[*slot] && !self.slots[*slot].busy)
            .map(|slot| (slot as i32, self.context.next_position(slot as i32)))
            .filter(|(_, position)| *position < cells)
            .take(room.saturating_sub(entries.len()))
            .collect()
    }

    /// A whole prompt through libmtmd's helper, which knows M-RoPE and non-causal models.
    fn fill_with_helper(&mut self, look: &mut Look, eye: &mut Eye<'_>) -> Result<()> {
        let (sequence, last) = (look.sequence(), look.rest.len().saturating_sub(1));
        for (i, piece) in look.rest.iter().enumerate() {
            let logits = i == last;
            look.position = match piece {
                Piece::Tokens(tokens) => {
                    self.context.decode(sequence, look.position, &[Input::Tokens(tokens)], logits)?
                }
                Piece::Part(frame, part) => match &frame.parts[*part] {
                    Part::Tokens(tokens) => {
                        self.context.decode(sequence, look.position, &[Input::Tokens(tokens)], logits)?
                    }
                    Part::Image(image) => {
                        self.context.decode_with_helper(eye.vision()?, sequence, look.position, image)?
                    }
                },
            };
        }
        look.rest.clear();
        look.output = Some(-1);
        // Positions of these models' frames are not cells: their text alone is shared.
        look.shares.frames.clear();
        self.note_held(look);
        Ok(())
    }

    /// Once a whole prompt is in, the slot holds what the next may share.
    fn note_held(&mut self, look: &Look) {
        if look.prompt_is_in() {
            self.slots[look.slot].held.clone_from(&look.shares);
        }
    }

    /// From now on a step ends early once this flag is set (on the CPU).
    pub fn watch(&mut self, cancel: &CancelFlag) {
        self.context.watch(cancel);
    }

    /// The stream's own slot if no look is in it, or else the free one that was used longest ago. Where gaps between
    /// sequences have to be filled, the first free one, unless the stream's own holds clearly more of what is wanted: the
    /// fewer rows a batch has, the sooner it is done.
    fn slot_for(&mut self, stream: &Arc<str>, wanted: &Held) -> Option<usize> {
        let free = || self.slots.iter().enumerate().filter(|(_, s)| !s.busy);
        let own = free().find(|(_, s)| s.stream.as_deref() == Some(stream));
        let chosen = if self.bridge {
            let first = free().next();
            let worth = first.map_or(0, |(_, slot)| slot.held.cells_shared(wanted) + WORTH_A_GAP);
            own.filter(|(_, slot)| slot.held.cells_shared(wanted) >= worth).or(first)
        } else {
            own.or_else(|| free().min_by_key(|(_, s)| s.used))
        };
        let (i, _) = chosen?;
        self.clock += 1;
        self.slots[i].used = self.clock;
        self.slots[i].stream = Some(Arc::clone(stream));
        Some(i)
    }

    /// Cuts the slot's cells back to what they share with `wanted`; returns how many tokens and frames stay.
    fn keep(&mut self, slot: usize, wanted: &Held) -> (usize, usize) {
        let held = &mut self.slots[slot].held;
        let (tokens, frames) = held.shared(wanted);
        held.cut(tokens, frames);
        if self.context.truncate(slot as i32, i32::try_from(held.len()).unwrap_or(0)) {
            (tokens, frames)
        } else {
            held.cut(0, 0);
            (0, 0)
        }
    }

    /// Logits that the last step made for this look.
    ///
    /// # Errors
    /// When it made none.
    pub fn logits(&self, look: &Look) -> Result<&[f32]> {
        let at = look.output.ok_or_else(|| Error::internal("engine_logits", "no logits were made for this look"))?;
        self.context.logits_at(at)
    }

    /// The hidden state of the answer's token of the last step: the last layer after the final norm.
    ///
    /// # Errors
    /// When none was kept.
    pub fn hidden(&self, look: &Look) -> Result<&[f32]> {
        let at = look.output.ok_or_else(|| Error::internal("engine_hidden", "no step was made for this look"))?;
        self.context.hidden_at(at)
    }

    /// The model that this session decodes with.
    pub fn model(&self) -> &'m Model {
        self.model
    }
}

impl Look {
    /// Hands out what is not decoded yet, the last with `true`, until it is told to stop. True when it was not.
    fn each_rest<'a>(&'a self, width: usize, add: &mut impl FnMut(Input<'a>, bool) -> bool) -> bool {
        for (i, piece) in self.rest.iter().enumerate() {
            let from = if i == 0 { self.offset } else { 0 };
            for at in from..piece.len() {
                let last = self.suffix.is_none() && i + 1 == self.rest.len() && at + 1 == piece.len();
                if !add(piece.input(at, width), last) {
                    return false;
                }
            }
        }
        true
    }

    /// Marks the next `taken` tokens or rows of the prompt as decoded.
    fn advance_prompt(&mut self, taken: usize) {
        self.offset += taken;
        let mut whole = 0;
        while let Some(piece) = self.rest.get(whole).filter(|piece| self.offset >= piece.len()) {
            self.offset -= piece.len();
            whole += 1;
        }
        self.rest.drain(..whole);
    }
}
