//! From options to a voice: which one speaks, and what it lacks. Not here: the voices (`speech`).

use crate::config::{VoiceChoice, VoiceConfig};
use crate::error::{Error, Result};
use crate::speech::{AbsentVoice, EspeakConfig, EspeakVoice, Voice};
use std::sync::Arc;
use std::time::Duration;

/// Longest time for one clause, which is made in some hundredths of a second.
const TIME_LIMIT: Duration = Duration::from_secs(10);
const MODEL_VOICE: &str = "minicpm-o";

/// The voice's door, and how to end it.
pub struct OpenVoice {
    pub door: Arc<dyn Voice>,
    espeak: Option<Arc<EspeakVoice>>,
}

impl OpenVoice {
    /// Waits for the voice's thread and its child.
    pub async fn stop(self) {
        if let Some(espeak) = self.espeak {
            let stopped = tokio::task::spawn_blocking(move || espeak.stop());
            if stopped.await.is_err() {
                tracing::warn!("the voice could not be ended in order");
            }
        }
    }
}

/// Opens the voice that was chosen. `mute` is what the model lacks for its own. A voice that can't be had says so in
/// its status; the text goes on.
///
/// # Errors
/// When no thread can be started.
pub fn open(config: &VoiceConfig, mute: Option<&str>) -> Result<OpenVoice> {
    match config.choice {
        VoiceChoice::MiniCpmO => {
            let why = match mute {
                Some(lack) => {
                    Error::unavailable("voice_files_missing", format!("MiniCPM-o's own voice can't speak: {lack}"))
                        .hint("`vidette pull minicpm-o-4.5 --voice` gets what it needs; VOICE=espeak speaks without")
                }
                None => Error::unavailable("voice_not_built", "this build does not have MiniCPM-o's own voice")
                    .hint("VOICE=espeak speaks with espeak-ng"),
            };
            tracing::warn!("no voice: {why}");
            Ok(OpenVoice { door: Arc::new(AbsentVoice::new(MODEL_VOICE, why)), espeak: None })
        }
        VoiceChoice::Auto | VoiceChoice::Espeak => {
            let espeak = Arc::new(EspeakVoice::spawn(EspeakConfig {
                search_path: config.search_path.clone(),
                voice: config.espeak_voice.clone(),
                time_limit: TIME_LIMIT,
            })?);
            Ok(OpenVoice { door: Arc::clone(&espeak) as Arc<dyn Voice>, espeak: Some(espeak) })
        }
    }
}
