//! The voice's controls in a real browser, against the real program and real espeak-ng. Skipped, loudly, where there is
//! no chromedriver. Not here: the rest of the page (`web_page`), the sound itself (`voice`).

#![cfg(all(feature = "ingest", feature = "llama"))]

#[path = "support/program.rs"]
mod program;
#[allow(dead_code, reason = "every test file uses its own part")]
#[path = "support/web_driver.rs"]
mod web_driver;

use program::{Program, command, tiny_model};
use std::time::{Duration, Instant};
use web_driver::Browser;

fn browser() -> Option<Browser> {
    let browser = Browser::start();
    if browser.is_none() {
        eprintln!("SKIPPED: there is no chromedriver here, so the voice's controls were not tested");
    }
    browser
}

fn start(port: &str, more: &[&str]) -> Program {
    let model = tiny_model();
    let mut args = vec!["run", "test:ball@320x240", "--server-port", port, "--model-path", model.to_str().unwrap()];
    args.extend(["--change-threshold", "0", "--max-tokens", "12", "--temperature", "2", "--threads", "1"]);
    args.extend(more);
    Program::start_command(command(&args))
}

/// As `Browser::wait`, for what takes a model's and a voice's time.
#[track_caller]
fn wait(browser: &Browser, program: &Program, expression: &str) {
    let begun = Instant::now();
    while browser.run(&format!("return Boolean({expression})")) != true {
        let status = || program.json("/api/status")["voice"].to_string();
        let page = || browser.text("document.getElementById('voice').innerText");
        assert!(begun.elapsed() < Duration::from_secs(120), "never true: {expression}\n{}\n{}", page(), status());
        std::thread::sleep(Duration::from_millis(30));
    }
}

const LEVEL: &str = "Number(document.querySelector('.voice-meter').getAttribute('aria-valuenow'))";

fn shown(selector: &str) -> String {
    format!("!document.querySelector('{selector}').hidden")
}

#[test]
fn the_page_lets_one_listen() {
    let Some(browser) = browser() else { return };
    let program = start("0", &["--enable-tts"]);
    program.until("ready", 60, |s| s["voice"]["state"] == "ready");
    let url = format!("http://{}/", program.address);
    browser.open(&url);
    wait(&browser, &program, &shown(".voice-listen"));
    assert_eq!(browser.text("document.querySelector('.voice-listen').textContent"), "Listen");
    assert!(browser.text("document.querySelector('.voice-word').textContent").contains("espeak-ng"));
    assert_eq!(program.json("/api/status")["voice"]["listeners"], 0, "no sound without a click");

    browser.click(".voice-listen");
    program.until("listened to", 30, |s| s["voice"]["listeners"] == 1);
    wait(&browser, &program, &format!("{LEVEL} > 20"));
    browser.click(".voice-mute");
    assert_eq!(browser.text("document.querySelector('.voice-mute').textContent"), "Unmute");
    // The meter tells what is said, though it is not heard.
    wait(&browser, &program, &format!("{LEVEL} > 20"));
    browser.run(
        "const v = document.querySelector('.voice-volume input'); v.value = '0.3'; v.dispatchEvent(new Event('input'))",
    );
    assert_eq!(browser.text("localStorage.getItem('vidette.volume')"), "0.3");
    let account = program.json("/api/status")["voice"]["audience"][0].clone();
    assert_eq!(account["dropped"], 0, "{account}");

    // The server ends and comes back: the sound does too, without a click.
    let port = program.address.rsplit(':').next().unwrap().to_owned();
    drop(program);
    let program = start(&port, &["--enable-tts"]);
    program.until("listened to again", 60, |s| s["voice"]["listeners"] == 1);
    wait(&browser, &program, &format!("{LEVEL} > 20"));

    browser.click(".voice-listen");
    program.until("left alone", 30, |s| s["voice"]["listeners"] == 0);
    assert_eq!(browser.text("document.querySelector('.voice-listen').textContent"), "Listen");
    let log: Vec<_> = browser
        .console()
        .into_iter()
        // What a server that is away leaves in the log.
        .filter(|l| !l.contains("[DOM]") && !l.contains("net::ERR") && !l.contains("503"))
        .collect();
    assert!(log.is_empty(), "{log:#?}");
}

#[test]
fn the_page_says_why_there_is_no_voice() {
    let Some(browser) = browser() else { return };
    let word = "document.querySelector('.voice-word').textContent";
    let off = start("0", &[]);
    browser.open(&format!("http://{}/", off.address));
    wait(&browser, &off, &format!("{word}.includes('ENABLE_TTS=true')"));
    assert_eq!(browser.text("document.querySelector('.voice-listen').hidden"), "true");
    drop(off);
    let mute = start("0", &["--enable-tts", "--voice", "minicpm-o"]);
    browser.open(&format!("http://{}/", mute.address));
    wait(&browser, &mute, &format!("{word}.includes('vidette pull')"));
    assert_eq!(browser.text("document.querySelector('.voice-listen').disabled"), "true");
}
