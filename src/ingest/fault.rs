//! Why a source failed: GStreamer's many codes sorted into our few, and said in plain words.
//! Not here: what follows from it (`states`).

use super::elements::install_hint;
use super::redact::scrub;
use super::spec::SourceSpec;
use crate::error::{Error, Kind};
use crate::source::SourceFault;
use gstreamer as gst;

/// A failure of one connection. Both texts are free of secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) fault: SourceFault,
    /// For people: what happened, where, and what to do.
    pub(super) message: String,
    /// For the log: GStreamer's own words.
    pub(super) detail: String,
}

/// An error message of GStreamer, taken apart.
#[derive(Debug, Clone)]
pub(super) struct GstError {
    pub(super) error: gst::glib::Error,
    pub(super) debug: String,
    /// Factory name of the element that posted it.
    pub(super) element: String,
    /// HTTP status, where there was one.
    pub(super) http_status: Option<u32>,
}

impl Failure {
    pub(super) fn new(fault: SourceFault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into(), detail: String::new() }
    }

    /// The source led somewhere that is not allowed.
    pub(super) fn forbidden(spec: &SourceSpec, target: &str) -> Self {
        let message = format!("{} led to {}, which is not allowed", subject(spec), scrub(target));
        Self::new(SourceFault::Forbidden, message)
    }

    /// Nothing came within the time to connect.
    pub(super) fn connect_timeout(spec: &SourceSpec, seconds: f64) -> Self {
        let hint = match spec {
            SourceSpec::Rtsp(_) | SourceSpec::Http(_) => "; check that it is switched on and reachable",
            SourceSpec::File(_) | SourceSpec::Device(_) | SourceSpec::Test(_) | SourceSpec::Webcam => "",
        };
        let message = format!("{} gave no picture within {seconds} s{hint}", subject(spec));
        Self::new(SourceFault::ConnectTimeout, message)
    }

    /// Frames stopped coming.
    pub(super) fn stalled(spec: &SourceSpec, seconds: f64) -> Self {
        let message = format!("{} is still connected, but no picture has come for {seconds:.1} s", subject(spec));
        Self::new(SourceFault::Stalled, message)
    }

    /// The other end closed the stream.
    pub(super) fn ended(spec: &SourceSpec, had_frames: bool) -> Self {
        match (spec, had_frames) {
            (SourceSpec::File(_), false) => {
                Self::new(SourceFault::BadStream, format!("{} has no picture in it that can be read", subject(spec)))
            }
            (_, false) => {
                Self::new(SourceFault::Ended, format!("{} closed the stream before any picture", subject(spec)))
            }
            (_, true) => Self::new(SourceFault::Ended, format!("{} closed the stream", subject(spec))),
        }
    }

    /// The picture is larger than is allowed.
    pub(super) fn too_large(width: u32, height: u32, max_pixels: u64) -> Self {
        let message = format!(
            "the source's picture of {width}x{height} is larger than the {max_pixels} pixels that are allowed; \
             choose a smaller stream of the camera"
        );
        Self::new(SourceFault::BadStream, message)
    }

    /// There is no video in the stream.
    pub(super) fn no_video(spec: &SourceSpec) -> Self {
        Self::new(SourceFault::BadStream, format!("{} has no video in it", subject(spec)))
    }

    /// Sorts an error of our own.
    pub(super) fn from_error(error: &Error) -> Self {
        let fault = match (error.kind, error.code) {
            (Kind::NotFound, _) => SourceFault::NotFound,
            (Kind::Denied, _) => SourceFault::Forbidden,
            (_, "gstreamer_element_missing") => SourceFault::MissingCodec,
            _ => SourceFault::Other,
        };
        Self::new(fault, error.to_string())
    }

    /// Sorts an error of GStreamer. `missing` is what it said before about a plugin that it lacks.
    pub(super) fn from_gst(spec: &SourceSpec, error: &GstError, missing: Option<&str>) -> Self {
        let text = error.error.message();
        let detail = scrub(&format!("{}: {text} ({})", error.element, error.debug));
        if let Some(scheme) = unopenable(text, missing) {
            return Self { detail, ..Self::forbidden(spec, &format!("a {scheme}: address")) };
        }
        let fault = classify(spec, error, missing.is_some());
        Self { fault, message: words(spec, fault, missing), detail }
    }
}

/// The scheme of an address that GStreamer was led to and has nothing to open it with: it was locked out at the start.
fn unopenable(text: &str, missing: Option<&str>) -> Option<String> {
    let by_text = || text.split_once("to handle URI: '").and_then(|(_, uri)| uri.split_once(':')).map(|(s, _)| s);
    let by_plugin = || missing.and_then(|m| m.strip_prefix("urisource-"));
    let scheme = by_plugin().or_else(by_text)?;
    scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')).then(|| scheme.to_owned())
}

fn classify(spec: &SourceSpec, error: &GstError, missing_plugin: bool) -> SourceFault {
    match error.http_status {
        Some(401 | 403 | 407) => return SourceFault::Auth,
        Some(404 | 410) => return SourceFault::NotFound,
        Some(400..) => return SourceFault::Network,
        _ => {}
    }
    let glib_error = &error.error;
    if let Some(resource) = glib_error.kind::<gst::ResourceError>() {
        let unauthorized = error.debug.contains("Unauthorized") || error.debug.contains("(401)");
        return match resource {
            gst::ResourceError::NotAuthorized => SourceFault::Auth,
            _ if unauthorized => SourceFault::Auth,
            gst::ResourceError::NotFound => SourceFault::NotFound,
            _ => match spec {
                SourceSpec::Device(_) => SourceFault::Device,
                SourceSpec::Rtsp(_) | SourceSpec::Http(_) => SourceFault::Network,
                SourceSpec::File(_) | SourceSpec::Test(_) | SourceSpec::Webcam => SourceFault::Other,
            },
        };
    }
    if glib_error.matches(gst::CoreError::MissingPlugin) || missing_plugin {
        return SourceFault::MissingCodec;
    }
    match glib_error.kind::<gst::StreamError>() {
        // rtspsrc says so when no stream could be set up: no video, or none over the transport that was asked for.
        Some(gst::StreamError::CodecNotFound) if error.element == "rtspsrc" => SourceFault::Transport,
        Some(gst::StreamError::CodecNotFound) => SourceFault::MissingCodec,
        // A source that can't connect at all ends its stream with this one.
        Some(gst::StreamError::Failed) if error.element == "souphttpsrc" => SourceFault::Network,
        Some(_) => SourceFault::BadStream,
        None => SourceFault::Other,
    }
}

/// The source, as the subject of a sentence.
pub(super) fn subject(spec: &SourceSpec) -> String {
    match spec {
        SourceSpec::Rtsp(_) => format!("the camera at {spec}"),
        SourceSpec::Http(_) => format!("the server at {spec}"),
        SourceSpec::File(_) => format!("the file {spec}"),
        SourceSpec::Device(_) => format!("the device {spec}"),
        SourceSpec::Test(_) => format!("the test picture {spec}"),
        SourceSpec::Webcam => "the camera in the LiveKit room".to_owned(),
    }
}

fn words(spec: &SourceSpec, fault: SourceFault, missing: Option<&str>) -> String {
    let who = subject(spec);
    match fault {
        SourceFault::Network => format!("{who} can't be reached or dropped the connection; check address and network"),
        SourceFault::Auth => format!("{who} refused the user name or password; check them"),
        SourceFault::NotFound => match spec.net() {
            Some(_) => format!("{who} answers, but has no stream at that path; check the path"),
            None => format!("{who} does not exist"),
        },
        SourceFault::Transport => format!("{who} offers no video over a transport that can be used here"),
        SourceFault::MissingCodec => match missing {
            Some(what) => format!("no decoder for {who}: {what} is missing; {}", install_hint("avdec_h264")),
            None => format!("no decoder for {who}; {}", install_hint("avdec_h264")),
        },
        SourceFault::BadStream => format!("{who} sends no video that can be read"),
        SourceFault::Device => format!("{who} can't be opened; it may be in use, or be no camera"),
        SourceFault::Stalled | SourceFault::ConnectTimeout | SourceFault::Ended => format!("{who} sent no picture"),
        SourceFault::Forbidden => format!("{who} is not allowed"),
        SourceFault::Other => format!("{who} failed; the log has the details"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::policy::Policy;

    fn spec(text: &str) -> SourceSpec {
        SourceSpec::parse(text, &Policy::default()).unwrap()
    }

    fn gst_error(kind: impl gst::glib::error::ErrorDomain, text: &str, element: &str) -> GstError {
        let error = gst::glib::Error::new(kind, text);
        GstError { error, debug: String::new(), element: element.to_owned(), http_status: None }
    }

    #[test]
    fn gstreamers_codes_become_our_faults() {
        use gst::{CoreError, ResourceError, StreamError};
        let (rtsp, http, device) = (spec("rtsp://h/s"), spec("http://h/s"), spec("0"));
        let of = |spec, error| Failure::from_gst(spec, &error, None).fault;
        assert_eq!(of(&rtsp, gst_error(ResourceError::OpenReadWrite, "x", "rtspsrc")), SourceFault::Network);
        assert_eq!(of(&rtsp, gst_error(ResourceError::NotAuthorized, "x", "rtspsrc")), SourceFault::Auth);
        assert_eq!(of(&rtsp, gst_error(ResourceError::NotFound, "x", "rtspsrc")), SourceFault::NotFound);
        assert_eq!(of(&rtsp, gst_error(StreamError::CodecNotFound, "x", "rtspsrc")), SourceFault::Transport);
        assert_eq!(of(&rtsp, gst_error(CoreError::MissingPlugin, "x", "decodebin")), SourceFault::MissingCodec);
        assert_eq!(of(&http, gst_error(StreamError::WrongType, "x", "decodebin")), SourceFault::BadStream);
        assert_eq!(of(&http, gst_error(StreamError::Failed, "x", "souphttpsrc")), SourceFault::Network);
        assert_eq!(of(&device, gst_error(ResourceError::OpenRead, "x", "v4l2src")), SourceFault::Device);
        let refused = GstError { http_status: Some(401), ..gst_error(ResourceError::NotFound, "x", "souphttpsrc") };
        assert_eq!(of(&http, refused), SourceFault::Auth);
    }

    #[test]
    fn an_address_without_an_opener_was_forbidden() {
        let error =
            gst_error(gst::CoreError::MissingPlugin, "Missing plugin to handle URI: 'file:///etc/passwd'", "hlsdemux");
        let failure = Failure::from_gst(&spec("http://h/v.m3u8"), &error, None);
        assert_eq!(failure.fault, SourceFault::Forbidden);
        assert!(failure.message.contains("file:"), "{}", failure.message);
    }

    #[test]
    fn no_text_shows_a_password() {
        let source = spec("rtsp://admin:geheim77@cam.lan/s");
        let error = gst_error(gst::ResourceError::NotAuthorized, "at rtsp://admin:geheim77@cam.lan/s", "rtspsrc");
        let failure = Failure::from_gst(&source, &error, None);
        assert!(!format!("{failure:?}").contains("geheim"), "{failure:?}");
        assert!(failure.message.contains("rtsp://cam.lan/s refused the user name or password"), "{}", failure.message);
    }
}
