//! The one promise about libsamplerate that the compiler can't see: its state may move between threads.
//! Not here: what is done with it (`resample`).

use samplerate::{ConverterType, Error, Samplerate};

/// A converter of one channel.
pub(super) struct Converter(Samplerate);

// SAFETY: `SRC_STATE` (samplerate.h) is heap memory that only this value points to. libsamplerate keeps no
// thread-local and no mutable global state; its FAQ asks only that one state is not used by two threads at once, and
// all methods here take `&mut self`.
unsafe impl Send for Converter {}

impl Converter {
    pub(super) fn new(from_rate: u32, to_rate: u32) -> Result<Self, Error> {
        Samplerate::new(ConverterType::SincMediumQuality, from_rate, to_rate, 1).map(Self)
    }

    /// `input` must be a whole number of periods of the two rates; see `resample`.
    pub(super) fn process(&mut self, input: &[f32]) -> Result<Vec<f32>, Error> {
        self.0.process(input)
    }

    pub(super) fn process_last(&mut self, input: &[f32]) -> Result<Vec<f32>, Error> {
        self.0.process_last(input)
    }
}
