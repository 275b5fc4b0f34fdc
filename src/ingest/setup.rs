//! GStreamer's start: its log goes to `tracing` without secrets, and what opens addresses is locked down.
//! Not here: pipelines. This is done once a process and has no way back.

use super::{elements, ffi, redact};
use crate::error::{Error, Result};
use gst::prelude::*;
use gstreamer as gst;
use std::sync::OnceLock;
use tracing::Level;

/// Elements that open addresses for others by their scheme. Every other one is taken out of GStreamer's registry, so
/// that no playlist, key or redirect inside a stream can reach a file or a device: there is nothing left to open it.
/// `udpsrc` stays because `rtspsrc` receives UDP through it.
const OPENERS: [&str; 4] = ["souphttpsrc", "rtspsrc", "udpsrc", "appsrc"];
/// Taken out as well, but kept aside for sources that the operator named.
const ASIDE: [&str; 2] = ["filesrc", "v4l2src"];

static KEPT: OnceLock<Vec<gst::ElementFactory>> = OnceLock::new();

/// Starts GStreamer. Doing it twice does no harm.
///
/// # Errors
/// When GStreamer can't start; the message is its own.
pub fn init() -> Result<()> {
    static DONE: OnceLock<Result<()>> = OnceLock::new();
    DONE.get_or_init(start).clone()
}

fn start() -> Result<()> {
    gst::init().map_err(|e| Error::internal("gstreamer_failed", format!("GStreamer can't start: {e}")))?;
    route_log();
    if !ffi::watch_connections() {
        return Err(Error::internal("gio_unknown", "GIO's connections can't be watched; its version is not known"));
    }
    let kept = lock_down(&gst::Registry::get());
    let _only_this_call_sets_it = KEPT.set(kept);
    Ok(())
}

/// A factory that was kept aside from the registry.
pub(super) fn kept(name: &str) -> Option<gst::ElementFactory> {
    KEPT.get()?.iter().find(|factory| factory.name() == name).cloned()
}

fn lock_down(registry: &gst::Registry) -> Vec<gst::ElementFactory> {
    let mut plugins: Vec<_> = factories(registry, None).filter(is_forbidden).filter_map(|f| f.plugin_name()).collect();
    plugins.sort();
    plugins.dedup();
    let mut aside = Vec::new();
    for name in plugins {
        let needed = factories(registry, Some(&name)).any(|factory| elements::is_needed(&factory.name()));
        if !needed {
            if let Some(plugin) = registry.find_plugin(&name) {
                registry.remove_plugin(&plugin);
            }
            continue;
        }
        // A plugin puts its elements back when it is loaded, so that is done first. It is also what lets a factory be
        // used after its removal.
        if let Err(error) = gst::Plugin::load_by_name(&name) {
            tracing::debug!(%error, plugin = %name, "can't be loaded");
        }
        for factory in factories(registry, Some(&name)).filter(is_forbidden) {
            registry.remove_feature(&factory);
            if ASIDE.contains(&factory.name().as_str()) {
                aside.push(factory);
            }
        }
    }
    aside
}

fn factories(registry: &gst::Registry, plugin: Option<&str>) -> impl Iterator<Item = gst::ElementFactory> + use<> {
    let features = match plugin {
        Some(plugin) => registry.features_by_plugin(plugin),
        None => registry.features(gst::ElementFactory::static_type()),
    };
    features.into_iter().filter_map(|feature| feature.downcast().ok())
}

fn is_forbidden(factory: &gst::ElementFactory) -> bool {
    factory.uri_type() == gst::URIType::Src && !OPENERS.contains(&factory.name().as_str())
}

/// GStreamer writes to stderr by itself otherwise, with URLs and their passwords.
fn route_log() {
    // GLib's own warnings, libsoup's among them, go to stderr as well.
    gst::glib::log_set_default_handler(|domain, _, text| {
        let (domain, text) = (domain.unwrap_or_default(), redact::scrub(text));
        tracing::debug!(target: "gstreamer", domain, "{text}");
    });
    gst::log::remove_default_log_function();
    if gst::log::get_default_threshold() < gst::DebugLevel::Warning {
        gst::log::set_default_threshold(gst::DebugLevel::Warning);
    }
    let _for_the_life_of_the_process = gst::log::add_log_function(|category, level, _, _, _, object, message| {
        // What matters to an operator arrives as an error message and is logged by the supervisor in plain words.
        let detail = level <= gst::DebugLevel::Warning;
        let enabled = match detail {
            true => tracing::enabled!(target: "gstreamer", Level::DEBUG),
            false => tracing::enabled!(target: "gstreamer", Level::TRACE),
        };
        if !enabled {
            return;
        }
        let Some(text) = message.get() else { return };
        let object = object.map(ToString::to_string).unwrap_or_default();
        let (category, level) = (category.name(), level.name());
        let text = redact::scrub(&text);
        let object = redact::scrub(&object);
        if detail {
            tracing::debug!(target: "gstreamer", category, level = %level, object, "{text}");
        } else {
            tracing::trace!(target: "gstreamer", category, level = %level, object, "{text}");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_opens_files_by_address() {
        init().unwrap();
        for uri in ["file:///etc/passwd", "data:,x", "fd://0", "v4l2:///dev/video0", "cdda://1", "rtmp://h/x"] {
            let made = gst::Element::make_from_uri(gst::URIType::Src, uri, None);
            assert!(made.is_err(), "{uri}: {made:?}");
        }
        assert!(gst::Element::make_from_uri(gst::URIType::Src, "https://h/x", None).is_ok());
        assert!(kept("filesrc").unwrap().create().build().is_ok());
    }
}
