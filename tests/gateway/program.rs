//! The program as a newcomer runs it: `demo` and its curl lines, and `request` against bad peers.

use std::process::{Command, Stdio};

use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::peer::{Reply, ScriptedPeer};

const PROGRAM: &str = env!("CARGO_BIN_EXE_modal-gateway");

/// The URL and the header of a printed curl line.
fn parse(curl: &str) -> (String, Option<(String, String)>) {
    let quoted: Vec<&str> = curl.split('\'').skip(1).step_by(2).collect();
    let url = quoted.iter().find(|text| text.starts_with("http://")).unwrap_or_else(|| panic!("{curl}"));
    let header = quoted.iter().find_map(|text| text.split_once(": "));
    (url.to_string(), header.map(|(name, value)| (name.to_owned(), value.to_owned())))
}

#[tokio::test]
async fn the_demos_curl_lines_work_and_ctrl_c_ends_it() {
    let mut demo = tokio::process::Command::new(PROGRAM)
        .args(["demo", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--verify", "linked"])
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut guide = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap().filter(|line| !line.starts_with("Ctrl-C")) {
        guide.push(line);
    }
    let curls: Vec<_> = guide.iter().filter(|line| line.trim().starts_with("curl ")).collect();
    assert_eq!(curls.len(), 7, "{guide:#?}");
    for curl in curls {
        let (url, header) = parse(curl);
        let mut request = reqwest::Client::builder().no_proxy().build().unwrap().get(&url);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{curl}");
        assert_eq!(response.headers()["x-modal-source"].to_str().unwrap().starts_with("peer:"), url.contains("peer="));
    }
    assert!(Command::new("kill").args(["-INT", &demo.id().unwrap().to_string()]).status().unwrap().success());
    assert!(demo.wait().await.unwrap().success(), "a clean end");
}

#[rstest::rstest]
#[case::garbage("garbage", 1, "envelope")]
#[case::half("half", 1, "envelope")]
#[case::nothing("nothing", 1, "no answer within 2 s")]
#[case::too_much("too much", 1, "longer than the protocol allows")]
#[case::refuses("refuses", 1, "")]
#[case::answers("answers", 0, "")]
#[tokio::test]
async fn request_ends_in_its_exit_code_whatever_the_peer_does(
    #[case] character: &'static str,
    #[case] code: i32,
    #[case] said: &str,
) {
    let peer = ScriptedPeer::start(move |_| match character {
        "garbage" => Reply::Raw(Bytes::from_static(b"\x00\xffnot json")),
        "half" => Reply::Raw(Bytes::from_static(br#"{"ok":true,"da"#)),
        "nothing" => Reply::Silence,
        "too much" => Reply::Raw(vec![b' '; (10 << 20) + 1].into()),
        "refuses" => Reply::Json(json!({"ok": false, "data": null, "errors": {"error": "no"}})),
        _ => Reply::Json(json!({"ok": true, "data": 1, "errors": null})),
    })
    .await;
    let limit = if character == "nothing" { "2" } else { "20" };
    let mut request = Command::new(PROGRAM);
    request.args(["request", &peer.address.to_string(), "/ping", "1", "--timeout", limit]);
    request.current_dir(env!("CARGO_TARGET_TMPDIR"));
    let output = tokio::task::spawn_blocking(move || request.output()).await.unwrap().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(said), "{stderr}");
}
