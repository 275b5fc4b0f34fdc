//! `GET /api/audio-stream` and `GET /api/source-audio`: the voice, and the source's own sound, as raw PCM or as a WAV
//! without end, frame by frame as the stream's clock makes it. Not here: the clock and the silence between utterances
//! (`speech`, `ingest`), what slow listeners lose (`audio`), the deadline of a client that does not read (`deadline`).

use super::answer::{Answer, Refusal, Response};
use super::api::find;
use super::server::Face;
use crate::audio::{AudioHub, AudioListener, Heard, SAMPLE_RATE, Wants};
use crate::error::Error;
use crate::shutdown::Shutdown;
use crate::source::SourceState;
use bytes::Bytes;
use std::convert::Infallible;
use std::sync::Arc;
use warp::Reply;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};

/// How the client wants it.
#[derive(Debug, PartialEq, Eq)]
struct Form {
    wav: bool,
    silence: bool,
}

/// The sound. `?silence=false` sends nothing between utterances, `?format=wav` a header first.
pub(super) async fn stream(name: Option<String>, face: Arc<Face>, query: String) -> Answer {
    let form = form(&query)?;
    let stream = find(&face, name.as_deref())?;
    let Some(speaker) = stream.speaker() else {
        let off = Error::unavailable("voice_off", "the voice is off");
        return Err(off.hint("start the program with ENABLE_TTS=true to hear the commentary").into());
    };
    let hub = Arc::clone(speaker.hub());
    drop(stream);
    Ok(answer(&hub, &form, &face))
}

/// The source's own sound, in the same forms; silence is the time in which none came.
pub(super) async fn source(name: Option<String>, face: Arc<Face>, query: String) -> Answer {
    let form = form(&query)?;
    let stream = find(&face, name.as_deref())?;
    let (status, hub) = (stream.source(), stream.source_sound().cloned());
    drop(stream);
    match hub.filter(|_| status.audio) {
        Some(hub) => Ok(answer(&hub, &form, &face)),
        None => Err(silent(status.state).into()),
    }
}

fn silent(state: SourceState) -> Error {
    let playing = matches!(state, SourceState::Streaming | SourceState::Stalled);
    let message = if playing { "the source has no sound" } else { "no source with sound is playing" };
    let hint = "see source.audio of GET /api/status; with NO_SOURCE_AUDIO=true no sound of sources is offered";
    Error::not_found("source_silent", message).hint(hint)
}

fn answer(hub: &Arc<AudioHub>, form: &Form, face: &Face) -> Response {
    let listener = hub.listen(if form.silence { Wants::Everything } else { Wants::Speech });
    let id = listener.id();
    let feed = Feed { header: form.wav.then(wav_header), listener, shutdown: face.shutdown.clone() };
    let body = futures_util::stream::unfold(feed, |mut feed| async move {
        let piece = feed.next().await?;
        Some((Ok::<_, Infallible>(piece), feed))
    });
    let mut response = warp::reply::stream(body).into_response();
    let media_type = if form.wav { "audio/wav" } else { "application/octet-stream" };
    for (name, value) in [
        (CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (HeaderName::from_static("x-audio-rate"), HeaderValue::from(SAMPLE_RATE)),
        (HeaderName::from_static("x-audio-channels"), HeaderValue::from(1)),
        (HeaderName::from_static("x-audio-format"), HeaderValue::from_static("s16le")),
        (HeaderName::from_static("x-audio-listener"), HeaderValue::from(id)),
        // nginx would collect the sound otherwise.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ] {
        response.headers_mut().insert(name, value);
    }
    response
}

fn form(query: &str) -> Result<Form, Refusal> {
    let mut form = Form { wav: false, silence: true };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair {
            "format=wav" => form.wav = true,
            "format=raw" => form.wav = false,
            "silence=true" => form.silence = true,
            "silence=false" => form.silence = false,
            // Anything else is none of ours: browsers add words against caches.
            _ if !pair.starts_with("format=") && !pair.starts_with("silence=") => {}
            _ => {
                return Err(Refusal::new(
                    StatusCode::BAD_REQUEST,
                    "audio_form",
                    "the sound does not come in that form",
                    "format is raw or wav, silence is true or false",
                ));
            }
        }
    }
    Ok(form)
}

/// One client's place in the sound.
struct Feed {
    header: Option<Bytes>,
    listener: AudioListener,
    shutdown: Shutdown,
}

impl Feed {
    /// The next piece of the body; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(header) = self.header.take() {
            return Some(header);
        }
        loop {
            let heard = tokio::select! {
                biased;
                () = self.shutdown.wait() => return None,
                heard = self.listener.next() => heard?,
            };
            match heard {
                Heard::Frame(frame) => return Some(frame.pcm.clone()),
                // Raw sound has no words for it: the client finds its number in the status.
                Heard::Lagged(samples) => {
                    tracing::debug!(listener = self.listener.id(), samples, "a listener was too slow");
                }
            }
        }
    }
}

/// The header of a WAV file whose length is not known: as long as the format can say.
fn wav_header() -> Bytes {
    let mut header = Vec::with_capacity(44);
    header.extend_from_slice(b"RIFF\xff\xff\xff\xffWAVEfmt ");
    header.extend_from_slice(&16u32.to_le_bytes());
    // PCM, one channel.
    header.extend_from_slice(&[1, 0, 1, 0]);
    header.extend_from_slice(&SAMPLE_RATE.to_le_bytes());
    header.extend_from_slice(&(SAMPLE_RATE * 2).to_le_bytes());
    // Bytes of a sample, bits of a sample.
    header.extend_from_slice(&[2, 0, 16, 0]);
    header.extend_from_slice(b"data\xff\xff\xff\xff");
    header.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_says_how_it_comes() {
        let of = |wav, silence| Form { wav, silence };
        assert_eq!(form("").unwrap(), of(false, true));
        assert_eq!(form("format=wav&silence=false&at=17").unwrap(), of(true, false));
        assert_eq!(form("at=1&format=raw&silence=true&").unwrap(), of(false, true));
        for bad in ["format=mp3", "silence=no", "format=", "silence=false&format=WAV"] {
            assert!(form(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_header_is_that_of_a_wav() {
        let header = wav_header();
        assert_eq!(header.len(), 44);
        assert_eq!(&header[..4], b"RIFF");
        assert_eq!(&header[20..36], [1, 0, 1, 0, 0x80, 0xbb, 0, 0, 0, 0x77, 1, 0, 2, 0, 16, 0]);
    }
}
