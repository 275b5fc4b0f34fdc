//! One source string: what it may be. Pure text, no I/O.
//! Not here: what is allowed (`policy`), opening anything (`pipeline`), masking of credentials (`secret`).

use super::pattern::TestPattern;
use super::policy::{Files, Policy, allow, denied};
use crate::error::{Error, Result};
use crate::secret::{Credentials, SafeUrl};
use std::fmt;
use std::path::{Component, PathBuf};
use url::Url;

/// Longest source string, bytes.
const LONGEST: usize = 4096;

/// A source, understood. `Display` and `Debug` are safe to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSpec {
    /// `rtsp://` or `rtsps://`.
    Rtsp(NetSource),
    /// `http://` or `https://`: multipart MJPEG, a video file, or HLS.
    Http(NetSource),
    /// A video file on this machine.
    File(PathBuf),
    /// A V4L2 device.
    Device(PathBuf),
    /// A painted picture.
    Test(TestPattern),
    /// The camera of somebody in the stream's LiveKit room.
    Webcam,
}

/// The source strings that mean [`SourceSpec::Webcam`].
const WEBCAM: [&str; 3] = ["webcam", "livekit", "livekit:"];

/// An address with its credentials apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetSource {
    /// The address.
    pub url: SafeUrl,
    /// What stood before the `@`.
    pub credentials: Option<Credentials>,
}

impl SourceSpec {
    /// Reads a source string. Credentials leave the URL here and don't appear in any message.
    ///
    /// # Errors
    /// Invalid when it is no source string, Denied when it is one that `policy` does not allow.
    pub fn parse(text: &str, policy: &Policy) -> Result<Self> {
        let text = text.trim_matches(' ');
        if text.is_empty() {
            return Err(bad("the source is empty").hint(FORMS));
        }
        if text.len() > LONGEST {
            return Err(bad(&format!("the source is longer than {LONGEST} bytes")));
        }
        if text.chars().any(char::is_control) {
            return Err(bad("the source has a control character in it (a line break, a tab or a NUL)"));
        }
        if WEBCAM.contains(&text) {
            return Ok(Self::Webcam);
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return device(PathBuf::from(format!("/dev/video{text}")), policy);
        }
        match scheme(text) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("test") => {
                let pattern = TestPattern::parse(rest)?;
                allow(policy.test, "test pictures").map(|()| Self::Test(pattern))
            }
            Some((scheme, _)) => address(text, &scheme.to_ascii_lowercase(), policy),
            None => path(PathBuf::from(text), policy),
        }
    }

    /// True for what plays at its own pace from its start: no camera is at the other end.
    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// The address, for those that have one.
    pub(super) fn net(&self) -> Option<&NetSource> {
        match self {
            Self::Rtsp(net) | Self::Http(net) => Some(net),
            Self::File(_) | Self::Device(_) | Self::Test(_) | Self::Webcam => None,
        }
    }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rtsp(net) | Self::Http(net) => net.url.fmt(f),
            Self::File(path) | Self::Device(path) => path.display().fmt(f),
            Self::Test(pattern) => write!(f, "test:{pattern}"),
            Self::Webcam => f.write_str("webcam"),
        }
    }
}

pub(super) const FORMS: &str =
    "give rtsp://…, rtsps://…, http://…, https://…, a file path, /dev/videoN or N, webcam, or test:PATTERN";

pub(super) fn bad(message: &str) -> Error {
    Error::invalid("bad_source", message)
}

/// What stands before the first colon when it looks like a scheme. A file of such a name is given as `./a:b.mp4`.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut letters = scheme.chars();
    let good = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    good.then_some((scheme, rest))
}

fn address(text: &str, scheme: &str, policy: &Policy) -> Result<SourceSpec> {
    if text.contains('\\') {
        // Parsers disagree on what a backslash means, so that one may check another host than the next contacts.
        return Err(bad("the address has a backslash in it").hint("write / instead"));
    }
    if text.contains(char::is_whitespace) {
        return Err(bad("the address has a space in it").hint("write %20 instead"));
    }
    if !matches!(scheme, "rtsp" | "rtsps" | "http" | "https" | "file") {
        return Err(denied(&format!("{scheme}: addresses are not allowed")).hint(FORMS));
    }
    let url = Url::parse(text).map_err(|e| bad(&format!("the address can't be read: {e}")).hint(FORMS))?;
    if scheme == "file" {
        let file = url.to_file_path().map_err(|()| bad("the file:// address names no file on this machine"))?;
        if file.to_string_lossy().chars().any(char::is_control) {
            return Err(bad("the source has a control character in it (a line break, a tab or a NUL)"));
        }
        return path(file, policy);
    }
    policy.check_url(&url)?;
    let (url, credentials) = SafeUrl::split(url);
    let net = NetSource { url, credentials };
    Ok(if scheme.starts_with("rtsp") { SourceSpec::Rtsp(net) } else { SourceSpec::Http(net) })
}

fn path(file: PathBuf, policy: &Policy) -> Result<SourceSpec> {
    let mut parts = file.components();
    if parts.next() == Some(Component::RootDir) && parts.next() == Some(Component::Normal("dev".as_ref())) {
        return device(file, policy);
    }
    allow(policy.files != Files::Nowhere, "files").map(|()| SourceSpec::File(file))
}

fn device(file: PathBuf, policy: &Policy) -> Result<SourceSpec> {
    let number = file.to_str().and_then(|f| f.strip_prefix("/dev/video"));
    let numbered = number.is_some_and(|n| (1..=3).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()));
    let linked = file.starts_with("/dev/v4l") && !file.components().any(|part| part == Component::ParentDir);
    if !numbered && !linked {
        return Err(denied("that device is no camera").hint("cameras are /dev/videoN or lie under /dev/v4l/"));
    }
    allow(policy.devices, "devices").map(|()| SourceSpec::Device(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<SourceSpec> {
        SourceSpec::parse(text, &Policy::default())
    }

    #[test]
    fn every_kind_is_known() {
        let shown = |text| parse(text).unwrap().to_string();
        assert_eq!(shown("rtsp://cam.lan:554/a/b?x=1"), "rtsp://cam.lan:554/a/b?x=***");
        assert_eq!(shown("RTSPS://cam.lan/a"), "rtsps://cam.lan/a");
        assert_eq!(shown("https://h/v.m3u8"), "https://h/v.m3u8");
        assert_eq!(shown("0"), "/dev/video0");
        assert_eq!(shown("/dev/video12"), "/dev/video12");
        assert_eq!(shown("/dev/v4l/by-id/usb-cam"), "/dev/v4l/by-id/usb-cam");
        assert_eq!(shown("test:ball"), "test:ball@1280x720?fps=25");
        assert_eq!(shown("clips/a b.mp4"), "clips/a b.mp4");
        assert_eq!(shown("./a:b.mp4"), "./a:b.mp4");
        assert_eq!(shown("file:///tmp/a%20b.mp4"), "/tmp/a b.mp4");
    }

    #[test]
    fn credentials_are_split_off() {
        let SourceSpec::Rtsp(net) = parse("rtsp://admin:pa:ss@w%40rd@cam.lan/s").unwrap() else { panic!("not rtsp") };
        let credentials = net.credentials.clone().unwrap();
        assert_eq!(credentials.user.expose(), "admin");
        assert_eq!(credentials.password.expose(), "pa:ss@w@rd");
        assert_eq!(net.url.to_string(), "rtsp://cam.lan/s");
        assert!(!format!("{net:?}").contains("ss@"));
    }

    #[test]
    fn hostile_strings_are_refused_and_not_repeated() {
        for text in [
            "rtsp://x/ ! filesink location=/tmp/p",
            "rtsp://u:geheim@x/\r\nEXTRA: 1",
            "rtsp://u:geheim@x\\@y/",
            "rtsp://u:geheim@h:99999/",
            "rtsp:///nohost",
            "exec:ls",
            "data:video/mp4;base64,AAAA",
            "javascript:alert(1)",
            "ftp://h/x",
            "udp://0.0.0.0:1",
            "gst-launch:videotestsrc",
            "/dev/zero",
            "/dev/video",
            "/dev/video0/../zero",
            "/dev/v4l/../zero",
            "//dev/zero",
            "/./dev/zero",
            "http://169.254.169.254/latest",
            "http://0xa9fea9fe/",
            "rtsp://2852039166/",
            "http://[::ffff:169.254.169.254]/",
            "file:///tmp/a%00b",
            "file://host/tmp/a",
            "a\0b",
            "",
            "   ",
        ] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error.kind, Kind::Invalid | Kind::Denied), "{text}: {error}");
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_its_display_is_read_back(text in "\\PC{0,80}") {
            if let Ok(spec) = parse(&text) {
                // What is masked (a query) reads back as another value; all else as itself.
                let masked = spec.net().is_some_and(|n| n.credentials.is_some()
                    || n.url.expose().query().is_some() || n.url.expose().fragment().is_some());
                if !masked && !spec.to_string().starts_with(' ') && !spec.to_string().ends_with(' ') {
                    prop_assert_eq!(parse(&spec.to_string()).unwrap(), spec);
                }
            }
        }

        #[test]
        fn urls_survive_the_round_trip(scheme in "rtsps?|https?", host in "[a-z]{1,10}(\\.[a-z]{2,5})?",
                                       port in 1024u16.., path in "(/[a-z0-9%._-]{1,8}){0,4}") {
            let spec = parse(&format!("{scheme}://{host}:{port}{path}")).unwrap();
            prop_assert_eq!(parse(&spec.to_string()).unwrap(), spec);
        }

        #[test]
        fn no_password_is_ever_shown(password in "[a-zA-Z0-9:@%!$&*+=,;~_.-]{6,20}") {
            let text = format!("rtsp://user:{password}@cam.lan/stream");
            let shown = match parse(&text) {
                Ok(spec) => format!("{spec} {spec:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            prop_assert!(!shown.contains(&password), "{}", shown);
        }
    }
}
