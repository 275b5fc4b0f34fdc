//! Looks at every element that GStreamer adds by itself: refuses openers of addresses that are not allowed, sets what
//! the parts need, and notes which decoder came. The registry's lock-down (`setup`) and the gate before the network (`gate`)
//! stand behind it.

use super::{Notice, Plan, Wires, decoder};
use crate::error::{Error, Kind};
use crate::ingest::elements::{factory_name, set};
use crate::ingest::fault::Failure;
use crate::ingest::policy::Policy;
use gst::prelude::*;
use gstreamer as gst;
use std::net::{IpAddr, SocketAddr};
use url::Url;

/// Demultiplexers of streams that are fetched in pieces.
const PIECEWISE: [&str; 3] = ["hlsdemux", "dashdemux", "mssdemux"];

/// Tells whether a picture may be decoded.
pub(super) fn fits(width: u32, height: u32, max_pixels: u64) -> bool {
    u64::from(width) * u64::from(height) <= max_pixels
}

/// Watches `pipeline` for elements as they are added, at any depth.
pub(super) fn watch_elements(pipeline: &gst::Pipeline, plan: &Plan, wires: &Wires) {
    let (plan, wires) = (plan.clone(), wires.clone());
    let _for_its_life = pipeline.connect_deep_element_added(move |pipeline, parent, element| {
        let name = factory_name(element);
        if PIECEWISE.contains(&name.as_str()) {
            wires.pulse.set_hls();
        }
        if name == "multipartdemux" {
            // It waits for further streams otherwise, which never come.
            set(element, "single-stream", true);
        }
        if name.starts_with("avdec_") {
            set(element, "max-threads", i32::try_from(plan.config.decoder_threads).unwrap_or(0));
            set(element, "output-corrupt", false);
        }
        if let Some(hardware) = element.factory().and_then(|f| decoder::decodes_on_hardware(&f)) {
            wires.pulse.set_decoder(&name, hardware);
        }
        // The top-level source was checked before it was made.
        let inner = parent.upcast_ref::<gst::Object>() != pipeline.upcast_ref::<gst::Object>();
        if inner && let Err(target) = check_opener(element, &name, plan.policy()) {
            element.set_locked_state(true);
            wires.tell(Notice::Failed(Failure::forbidden(&plan.spec, &target)));
        } else if inner && let Some(target) = check_sender(element, &name, plan.policy()) {
            element.set_locked_state(true);
            wires.tell(Notice::Failed(Failure::forbidden(&plan.spec, &target)));
        } else if inner && name == "souphttpsrc" {
            set(element, "timeout", u32::try_from(plan.config.connect_timeout.as_secs()).unwrap_or(u32::MAX).max(1));
        }
    });
}

/// Checks the address of an element that opens one. The error is the address.
fn check_opener(element: &gst::Element, name: &str, policy: &Policy) -> Result<(), String> {
    let Some(opener) = element.dynamic_cast_ref::<gst::URIHandler>() else { return Ok(()) };
    if opener.uri_type() != gst::URIType::Src || (name == "udpsrc" && is_within(element, "rtspsrc")) {
        return Ok(());
    }
    let Some(uri) = opener.uri() else { return Ok(()) };
    if may_lead_to(&uri, policy) { Ok(()) } else { Err(uri.to_string()) }
}

/// Names are resolved, on whichever of GStreamer's threads this is; one that can't be is left to the one who opens it.
fn may_lead_to(uri: &str, policy: &Policy) -> bool {
    let denied = |error: Error| error.kind != Kind::Unavailable;
    Url::parse(uri).is_ok_and(|url| !policy.resolve(&url).is_err_and(denied))
}

/// Has `rtspsrc` send nothing to another server than its own. It follows redirects by itself, and would take the password
/// with it.
pub(super) fn watch_requests(source: &gst::Element, wires: &Wires, plan: &Plan) {
    let first = source.property::<Option<String>>("location");
    let (wires, plan) = (wires.clone(), plan.clone());
    let _for_its_life = source.connect("before-send", false, move |values| {
        let source = values.first().and_then(|v| v.get::<gst::Element>().ok());
        let location = source.and_then(|source| source.property::<Option<String>>("location"));
        let stays = location == first;
        if !stays {
            wires.tell(Notice::Failed(Failure::forbidden(&plan.spec, location.as_deref().unwrap_or_default())));
        }
        Some(stays.to_value())
    });
}

/// The address of an element that sends packets to where it is not allowed. An RTSP server may name any as its own.
fn check_sender(element: &gst::Element, name: &str, policy: &Policy) -> Option<String> {
    if !matches!(name, "udpsink" | "dynudpsink" | "multiudpsink") {
        return None;
    }
    let opener = element.dynamic_cast_ref::<gst::URIHandler>()?;
    let uri = opener.uri()?;
    let url = Url::parse(&uri).ok()?;
    let ip = url.host_str()?.trim_matches(['[', ']']).parse::<IpAddr>().ok()?;
    let allowed = ip.is_multicast() || policy.check_address(SocketAddr::new(ip, url.port().unwrap_or(0))).is_ok();
    (!allowed).then(|| uri.to_string())
}

fn is_within(element: &gst::Element, factory: &str) -> bool {
    let mut parent = element.parent();
    while let Some(object) = parent {
        if object.downcast_ref::<gst::Element>().is_some_and(|e| factory_name(e) == factory) {
            return true;
        }
        parent = object.parent();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::elements::make;

    #[test]
    fn addresses_of_inner_sources_are_checked() {
        crate::ingest::init().unwrap();
        let policy = Policy::default();
        let http = make("souphttpsrc").unwrap();
        http.set_property("location", "http://127.0.0.1:1/x");
        assert_eq!(check_opener(&http, "souphttpsrc", &policy), Ok(()));
        http.set_property("location", "http://169.254.169.254/latest");
        assert!(check_opener(&http, "souphttpsrc", &policy).is_err());
        let udp = make("udpsrc").unwrap();
        assert!(check_opener(&udp, "udpsrc", &policy).is_err());
        let queue = make("queue").unwrap();
        assert_eq!(check_opener(&queue, "queue", &policy), Ok(()));
    }

    #[test]
    fn the_largest_picture_is_counted_in_pixels() {
        assert!(fits(8192, 8192, 8192 * 8192));
        assert!(!fits(8193, 8192, 8192 * 8192));
        assert!(!fits(u32::MAX, u32::MAX, 8192 * 8192));
    }
}
