//! The loop of one stream. (being written)
use super::stream::{Settings, Stream};
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use std::sync::Arc;
pub(super) fn spawn(_: Arc<Stream>, _: Arc<dyn Engine>, _: Settings, _: Arc<Metrics>, _: Shutdown) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async {})
}
