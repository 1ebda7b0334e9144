//! What a process makes of its configuration, as whoever starts it sees it.

use std::{io::Write, path::PathBuf, process::Output};

use serde_json::json;
use uuid::Uuid;

use crate::support::{
    api::Api,
    process::{Launch, program, run},
    site::Site,
};

/// A file that is gone when dropped.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn containing(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bank-{}", Uuid::now_v7()));
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What it wrote, and that it was asked for wrongly.
fn misuse(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{words}");
    words
}

#[tokio::test]
async fn an_unknown_key_is_an_error_wherever_it_stands() {
    let file = TemporaryFile::containing("[relay]\ncolour = 3\n");
    let in_file = Launch::new("all").env("ADJUTANT_CONFIG", file.path()).output().await;
    let words = misuse(&in_file);
    assert!(words.contains("relay.colour") && words.contains(file.path()), "{words}");

    let variable = Launch::new("all").env("ADJUTANT_SERVER__LISSEN", "x").output().await;
    let words = misuse(&variable);
    assert!(
        words.contains("ADJUTANT_SERVER__LISSEN") && words.contains("server.listen"),
        "{words}"
    );

    let words = misuse(&Launch::new("all").set("worker.bach", 3).output().await);
    assert!(words.contains("worker.bach") && words.contains("worker.batch"), "{words}");

    let words = misuse(&Launch::new("chef").output().await);
    assert!(words.contains("chef") && words.contains("command-worker"), "{words}");
}

#[tokio::test]
async fn the_default_configuration_is_printed_and_read_back() {
    let mut default = program();
    default.arg("config");
    let printed = run(default).await;
    assert!(printed.status.success());
    let file = TemporaryFile::containing(&String::from_utf8(printed.stdout).unwrap());
    let mut effective = program();
    effective.args(["config", "--effective", "--config", file.path()]);
    let effective = run(effective).await;
    assert!(effective.status.success(), "{}", String::from_utf8_lossy(&effective.stderr));
    let mut without_file = program();
    without_file.args(["config", "--effective"]);
    assert_eq!(run(without_file).await.stdout, effective.stdout);
}

#[tokio::test]
async fn a_setting_without_a_value_is_explained() {
    let mut verify = program();
    verify.args(["verify", "--set", "nonsense"]);
    assert!(misuse(&run(verify).await).contains("key=value"));
}

#[tokio::test]
async fn a_command_that_needs_a_database_says_how_to_name_one() {
    let mut migrate = program();
    migrate.arg("migrate").env("DATABASE_URL", "postgres://root@127.0.0.1:5432/test");
    let words = misuse(&run(migrate).await);
    for explanation in ["database.url", "--database-url", "ADJUTANT_DATABASE_URL"] {
        assert!(words.contains(explanation), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stray_database_url_is_not_used() {
    let site = Site::new().await;
    let stray = "postgres://nobody@127.0.0.1:1/nowhere";
    let bank = site.launch("ingress").env("DATABASE_URL", stray).start().await;
    assert_eq!(Api(bank.api()).get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_are_never_shown() {
    let nowhere = |launch: Launch| {
        launch
            .env("ADJUTANT_DATABASE_URL", "postgres://me:s3cret@127.0.0.1:1/bank?password=s3cret")
            .set("log.level", "trace")
    };
    let mut no_database = nowhere(Launch::new("all"))
        .env("ADJUTANT_AMQP_URL", "amqp://me:s3cret@127.0.0.1:1/%2f")
        .spawn();
    no_database.says(|words| words.contains("the database is not there yet").then_some(())).await;
    assert!(!no_database.log.text().contains("s3cret"), "{}", no_database.log.text());

    let site = Site::new().await;
    let mut no_broker = site
        .launch("all")
        .env("ADJUTANT_AMQP_URL", "amqp://me:s3cret@127.0.0.1:1/%2f")
        .set("log.level", "trace")
        .start()
        .await;
    no_broker.says(|words| words.contains("the broker is not there yet").then_some(())).await;
    let metrics = Api(no_broker.api()).get("/metrics").await;
    assert_eq!(metrics.status, 200);
    no_broker.stop().await;
    let text = no_broker.log.text();
    assert!(!text.contains("s3cret") && !metrics.body.contains("s3cret"), "{text}");

    let mut effective = program();
    effective
        .args(["config", "--effective"])
        .env("ADJUTANT_DATABASE_URL", "postgres://me:s3cret@db/bank")
        .env("ADJUTANT_AMQP_URL", "amqp://me:s3cret@mq");
    let output = run(effective).await;
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("postgres://me:***@db/bank"), "{printed}");
    assert!(!printed.contains("s3cret"), "{printed}");

    for wrong in ["postgres://me:s3cret@db:port/bank", "s3cret nonsense"] {
        let output = Launch::new("all")
            .env("ADJUTANT_DATABASE_URL", wrong)
            .env("ADJUTANT_AMQP_URL", "amqp://me:s3cret@127.0.0.1:1/%2f")
            .output()
            .await;
        let words = misuse(&output);
        assert!(words.contains("the database URL") && !words.contains("s3cret"), "{words}");
    }
    for wrong in ["amqp://me:s3cret@mq:port", "s3cret nonsense", "http://me:s3cret@mq"] {
        let words = misuse(&site.launch("all").env("ADJUTANT_AMQP_URL", wrong).output().await);
        assert!(!words.contains("s3cret"), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_number_of_partitions_than_the_database_has_is_refused() {
    let site = Site::new().await;
    site.launch("relay").start().await;
    let words = misuse(&site.launch("relay").set("database.partitions", 7).output().await);
    assert!(words.contains("ask for 4"), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_a_file_say_who_may_do_what() {
    // printf %s TOKEN | sha256sum
    let file = TemporaryFile::containing(
        "# name  sha256  roles
         shop 49d3f3c4d9bd8b9b9b4f1d9e3a0b0b4f  submit\n",
    );
    let site = Site::new().await;
    let output = site.launch("ingress").set("server.tokens_file", file.path()).output().await;
    let words = misuse(&output);
    assert!(words.contains("shop"), "{words}");

    let file = TemporaryFile::containing(&format!(
        "# name, SHA-256, roles\nshop {} submit\nauditor {} read,operate\n",
        sha256("shop's token"),
        sha256("auditor's token")
    ));
    let bank = site.launch("all").set("server.tokens_file", file.path()).start().await;
    let api = Api(bank.api());
    let body =
        json!({ "type": "account.open", "stream": "account/a", "payload": { "owner": "Ada" } });
    let submit = async |token: &str| {
        let token = format!("Bearer {token}");
        let headers = [("Authorization", token.as_str())];
        api.request("POST", "/v1/commands", &headers, &body).await
    };
    let anonymous = api.request("POST", "/v1/commands", &[], &body).await;
    assert_eq!(anonymous.status, 401, "{}", anonymous.body);
    assert!(anonymous.header("www-authenticate").is_some());
    assert_eq!(submit("nobody's token").await.status, 401);
    assert_eq!(submit("auditor's token").await.status, 403);
    assert_eq!(submit("shop's token").await.status, 202);
    let members = async |token: &str| {
        let token = format!("Bearer {token}");
        let headers = [("Authorization", token.as_str())];
        api.request("GET", "/v1/members", &headers, &serde_json::Value::Null).await.status
    };
    assert_eq!(members("shop's token").await, 403);
    assert_eq!(members("auditor's token").await, 200);
    assert!(!bank.log.text().contains("'s token"));
}

fn sha256(token: &str) -> &'static str {
    match token {
        "shop's token" => "03d4c65b5fc3360fc4b9655f78db09beacfd39425f0840806266c5e2985ac095",
        _ => "62ae112b06c7d6af790333c1225c891dc0ade25713fb6a7efb8c91f05d152674",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_not_served_without_tokens() {
    let site = Site::new().await;
    let exposed = || site.launch("all").set("server.listen", "0.0.0.0:0");
    let output = exposed().output().await;
    let words = misuse(&output);
    for advice in ["0.0.0.0:0", "tokens", "127.0.0.1", "allow_anonymous"] {
        assert!(words.contains(advice), "{words}");
    }
    // It was refused before it joined in any work.
    let mut look = site.look().await;
    let joined = look.number("SELECT count(*) FROM pg_namespace WHERE nspname = 'adjutant'").await;
    assert_eq!(joined, 0);

    let mut allowed = exposed().set("server.allow_anonymous", true).start().await;
    assert_eq!(Api(([127, 0, 0, 1], allowed.api().port()).into()).get("/readyz").await.status, 200);
    allowed.says(|words| words.contains("may do everything").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_address_is_taken_leaves_before_it_ends() {
    let site = Site::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = site.launch("all").set("server.listen", &address).output().await;
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains(&address), "{words}");
    let mut look = site.look().await;
    assert_eq!(look.number("SELECT count(*) FROM adjutant.members").await, 0);
}
