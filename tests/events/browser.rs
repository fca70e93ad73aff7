//! `examples/follow_chain.html` in a real browser, by WebDriver.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::followers::{Follower, Restarted, change};

/// A page in a browser of its own; both end with it.
struct Page {
    driver: Child,
    http: reqwest::Client,
    session: String,
    _profile: tempfile::TempDir,
}

impl Page {
    /// Opens a page; `None` without a driver.
    async fn open(url: &str) -> Option<Self> {
        let mut command = Command::new("chromedriver");
        let profile = tempfile::tempdir().unwrap();
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).env("TMPDIR", profile.path());
        let mut driver = command.spawn().ok()?;
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port =
            lines.find_map(|line| line.split("successfully on port ").nth(1)?.trim_end_matches('.').parse().ok());
        let port: u16 = port.expect("chromedriver says where it listens");
        // What else it says must go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut page = Self { driver, http, session: format!("http://127.0.0.1:{port}/session"), _profile: profile };
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
        let options = json!({"goog:chromeOptions": {"args": arguments}});
        let session = page.ask("", json!({"capabilities": {"alwaysMatch": options}})).await;
        page.session = format!("{}/{}", page.session, session["sessionId"].as_str().unwrap());
        page.ask("/url", json!({ "url": url })).await;
        Some(page)
    }

    async fn ask(&self, path: &str, body: Value) -> Value {
        let response = self.http.post(format!("{}{path}", self.session)).json(&body).send().await.unwrap();
        let status = response.status();
        let mut answer: Value = response.json().await.unwrap();
        assert!(status.is_success(), "{answer}");
        answer["value"].take()
    }

    async fn run(&self, script: &str) -> Value {
        self.ask("/execute/sync", json!({"script": script, "args": []})).await
    }
}

impl Follower for Page {
    async fn hashes(&self) -> Vec<String> {
        serde_json::from_value(self.run("return chain").await).unwrap()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // The end of the session ends the browser, for which a signal gives the driver not always the time.
        let mut end = Command::new("curl");
        end.args(["--silent", "--max-time", "20", "--request", "DELETE", &self.session]).stdout(Stdio::null());
        let _ = end.status();
        let _ = Command::new("kill").arg(self.driver.id().to_string()).status();
        let _ = self.driver.wait();
    }
}

#[tokio::test]
async fn a_page_survives_restarts_and_reorganisations() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/follow_chain.html");
    let mut gateway = Restarted::start().await;
    let Some(page) = Page::open(&format!("file://{}?gateway={}", example.display(), gateway.base)).await else {
        assert!(std::env::var_os("CI").is_none(), "no chromedriver: scripts/setup.sh browser");
        eprintln!("left out: no chromedriver (scripts/setup.sh browser)");
        return;
    };
    change(&mut gateway, &page).await;
    let shown =
        page.run("return [document.getElementById('length').textContent, document.querySelector('li').textContent]");
    assert_eq!(shown.await, json!(["64", "+ 63 late-63"]));
    assert_eq!(page.run("return document.getElementById('state').textContent").await, "live");
}
