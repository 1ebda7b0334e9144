//! Callbacks of the service as processes: configured by a file, delivered by relays, kept over
//! crashes.

use std::path::PathBuf;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    api::Api, directory::Directory, eventually, process::Launch, receiver::Receiver, site::Site,
};

/// A file with a secret; gone with the test.
struct Secrets(PathBuf);

impl Secrets {
    fn new() -> Self {
        let path =
            std::env::temp_dir().join(format!("adjutant-secrets-{}", Uuid::new_v4().simple()));
        std::fs::write(&path, "# for tests\nwhsec_plJ3nmyCDGBKInavdOK15jsl\n").unwrap();
        Self(path)
    }

    /// A process that knows it, and may call this machine.
    fn given_to(&self, launch: Launch) -> Launch {
        launch
            .set("callbacks.secrets_file", self.0.display())
            .set("callbacks.allow_http", true)
            .set("callbacks.allow_private", true)
            .set("callbacks.timeout_ms", 1_000)
            .set("callbacks.first_wait_ms", 2_000)
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn opening(account: &str, url: &str) -> Value {
    json!({ "id": Uuid::now_v7(), "type": "account.open", "stream": format!("account/{account}"),
            "payload": { "owner": "Ada" }, "callback_url": url })
}

async fn send(api: Api, command: &Value) -> u16 {
    api.request("POST", "/v1/commands", &[], command).await.status
}

/// Nothing was delivered when the process died: the next one does, under the same id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_survives_kill_9_of_the_embedded_service() {
    let (directory, secrets) = (Directory::new(), Secrets::new());
    let receiver = Receiver::start([500]).await;
    let mut bank = secrets.given_to(directory.launch()).start().await;
    let command = opening("acc-1", &receiver.url());
    assert_eq!(send(Api(bank.api()), &command).await, 202);
    receiver.until(1).await;
    bank.kill();
    assert_eq!(directory.count("SELECT count(*) FROM callbacks"), 1);

    let mut bank = secrets.given_to(directory.launch()).start().await;
    let taken = receiver.until(2).await;
    assert_eq!(taken[0].headers["webhook-id"], taken[1].headers["webhook-id"]);
    assert_eq!(taken[0].body, taken[1].body);
    assert_eq!(taken[1].body["id"], command["id"]);
    assert_eq!(taken[1].body["status"], "succeeded");
    assert!(taken[1].headers["webhook-signature"].starts_with("v1,"));
    eventually("it is delivered", async || {
        (directory.count("SELECT count(*) FROM callbacks") == 0).then_some(())
    })
    .await;
    let metrics = Api(bank.api()).get("/metrics").await.body;
    assert!(metrics.contains("adjutant_callbacks_total{result=\"delivered\"} 1"), "{metrics}");
    let (status, _) = bank.stop().await;
    assert!(status.success());
    assert_eq!(receiver.received().len(), 2);
}

/// Who accepts, who executes and who delivers are three processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_deliver_what_others_accepted_and_executed() {
    let (site, secrets) = (Site::with_partitions(4).await, Secrets::new());
    let receiver = Receiver::start([]).await;
    let without = site.launch("ingress").start().await;
    let ingress = secrets.given_to(site.launch("ingress")).start().await;
    let _worker = site.launch("command-worker").start().await;
    let command = opening("acc-1", &receiver.url());
    let refused = Api(without.api()).request("POST", "/v1/commands", &[], &command).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert_eq!(refused.json()["code"], "callbacks_not_configured");
    assert_eq!(send(Api(ingress.api()), &command).await, 202);
    // A relay without a secret carries the command, and leaves its callback to others.
    let mute = site.launch("relay").start().await;
    let id = command["id"].as_str().unwrap();
    let ended = Api(ingress.api()).get(&format!("/v1/commands/{id}?wait=30")).await;
    assert_eq!(ended.json()["status"], "succeeded", "{}", ended.body);
    assert_eq!(receiver.received().len(), 0);
    assert_eq!(site.look().await.number("SELECT count(*) FROM adjutant.callbacks").await, 1);
    drop(mute);
    let _relay = secrets.given_to(site.launch("relay")).start().await;
    let taken = receiver.until(1).await;
    assert_eq!(taken[0].body, ended.json());
}
