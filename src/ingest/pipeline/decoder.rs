//! Which decoder is taken: a hardware one where there is one and it has not failed, else software.
//! Ranks are left alone: they are the process's, this choice is the pipeline's. Not here: the retry (`states`).

use crate::ingest::config::DecoderChoice;
use crate::ingest::elements::class;
use gstreamer as gst;

/// What an element is to the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    /// A parser, a demultiplexer, or anything that is no video decoder.
    Other,
    Software,
    Hardware,
}

/// The choice of one pipeline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Picker {
    choice: DecoderChoice,
    /// Hardware decoders may be tried: they have not failed for this source.
    hardware: bool,
}

impl Picker {
    pub(super) fn new(choice: DecoderChoice, hardware: bool) -> Self {
        Self { choice, hardware }
    }

    /// Tells whether `factory` is passed over for a stream of `caps`.
    pub(super) fn skips(self, factory: &gst::ElementFactory, caps: &gst::CapsRef) -> bool {
        let nature = nature(class(factory));
        nature != Nature::Other && self.skips_nature(nature, || has_hardware(caps))
    }

    fn skips_nature(self, nature: Nature, hardware_exists: impl FnOnce() -> bool) -> bool {
        match (self.choice, nature) {
            (_, Nature::Other) => false,
            (DecoderChoice::Software, nature) => nature == Nature::Hardware,
            (DecoderChoice::Hardware, nature) => nature == Nature::Software,
            (DecoderChoice::Auto, Nature::Hardware) => !self.hardware,
            // With software out of the way the hardware decoder is taken whatever its rank; when it can't be opened,
            // the connection fails and is made again without hardware.
            (DecoderChoice::Auto, Nature::Software) => self.hardware && hardware_exists(),
        }
    }
}

fn nature(class: &str) -> Nature {
    let has = |word| class.split('/').any(|part| part == word);
    match (has("Decoder") && (has("Video") || has("Image")), has("Hardware")) {
        (false, _) => Nature::Other,
        (true, false) => Nature::Software,
        (true, true) => Nature::Hardware,
    }
}

/// Tells whether `factory` decodes video, and on hardware.
pub(super) fn decodes_on_hardware(factory: &gst::ElementFactory) -> Option<bool> {
    match nature(class(factory)) {
        Nature::Other => None,
        nature => Some(nature == Nature::Hardware),
    }
}

fn has_hardware(caps: &gst::CapsRef) -> bool {
    gst::ElementFactory::factories_with_type(gst::ElementFactoryType::DECODER, gst::Rank::MARGINAL)
        .iter()
        .any(|factory| nature(class(factory)) == Nature::Hardware && factory.can_sink_any_caps(caps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gstreamers_classes_are_told_apart() {
        assert_eq!(nature("Codec/Decoder/Video"), Nature::Software);
        assert_eq!(nature("Codec/Decoder/Image"), Nature::Software);
        assert_eq!(nature("Codec/Decoder/Video/Hardware"), Nature::Hardware);
        assert_eq!(nature("Codec/Decoder/Audio"), Nature::Other);
        assert_eq!(nature("Codec/Parser/Converter/Video"), Nature::Other);
        assert_eq!(nature("Generic/Bin/Decoder"), Nature::Other);
    }

    #[test]
    fn hardware_first_until_it_failed() {
        use {DecoderChoice::*, Nature as N};
        for (choice, allowed, exists, nature, skipped) in [
            (Auto, true, true, N::Software, true),
            (Auto, true, true, N::Hardware, false),
            (Auto, true, false, N::Software, false),
            (Auto, false, true, N::Software, false),
            (Auto, false, true, N::Hardware, true),
            (Software, true, true, N::Hardware, true),
            (Software, true, true, N::Software, false),
            (Hardware, true, false, N::Software, true),
            (Hardware, true, true, N::Hardware, false),
            (Hardware, true, true, N::Other, false),
        ] {
            let picker = Picker::new(choice, allowed);
            assert_eq!(picker.skips_nature(nature, || exists), skipped, "{choice:?} {allowed} {exists} {nature:?}");
        }
    }
}
