//! The examples of the document, held against what a gateway answers.

use modal_gateway::{chain::Level, http::Numbers};
use serde_json::{Value, json};

use crate::{
    document_of, named, operations, parameters,
    support::gateway::{Backend, PATIENCE, TestGateway, TestStore, chain},
};

/// Without what differs from run to run.
fn steady(mut answer: Value) -> Value {
    let data = &mut answer["data"];
    if let Some(peers) = data["peers"].as_array_mut() {
        peers.clear();
        data["count"] = Value::Null;
    }
    for name in ["peer_id", "uptime_seconds", "peers", "sync"] {
        if let Some(member) = data.get_mut(name) {
            *member = Value::Null;
        }
    }
    // Of `/sync`; elsewhere it is a word.
    if data["status"].is_object() {
        data["status"] = Value::Null;
    }
    answer
}

#[tokio::test]
async fn the_examples_are_what_a_gateway_answers() {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(chain().into_iter().take(2).collect(), Level::Pow).await;
    let documents = Numbers::ALL.map(document_of);
    // The job that the examples tell of.
    let job = &documents[0]["paths"]["/sync/{id}"]["get"]["responses"]["200"]["content"]["application/json"]["example"];
    let (job, handle) = (&job["data"], store.open().await);
    let id = handle.create_job(&job["spec"].to_string()).await.unwrap();
    assert_eq!(job["id"], id);
    let phase = job["progress"]["phase"].as_str().unwrap();
    handle.update_job(id, phase, &job["progress"].to_string()).await.unwrap();
    handle.close().await;
    let (created_at, updated_at) = (&job["created_at"], &job["updated_at"]);
    store.execute(&format!("UPDATE job SET created_at = {created_at}, updated_at = {updated_at}")).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    for (method, path, operation) in documents.iter().flat_map(operations) {
        if path == "/events" {
            check_stream(&gateway, &operation["responses"]["200"]["content"]["text/event-stream"]["example"]).await;
            continue;
        }
        let segments = parameters(operation, "path").into_iter().flat_map(pairs);
        let path = segments.fold(path, |path, (name, value)| path.replace(&format!("{{{name}}}"), &value));
        let reply = if method == "post" {
            let body = &operation
                .get("requestBody")
                .map_or(&Value::Null, |body| &body["content"]["application/json"]["example"]);
            let query = match named(&parameters(operation, "query"), "numbers") {
                Some(numbers) if numbers["required"] == true => "?numbers=string",
                _ => "",
            };
            gateway.post(&format!("{path}{query}"), body.to_string()).await
        } else {
            let pairs: Vec<(String, String)> = parameters(operation, "query").into_iter().flat_map(pairs).collect();
            gateway.request(|client, base| client.get(format!("{base}{path}")).query(&pairs)).await
        };
        let good = &operation["responses"]["200"]["content"];
        let example = &good["application/json"]["example"];
        assert_eq!(steady(reply.json()), steady(example.clone()), "{method} {path}");
        if let Some(lines) = good.get("application/x-ndjson") {
            let lines = lines["example"].as_str().unwrap().lines();
            let blocks: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(json!(blocks), example["data"]["blocks"], "{method} {path}");
        }
        if let Some(csv) = good.get("text/csv") {
            let asked = gateway.request(|client, base| {
                match method.as_str() {
                    "post" => {
                        let body = operation.get("requestBody");
                        let body = body.map_or(&Value::Null, |body| &body["content"]["application/json"]["example"]);
                        client
                            .post(format!("{base}{path}"))
                            .header("content-type", "application/json")
                            .body(body.to_string())
                    }
                    _ => {
                        let pairs: Vec<_> = parameters(operation, "query").into_iter().flat_map(pairs).collect();
                        client.get(format!("{base}{path}")).query(&pairs)
                    }
                }
                .header("accept", "text/csv")
            });
            assert_eq!(asked.await.body, csv["example"].as_str().unwrap(), "{method} {path}");
        }
    }
}

/// Reads as much of the events as the example shows.
async fn check_stream(gateway: &TestGateway, example: &Value) {
    let example = example.as_str().unwrap();
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let mut response = client.get(format!("{}/events?after=0", gateway.base)).send().await.unwrap();
    let mut text = String::new();
    while text.matches("\n\n").count() < example.matches("\n\n").count() {
        text += std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap();
    }
    // When it happened differs.
    let timeless = |line: &str| match line.strip_prefix("data: ") {
        Some(data) => {
            let mut data: Value = serde_json::from_str(data).unwrap();
            assert!(data["at"].take().is_i64());
            data
        }
        None => json!(line),
    };
    let told = |text: &str| text.lines().map(timeless).collect::<Vec<_>>();
    assert_eq!(told(&text), told(example));
}

/// A parameter with its example as a query string has it.
fn pairs(parameter: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let name = parameter["name"].as_str().unwrap().to_owned();
    match &parameter["example"] {
        Value::Null => Vec::new(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        Value::Array(items) => vec![(name, items.iter().map(text).collect::<Vec<_>>().join(","))],
        value => vec![(name, text(value))],
    }
}
