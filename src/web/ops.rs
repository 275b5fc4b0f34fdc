//! What operators and their tools ask: liveness, readiness, metrics, the API's description.
//! Not here: what is counted (`metrics`).

use super::answer::{Answer, Response, json, typed};
use super::server::Face;
use crate::engine::EngineState;
use crate::error::Error;
use crate::process::Usage;
use bytes::Bytes;
use serde_json::json as object;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use warp::http::StatusCode;

const OPENAPI: &str = include_str!("openapi.json");

/// 200 as long as a restart would not help: a model that never loaded needs a person, an engine's process that ended
/// is started again anyway, and the video goes on meanwhile; but an engine inside that ran and then failed needs a new
/// process.
pub(super) async fn live(face: Arc<Face>) -> Answer {
    let state = face.engine.borrow().state;
    if state == EngineState::Failed && face.been_ready.load(Ordering::Relaxed) {
        return Err(Error::unavailable("engine_failed", "the engine ended after it had been ready")
            .hint("restart the program; its log says why")
            .into());
    }
    Ok(json(StatusCode::OK, &object!({"live": true})))
}

/// 200 while the engine can take a look. Sources come and go without touching it.
pub(super) async fn ready(face: Arc<Face>) -> Answer {
    let status = face.engine.borrow().clone();
    let (code, message) = match status.state {
        EngineState::Ready => return Ok(json(StatusCode::OK, &object!({"ready": true}))),
        EngineState::Loading => ("engine_loading", "the model is being loaded".to_owned()),
        EngineState::Restarting => {
            ("engine_restarting", status.message.unwrap_or_else(|| "the engine is being started again".to_owned()))
        }
        EngineState::Absent => ("engine_absent", status.message.unwrap_or_else(|| "there is no model".to_owned())),
        EngineState::Failed => ("engine_failed", status.message.unwrap_or_else(|| "the engine failed".to_owned())),
    };
    Err(Error::unavailable(code, message).hint("GET /api/status says more").into())
}

pub(super) async fn metrics(face: Arc<Face>) -> Answer {
    let engine = face.engine.borrow().clone();
    let usage = Usage::now(engine.process);
    face.metrics.note_process(usage.memory_bytes, usage.cpu_s);
    let gpu = engine.device.as_deref().zip(engine.gpu_memory);
    face.metrics.note_gpu(gpu.map(|(device, memory)| (device, memory.used_bytes, memory.total_bytes)));
    let text = face.metrics.encode();
    Ok(typed(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text.into()))
}

pub(super) fn openapi() -> Response {
    typed(StatusCode::OK, "application/json", Bytes::from_static(OPENAPI.as_bytes()))
}
