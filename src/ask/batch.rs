//! Questions as JSON lines in, answers as JSON lines out, one for one and in order.
//! Not here: what an answer takes (the parent module), where the lines come from and go to (`cli`).

use super::{Asker, Question};
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{BufRead, Read, Write};
use std::path::{Path, PathBuf};

/// Longest line, bytes.
const MAX_LINE: u64 = 1 << 20;

/// What a line may hold besides its `id`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    frames: Vec<PathBuf>,
    stream: Option<String>,
    seqs: Option<Vec<u64>>,
    instruction: Option<String>,
    profile: Option<String>,
    #[serde(default)]
    context: Vec<String>,
    max_tokens: Option<u32>,
}

/// Answers every line of `input` with a line on `output`. Relative paths are taken from `folder`. A line that can't
/// be answered is answered with its error, and the next one follows.
///
/// # Errors
/// When the input can't be read, the output can't be written, or the engine has ended.
pub fn run(asker: &mut Asker, input: &mut dyn BufRead, folder: &Path, output: &mut dyn Write) -> Result<()> {
    let mut line = Vec::new();
    while let Some(whole) = next_line(input, &mut line)? {
        if whole && line.trim_ascii().is_empty() {
            continue;
        }
        let (id, answered) = if whole {
            answer(asker, &line, folder)
        } else {
            let error = Error::invalid("line_too_long", format!("the line has more than {} KiB", MAX_LINE >> 10));
            (Value::Null, Err(error.hint("name files instead of sending data")))
        };
        let failed = answered.is_err();
        tell(output, &id, answered)?;
        if failed && !asker.is_alive() {
            return Err(Error::unavailable("engine_ended", "the engine has ended; what was left is not answered"));
        }
    }
    Ok(())
}

/// Reads a line without its end into `line`: `Some(false)` when it was too long and was passed over, `None` at the
/// end of the input.
fn next_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> Result<Option<bool>> {
    let unreadable =
        |e: std::io::Error| Error::unavailable("batch_unreadable", format!("the batch can't be read: {e}"));
    line.clear();
    if input.take(MAX_LINE + 1).read_until(b'\n', line).map_err(unreadable)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Some(true));
    }
    if line.len() as u64 <= MAX_LINE {
        // The last line has no end.
        return Ok(Some(true));
    }
    input.skip_until(b'\n').map_err(unreadable)?;
    Ok(Some(false))
}

/// The line's `id`, as far as it can be made out, and the answer.
fn answer(asker: &mut Asker, line: &[u8], folder: &Path) -> (Value, Result<Value>) {
    let bad = |what: String| {
        Error::invalid("line_invalid", format!("the line is no question: {what}"))
            .hint("send {\"id\": 1, \"frames\": [\"a.png\"], \"instruction\": \"…\"}")
    };
    let mut object = match serde_json::from_slice::<Value>(line) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return (Value::Null, Err(bad("it is no JSON object".to_owned()))),
        Err(e) => return (Value::Null, Err(bad(e.to_string()))),
    };
    let id = object.remove("id").unwrap_or(Value::Null);
    let answered = serde_json::from_value::<Line>(Value::Object(object)).map_err(|e| bad(e.to_string()));
    let answered = answered.and_then(|line| {
        let question = Question {
            stream: line.stream,
            frames: line.frames.iter().map(|path| folder.join(path)).collect(),
            seqs: line.seqs,
            instruction: line.instruction,
            profile: line.profile,
            last_answers: line.context,
            max_tokens: line.max_tokens,
        };
        let reply = asker.ask(&question, &mut |_| Ok(()))?;
        serde_json::to_value(reply).map_err(|e| Error::internal("answer_json", e.to_string()))
    });
    (id, answered)
}

fn tell(output: &mut dyn Write, id: &Value, answered: Result<Value>) -> Result<()> {
    let mut line = match answered {
        Ok(reply) => reply,
        Err(e) => json!({"error": {"code": e.code, "message": e.message, "hint": e.hint}}),
    };
    line["id"] = id.clone();
    writeln!(output, "{line}").and_then(|()| output.flush()).map_err(super::unwritable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::Defaults;
    use crate::commentary::PROFILES;
    use crate::engine::{AbsentEngine, Engine, EngineStatus, Job, JobEvent, JobFinish, JobHandle, Sampling};
    use std::sync::Arc;
    use std::time::Instant;
    use tokio::sync::watch;

    fn defaults() -> Defaults {
        Defaults { profile: &PROFILES[0], instruction: None, max_tokens: 8, sampling: Sampling::default() }
    }

    /// Answers with what it was asked.
    struct Echo(watch::Sender<EngineStatus>);

    impl Engine for Echo {
        fn submit(&self, job: Job) -> JobHandle {
            let (handle, events, _) = JobHandle::pair();
            let at = Instant::now();
            let seqs: Vec<_> = job.frames.iter().map(|f| f.seq).collect();
            let text = format!("{}|{}|{:?}|{}", job.prompt.instruction, job.prompt.context, seqs, job.max_tokens);
            let done = JobEvent::Done { at, tokens: 3, finish: JobFinish::Stop };
            for event in [
                JobEvent::Started { at },
                JobEvent::Encoded { at, encoded: 1 },
                JobEvent::Text { at, text, tokens: vec![], hidden: vec![] },
                done,
            ] {
                events.try_send(event).unwrap();
            }
            handle
        }

        fn status(&self) -> watch::Receiver<EngineStatus> {
            self.0.subscribe()
        }
    }

    fn lines(engine: Arc<dyn Engine>, folder: &Path, input: &str) -> (Vec<Value>, Result<()>) {
        let mut output = Vec::new();
        let mut asker = Asker::new(engine, defaults());
        let ended = run(&mut asker, &mut input.as_bytes(), folder, &mut output);
        let text = String::from_utf8(output).unwrap();
        (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), ended)
    }

    #[test]
    fn every_line_has_its_answer_and_bad_ones_end_nothing() {
        let folder = tempfile::tempdir().unwrap();
        image::RgbImage::new(32, 32).save(folder.path().join("a.png")).unwrap();
        let status = EngineStatus { state: crate::engine::EngineState::Ready, ..EngineStatus::default() };
        let engine = Arc::new(Echo(watch::Sender::new(status)));
        let long = format!("{{\"id\": 9, \"instruction\": \"{}\"}}", "x".repeat(MAX_LINE as usize));
        let input = [
            r#"{"id": {"n": 1}, "frames": ["a.png"], "instruction": "What?", "context": ["One.", "...", "Two."], "max_tokens": 5}"#,
            "not JSON",
            "",
            "[1]",
            r#"{"id": 3, "frames": ["a.png", "none.png"], "instruction": "What?"}"#,
            r#"{"id": 4, "frames": []}"#,
            r#"{"id": 5, "frames": ["a.png"], "colour": 1}"#,
            r#"{"id": 6, "frames": ["a.png"], "profile": "opera"}"#,
            r#"{"id": 7, "frames": ["a.png"], "seqs": [1, 2]}"#,
            &long,
            r#"{"id": 10, "frames": ["a.png", "a.png"], "seqs": [3, 4], "stream": "door", "profile": "security"}"#,
        ]
        .join("\n");
        let (out, ended) = lines(engine, folder.path(), &input);
        ended.unwrap();
        let told: Vec<_> = out.iter().map(|l| (l["id"].clone(), l["error"]["code"].as_str())).collect();
        assert_eq!(
            told,
            [
                (json!({"n": 1}), None),
                (Value::Null, Some("line_invalid")),
                (Value::Null, Some("line_invalid")),
                (json!(3), Some("picture_not_found")),
                (json!(4), Some("frames_count")),
                (json!(5), Some("line_invalid")),
                (json!(6), Some("profile_unknown")),
                (json!(7), Some("seqs_count")),
                (Value::Null, Some("line_too_long")),
                (json!(10), None),
            ]
        );
        assert_eq!(
            out[0]["answer"],
            "What?|Your last comments were, the newest last:\nOne.\nTwo.\nDo not repeat them.|[0]|5"
        );
        assert_eq!(
            (&out[0]["finish"], &out[0]["tokens"], &out[0]["frames_encoded"]),
            (&json!("stop"), &json!(3), &json!(1))
        );
        assert_eq!(out[9]["answer"], format!("{}||[1, 2]|8", PROFILES[2].instruction));
        let message = out[3]["error"]["message"].as_str().unwrap();
        assert!(message.contains("none.png"), "{message}");
    }

    #[test]
    fn an_engine_that_has_ended_ends_the_batch() {
        let folder = tempfile::tempdir().unwrap();
        image::RgbImage::new(32, 32).save(folder.path().join("a.png")).unwrap();
        let absent = Arc::new(AbsentEngine::new(&Error::internal("gone", "gone"), true));
        let line = r#"{"id": 1, "frames": ["a.png"]}"#;
        let (out, ended) = lines(absent, folder.path(), &format!("{line}\n{line}"));
        assert_eq!((out.len(), ended.unwrap_err().code), (1, "engine_ended"));
        assert_eq!(out[0]["error"]["code"], "engine_absent");
    }
}
