//! The HTTP API of a process, as a client sees it.

#[path = "../../../../src/ingress/http/tests/client.rs"]
#[allow(dead_code)]
mod client;

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use uuid::Uuid;

pub(crate) use client::Answer;
use client::Client;

/// A client that makes a connection a request, so that a process that is replaced is no trouble.
#[derive(Clone, Copy)]
pub struct Api(pub SocketAddr);

impl Api {
    pub(crate) async fn get(self, target: &str) -> Answer {
        self.request("GET", target, &[], &Value::Null).await
    }

    pub(crate) async fn request(
        self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut headers = headers.to_vec();
        headers.push(("Content-Type", "application/json"));
        let mut client = Client::connect(self.0).await;
        client.request(method, target, &headers, body.as_bytes()).await
    }

    /// Sends a command; `None` if the process is gone, or vanishes before it has answered.
    pub(crate) async fn send_to_who_may_vanish(
        self,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Option<Answer> {
        let stream = TcpStream::connect(self.0).await.ok()?;
        let mut headers = headers.to_vec();
        headers.push(("Content-Type", "application/json"));
        let (method, target, body) = ("POST", "/v1/commands", body.to_string());
        let mut client = Client::on(stream);
        client.request_that_may_break(method, target, &headers, body.as_bytes()).await
    }

    /// Sends a command and waits until it has ended: its resource.
    pub async fn execute(self, kind: &str, account: &str, payload: Value) -> Value {
        let answer = self.post(&[("Prefer", "wait=30")], kind, account, payload).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    pub(crate) async fn post(
        self,
        headers: &[(&str, &str)],
        kind: &str,
        account: &str,
        payload: Value,
    ) -> Answer {
        let body = json!({
            "id": Uuid::now_v7(), "type": format!("account.{kind}"),
            "stream": format!("account/{account}"), "payload": payload,
        });
        self.request("POST", "/v1/commands", headers, &body).await
    }

    /// Sends lines to the batch endpoint: the ids that were accepted.
    pub async fn batch(self, lines: &[String]) -> Vec<Uuid> {
        let mut client = Client::connect(self.0).await;
        let headers = [("Content-Type", "application/x-ndjson")];
        let body = lines.join("\n");
        let answer = client.request("POST", "/v1/commands/batch", &headers, body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
            .body
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
            .filter(|line| line["code"] == 202)
            .map(|line| line["id"].as_str().and_then(|id| id.parse().ok()).expect("an id"))
            .collect()
    }

    /// Opens an account.
    pub async fn open(self, account: &str) -> Value {
        self.execute("open", account, json!({ "owner": "Ada" })).await
    }

    pub async fn deposit(self, account: &str, amount: i64) -> Value {
        self.execute("deposit", account, json!({ "amount": amount })).await
    }

    /// The balance, once the view has applied what the command did.
    pub async fn balance_after(self, account: &str, command: &Value) -> Value {
        let position = command["outcome"]["positions"][0].as_str().expect("a position");
        let answer = self.get(&format!("/v1/views/balances/{account}?at={position}&wait=30")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["value"]["balance"].clone()
    }

    pub async fn members(self) -> Vec<Value> {
        let answer = self.get("/v1/members").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["items"].as_array().unwrap().clone()
    }
}
