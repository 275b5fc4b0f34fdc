//! Video sources through GStreamer.
