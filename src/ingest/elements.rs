//! GStreamer elements by name: making them, setting them, and which Debian package brings one that is missing.
//! Not here: how elements are joined (`pipeline`), the registry's lock-down (`setup`).

use super::setup;
use crate::error::{Error, Result};
use gst::prelude::*;
use gstreamer as gst;

const BASE: &str = "gstreamer1.0-plugins-base";
const GOOD: &str = "gstreamer1.0-plugins-good";
const BAD: &str = "gstreamer1.0-plugins-bad";
const LIBAV: &str = "gstreamer1.0-libav";
const CORE: &str = "libgstreamer1.0-0";

/// Every element that this module may ask for, and the Debian package that brings it.
const PACKAGES: [(&str, &str); 29] = [
    ("appsink", BASE),
    ("appsrc", BASE),
    ("audioconvert", BASE),
    ("audioresample", BASE),
    ("avdec_h264", LIBAV),
    ("avdec_h265", LIBAV),
    ("capsfilter", CORE),
    ("decodebin", BASE),
    ("fakesink", CORE),
    ("filesrc", CORE),
    ("h264parse", BAD),
    ("h265parse", BAD),
    ("hlsdemux", BAD),
    ("jpegdec", GOOD),
    ("jpegenc", GOOD),
    ("multipartdemux", GOOD),
    ("qtdemux", GOOD),
    ("queue", CORE),
    ("rtph264depay", GOOD),
    ("rtspsrc", GOOD),
    ("souphttpsrc", GOOD),
    ("tee", CORE),
    ("v4l2src", GOOD),
    ("videoconvert", BASE),
    ("videoflip", GOOD),
    ("videoscale", BASE),
    ("videotestsrc", BASE),
    ("vp8dec", GOOD),
    ("vp9dec", GOOD),
];

/// An element that is not installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// GStreamer's name for it.
    pub element: &'static str,
    /// The Debian package that brings it.
    pub package: &'static str,
}

/// What is missing on this machine of all that sources may need. Call [`super::init`] first.
pub fn missing_elements() -> Vec<Missing> {
    PACKAGES
        .iter()
        .filter(|(element, _)| find(element).is_none())
        .map(|(element, package)| Missing { element, package })
        .collect()
}

fn find(name: &str) -> Option<gst::ElementFactory> {
    setup::kept(name).or_else(|| gst::ElementFactory::find(name))
}

/// Tells whether sources may need the element `name`.
pub(super) fn is_needed(name: &str) -> bool {
    PACKAGES.iter().any(|(element, _)| *element == name)
}

/// The hint that names the package of `element`.
pub(super) fn install_hint(element: &str) -> String {
    let package = PACKAGES.iter().find(|(name, _)| *name == element).map_or(BAD, |(_, package)| package);
    format!("install {package} (apt-get install {package})")
}

/// A new element of the factory `name`.
pub(super) fn make(name: &str) -> Result<gst::Element> {
    let factory = find(name).ok_or_else(|| {
        Error::unavailable("gstreamer_element_missing", format!("GStreamer has no element {name}"))
            .hint(install_hint(name))
    })?;
    factory.create().build().map_err(|e| failed(&format!("the element {name} can't be made: {e}")))
}

/// Sets a property if the element has it; other versions of a plugin may not.
pub(super) fn set(element: &gst::Element, property: &str, value: impl Into<gst::glib::Value>) {
    let value = value.into();
    // Setting a property of another type would panic inside glib.
    if element.has_property_with_type(property, value.type_()) {
        element.set_property_from_value(property, &value);
    } else {
        tracing::debug!(element = %element.name(), property, "no such property, left as it is");
    }
}

/// Sets an enumeration or set of flags by GStreamer's own name for the value.
pub(super) fn set_named(element: &gst::Element, property: &str, value: &str) {
    let known = element.find_property(property).is_some_and(|spec| {
        let kind = spec.value_type();
        let of_enum = gst::glib::EnumClass::with_type(kind).is_some_and(|e| e.value_by_nick(value).is_some());
        let flags = || gst::glib::FlagsClass::with_type(kind);
        of_enum || flags().is_some_and(|f| value.split('+').all(|nick| f.value_by_nick(nick).is_some()))
    });
    if known {
        element.set_property_from_str(property, value);
    } else {
        tracing::debug!(element = %element.name(), property, value, "no such property or value, left as it is");
    }
}

/// Adds `elements` to `pipeline` and joins them in their order.
pub(super) fn chain(pipeline: &gst::Pipeline, elements: &[gst::Element]) -> Result<()> {
    pipeline.add_many(elements).map_err(|e| failed(&e.to_string()))?;
    gst::Element::link_many(elements).map_err(|e| failed(&e.to_string()))
}

/// An always-there pad of an element.
pub(super) fn pad(element: &gst::Element, name: &str) -> Result<gst::Pad> {
    element.static_pad(name).ok_or_else(|| failed(&format!("{} has no pad {name}", element.name())))
}

/// A defect in how the pipeline is put together.
pub(super) fn failed(message: &str) -> Error {
    Error::internal("gstreamer_failed", format!("the video pipeline can't be built: {message}"))
}

/// The factory's name of an element.
pub(super) fn factory_name(element: &gst::Element) -> String {
    element.factory().map(|factory| factory.name().to_string()).unwrap_or_default()
}

/// The factory's class of an element, such as `Codec/Decoder/Video/Hardware`.
pub(super) fn class(factory: &gst::ElementFactory) -> &str {
    factory.metadata("klass").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_element_names_its_package() {
        setup::init().unwrap();
        assert_eq!(missing_elements(), []);
        assert!(install_hint("avdec_h264").contains("gstreamer1.0-libav"));
        let error = make("no-such-element").unwrap_err();
        assert_eq!(error.code, "gstreamer_element_missing");
    }

    #[test]
    fn the_list_of_patterns_is_the_elements_own() {
        setup::init().unwrap();
        let source = make("videotestsrc").unwrap();
        let kind = source.find_property("pattern").unwrap().value_type();
        let class = gst::glib::EnumClass::with_type(kind).unwrap();
        let nicks: Vec<_> = class.values().iter().map(|v| v.nick().to_owned()).collect();
        assert_eq!(nicks, super::super::PATTERNS);
    }

    #[test]
    fn properties_of_another_version_do_no_harm() {
        setup::init().unwrap();
        let queue = make("queue").unwrap();
        set(&queue, "no-such-property", 1u32);
        set(&queue, "max-size-buffers", "text");
        set_named(&queue, "leaky", "sideways");
        set_named(&queue, "leaky", "downstream");
        set(&queue, "max-size-buffers", 2u32);
        assert_eq!(queue.property::<u32>("max-size-buffers"), 2);
    }
}
