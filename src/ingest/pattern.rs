//! Test sources: `PATTERN[@WxH][?fps=N]`. Not here: the element that paints them (`pipeline`).

use crate::error::{Error, Result};
use std::fmt;

/// The patterns of GStreamer's `videotestsrc`, by the names it gives them.
pub const PATTERNS: [&str; 26] = [
    "smpte",
    "snow",
    "black",
    "white",
    "red",
    "green",
    "blue",
    "checkers-1",
    "checkers-2",
    "checkers-4",
    "checkers-8",
    "circular",
    "blink",
    "smpte75",
    "zone-plate",
    "gamut",
    "chroma-zone-plate",
    "solid-color",
    "ball",
    "smpte100",
    "bar",
    "pinwheel",
    "spokes",
    "gradient",
    "colors",
    "smpte-rp-219",
];

/// Smallest and largest side of a test picture, pixels.
const SIDES: std::ops::RangeInclusive<u32> = 16..=4096;
/// Slowest and fastest test picture, per second.
const RATES: std::ops::RangeInclusive<u32> = 1..=120;

/// A painted picture with a burnt-in time code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TestPattern {
    /// One of [`PATTERNS`].
    pub name: &'static str,
    /// Pixels, even.
    pub width: u32,
    /// Pixels, even.
    pub height: u32,
    /// Pictures per second.
    pub fps: u32,
}

impl TestPattern {
    /// Reads what follows `test:`. Nothing at all means moving colour bars of 1280x720 at 25 per second.
    ///
    /// # Errors
    /// For an unknown pattern (the message lists all), and for a size or rate out of range.
    pub fn parse(text: &str) -> Result<Self> {
        let (head, query) = text.split_once('?').map_or((text, None), |(head, query)| (head, Some(query)));
        let (name, size) = head.split_once('@').map_or((head, None), |(name, size)| (name, Some(size)));
        let wanted = if name.is_empty() { "smpte" } else { name };
        let name = PATTERNS.into_iter().find(|known| *known == wanted).ok_or_else(unknown)?;
        let (width, height) = size.map_or(Some((1280, 720)), sides).ok_or_else(bad_size)?;
        let fps = query.map_or(Some(25), rate).ok_or_else(bad_rate)?;
        Ok(Self { name, width, height, fps })
    }
}

impl fmt::Display for TestPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}x{}?fps={}", self.name, self.width, self.height, self.fps)
    }
}

/// Digits only: `parse` would take a sign as well.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn sides(size: &str) -> Option<(u32, u32)> {
    let (width, height) = size.split_once('x')?;
    let side = |text| number(text).filter(|n| SIDES.contains(n) && n % 2 == 0);
    Some((side(width)?, side(height)?))
}

fn rate(query: &str) -> Option<u32> {
    number(query.strip_prefix("fps=")?).filter(|n| RATES.contains(n))
}

fn unknown() -> Error {
    Error::invalid("unknown_test_pattern", "there is no test pattern of that name")
        .hint(format!("take one of: {}", PATTERNS.join(", ")))
}

fn bad_size() -> Error {
    let message = format!("a test picture's sides are even numbers from {} to {}", SIDES.start(), SIDES.end());
    Error::invalid("bad_test_pattern", message).hint("write it as in test:smpte@1280x720")
}

fn bad_rate() -> Error {
    let message = format!("a test picture's rate is a whole number from {} to {}", RATES.start(), RATES.end());
    Error::invalid("bad_test_pattern", message).hint("write it as in test:smpte?fps=25")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(index in 0usize..26, w in 8u32..=2048, h in 8u32..=2048, fps in 1u32..=120) {
            let pattern = TestPattern { name: PATTERNS[index], width: w * 2, height: h * 2, fps };
            prop_assert_eq!(TestPattern::parse(&pattern.to_string()).unwrap(), pattern);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            if let Ok(pattern) = TestPattern::parse(&text) {
                prop_assert!(SIDES.contains(&pattern.width) && RATES.contains(&pattern.fps));
            }
        }
    }

    #[test]
    fn parts_may_be_left_out() {
        let whole = |t: &str| TestPattern::parse(t).unwrap().to_string();
        assert_eq!(whole(""), "smpte@1280x720?fps=25");
        assert_eq!(whole("ball@64x48"), "ball@64x48?fps=25");
        assert_eq!(whole("ball?fps=5"), "ball@1280x720?fps=5");
    }

    #[test]
    fn mistakes_are_named() {
        let unknown = TestPattern::parse("smtpe").unwrap_err();
        assert!(unknown.to_string().contains("zone-plate"), "{unknown}");
        for bad in
            ["smpte@1280", "smpte@0x0", "smpte@15x16", "smpte@+64x64", "smpte@99999x2", "smpte?fps=0", "smpte?x=1"]
        {
            assert_eq!(TestPattern::parse(bad).unwrap_err().code, "bad_test_pattern", "{bad}");
        }
    }
}
