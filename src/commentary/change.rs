//! The change gate: decides whether the scene has changed enough to look again. (being written)
#[derive(Debug, Default)]
pub struct ChangeGate;
