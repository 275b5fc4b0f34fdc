//! From options to a voice: which one speaks, and what the other lacks. Not here: the voices (`speech`).

use super::model::OwnVoice;
use crate::config::{VoiceChoice, VoiceConfig};
use crate::error::{Error, Result};
use crate::speech::{AbsentVoice, EspeakConfig, EspeakVoice, OWN_VOICE, PreferredVoice, Voice};
use std::sync::Arc;
use std::time::Duration;

/// Longest time for one clause of espeak-ng, which is made in some hundredths of a second.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Time for the voice's thread to come to its end; one that is loading can't be interrupted.
const GRACE: Duration = Duration::from_secs(3);

/// The voice's door, and how to end it.
pub struct OpenVoice {
    pub door: Arc<dyn Voice>,
}

impl OpenVoice {
    /// Waits for the voice's thread and its child, but not for ever.
    pub async fn stop(self) {
        let stopped = tokio::task::spawn_blocking(move || self.door.stop());
        if tokio::time::timeout(GRACE, stopped).await.is_err() {
            tracing::warn!("the voice is still at work; ending without it");
        }
    }
}

/// Opens the voice that was chosen; `own` is what the model has for its own, or what it lacks. A voice that can't be had
/// says so in its status; the text goes on.
///
/// # Errors
/// When no thread can be started.
pub async fn open(config: &VoiceConfig, own: std::result::Result<OwnVoice, String>) -> Result<OpenVoice> {
    let espeak = || Ok(Arc::new(EspeakVoice::spawn(espeak(config))?) as Arc<dyn Voice>);
    let door = match config.choice {
        VoiceChoice::Espeak => espeak()?,
        VoiceChoice::MiniCpmO => model_voice(config, own).await,
        VoiceChoice::Auto => {
            // A model without a voice of its own is nothing to speak of.
            if own.is_err() && config.ref_audio_path.is_none() {
                return Ok(OpenVoice { door: espeak()? });
            }
            let (first, config) = (model_voice(config, own).await, self::espeak(config));
            let second = move || Ok(Arc::new(EspeakVoice::spawn(config)?) as Arc<dyn Voice>);
            Arc::new(PreferredVoice::spawn(first, second))
        }
    };
    Ok(OpenVoice { door })
}

fn espeak(config: &VoiceConfig) -> EspeakConfig {
    EspeakConfig { search_path: config.search_path.clone(), voice: config.espeak_voice.clone(), time_limit: TIME_LIMIT }
}

/// The model's own voice, or one that says what is wrong with it.
async fn model_voice(config: &VoiceConfig, own: std::result::Result<OwnVoice, String>) -> Arc<dyn Voice> {
    let opened = match own {
        Ok(own) => open_own(own, config.ref_audio_path.clone()).await,
        Err(lack) => {
            Err(Error::unavailable("voice_files_missing", format!("MiniCPM-o's own voice can't speak: {lack}"))
                .hint("`vidette pull minicpm-o-4.5 --voice` gets what it needs; VOICE=espeak speaks without"))
        }
    };
    opened.unwrap_or_else(|why| {
        tracing::warn!("no voice: {why}");
        Arc::new(AbsentVoice::new(OWN_VOICE, why))
    })
}

#[cfg(feature = "llama")]
async fn open_own(own: OwnVoice, chosen: Option<std::path::PathBuf>) -> Result<Arc<dyn Voice>> {
    use crate::speech::minicpm::{MiniCpmConfig, MiniCpmVoice, Options, SpeechFiles, check_voice_file, inspect_for};
    let gone = || Error::internal("voice_files_missing", "the voice's files are not all there");
    let mut files = SpeechFiles::of(&own.files).ok_or_else(gone)?;
    // Reads the files' headers from disk.
    let inspected = tokio::task::spawn_blocking(move || {
        if let Some(chosen) = chosen {
            check_voice_file(&chosen)?;
            files.prompt_cache = chosen;
        }
        inspect_for(&files, own.width, own.tokens).map(|_| files)
    });
    let files = inspected.await.map_err(|e| Error::internal("voice_inspection", e.to_string()))??;
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if own.threads == 0 { cores() } else { own.threads as usize };
    let options = Options { gpu: own.gpu, threads, ..Options::default() };
    let config = MiniCpmConfig { files, options };
    Ok(match own.process {
        Some(process) => Arc::new(process.voice(config)),
        None => Arc::new(MiniCpmVoice::spawn(config)?),
    })
}

#[cfg(not(feature = "llama"))]
async fn open_own(_: OwnVoice, _: Option<std::path::PathBuf>) -> Result<Arc<dyn Voice>> {
    Err(Error::unavailable("voice_not_built", "this build does not have MiniCPM-o's own voice")
        .hint("VOICE=espeak speaks with espeak-ng"))
}
