//! The HTTP API as a client sees it: every route's success, every refusal, the bytes of the live streams.
//! Not here: load and misbehaving clients (`web_load`), the page (`tests/web`).

#[path = "support/web_server.rs"]
mod web_server;

use serde_json::json;
use std::time::Duration;
use vidette::bus::{Event, Finish, Speech, SpeechPhase};
use vidette::engine::EngineState;
use vidette::secret::Secret;
use vidette::thumbnail::Thumbnail;
use vidette::web::{Access, ROUTES, WebConfig};
use web_server::{Client, PATIENCE, Reply, ask, engine_status, picture, start, token, utterance, within};

const TOKEN: &str = "a-token-of-some-length";

fn with_token() -> WebConfig {
    WebConfig { api_token: Some(Secret::new(TOKEN.to_owned())), ..WebConfig::default() }
}

#[track_caller]
fn expect(reply: &Reply, status: u16) -> serde_json::Value {
    assert_eq!(reply.status, status, "{}", String::from_utf8_lossy(&reply.body));
    reply.json()
}

#[tokio::test]
async fn every_route_succeeds_as_promised() {
    let server = start(WebConfig::default()).await;
    let at = server.at;
    let get = async |path: &str| ask(at, "GET", path, "", "").await;

    for prefix in ["/api", "/api/streams/main"] {
        let started =
            ask(at, "POST", &format!("{prefix}/start"), "", r#"{"source":"test:smpte","instruction":"Count cars."}"#)
                .await;
        let status = expect(&started, 200);
        assert_eq!(status["stream"], "main");
        assert_eq!(status["source"]["state"], "streaming");
        assert_eq!(status["source"]["source"], "test:smpte");
        assert_eq!(status["commentary"]["instruction"], "Count cars.");
        assert_eq!(status["engine"]["state"], "ready");

        let told = ask(at, "POST", &format!("{prefix}/instruction"), "", r#"{"profile":"sports"}"#).await;
        assert_eq!(expect(&told, 200)["commentary"]["profile"], "sports");
        let told = ask(at, "POST", &format!("{prefix}/instruction"), "", r#"{"instruction":"  Who scores? "}"#).await;
        assert_eq!(expect(&told, 200)["commentary"]["instruction"], "Who scores?");

        let profiles = expect(&get(&format!("{prefix}/profiles")).await, 200);
        assert_eq!(profiles["profiles"].as_array().unwrap().len(), 5);
        assert!(profiles["profiles"][0]["summary"].is_string() && profiles["profiles"][0].get("system").is_none());

        let status = expect(&get(&format!("{prefix}/status")).await, 200);
        for field in ["stream", "source", "commentary", "engine", "window_frames", "viewers", "listeners", "uptime_s"] {
            assert!(status.get(field).is_some(), "{field}");
        }

        server.bus().show(picture(41, 100));
        let mut frame = Client::connect(at).await;
        frame.send(&format!("GET {prefix}/frame HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        within(PATIENCE, "a viewer", || server.bus().viewers() == 1).await;
        server.bus().show(picture(42, 100));
        let frame = frame.reply().await;
        assert_eq!((frame.status, frame.header("content-type")), (200, Some("image/jpeg")));
        assert_eq!((frame.header("x-frame-seq"), frame.body.len()), (Some("42"), 100), "newer than the request");
        assert!(frame.header("x-timestamp").unwrap().parse::<f64>().unwrap() > 1.7e9);

        for _ in 0..2 {
            let stopped = ask(at, "POST", &format!("{prefix}/stop"), "", "").await;
            assert_eq!(expect(&stopped, 200)["source"]["state"], "stopped");
        }
        let again = expect(&ask(at, "POST", &format!("{prefix}/resume"), "", "").await, 200);
        assert_eq!(
            (&again["source"]["source"], &again["previous_source"]),
            (&json!("test:smpte"), &json!("test:smpte"))
        );
        let silent = expect(&get(&format!("{prefix}/source-audio")).await, 404);
        assert_eq!(silent["error"]["code"], "source_silent");
        let _stopped = ask(at, "POST", &format!("{prefix}/stop"), "", "").await;
    }

    let made = ask(at, "PUT", "/api/streams/yard", "", r#"{"source":"test:ball","instruction":"Watch."}"#).await;
    assert_eq!(expect(&made, 201)["commentary"]["instruction"], "Watch.");
    assert_eq!(ask(at, "PUT", "/api/streams/yard", "", "").await.status, 200);
    assert_eq!(ask(at, "PUT", "/api/streams/new", "", "").await.status, 201);
    let nothing = expect(&ask(at, "POST", "/api/streams/new/resume", "", "").await, 409);
    assert_eq!(nothing["error"]["code"], "nothing_to_resume");
    assert_eq!(ask(at, "DELETE", "/api/streams/new", "", "").await.status, 204);
    let list = expect(&get("/api/streams").await, 200);
    let names: Vec<_> = list["streams"].as_array().unwrap().iter().map(|s| s["stream"].as_str().unwrap()).collect();
    assert_eq!((names, list["default"].as_str()), (vec!["main", "yard"], Some("main")));
    assert_eq!(ask(at, "PUT", "/api/streams/shed", "", r#"{"source":"bad:x"}"#).await.status, 400);
    assert_eq!(get("/api/streams/shed/status").await.status, 404, "what could not start is not left behind");
    assert_eq!(ask(at, "DELETE", "/api/streams/yard", "", "").await.status, 204);
    assert_eq!(ask(at, "DELETE", "/api/streams/main", "", "").await.status, 204);
    assert_eq!(get("/api/status").await.status, 404);
    assert_eq!(ask(at, "POST", "/api/start", "", r#"{"source":"test:ball"}"#).await.status, 200, "it comes back");

    assert_eq!(expect(&get("/live").await, 200), json!({"live": true}));
    assert_eq!(expect(&get("/ready").await, 200), json!({"ready": true}));
    let metrics = get("/metrics").await;
    assert!(String::from_utf8(metrics.body).unwrap().contains("vidette_http_connections 1\n"));
    for (path, media_type) in [
        ("/", "text/html"),
        ("/app.js", "text/javascript"),
        ("/page/server.js", "text/javascript"),
        ("/style.css", "text/css"),
    ] {
        let file = get(path).await;
        assert!(file.status == 200 && file.header("content-type").unwrap().starts_with(media_type), "{path}");
        assert_eq!(file.header("cache-control"), Some("no-cache"));
    }
    assert_eq!(expect(&ask(at, "POST", "/api/session", "", "{}").await, 200), json!({"token_needed": false}));
}

#[tokio::test]
async fn health_follows_the_engine() {
    let server = start(WebConfig::default()).await;
    let mut told = Vec::new();
    server.engine.send_replace(engine_status(EngineState::Ready));
    for state in [EngineState::Ready, EngineState::Loading, EngineState::Failed] {
        server.engine.send_replace(engine_status(state));
        let codes = [ask(server.at, "GET", "/live", "", "").await, ask(server.at, "GET", "/ready", "", "").await];
        told.push(codes.map(|c| c.status));
    }
    assert_eq!(told, [[200, 200], [200, 503], [503, 503]], "it failed after it had been ready");
    assert_eq!(ask(server.at, "GET", "/ready", "", "").await.json()["error"]["code"], "engine_failed");
}

#[tokio::test]
async fn a_model_that_never_loaded_is_no_reason_to_restart() {
    let engine = engine_status(EngineState::Loading);
    let server = start(WebConfig::default()).await;
    // Before the server's loop has run for the first time.
    server.engine.send_replace(engine);
    server.engine.send_replace(engine_status(EngineState::Failed));
    assert_eq!(ask(server.at, "GET", "/live", "", "").await.status, 200);
    assert_eq!(ask(server.at, "GET", "/ready", "", "").await.status, 503);
}

/// Every refusal: request, status, code.
#[tokio::test]
async fn refusals_have_one_shape() {
    let server = start(with_token()).await;
    let auth = format!("Authorization: Bearer {TOKEN}\r\n");
    let json = "Content-Type: application/json\r\n";
    let post = |path: &str, headers: &str, body: &str| {
        let length = body.len();
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{auth}{headers}Content-Length: {length}\r\n\r\n{body}")
    };
    let start_with = |body: &str| post("/api/start", json, body);
    let get = |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    let long = format!(r#"{{"instruction":"{}"}}"#, "x".repeat(2049));
    let huge = format!(r#"{{"source":"{}"}}"#, "x".repeat(17 * 1024));
    let deep = "[".repeat(5000);
    let table: Vec<(String, u16, &str)> = vec![
        (get("/nothing", ""), 404, "route_unknown"),
        (get("/api/../etc/passwd", ""), 404, "route_unknown"),
        (get("/api/streams/none/status", &auth), 404, "stream_unknown"),
        (get("/api/streams/none/stream", &auth), 404, "stream_unknown"),
        (get("/api/streams/none/mjpeg", &auth), 404, "stream_unknown"),
        (get("/api/start", &auth), 405, "method_not_allowed"),
        (get(&format!("/live?{}", "x".repeat(2100)), ""), 414, "uri_too_long"),
        (format!("OPTIONS /api/status HTTP/1.1\r\nHost: localhost\r\n{auth}\r\n"), 405, "method_not_allowed"),
        ("GET /live HTTP/1.1\r\n\r\n".into(), 400, "host_missing"),
        ("GET /live HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n".into(), 400, "host_missing"),
        ("GET /live HTTP/1.1\r\nHost: evil.example\r\n\r\n".into(), 421, "host_unknown"),
        ("GET http://evil.example/live HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), 421, "host_unknown"),
        (get("/api/status", ""), 401, "unauthorized"),
        (get("/api/status", "Authorization: Bearer wrong\r\n"), 401, "unauthorized"),
        (get("/api/status", &format!("Authorization: Basic {TOKEN}\r\n")), 401, "unauthorized"),
        (get(&format!("/api/status?token={TOKEN}"), ""), 401, "unauthorized"),
        (get("/api/status", "Cookie: vidette_session=00\r\n"), 401, "unauthorized"),
        (get("/api/status", &format!("Cookie: vidette_session={TOKEN}\r\n")), 401, "unauthorized"),
        (post("/api/session", json, r#"{"token":"wrong"}"#), 401, "unauthorized"),
        (post("/api/stop", "Sec-Fetch-Site: cross-site\r\n", ""), 403, "cross_origin"),
        (post("/api/stop", "Sec-Fetch-Site: same-site\r\n", ""), 403, "cross_origin"),
        (post("/api/stop", "Origin: http://evil.example\r\n", ""), 403, "cross_origin"),
        (post("/api/stop", "Origin: http://localhost:3000\r\n", ""), 403, "cross_origin"),
        (post("/api/stop", "Origin: null\r\n", ""), 403, "cross_origin"),
        (format!("POST /api/start HTTP/1.1\r\nHost: localhost\r\n{auth}{json}\r\n"), 411, "length_required"),
        (
            format!(
                "POST /api/start HTTP/1.1\r\nHost: localhost\r\n{auth}{json}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            411,
            "length_required",
        ),
        (start_with(&huge), 413, "body_too_large"),
        (post("/api/instruction", json, &long), 413, "instruction_too_long"),
        (post("/api/start", "Content-Type: text/plain\r\n", r#"{"source":"test:"}"#), 415, "not_json"),
        (post("/api/start", "", r#"{"source":"test:"}"#), 415, "not_json"),
        (post("/api/stop", "", "{}"), 415, "not_json"),
        (start_with("{"), 400, "json_invalid"),
        (start_with(&deep), 400, "json_invalid"),
        (start_with("\"rtsp://u:secretword@h\""), 400, "json_not_object"),
        (start_with(r#"{"source":"test:","loop":true}"#), 400, "field_unknown"),
        (start_with(r#"{"source":["secretword"]}"#), 400, "field_type"),
        (start_with("{}"), 400, "source_missing"),
        (start_with(r#"{"source":"bad:secretword"}"#), 400, "source_scheme"),
        (post("/api/stop", json, r#"{"now":"x"}"#), 400, "field_unknown"),
        (post("/api/instruction", json, "{}"), 400, "nothing_to_change"),
        (post("/api/instruction", json, r#"{"instruction":" "}"#), 400, "instruction_empty"),
        (post("/api/instruction", json, r#"{"instruction":"a\u0000b"}"#), 400, "instruction_control_character"),
        (post("/api/instruction", json, r#"{"profile":"opera"}"#), 404, "profile_unknown"),
        (
            format!("PUT /api/streams/a.b HTTP/1.1\r\nHost: localhost\r\n{auth}Content-Length: 0\r\n\r\n"),
            400,
            "stream_name",
        ),
        (format!("DELETE /api/streams/none HTTP/1.1\r\nHost: localhost\r\n{auth}\r\n"), 404, "stream_unknown"),
    ];
    for (request, status, code) in table {
        let first = request.lines().next().unwrap().chars().take(80).collect::<String>();
        let mut client = Client::connect(server.at).await;
        client.send(&request).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.json()["error"]["code"].as_str()), (status, Some(code)), "{first}");
        let error = reply.json();
        assert!(error["error"]["message"].is_string() && error["error"]["hint"].is_string(), "{first}: {error}");
        assert!(!error.to_string().contains("secretword"), "{first}: {error}");
        assert_eq!(reply.header("content-type"), Some("application/json"), "{first}");
        assert_eq!(reply.header("allow").is_some(), status == 405, "{first}");
        if status == 401 && !first.contains("session") {
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
        dressed(&reply);
    }
    assert_eq!(server.streams.get("main").unwrap().status().commentary.instruction, "Tell me what you see.");
}

fn dressed(reply: &Reply) {
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"));
    assert!(policy.ends_with("base-uri 'none'; form-action 'none'; frame-ancestors 'none'"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
    assert!(matches!(reply.header("cache-control"), Some("no-store" | "no-cache" | "max-age=3600")));
    assert!(reply.header("access-control-allow-origin").is_none());
}

#[tokio::test]
async fn no_picture_is_said_after_the_wait() {
    let server = start(WebConfig { frame_wait: Duration::from_millis(100), ..WebConfig::default() }).await;
    let none = ask(server.at, "GET", "/api/frame", "", "").await;
    assert_eq!((none.status, none.json()["error"]["code"].as_str()), (503, Some("no_picture")));
    server.bus().show(picture(7, 50));
    let last = ask(server.at, "GET", "/api/frame", "", "").await;
    assert_eq!((last.status, last.header("x-frame-seq")), (200, Some("7")), "the last, for want of a newer one");
    assert_eq!(server.bus().viewers(), 0);
}

#[tokio::test]
async fn the_token_opens_every_route_and_nothing_else_does() {
    let server = start(with_token()).await;
    for route in ROUTES {
        let path = route.path.replace("{name}", "main").replace("{file}", "dom.js").replace("{id}", "1");
        let mut client = Client::connect(server.at).await;
        client.send(&format!("{} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", route.method)).await;
        let reply = client.head().await;
        assert_eq!(reply.status == 401, route.access == Access::Token || path == "/api/session", "{route:?}");
        dressed(&reply);
        // With it, none is refused, and none is missing behind the table.
        let mut client = Client::connect(server.at).await;
        client
            .send(&format!(
                "{} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: bearer {TOKEN}\r\nContent-Length: 0\r\n\r\n",
                route.method
            ))
            .await;
        if path.contains("/utterances/") || path.ends_with("/source-audio") {
            assert_eq!(client.head().await.status, 404, "no picture was kept, and no source has sound");
            continue;
        }
        if path.starts_with("/vendor/") {
            // 404 in a build without it.
            assert!([200, 404].contains(&client.head().await.status), "{route:?}");
            continue;
        }
        if path.ends_with("/frame") {
            within(PATIENCE, "a viewer", || server.bus().viewers() == 1).await;
            server.bus().show(picture(1, 10));
        }
        let reply = client.head().await;
        assert!(![404, 405].contains(&reply.status) || route.method == "DELETE", "{route:?}: {}", reply.status);
        assert!(reply.status != 401 || path == "/api/session", "{route:?}");
        if route.method == "DELETE" {
            server.streams.ensure("main").unwrap();
        }
    }
    let open: Vec<_> = ROUTES.iter().filter(|r| r.access == Access::Public).map(|r| r.path).collect();
    assert_eq!(
        open,
        [
            "/",
            "/app.js",
            "/style.css",
            "/page/{file}",
            "/vendor/livekit-client.js",
            "/licences",
            "/live",
            "/ready",
            "/api/session"
        ],
        "public by intention only"
    );
}

/// By the API's own description this time, with bad tokens of every kind, and with paths that are close to those that exist.
#[tokio::test]
async fn whatever_is_described_as_guarded_is_guarded() {
    let server = start(with_token()).await;
    let auth = format!("Authorization: Bearer {TOKEN}\r\n");
    let doc = ask(server.at, "GET", "/openapi.json", &auth, "").await.json();
    let mut guarded = 0;
    for (path, methods) in doc["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap().iter().filter(|(m, _)| *m != "parameters") {
            if operation["security"] == json!([]) {
                continue;
            }
            guarded += 1;
            let path = path.replace("{name}", "main").replace("{id}", "1");
            let method = method.to_uppercase();
            let methods = if method == "GET" { vec!["GET", "HEAD"] } else { vec![method.as_str()] };
            for method in methods {
                // Wrong ones are answered slowly, so they are tried on a few.
                let bad = ["", "Authorization: Bearer\r\n", "Cookie: vidette_session=1.0\r\n"];
                for credential in &bad[..if guarded <= 3 { 3 } else { 1 }] {
                    let mut client = Client::connect(server.at).await;
                    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n");
                    client.send(&format!("{head}{credential}\r\n")).await;
                    assert_eq!(client.head().await.status, 401, "{method} {path} with {credential:?}");
                }
            }
            // A path that is read differently by whoever stands before and behind the guard would slip through.
            for odd in [
                format!("/{path}"),
                format!("{path}/"),
                format!("{path}/."),
                path.replacen("/api", "/%61pi", 1),
                path.to_uppercase(),
            ] {
                let reply = ask(server.at, "GET", &odd, "", "").await;
                assert!([401, 404, 405].contains(&reply.status), "{odd}: {}", reply.status);
            }
        }
    }
    assert!(guarded >= 20, "{guarded}");
}

#[tokio::test]
async fn a_session_cookie_stands_for_the_token() {
    let server = start(with_token()).await;
    let opened =
        ask(server.at, "POST", "/api/session", "Origin: http://localhost\r\n", &json!({"token": TOKEN}).to_string())
            .await;
    assert_eq!(expect(&opened, 200), json!({"token_needed": true}));
    let set = opened.header("set-cookie").unwrap();
    assert!(set.ends_with("; Path=/; Max-Age=86400; HttpOnly; SameSite=Strict") && !set.contains(TOKEN), "{set}");
    let cookie = format!("Cookie: other=1; {}\r\n", set.split(';').next().unwrap());
    assert_eq!(ask(server.at, "GET", "/api/status", &cookie, "").await.status, 200);
    let foreign = format!("{cookie}Origin: http://evil.example\r\n");
    assert_eq!(ask(server.at, "POST", "/api/stop", &foreign, "").await.status, 403);
    assert_eq!(Client::connect(server.at).await.open("/api/stream", &cookie).await.status, 200);
}

#[tokio::test]
async fn the_description_and_the_routes_are_the_same() {
    let server = start(WebConfig::default()).await;
    let doc = ask(server.at, "GET", "/openapi.json", "", "").await.json();
    assert!(doc["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(doc["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut described: Vec<(String, String)> = Vec::new();
    for (path, methods) in doc["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap().iter().filter(|(m, _)| *m != "parameters") {
            described.push((method.to_uppercase(), path.clone()));
            let route = ROUTES.iter().find(|r| r.path == path && r.method == method.to_uppercase());
            let Some(route) = route else { panic!("{method} {path} is described but does not exist") };
            assert_eq!(operation["security"] == json!([]), route.access == Access::Public, "{method} {path}");
            let body = &operation["requestBody"];
            assert_eq!(body.is_object(), route.body != vidette::web::Body::None, "{method} {path}");
            assert_eq!(body["required"] == true, route.body == vidette::web::Body::Required, "{method} {path}");
        }
    }
    for route in ROUTES {
        assert!(described.contains(&(route.method.into(), route.path.into())), "{route:?} is not described");
    }
    assert_eq!(described.len(), ROUTES.len());
    let text = doc.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).map(|r| r.split('"').next().unwrap()) {
        assert!(doc.pointer(reference).is_some(), "{reference} leads nowhere");
    }
    // What is promised of the shapes holds for a real answer.
    let status = ask(server.at, "GET", "/api/status", "", "").await.json();
    for (part, schema) in [
        ("", "StreamStatus"),
        ("source", "SourceStatus"),
        ("commentary", "CommentaryStatus"),
        ("engine", "EngineStatus"),
        ("voice", "VoiceStatus"),
        ("process", "Process"),
    ] {
        let real = if part.is_empty() { &status } else { &status[part] };
        same_fields(real, &doc["components"]["schemas"][schema]);
    }
    let Event::Utterance(u) = utterance(1, "x", Finish::Stop, 0) else { unreachable!() };
    let real = serde_json::to_value(u).unwrap();
    same_fields(&real, &doc["components"]["schemas"]["Utterance"]);
    same_fields(&real["stamps"], &doc["components"]["schemas"]["Stamps"]);
    let speech =
        Speech { utterance: 1, phase: SpeechPhase::Begun, first_audio_ms: None, last_audio_ms: None, audio_ms: 0.0 };
    same_fields(&serde_json::to_value(speech).unwrap(), &doc["components"]["schemas"]["Speech"]);
}

#[track_caller]
fn same_fields(real: &serde_json::Value, schema: &serde_json::Value) {
    let sorted = |v: &serde_json::Value| {
        let mut names: Vec<_> = v.as_object().unwrap().keys().cloned().collect();
        names.sort();
        names
    };
    assert_eq!(sorted(real), sorted(&schema["properties"]));
}

#[tokio::test]
async fn an_utterance_has_its_picture_until_newer_ones_push_it_out() {
    let server = start(WebConfig::default()).await;
    let get = async |path: &str| ask(server.at, "GET", path, "", "").await;
    let stream = server.streams.get("main").unwrap();
    let wall = std::time::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let keep = |utterance: u64| {
        let jpeg = format!("picture {utterance}").into_bytes().into();
        stream.thumbnails().keep(utterance, Thumbnail { seq: utterance * 10, wall, jpeg });
    };
    keep(1);
    for path in ["/api/utterances/1/frame", "/api/streams/main/utterances/1/frame"] {
        let reply = get(path).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("image/jpeg")));
        assert_eq!((reply.header("x-frame-seq"), reply.header("x-timestamp")), (Some("10"), Some("1700000000.123")));
        assert_eq!(reply.body, b"picture 1");
    }
    (2..=65).for_each(keep);
    for path in ["/api/utterances/1/frame", "/api/utterances/66/frame", "/api/utterances/x/frame"] {
        let error = expect(&get(path).await, 404);
        assert_eq!(error["error"]["code"], "utterance_frame_gone", "{path}");
        assert!(error["error"]["hint"].as_str().unwrap().contains("64"), "{error}");
    }
    assert_eq!(get("/api/utterances/2/frame").await.status, 200);
    assert_eq!(get("/api/streams/none/utterances/2/frame").await.status, 404);
    // The list of streams tells what was said last, and silence is not said.
    server.bus().publish(utterance(7, "A cat.", Finish::Stop, 5));
    server.bus().publish(utterance(8, "...", Finish::Stop, 6));
    let list = expect(&get("/api/streams").await, 200);
    assert_eq!(list["streams"][0]["last_utterance"]["text"], "A cat.");
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let server = start(WebConfig::default()).await;
    let mut client = Client::connect(server.at).await;
    client.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\nHEAD /api/mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.head().await.status, 200);
    within(PATIENCE, "no viewer", || server.bus().viewers() == 0).await;
}

/// Takes the data of status events out: they hold times.
fn without_status(text: &str) -> String {
    let mut previous = "";
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let in_status =
            previous.starts_with("event: status") || (previous.starts_with("id: ") && line.contains("\"uptime_s\""));
        out.push_str(if in_status && line.starts_with("data: ") { "data: STATUS\n" } else { line });
        previous = line;
    }
    out
}

#[tokio::test]
async fn events_have_exact_bytes_and_resume() {
    let server = start(WebConfig::default()).await;
    let bus = server.bus();
    let mut live = Client::connect(server.at).await;
    let head = live.open("/api/stream", "").await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(head.header("cache-control"), Some("no-store"));
    let first = live.until("\n\n").await;
    assert_eq!(without_status(&first), "retry: 1000\nevent: status\ndata: STATUS\n\n");
    let status: serde_json::Value =
        serde_json::from_str(first.lines().nth(2).unwrap().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((status["stream"].as_str(), status["listeners"].as_u64()), (Some("main"), Some(1)));

    bus.publish(token(1, "A <b>cat</b>\n"));
    bus.publish(utterance(1, "A <b>cat</b>\n", Finish::Stop, 1_700_000_000_000));
    bus.publish(Event::Status);
    bus.publish(token(2, "é😀\r\n\r\nevent: bye"));
    let golden = concat!(
        "event: token\nid: 1\ndata: {\"text\":\"A <b>cat</b>\\n\",\"utterance\":1}\n\n",
        "event: utterance\nid: 2\ndata: {\"utterance\":1,\"text\":\"A <b>cat</b>\\n\",\"skipped\":false,\"finish\":\"stop\",",
        "\"instruction\":\"Tell me what you see.\",\"tokens\":12,\"frames\":4,\"frames_encoded\":2,\"stamps\":{",
        "\"oldest_frame\":10,\"newest_frame\":16,\"newest_frame_unix_ms\":1700000000000,\"window_ms\":1500.0,",
        "\"start_ms\":4.0,\"encode_done_ms\":220.0,\"prefill_done_ms\":410.0,\"first_token_ms\":470.0,",
        "\"last_token_ms\":1250.0,\"first_audio_ms\":null,\"last_audio_ms\":null}}\n\n",
        "event: status\nid: 3\ndata: STATUS\n\n",
        "event: token\nid: 4\ndata: {\"text\":\"é😀\\r\\n\\r\\nevent: bye\",\"utterance\":2}\n\n",
    );
    assert_eq!(without_status(&live.until("\"utterance\":2}\n\n").await), golden);

    // Coming back, by header and by query; a status run is told once.
    bus.publish(Event::Status);
    bus.publish(Event::Status);
    for (path, header) in [("/api/stream", "Last-Event-ID: 3\r\n"), ("/api/stream?last_event_id=3", "")] {
        let mut again = Client::connect(server.at).await;
        again.open(path, header).await;
        let text = without_status(&again.until("id: 6\n").await);
        let ids: Vec<_> = text.lines().filter_map(|l| l.strip_prefix("id: ")).collect();
        assert_eq!(ids, ["4", "6"], "{text}");
    }
    // An id of a former life, or nonsense, starts afresh.
    for header in ["Last-Event-ID: 999\r\n", "Last-Event-ID: x\r\n"] {
        let mut again = Client::connect(server.at).await;
        again.open("/api/stream", header).await;
        assert_eq!(without_status(&again.until("\n\n").await), "retry: 1000\nevent: status\ndata: STATUS\n\n");
    }
    // What is gone from the bus is counted.
    (0..1100).for_each(|_| {
        bus.publish(token(3, "x"));
    });
    let mut late = Client::connect(server.at).await;
    late.open("/api/stream", "Last-Event-ID: 2\r\n").await;
    let text = late.until("id: 1106\n").await;
    assert!(text.contains("event: lagged\ndata: {\"missed\":80}\n\n"), "{}", &text[..600]);
    assert_eq!(text.matches("event: token\n").count(), 1024);

    server.trigger.fire();
    let end = String::from_utf8(late.rest().await).unwrap();
    assert!(end.ends_with("event: bye\ndata: {\"reason\":\"shutdown\"}\n\n"), "{end}");
}

#[tokio::test]
async fn a_listener_that_falls_behind_is_told() {
    let server = start(WebConfig::default()).await;
    let mut live = Client::connect(server.at).await;
    live.open("/api/stream", "").await;
    live.until("\n\n").await;
    // The server's task can't run in between: there is one thread.
    let bus = server.bus();
    (0..600).for_each(|_| {
        bus.publish(token(1, "x"));
    });
    let text = live.until("id: 600\n").await;
    assert!(text.starts_with("event: lagged\ndata: {\"missed\":88}\n\nevent: token\nid: 89\n"), "{}", &text[..100]);
    assert_eq!(server.metrics.events_lagged.get(), 88);
}

#[tokio::test]
async fn silence_is_filled_and_deletion_ends_the_streams() {
    let server = start(WebConfig { keep_alive: Duration::from_millis(50), ..WebConfig::default() }).await;
    server.streams.ensure("yard").unwrap();
    let mut events = Client::connect(server.at).await;
    events.open("/api/streams/yard/stream", "").await;
    events.until(": keep-alive\n\n: keep-alive\n\n").await;
    let mut video = Client::connect(server.at).await;
    video.open("/api/streams/yard/mjpeg", "").await;
    server.streams.remove("yard").await.unwrap();
    let end = String::from_utf8(events.rest().await).unwrap();
    assert!(end.ends_with("event: bye\ndata: {\"reason\":\"stream_deleted\"}\n\n"), "{end}");
    assert!(video.rest().await.is_empty());
}

#[tokio::test]
async fn motion_jpeg_parses_skips_and_ends_whole() {
    let server = start(WebConfig::default()).await;
    let bus = server.bus();
    let mut video = Client::connect(server.at).await;
    let head = video.open("/api/mjpeg", "").await;
    assert_eq!(head.header("content-type"), Some("multipart/x-mixed-replace; boundary=frame"), "before any picture");
    assert_eq!(bus.viewers(), 1);
    let mut body = Vec::new();
    // Three at once: only the newest is seen.
    for seq in 1..=3 {
        bus.show(picture(seq, 1000));
    }
    for piece in 0..3 {
        body.extend(video.chunk().await.unwrap_or_else(|| panic!("piece {piece}")));
    }
    for seq in 4..=6 {
        bus.show(picture(seq, 2000 + seq as usize));
        for _ in 0..3 {
            body.extend(video.chunk().await.unwrap());
        }
    }
    bus.clear_picture();
    server.trigger.fire();
    body.extend(video.rest().await);
    let parts = parse(&body);
    assert_eq!(parts, [(3, 1000), (4, 2004), (5, 2005), (6, 2006)]);
    tokio::time::timeout(PATIENCE, server.serving).await.unwrap().unwrap();
    assert_eq!(bus.viewers(), 0);
}

/// Number and size of each part; panics on anything that is not exactly as promised.
fn parse(mut body: &[u8]) -> Vec<(u64, usize)> {
    let mut parts = Vec::new();
    while !body.is_empty() {
        let end = web_server::find(body, b"\r\n\r\n").unwrap();
        let head: Vec<_> = std::str::from_utf8(&body[..end]).unwrap().split("\r\n").collect();
        assert_eq!(head[..2], ["--frame", "Content-Type: image/jpeg"]);
        let length: usize = head[2].strip_prefix("Content-Length: ").unwrap().parse().unwrap();
        let seq: u64 = head[3].strip_prefix("X-Frame-Seq: ").unwrap().parse().unwrap();
        let time: f64 = head[4].strip_prefix("X-Timestamp: ").unwrap().parse().unwrap();
        assert!(time > 1.7e9 && head.len() == 5);
        let data = &body[end + 4..end + 4 + length];
        assert_eq!(data[..8], seq.to_be_bytes());
        body = body[end + 4 + length..].strip_prefix(b"\r\n").unwrap();
        parts.push((seq, length));
    }
    parts
}

#[tokio::test]
async fn a_viewer_who_leaves_stops_counting_at_once() {
    let server = start(WebConfig::default()).await;
    let bus = server.bus();
    let mut video = Client::connect(server.at).await;
    video.open("/api/mjpeg", "").await;
    let mut events = Client::connect(server.at).await;
    events.open("/api/stream", "").await;
    assert_eq!((bus.viewers(), bus.listeners()), (1, 1));
    drop((video, events));
    // Nothing is published: leaving alone has to be noticed.
    let took = within(PATIENCE, "leaving", || bus.viewers() == 0 && bus.listeners() == 0).await;
    assert!(took < Duration::from_millis(500), "{took:?}");
    within(PATIENCE, "no connection", || server.metrics.http_connections.get() == 0).await;
}

#[tokio::test]
async fn a_taken_port_is_a_clean_error() {
    let server = start(WebConfig::default()).await;
    let error = vidette::web::bind(server.at).unwrap_err();
    assert_eq!(error.code, "port_taken");
    let error = vidette::web::bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
    assert_eq!(error.code, "address_not_here");
}
