//! The one call of GObject that has no safe binding: being told of every connection before GIO makes it.
//! Not here: what is allowed (`gate`, `policy`).

use gio::glib;
use gio::prelude::*;
use glib::translate::IntoGlib;
use std::ffi::{c_uint, c_void};
use std::ptr::null_mut;

/// Has [`super::gate::connecting`] called for every connection that a `GSocketClient` of this process is about to make:
/// `rtspsrc`'s and libsoup's are, including those that elements make out of anybody's sight. Call it once a process.
/// False when GIO is not as we know it.
pub(super) fn watch_connections() -> bool {
    // Making one initialises its class, and with it the signal.
    let _initialised = gio::SocketClient::new();
    let Some(signal) = glib::subclass::SignalId::lookup("event", gio::SocketClient::static_type()) else {
        return false;
    };
    // SAFETY: gsignal.h, g_signal_add_emission_hook: the hook is a plain function that never unwinds, lives as long as the
    // program, and needs no data.
    let hook = unsafe {
        glib::gobject_ffi::g_signal_add_emission_hook(signal.into_glib(), 0, Some(on_event), null_mut(), None)
    };
    hook != 0
}

/// A `GSignalEmissionHook` on `GSocketClient::event (client, event, connectable, connection)`.
unsafe extern "C" fn on_event(
    _: *mut glib::gobject_ffi::GSignalInvocationHint,
    count: c_uint,
    values: *const glib::gobject_ffi::GValue,
    _: *mut c_void,
) -> glib::ffi::gboolean {
    let stays = true.into_glib();
    if values.is_null() {
        return stays;
    }
    // SAFETY: gsignal.h, GSignalEmissionHook: "the instance on which the signal was emitted, followed by the parameters of
    // the emission", `count` of them, for the time of this call. `glib::Value` is transparent over `GValue`.
    let values = unsafe { std::slice::from_raw_parts(values.cast::<glib::Value>(), count as usize) };
    let event = values.get(1).and_then(|v| v.get::<gio::SocketClientEvent>().ok());
    let connection = values.get(3).and_then(|v| v.get::<Option<gio::SocketConnection>>().ok()).flatten();
    if let (Some(gio::SocketClientEvent::Connecting), Some(connection)) = (event, connection) {
        // What is called must not unwind into C.
        let _told = std::panic::catch_unwind(|| super::gate::connecting(&connection));
    }
    stays
}
