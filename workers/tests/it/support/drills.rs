//! Drills and their dead letters over HTTP, and the operator's command line.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    api::{Answer, Api},
    eventually, process,
};

/// Sends a drill's task (`run` or `run_in_order`): its command's id.
pub async fn send(api: Api, kind: &str, drill: &str, task: Value) -> Uuid {
    let body = json!({ "id": Uuid::now_v7(), "type": format!("drill.{kind}"),
                       "stream": format!("drill/{drill}"), "payload": task });
    let answer = api.request("POST", "/v1/commands", &[], &body).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.json()["id"].as_str().and_then(|id| id.parse().ok()).expect("an id")
}

pub async fn command(api: Api, id: Uuid) -> Value {
    let answer = api.get(&format!("/v1/commands/{id}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// Waits until a command has this status: its resource.
pub async fn until_status(api: Api, id: Uuid, status: &str) -> Value {
    eventually(&format!("the command is {status}"), async || {
        let command = command(api, id).await;
        (command["status"] == status).then_some(command)
    })
    .await
}

/// What commands that succeeded answered.
pub async fn replies(api: Api, ids: &[Uuid]) -> Vec<u64> {
    let mut replies = Vec::new();
    for id in ids {
        let command = until_status(api, *id, "succeeded").await;
        replies.push(command["outcome"]["reply"].as_u64().expect("a number"));
    }
    replies
}

/// Waits until there is exactly one dead letter of this stream in this state: it.
pub async fn letter(api: Api, stream: &str, state: &str) -> Value {
    eventually(&format!("there is one dead letter, {state}"), async || {
        let answer = api.get(&format!("/v1/dead-letters?stream={stream}&state={state}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let page = answer.json();
        let items = page["items"].as_array().expect("items");
        assert!(items.len() < 2, "{page}");
        items.first().cloned()
    })
    .await
}

/// How a person asks for a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Http,
    Cli,
}

impl By {
    /// Retries a dead letter, perhaps with another payload; it must be accepted.
    pub async fn retry(self, api: Api, letter: &Value, payload: Option<Value>) {
        let id = letter["id"].as_str().expect("an id");
        match self {
            Self::Http => {
                let target = format!("/v1/dead-letters/{id}/retry");
                let body = payload.map_or(json!({}), |payload| json!({ "payload": payload }));
                let answer = api.request("POST", &target, &[], &body).await;
                assert_eq!(answer.status, 202, "{}", answer.body);
                assert_eq!(answer.json()["id"], id);
            }
            Self::Cli => {
                let mut arguments = vec!["dead-letters", "retry", id, "--reason", "mended"];
                let text = payload.map(|payload| payload.to_string());
                if text.is_some() {
                    arguments.extend(["--payload", "-"]);
                }
                let done = adjutant(api, &arguments, &text.unwrap_or_default()).await;
                let said = String::from_utf8_lossy(&done.stderr);
                assert!(done.status.success(), "{said}");
                let printed = String::from_utf8_lossy(&done.stdout);
                assert!(printed.contains(id), "{printed}");
            }
        }
    }
}

/// The operator's command line, which is built beside the bank's binary.
pub async fn adjutant(api: Api, arguments: &[&str], input: &str) -> Output {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_bank")).with_file_name("adjutant");
    assert!(program.exists(), "build it first: cargo build --workspace --all-features");
    let mut command = Command::new(program);
    command.args(["--url", &format!("http://{}", api.0)]).args(arguments);
    command.env_remove("ADJUTANT_TOKEN");
    process::run_with(command, input.to_owned()).await
}

/// Where a command's event stands, once it has succeeded.
pub async fn position(api: Api, id: Uuid) -> String {
    let command = until_status(api, id, "succeeded").await;
    command["outcome"]["positions"][0].as_str().expect("a position").to_owned()
}

/// The document of a drill, which must hold a position.
pub(crate) async fn at(api: Api, drill: &str, position: &str) -> Answer {
    api.get(&format!("/v1/views/drills/{drill}?at={position}&wait=30")).await
}

/// Waits until the document of a drill holds what a command did; it counts so many then.
pub async fn until_runs(api: Api, drill: &str, id: Uuid, expected: u64) {
    let position = position(api, id).await;
    eventually(&format!("{drill} has run {expected} times"), async || {
        let answer = at(api, drill, &position).await;
        let parked_or_late = answer.status == 504;
        assert!(parked_or_late || answer.status == 200, "{}", answer.body);
        (!parked_or_late && answer.json()["value"]["runs"] == expected).then_some(())
    })
    .await;
}

/// What the document of a drill counts now.
pub async fn runs(api: Api, drill: &str) -> u64 {
    let answer = api.get(&format!("/v1/views/drills/{drill}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["value"]["runs"].as_u64().expect("a number")
}
