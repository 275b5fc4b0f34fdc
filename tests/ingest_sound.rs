//! The source's own sound: heard as it is, for as many as listen, and never in the way of the video.
#![cfg(feature = "ingest")]

#[path = "support/ingest_rig.rs"]
mod rig;

use rig::{Rig, clip, free_port, quick, rtsp_server, street};
use std::f64::consts::TAU;
use std::time::Duration;
use vidette::audio::{AudioListener, FRAME_SAMPLES, Heard, SAMPLE_RATE, Wants};
use vidette::ingest::IngestConfig;

#[test]
#[ignore = "the other tests run it as a process of its own"]
fn rtsp_peer() {
    rig::serve_rtsp();
}

/// The next 20 ms.
async fn frame(listener: &mut AudioListener) -> (Vec<i16>, bool) {
    loop {
        let heard = tokio::time::timeout(Duration::from_secs(20), listener.next()).await.expect("the clock goes on");
        match heard.expect("the sound goes on") {
            Heard::Frame(f) => {
                let samples = f.pcm.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
                return (samples, f.utterance.is_some());
            }
            Heard::Lagged(_) => {}
        }
    }
}

/// Half a second of sound without a gap, as soon as there is such.
async fn half_a_second(listener: &mut AudioListener) -> Vec<i16> {
    let mut all = Vec::new();
    for _ in 0..1500 {
        match frame(listener).await {
            (samples, true) => all.extend(samples),
            (samples, false) => {
                assert!(samples.iter().all(|s| *s == 0), "what is no sound is silence");
                all.clear();
            }
        }
        // What the decoder begins with is left out.
        if all.len() >= SAMPLE_RATE as usize * 7 / 10 {
            return all.split_off(SAMPLE_RATE as usize / 5);
        }
    }
    panic!("30 s without half a second of sound");
}

/// Share of the power that a tone of this frequency has, 0 to 1 (Goertzel's filter).
fn tone(samples: &[i16], hertz: f64) -> f64 {
    let step = TAU * hertz / f64::from(SAMPLE_RATE);
    let (mut re, mut im, mut power) = (0.0, 0.0, 1e-9);
    for (n, s) in samples.iter().map(|s| f64::from(*s)).enumerate() {
        re += s * (step * n as f64).cos();
        im += s * (step * n as f64).sin();
        power += s * s;
    }
    2.0 * (re * re + im * im) / (samples.len() as f64 * power)
}

/// By the median of tenths of a second: on a busy machine a frame may be missing, and the phase jumps there.
fn assert_tone(samples: &[i16], hertz: f64) {
    let loudest = samples.iter().map(|s| s.unsigned_abs()).max().unwrap_or(0);
    assert!(loudest > 1000, "it is nearly silent: {loudest}");
    let median = |hertz: f64| {
        let mut shares: Vec<f64> =
            samples.chunks_exact(SAMPLE_RATE as usize / 10).map(|tenth| tone(tenth, hertz)).collect();
        shares.sort_by(f64::total_cmp);
        shares[shares.len() / 2]
    };
    let (here, below, above) = (median(hertz), median(hertz * 0.97), median(hertz * 1.03));
    assert!(here > 0.9 && below < 0.1 && above < 0.1, "{hertz} Hz has {here}, beside it {below} and {above}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_file_is_heard_in_its_own_pitch_and_again_when_it_starts_anew() {
    let aac = street();
    let pcm = clip(
        "pcm.mov",
        "-f lavfi -i testsrc2=s=320x240:r=25 -f lavfi -i sine=f=1000:r=44100 -t 3 -c:v mjpeg -c:a pcm_s16le -ac 2",
    );
    let opus = clip(
        "opus.webm",
        "-f lavfi -i testsrc2=s=320x240:r=25 -f lavfi -i sine=f=700:r=48000 -t 3 -c:v libvpx -deadline realtime -c:a libopus",
    );
    for (file, hertz) in [(&aac, 440.0), (&pcm, 1000.0), (&opus, 700.0)] {
        let rig = Rig::playing(file.to_str().unwrap()).await;
        rig.until("sound", 20.0, |s| s.audio).await;
        let mut listener = rig.sound.listen(Wants::Everything);
        // Four times: at least once behind the loop's seam.
        for _ in 0..4 {
            assert_tone(&half_a_second(&mut listener).await, hertz);
        }
        assert!(rig.all().len() >= 20, "the video goes on");
        assert_eq!(rig.status().reconnects, 0);
        rig.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_rtsp_camera_is_heard() {
    let port = free_port();
    let launch = "( videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=25/1 ! x264enc tune=zerolatency \
                  speed-preset=ultrafast key-int-max=12 ! rtph264pay name=pay0 audiotestsrc is-live=true freq=600 \
                  volume=0.5 ! audioconvert ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay name=pay1 pt=0 )";
    let _server = rtsp_server(port, &[], launch);
    let rig = Rig::playing(&format!("rtsp://127.0.0.1:{port}/live")).await;
    // Its sound may come a moment after its first picture.
    let status = rig.until("sound", 20.0, |s| s.audio).await;
    assert_eq!((status.attempt, status.fault), (1, None), "{status:?}");
    let mut listener = rig.sound.listen(Wants::Speech);
    assert_tone(&half_a_second(&mut listener).await, 600.0);
    // Who comes and goes does not stop it.
    drop(listener);
    rig.frame(rig.all().last().unwrap().seq + 10).await;
    let mut again = rig.sound.listen(Wants::Speech);
    assert_tone(&half_a_second(&mut again).await, 600.0);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn many_listen_and_one_that_does_not_read_holds_up_nobody() {
    let rig = Rig::playing(street().to_str().unwrap()).await;
    rig.until("sound", 20.0, |s| s.audio).await;
    let _never_reads = rig.sound.listen(Wants::Everything);
    let mut many: Vec<_> = (0..20).map(|_| rig.sound.listen(Wants::Everything)).collect();
    let before = rig.all().last().map_or(0, |f| f.seq);
    assert_tone(&half_a_second(&mut many[0]).await, 440.0);
    for other in &mut many[1..] {
        assert_tone(&half_a_second(other).await, 440.0);
    }
    // Past what the one that sleeps can hold.
    while rig.sound.status()[0].account.dropped == 0 {
        frame(&mut many[0]).await;
    }
    for listener in rig.sound.status() {
        let a = listener.account;
        assert_eq!(a.offered, a.sent + a.dropped + a.queued);
    }
    rig.frame(before + 20).await;
    assert_eq!(rig.status().reconnects, 0);
    drop(many);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_source_without_sound_says_so_and_is_silent() {
    let mute = clip(
        "mute.mp4",
        "-f lavfi -i testsrc2=s=320x240:r=25 -t 2 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -an",
    );
    for source in [mute.to_str().unwrap(), "test:ball@320x240"] {
        let rig = Rig::playing(source).await;
        assert!(!rig.streaming().await.audio);
        let mut listener = rig.sound.listen(Wants::Everything);
        for _ in 0..FRAME_SAMPLES / 20 {
            assert!(!frame(&mut listener).await.1);
        }
        assert!(!rig.status().audio);
        rig.end().await;
    }
    // A source with sound that is not wanted.
    let rig = Rig::new(IngestConfig { sound: false, ..quick() });
    rig.source.start(street().to_str().unwrap()).await.unwrap();
    assert!(!rig.streaming().await.audio);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn sound_that_cannot_be_decoded_leaves_the_video_alone() {
    // Sound whose bytes are noise: the container names AAC, what is in it is none.
    let good = street();
    let bad = rig::tmp().join(format!("{}-noise.mkv", std::process::id()));
    let made = std::process::Command::new("ffmpeg")
        .args([
            "-v",
            "error",
            "-y",
            "-i",
            good.to_str().unwrap(),
            "-c",
            "copy",
            "-bsf:a",
            "noise=amount=1",
            bad.to_str().unwrap(),
        ])
        .status();
    assert!(made.unwrap().success());
    let rig = Rig::playing(bad.to_str().unwrap()).await;
    rig.streaming().await;
    let mut listener = rig.sound.listen(Wants::Everything);
    let before = rig.all().last().map_or(0, |f| f.seq);
    rig.frame(before + 40).await;
    frame(&mut listener).await;
    let status = rig.status();
    assert_eq!((status.reconnects, status.fault), (0, None), "{status:?}");
    // Nobody listened before, and the next source is heard.
    rig.source.start(good.to_str().unwrap()).await.unwrap();
    assert_tone(&half_a_second(&mut listener).await, 440.0);
    rig.end().await;
}
