//! A browser, driven through the plain WebDriver protocol of chromedriver. Not here: what is tested.

use serde_json::{Value, json};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// chromedriver with one headless Chromium; both end with it.
pub struct Browser {
    driver: Child,
    agent: ureq::Agent,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `None` when this machine has no chromedriver.
    pub fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(30)));
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self {
            driver,
            agent: config.build().into(),
            session: format!("http://127.0.0.1:{port}/session"),
            _profile: profile,
        };
        let mut arguments: Vec<String> = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,800",
        ]
        .map(str::to_owned)
        .into();
        arguments.push(format!("--user-data-dir={}", browser._profile.path().display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let begun = Instant::now();
        let id = loop {
            match browser.agent.post(&browser.session).content_type("application/json").send(wanted.to_string()) {
                Ok(mut answer) => {
                    let text = answer.body_mut().read_to_string().unwrap();
                    let value: Value = serde_json::from_str(&text).unwrap();
                    break value["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{text}")).to_owned();
                }
                Err(error) if begun.elapsed() > Duration::from_secs(15) => {
                    panic!("chromedriver does not answer: {error}")
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        browser.session = format!("{}/{id}", browser.session);
        Some(browser)
    }

    fn post(&self, path: &str, body: Value) -> Value {
        let url = format!("{}/{path}", self.session);
        let mut answer = self.agent.post(&url).content_type("application/json").send(body.to_string()).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(answer.status().is_success(), "{path}: {text}");
        value["value"].clone()
    }

    pub fn open(&self, url: &str) {
        self.post("url", json!({ "url": url }));
    }

    /// Runs a script in the page; what it returns.
    pub fn run(&self, script: &str) -> Value {
        self.post("execute/sync", json!({"script": script, "args": []}))
    }

    /// The value of an expression, as text.
    pub fn text(&self, expression: &str) -> String {
        self.run(&format!("return String({expression})")).as_str().unwrap().to_owned()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn wait(&self, expression: &str) {
        let begun = Instant::now();
        while self.run(&format!("return Boolean({expression})")) != true {
            if begun.elapsed() > Duration::from_secs(10) {
                panic!(
                    "never true: {expression}\nlog: {}\npage: {}",
                    self.console().join("\n"),
                    self.text("document.body.innerText")
                );
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    fn element(&self, selector: &str) -> String {
        let found = self.post("element", json!({"using": "css selector", "value": selector}));
        found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
    }

    /// Types as a person does, key by key.
    pub fn type_into(&self, selector: &str, text: &str) {
        self.post(&format!("element/{}/value", self.element(selector)), json!({ "text": text }));
    }

    pub fn clear(&self, selector: &str) {
        self.post(&format!("element/{}/clear", self.element(selector)), json!({}));
    }

    pub fn click(&self, selector: &str) {
        self.post(&format!("element/{}/click", self.element(selector)), json!({}));
    }

    /// What the browser has logged since it was last asked: script errors, failed requests, violated policies.
    pub fn console(&self) -> Vec<String> {
        let log = self.post("se/log", json!({"type": "browser"}));
        log.as_array().unwrap().iter().map(|entry| format!("{} {}", entry["level"], entry["message"])).collect()
    }

    fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("goog/cdp/execute", json!({"cmd": command, "params": parameters}))
    }

    /// Sets the page's size and the person's colour scheme.
    pub fn look(&self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", features);
    }

    /// A PNG of what is seen, or of the whole page.
    pub fn screenshot(&self, whole: bool) -> Vec<u8> {
        let shot = self.devtools("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": whole}));
        base64(shot["data"].as_str().unwrap())
    }

    /// Opens another tab in front; the handle of the one that was there.
    pub fn cover(&self) -> Value {
        let url = format!("{}/window", self.session);
        let text = self.agent.get(&url).call().unwrap().body_mut().read_to_string().unwrap();
        let before: Value = serde_json::from_str(&text).unwrap();
        let new = self.post("window/new", json!({"type": "tab"}));
        self.post("window", json!({"handle": new["handle"]}));
        before["value"].clone()
    }

    /// Goes back to a tab.
    pub fn uncover(&self, handle: Value) {
        self.post("window", json!({ "handle": handle }));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Best effort: the driver ends its browser when it is asked, and is itself ended in any case.
        let _asked = self.agent.delete(&self.session).call();
        let _ended = self.driver.kill();
        let _reaped = self.driver.wait();
    }
}

fn base64(text: &str) -> Vec<u8> {
    let six = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four.iter().fold(0u32, |bits, c| bits << 6 | u32::from(six(*c))) << (6 * (4 - four.len()));
        out.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    out
}
