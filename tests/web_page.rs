//! The page in a real browser, against the real server. Skipped, loudly, where there is no chromedriver.
//! Screenshots are left in the build folder's `tmp`. Not here: the API without a page (`web_http`).

#[path = "support/web_driver.rs"]
mod web_driver;
#[path = "support/web_server.rs"]
mod web_server;

use bytes::Bytes;
use image::{ImageBuffer, Rgb, RgbImage};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use vidette::bus::{Bus, Event, Finish};
use vidette::engine::{EngineState, EngineStatus};
use vidette::frame::Jpeg;
use vidette::secret::Secret;
use vidette::web::WebConfig;
use web_driver::Browser;
use web_server::{Server, engine_status, start, start_at, token, utterance};

const LINE_BREAK_WITH_CONTROL: &str = "\u{E009}\u{E007}";

fn browser() -> Option<Browser> {
    let browser = Browser::start();
    if browser.is_none() {
        eprintln!("SKIPPED: there is no chromedriver here, so the page was not tested");
    }
    browser
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A street at dusk with a car that drives through, as real JPEGs.
fn scene() -> Vec<Bytes> {
    let (width, height) = (960i32, 540i32);
    (0..40)
        .map(|step| {
            let car = step * 30 - 180;
            let image: RgbImage = ImageBuffer::from_fn(width as u32, height as u32, |x, y| {
                let (x, y) = (x as i32, y as i32);
                let hill = 300 + (((x + 120) as f64 / 150.0).sin() * 26.0 + (x as f64 / 61.0).sin() * 9.0) as i32;
                let sun = (x - 690).pow(2) + (y - 250).pow(2) < 46 * 46;
                let house = (90..260).contains(&x) && (215..380).contains(&y);
                let window = house && ((x - 90) % 56 > 18) && ((y - 215) % 54 > 22) && (y < 350);
                let wheel = |cx: i32| (x - car - cx).pow(2) + (y - 438).pow(2) < 17 * 17;
                let body = (car..car + 170).contains(&x) && (398..436).contains(&y);
                let cabin = (car + 36..car + 128).contains(&x) && (370..400).contains(&y);
                let lamp = (car + 160..car + 170).contains(&x) && (404..416).contains(&y);
                Rgb(match () {
                    () if wheel(36) || wheel(134) => [24, 24, 28],
                    () if lamp => [255, 236, 170],
                    () if cabin && (x - car) % 46 > 6 && y > 376 => [150, 178, 190],
                    () if body || cabin => [176, 58, 46],
                    () if y > 455 && (y - 470).abs() < 4 && (x / 60) % 2 == 0 => [196, 190, 170],
                    () if y > 380 => [58 + (y - 380) as u8 / 8, 60 + (y - 380) as u8 / 8, 66 + (y - 380) as u8 / 8],
                    () if window => [246, 203, 120],
                    () if house => [70, 62, 70],
                    () if y > hill => [52, 74, 66],
                    () if sun => [255, 214, 150],
                    () => [90 + (y / 3) as u8, 104 + (y / 5) as u8, 140 - (y / 8) as u8],
                })
            });
            let mut bytes = Vec::new();
            let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 80);
            image.write_with_encoder(encoder).unwrap();
            bytes.into()
        })
        .collect()
}

/// Shows the scene over and over, as long as somebody watches.
fn film(runtime: &tokio::runtime::Runtime, server: &Server, scene: Vec<Bytes>) {
    let bus = server.bus();
    runtime.spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(80));
        for (seq, data) in (0..).zip(scene.into_iter().cycle()) {
            ticks.tick().await;
            if bus.viewers() > 0 {
                bus.show(Arc::new(Jpeg { seq, captured: Instant::now(), data }));
            }
        }
    });
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn tell(bus: &Bus, number: u64, text: &str, finish: Finish, unix_ms: u64) {
    for word in text.split_inclusive(' ') {
        bus.publish(token(number, word));
    }
    bus.publish(utterance(number, text, finish, unix_ms));
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn keep(name: &str, png: &[u8]) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, png).unwrap();
    println!("{}", path.display());
}

#[test]
fn the_page_shows_what_happens_and_obeys() {
    let Some(browser) = browser() else { return };
    let runtime = runtime();
    let server = runtime.block_on(start(WebConfig::default()));
    let bus = server.bus();
    let status = || server.streams.get("main").unwrap().status();
    film(&runtime, &server, scene());
    // Said before the page is opened; it shows that too.
    let minute = 60_000;
    let begun = now_ms() - 5 * minute;
    tell(&bus, 1, "A quiet street at dusk. The lights in the house are on.", Finish::Stop, begun);

    browser.open(&format!("http://{}/", server.at));
    browser.wait("document.querySelector('#link-word').textContent === 'connected'");
    browser.wait("document.querySelectorAll('.entry').length === 1");
    assert_eq!(browser.text("document.querySelector('#source-word').textContent"), "not started");

    // Start, by hand.
    browser.type_into("#source", "test:street");
    browser.click("#source-form button.main");
    browser.wait("document.querySelector('#source-word').textContent === 'live'");
    browser.wait("!document.querySelector('#video').hidden && document.querySelector('#video').naturalWidth === 960");
    let sight = "(() => { const c = document.createElement('canvas'); c.width = 96; c.height = 54; \
        c.getContext('2d').drawImage(document.querySelector('#video'), 0, 0, 96, 54); return c.toDataURL(); })()";
    let mut sights = vec![browser.text(sight)];
    for _ in 0..3 {
        eventually("the picture does not move", || browser.text(sight) != *sights.last().unwrap());
        sights.push(browser.text(sight));
    }
    assert!(browser.text("document.querySelector('#caption-size').textContent").starts_with("960×540"));

    // Hidden, nothing is encoded for it.
    let tab = browser.cover();
    eventually("a hidden page still watches", || bus.viewers() == 0);
    browser.uncover(tab);
    browser.wait("!document.hidden");
    eventually("the page does not watch again", || bus.viewers() == 1);

    // The instruction.
    browser.clear("#instruction");
    browser.type_into("#instruction", "Report every vehicle.");
    browser.type_into("#instruction", LINE_BREAK_WITH_CONTROL);
    eventually("the instruction did not arrive", || status().commentary.instruction == "Report every vehicle.");
    browser.wait("document.querySelector('#said').textContent.includes('obeys')");
    browser.run(
        "const p = document.querySelector('#profile'); p.value = 'security'; p.dispatchEvent(new Event('change'))",
    );
    eventually("the profile did not arrive", || status().commentary.profile == "security");
    browser.wait("document.querySelector('#instruction').value === 'Report anything that matters for safety.'");
    browser.clear("#instruction");
    browser.type_into("#instruction", "Report every vehicle and which way it goes.");
    browser.click("#instruction-form button.main");
    eventually("the instruction did not arrive", || status().commentary.instruction.ends_with("goes."));

    // Silence folds.
    for i in 0..7 {
        tell(&bus, 2 + i, "...", Finish::Stop, begun + minute + i * 20_000);
    }
    browser.wait("document.querySelector('.silence')?.textContent.startsWith('nothing to say ×7 · ')");
    assert_eq!(browser.text("document.querySelectorAll('.entry').length"), "2");
    assert!(browser.text("document.querySelector('.silence').textContent").contains('–'));

    // Words appear as they are written.
    bus.publish(token(9, "A red car "));
    browser.wait("document.querySelector('.writing .text')?.textContent === 'A red car '");
    bus.publish(token(9, "enters from the left."));
    browser.wait("document.querySelector('.writing .text').textContent === 'A red car enters from the left.'");
    bus.publish(utterance(9, "A red car enters from the left.", Finish::Stop, now_ms() - 40_000));
    browser.wait("document.querySelector('.writing') === null");
    let meta = browser.text("document.querySelector('.entry:last-child .meta').innerText.replaceAll('\\n', ' ')");
    assert!(
        meta.contains("first word 0.5 s")
            && meta.contains("last word 1.3 s")
            && meta.contains("since oldest frame 2.8 s"),
        "{meta}"
    );
    let hover =
        browser.text("[...document.querySelectorAll('.entry:last-child .latency')].map(e => e.title).join('|')");
    assert_eq!(
        hover,
        "From the newest frame’s capture to the first token: 470 ms|From the newest frame’s capture to the last token: \
         1250 ms|From the oldest frame’s capture to the end of the text: 2750 ms"
    );
    tell(&bus, 10, "It passes the house at", Finish::Cancelled, now_ms() - 30_000);
    browser.wait("document.querySelector('.entry:last-child .mark')?.textContent === 'cut off'");

    // What a sign held to the camera could say.
    let sign = "The sign reads <img src=x onerror=\"window.pwned=1\"> <script>window.pwned=2</script> &amp; more.";
    tell(&bus, 11, sign, Finish::Stop, now_ms() - 20_000);
    browser.wait("document.querySelectorAll('.entry').length === 5");
    assert_eq!(browser.text("document.querySelector('.entry:last-child .text').textContent"), sign);
    assert_eq!(browser.text("document.querySelectorAll('#log img, #log script').length"), "0");
    assert_eq!(browser.text("window.pwned"), "undefined");
    assert_eq!(browser.text("document.querySelector('#announce').textContent"), sign);

    // Loud words about the model, and the screenshots.
    let loud = "Random weights: what you read is noise, made to test the program";
    server.engine.send_replace(EngineStatus { warning: Some(loud.into()), ..engine_status(EngineState::Ready) });
    bus.publish(Event::Status);
    browser.wait("!document.querySelector('#engine-notice').hidden");
    assert_eq!(browser.text("document.querySelector('#engine-notice').textContent"), loud);
    let calm = "This is the small built-in demo model";
    assert_eq!(browser.text("document.querySelector('#model-notice').hidden"), "true");
    keep("page-warning.png", &browser.screenshot(false));
    server.engine.send_replace(EngineStatus { notice: Some(calm.into()), ..engine_status(EngineState::Ready) });
    bus.publish(Event::Status);
    browser.wait("!document.querySelector('#model-notice').hidden");
    assert_eq!(browser.text("document.querySelector('#model-notice').textContent"), calm);
    assert_eq!(browser.text("document.querySelector('#engine-notice').hidden"), "true");
    keep("page-notice.png", &browser.screenshot(false));
    server
        .engine
        .send_replace(EngineStatus { model: Some("MiniCPM-o 4.5".into()), ..engine_status(EngineState::Ready) });
    browser.click("#clear");
    browser.wait("document.querySelectorAll('.entry').length === 0 && !document.querySelector('#no-talk').hidden");
    tell(&bus, 12, "A quiet street at dusk. The lights in the house are on.", Finish::Stop, now_ms() - 190_000);
    (0..7).for_each(|i| tell(&bus, 13 + i, "...", Finish::Stop, now_ms() - 160_000 + i * 12_000));
    tell(
        &bus,
        20,
        "A red car enters from the left, headlights on, and passes the house.",
        Finish::Stop,
        now_ms() - 61_000,
    );
    tell(&bus, 21, "The car leaves to the", Finish::Cancelled, now_ms() - 42_000);
    tell(&bus, 22, "One vehicle so far: a red car, going from left to right.", Finish::Stop, now_ms() - 24_000);
    for word in ["Another ", "red car ", "comes from ", "the left, ", "slower than "] {
        bus.publish(token(23, word));
    }
    browser.wait("document.querySelector('.writing .text')?.textContent.endsWith('slower than ')");
    for (name, width, height, scheme) in
        [("page.png", 1280, 800, "dark"), ("page-light.png", 1280, 800, "light"), ("page-phone.png", 360, 740, "dark")]
    {
        browser.look(width, height, scheme);
        std::thread::sleep(Duration::from_millis(400));
        keep(name, &browser.screenshot(false));
        let over = browser.text("document.documentElement.scrollWidth > innerWidth");
        assert_eq!(over, "false", "{name} scrolls sideways");
    }
    keep("page-phone-whole.png", &browser.screenshot(true));
    browser.look(1280, 800, "dark");

    // A source that is lost says why, and when it is tried again.
    browser.clear("#source");
    browser.type_into("#source", "lost:rtsp://cam.lan/s\u{E007}");
    browser.wait("document.querySelector('#source-notice').textContent.includes('connection refused · next try in 8 s (attempt 3)')");
    browser.wait("document.querySelector('#source-notice').textContent.includes('next try in 6 s')");
    keep("page-lost.png", &browser.screenshot(false));
    browser.clear("#source");
    browser.type_into("#source", "bad:x\u{E007}");
    browser
        .wait("document.querySelector('#said').textContent === 'this is no source that can be opened; try test:smpte'");
    assert_eq!(browser.text("document.querySelector('#said').className"), "said bad");

    // A long talk stays bounded, and does not run away from who reads further up.
    for i in 0..300 {
        tell(&bus, 100 + i, &format!("Sentence number {i}."), Finish::Stop, now_ms());
        // Slower than a listener's queue overflows: what is lost there is told, but this is about the page.
        std::thread::sleep(Duration::from_millis(10));
    }
    browser.wait("document.querySelector('.entry:last-child .text').textContent === 'Sentence number 299.'");
    assert_eq!(browser.text("document.querySelectorAll('.entry').length"), "200");
    let at_end = "(() => { const l = document.querySelector('#log'); return l.scrollHeight - l.scrollTop - l.clientHeight < 5 })()";
    browser.wait(at_end);
    browser.run("document.querySelector('#log').scrollTop = 100");
    browser.wait("!document.querySelector('#jump').hidden");
    tell(&bus, 500, "Unseen at first.", Finish::Stop, now_ms());
    browser.wait("document.querySelector('.entry:last-child .text').textContent === 'Unseen at first.'");
    assert_eq!(browser.text(at_end), "false");
    browser.click("#jump");
    browser.wait(at_end);

    // Refusals of the source above are answers of status 400, which the browser logs; nothing else may be there.
    let log: Vec<_> = browser
        .console()
        .into_iter()
        .filter(|l| !l.contains("[DOM]") && (!l.contains("/api/start") || !l.contains("400")))
        .collect();
    assert!(log.is_empty(), "{log:#?}");

    // Stop ends the watching; the server's end is told, and its return is noticed.
    browser.click("#stop");
    eventually("a stopped page still watches", || bus.viewers() == 0);
    browser.wait("!document.querySelector('#no-video').hidden");
    server.trigger.fire();
    runtime.block_on(server.serving).unwrap();
    browser.wait("!document.querySelector('#link-notice').hidden");
    let server = runtime.block_on(start_at(server.at, WebConfig::default()));
    film(&runtime, &server, scene());
    browser.wait("document.querySelector('#link-word').textContent === 'connected'");
    browser.wait("document.querySelector('#link-notice').hidden");
    browser.clear("#source");
    browser.type_into("#source", "test:street\u{E007}");
    eventually("the page does not watch after the return", || server.bus().viewers() == 1);
    // The video alone breaks off, which the browser does not tell.
    runtime.block_on(async {
        server.streams.remove("main").await.unwrap();
        server.streams.ensure("main").unwrap().0.start("test:street", None).await.unwrap();
    });
    eventually("the page does not come back to a new stream", || server.bus().viewers() == 1);
    browser.wait("document.querySelector('#source-word').textContent === 'live'");
}

#[test]
fn the_page_asks_for_the_token() {
    let Some(browser) = browser() else { return };
    let runtime = runtime();
    let secret = "a-token-of-some-length";
    let config = WebConfig { api_token: Some(Secret::new(secret.to_owned())), ..WebConfig::default() };
    let server = runtime.block_on(start(config));
    browser.open(&format!("http://localhost:{}/", server.at.port()));
    browser.wait("document.querySelector('#door').open");
    browser.type_into("#token", "wrong\u{E007}");
    browser.wait("document.querySelector('#door-said').textContent.startsWith('the API token is wrong')");
    keep("page-door.png", &browser.screenshot(false));
    browser.clear("#token");
    browser.type_into("#token", &format!("{secret}\u{E007}"));
    browser.wait("document.querySelector('#link-word')?.textContent === 'connected'");
    assert_eq!(browser.text("document.querySelector('#door').open"), "false");
    assert_eq!(browser.text("document.cookie"), "", "scripts can't see the session");
    let violations: Vec<_> =
        browser.console().into_iter().filter(|l| !l.contains("401") && !l.contains("[DOM]")).collect();
    assert!(violations.is_empty(), "{violations:#?}");
}
