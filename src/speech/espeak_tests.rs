//! The real espeak-ng, and programs of its name that misbehave.

use super::*;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn config(search_path: &str) -> EspeakConfig {
    let limit = Duration::from_secs(20);
    EspeakConfig { search_path: search_path.to_owned(), voice: "en".to_owned(), time_limit: limit }
}

fn path() -> String {
    std::env::var("PATH").unwrap()
}

/// A folder with a program of espeak-ng's name.
fn pretender(script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(PROGRAM);
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Once it is known whether it speaks.
fn spawn(config: EspeakConfig) -> (EspeakVoice, VoiceStatus) {
    let voice = EspeakVoice::spawn(config).unwrap();
    let begun = Instant::now();
    while voice.status().borrow().state == VoiceState::Loading {
        assert!(begun.elapsed() < Duration::from_secs(30), "still loading");
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = voice.status().borrow().clone();
    (voice, status)
}

fn clause(text: &str) -> Clause {
    Clause { stream: "main".to_owned(), utterance: 1, text: text.to_owned(), ..Clause::default() }
}

/// (rate, samples, last event)
fn hear(mut handle: ClauseHandle) -> (u32, Vec<i16>, ClauseEvent) {
    let (mut heard, mut at) = (Vec::new(), 0);
    loop {
        match handle.events.blocking_recv().expect("a last event") {
            ClauseEvent::Pcm { rate, samples } => {
                at = rate;
                heard.extend(samples);
            }
            last => return (at, heard, last),
        }
    }
}

fn loudest(samples: &[i16]) -> u16 {
    samples.iter().map(|s| s.unsigned_abs()).max().unwrap_or(0)
}

#[test]
fn it_speaks_clauses_of_any_script_and_lets_no_markup_act() {
    let (voice, status) = spawn(config(&path()));
    assert_eq!((status.state, status.name), (VoiceState::Ready, Some("espeak-ng")), "{status:?}");
    let (rate, samples, last) = hear(voice.submit(clause("A dog runs across the road.")));
    assert_eq!((rate, last), (22_050, ClauseEvent::Done { cut: false }));
    let seconds = samples.len() as f64 / f64::from(rate);
    assert!((0.8..6.0).contains(&seconds), "{seconds}");
    assert!(loudest(&samples) > 3_000);
    // A pause that was obeyed would take nine seconds more.
    let text = super::super::speakable("<speak>Hi.<break time=\"9000ms\"/></speak>").unwrap();
    let (_, marked, _) = hear(voice.submit(clause(&text)));
    let (_, plain, _) = hear(voice.submit(clause("speak Hi. break time=\"9000ms\"/ /speak")));
    assert_eq!(marked.len(), plain.len());
    for text in ["一只狗在跑", "Собака бежит", "كلب", "12345678901234567890", "a", "-", "--help"] {
        let (_, _, last) = hear(voice.submit(clause(text)));
        assert_eq!(last, ClauseEvent::Done { cut: false }, "{text}");
    }
    assert_eq!(hear(voice.submit(clause(""))).2, ClauseEvent::Done { cut: false });
}

#[test]
fn a_clause_that_would_never_end_is_cut() {
    let (voice, _) = spawn(config(&path()));
    let (rate, samples, last) = hear(voice.submit(clause(&"9 ".repeat(120))));
    assert_eq!(last, ClauseEvent::Done { cut: true });
    let seconds = samples.len() as f64 / f64::from(rate);
    assert!((30.0..31.0).contains(&seconds), "{seconds}");
}

#[test]
fn a_missing_program_is_told_with_its_remedy() {
    let empty = tempfile::tempdir().unwrap();
    for path in ["", empty.path().to_str().unwrap(), "relative"] {
        let (voice, status) = spawn(config(path));
        assert_eq!(status.state, VoiceState::Unavailable);
        assert!(status.reason.unwrap().contains("apt-get install espeak-ng"));
        assert!(matches!(hear(voice.submit(clause("hi"))).2, ClauseEvent::Failed { .. }));
    }
}

#[test]
fn a_voice_that_espeak_does_not_have_is_told() {
    let (_, status) = spawn(EspeakConfig { voice: "klingon-x".to_owned(), ..config(&path()) });
    assert_eq!(status.state, VoiceState::Unavailable);
    let reason = status.reason.unwrap();
    assert!(reason.contains("ESPEAK_VOICE") && reason.contains("voice"), "{reason}");
}

#[test]
fn programs_that_are_no_espeak_are_told_and_do_no_harm() {
    for (script, word) in [
        ("cat >/dev/null", "no sound"),
        ("echo 'no data' >&2; exit 1", "no data"),
        ("head -c 100000 /dev/zero", "no WAV"),
        ("exit 7", "without a word"),
    ] {
        let folder = pretender(script);
        let search = format!("{}:{}", folder.path().display(), path());
        let (_, status) = spawn(config(&search));
        assert_eq!(status.state, VoiceState::Unavailable, "{script}");
        let reason = status.reason.unwrap();
        assert!(reason.contains(word), "{script}: {reason}");
    }
}

#[test]
fn a_program_that_hangs_is_ended_in_time() {
    let folder = pretender("sleep 1000");
    let search = format!("{}:{}", folder.path().display(), path());
    let (voice, status) = spawn(EspeakConfig { time_limit: Duration::from_millis(100), ..config(&search) });
    assert!(status.reason.unwrap().contains("longer than 0.1 s"));
    drop(voice);
}

/// Whether the process is there and no zombie.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn number_in(file: &Path) -> String {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if text.ends_with('\n') {
            return text.trim().to_owned();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the child did not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn who_cancels_ends_the_child_and_the_next_clause_is_spoken() {
    // Speaks its first word for the trial, hangs at the second, and goes on with the third.
    let real = std::env::split_paths(&path()).map(|p| p.join(PROGRAM)).find(|p| p.is_file()).expect("espeak-ng");
    let folder = pretender(&format!(
        "cd \"${{0%/*}}\"\nif [ -e tried ] && [ ! -e hung ]; then echo $$ >hung; sleep 1000; fi\ntouch tried\n\
         exec {} \"$@\"",
        real.display()
    ));
    let search = format!("{}:{}", folder.path().display(), path());
    let (voice, status) = spawn(config(&search));
    assert_eq!(status.state, VoiceState::Ready, "{status:?}");
    let hanging = voice.submit(clause("one"));
    let pid = number_in(&folder.path().join("hung"));
    assert!(lives(&pid));
    let after = voice.submit(clause("two"));
    drop(hanging);
    let (_, samples, last) = hear(after);
    assert_eq!(last, ClauseEvent::Done { cut: false });
    assert!(loudest(&samples) > 1_000);
    assert!(!lives(&pid), "the cancelled child is still there");
    assert_eq!(voice.status().borrow().state, VoiceState::Ready, "a cancel is no failure");

    std::fs::remove_file(folder.path().join("hung")).unwrap();
    let _hanging = voice.submit(clause("three"));
    let pid = number_in(&folder.path().join("hung"));
    voice.stop();
    assert!(!lives(&pid), "the child outlived the voice");
}

#[test]
fn headers_are_read_as_they_are() {
    let mut header =
        b"RIFF\x24\xf0\xff\x7fWAVEfmt \x10\0\0\0\x01\0\x01\0\x22\x56\0\0\x44\xac\0\0\x02\0\x10\0data\0\xf0\xff\x7f"
            .to_vec();
    assert_eq!(rate(&header), Some(22_050));
    header[22] = 2;
    assert_eq!(rate(&header), None);
    assert_eq!(rate(b"RIFF"), None);
}
