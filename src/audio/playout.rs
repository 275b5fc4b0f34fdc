//! Samples that wait to be played, handed out frame by frame; and the end of them, in order or at once.
//! Synchronous. Not here: when a frame is due (`speech`), who hears it (`hub`).

use super::FRAME_SAMPLES;
use std::collections::VecDeque;

/// Samples over which a sound that is cut off fades away: 10 ms, so that it does not click.
pub const FADE_SAMPLES: usize = 480;

/// One utterance's sound between the voice and the clock. Its length is bounded by whoever fills it.
#[derive(Debug, Default)]
pub struct Playout {
    samples: VecDeque<i16>,
    closed: bool,
}

impl Playout {
    /// Appends samples of 48 kHz; nothing after [`close`](Self::close) or [`cut`](Self::cut).
    pub fn push(&mut self, samples: &[i16]) {
        if !self.closed {
            self.samples.extend(samples);
        }
    }

    /// Nothing more comes: what is left will be played, the last frame filled up with silence.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Ends it now: what is left fades away within [`FADE_SAMPLES`].
    pub fn cut(&mut self) {
        self.closed = true;
        self.samples.truncate(FADE_SAMPLES);
        let length = self.samples.len() as f32;
        for (n, sample) in self.samples.iter_mut().enumerate() {
            *sample = (f32::from(*sample) * (1.0 - (n as f32 + 1.0) / length)).round() as i16;
        }
    }

    /// Samples waiting.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// True when no sample waits.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// True when all was handed out and no more comes.
    pub fn is_over(&self) -> bool {
        self.closed && self.samples.is_empty()
    }

    /// The next frame; how many of its samples are sound, the rest being silence. `None` while there is no whole
    /// frame and more may come.
    pub fn next_frame(&mut self) -> Option<([i16; FRAME_SAMPLES], usize)> {
        if self.samples.is_empty() || (self.samples.len() < FRAME_SAMPLES && !self.closed) {
            return None;
        }
        let used = self.samples.len().min(FRAME_SAMPLES);
        let mut frame = [0; FRAME_SAMPLES];
        for (to, from) in frame.iter_mut().zip(self.samples.drain(..used)) {
            *to = from;
        }
        Some((frame, used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cut_fades_and_ends_within_one_frame() {
        let mut playout = Playout::default();
        playout.push(&[10_000; 100_000]);
        assert_eq!(playout.next_frame().unwrap(), ([10_000; FRAME_SAMPLES], FRAME_SAMPLES));
        playout.cut();
        playout.push(&[10_000; 100_000]);
        let (frame, used) = playout.next_frame().unwrap();
        assert_eq!(used, FADE_SAMPLES);
        assert!(playout.is_over());
        // No step is larger than that of the slope: no click at its beginning nor at its end.
        let steps = std::iter::once(10_000).chain(frame).collect::<Vec<_>>();
        let steepest = steps.windows(2).map(|w| (w[1] - w[0]).abs()).max().unwrap();
        assert!(steepest <= 10_000 / FADE_SAMPLES as i16 + 1, "{steepest}");
        assert_eq!(frame[FADE_SAMPLES - 1..], [0; FRAME_SAMPLES - FADE_SAMPLES + 1]);
    }

    #[test]
    fn a_cut_of_nothing_is_over_at_once() {
        let mut playout = Playout::default();
        playout.cut();
        assert!(playout.is_over() && playout.next_frame().is_none());
    }

    proptest! {
        #[test]
        fn every_sample_is_played_once_and_in_order(pushes in prop::collection::vec(0usize..3_000, 0..20)) {
            let mut playout = Playout::default();
            let (mut out, mut next) = (Vec::new(), 0usize);
            for length in pushes {
                let samples: Vec<i16> = (next..next + length).map(|n| (n % 30_000) as i16).collect();
                next += length;
                playout.push(&samples);
                while let Some((frame, used)) = playout.next_frame() {
                    prop_assert_eq!(used, FRAME_SAMPLES);
                    out.extend_from_slice(&frame);
                }
            }
            playout.close();
            while let Some((frame, used)) = playout.next_frame() {
                prop_assert!(frame[used..].iter().all(|s| *s == 0));
                out.extend_from_slice(&frame[..used]);
            }
            prop_assert!(playout.is_over());
            prop_assert_eq!(out, (0..next).map(|n| (n % 30_000) as i16).collect::<Vec<_>>());
        }
    }
}
