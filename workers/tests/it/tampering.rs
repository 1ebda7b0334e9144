//! `bank verify` on what a real run left: it agrees, and any single row that somebody changes makes
//! exactly its own check fail. (Every kind of damage, on a history written for it: `audit`.)

use serde_json::{Value, json};

use crate::support::{
    any_store::AnyStore,
    database::Database,
    file::File,
    in_process::InProcess,
    process::{program, run},
    site::{Site, verify},
    traffic::Traffic,
};

const EVENT_DELETED: &str = "DELETE FROM adjutant.events WHERE (partition, \"offset\") =
     (SELECT partition, \"offset\" FROM adjutant.events WHERE version = 2 LIMIT 1)";
const OUTCOME_DOUBLED: &str = "ALTER TABLE adjutant.outcomes DROP CONSTRAINT outcomes_pkey;
     INSERT INTO adjutant.outcomes SELECT * FROM adjutant.outcomes WHERE status = 1 LIMIT 1";
const VIEW_EDITED: &str = "UPDATE adjutant.views
        SET value = jsonb_set(value, '{balance}', '-7')
      WHERE (view, key) = (SELECT view, key FROM adjutant.views WHERE view = 'balances' LIMIT 1)";
const EVENT_OF_A_REJECTED_COMMAND: &str = "INSERT INTO adjutant.events
     SELECT c.partition, (SELECT max(\"offset\") + 1 FROM adjutant.events e WHERE e.partition = c.partition),
            c.stream, (SELECT max(version) + 1 FROM adjutant.events e WHERE e.stream = c.stream),
            'account.deposited', 1, '{\"amount\": 1, \"balance\": 1}', NULL, c.id, clock_timestamp()
       FROM adjutant.commands c JOIN adjutant.outcomes o ON o.command_id = c.id
      WHERE o.status = 2 LIMIT 1";

/// Each tampering, and the check that must fail.
const TAMPERINGS: [(&str, &str); 4] = [
    ("no_holes", EVENT_DELETED),
    ("every_command_one_outcome", OUTCOME_DOUBLED),
    ("views_equal_fold", VIEW_EDITED),
    ("rejected_changed_nothing", EVENT_OF_A_REJECTED_COMMAND),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_row_fails_exactly_its_own_check() {
    let (site, answers) = filled().await;
    let (code, verdict) = site.verify(Some(answers.answers())).await;
    assert_eq!(code, 0, "{verdict}");
    assert_eq!(verdict["counts"]["commands"], answers.commands());

    for (check, tampering) in TAMPERINGS {
        let copy = site.database.copy().await;
        assert_eq!(copy.run(tampering).await, 1, "{tampering}");
        let (code, verdict) = verify(&copy, Some(answers.answers())).await;
        assert_fails_alone(check, &verdict);
        assert_eq!(code, 1);
    }
}

#[tokio::test]
async fn a_changed_row_of_a_file_fails_exactly_its_own_check() {
    let file = File::absent();
    fill(&file).await;
    let (code, verdict) = verify_file(&file).await;
    assert_eq!(code, 0, "{verdict}");
    assert_eq!(verdict["counts"]["commands"], 5 * 12);
    assert_eq!(verdict["counts"]["rejected"], 5 * 2);

    let original = AnyStore::Sqlite(file);
    for (check, tampering) in TAMPERINGS {
        let copy = original.copy().await;
        assert!(copy.run(tampering).await > 0, "{tampering}");
        let AnyStore::Sqlite(copy) = &copy else { unreachable!() };
        let (code, verdict) = verify_file(copy).await;
        assert_fails_alone(check, &verdict);
        assert_eq!(code, 1);
    }
}

fn assert_fails_alone(check: &str, verdict: &Value) {
    let checks = verdict["checks"].as_object().unwrap();
    assert_eq!(checks.len(), 4);
    let failed: Vec<_> = checks.iter().filter(|(_, passed)| **passed != true).collect();
    assert_eq!(failed.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [check], "{verdict}");
}

/// `bank verify --json --sqlite`: its exit code and its verdict.
async fn verify_file(file: &File) -> (i32, Value) {
    let mut command = program();
    command.args(["verify", "--json", "--sqlite"]).arg(file.path());
    let output = run(command).await;
    let verdict = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no verdict: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().expect("an exit code"), verdict)
}

/// What the store writes for five accounts: an opening, nine movements, two refusals.
async fn fill(file: &File) {
    let bank = InProcess::open(&file.path()).await;
    let command = |account: usize, kind: &str, payload: Value| {
        json!({
            "type": format!("account.{kind}"), "stream": format!("account/acc-{account}"),
            "payload": payload,
        })
    };
    let all = |kind: &str, payload: Value| -> Vec<Value> {
        (0..5).map(|account| command(account, kind, payload.clone())).collect()
    };
    bank.accept(&all("open", json!({ "owner": "Ada" }))).await;
    for amount in 1..=3 {
        bank.accept(&all("deposit", json!({ "amount": 100 * amount }))).await;
        bank.accept(&all("deposit", json!({ "amount": 7 }))).await;
        bank.work().await;
        bank.accept(&all("withdraw", json!({ "amount": amount }))).await;
    }
    bank.accept(&all("withdraw", json!({ "amount": 1_000_000 }))).await;
    bank.accept(&all("open", json!({ "owner": "Eve" }))).await;
    bank.work().await;
}

/// What a short run leaves behind, with the answers that its clients were given.
async fn filled() -> (Site, crate::support::traffic::Sent) {
    let site = Site::new().await;
    let mut bank = site.launch("all").start().await;
    let accounts: Vec<String> = (0..5).map(|n| format!("acc-{n}")).collect();
    let traffic = Traffic::start(bank.api(), &accounts, 3);
    let mut look = site.look().await;
    crate::support::eventually("some commands are rejected", async || {
        let rejected = "SELECT count(*) FROM adjutant.outcomes WHERE status = 2";
        (look.number(rejected).await >= 5).then_some(())
    })
    .await;
    let sent = traffic.stop().await;
    look.until_quiet().await;
    look.close().await;
    assert_eq!(bank.stop().await.0.code(), Some(0));
    (site, sent)
}

#[tokio::test]
async fn a_database_without_our_tables_is_no_verdict() {
    let empty = Database::empty().await;
    let mut command = crate::support::process::program();
    command.args(["verify", "--json", "--database-url", &empty.url()]);
    let output = run(command).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("cannot be audited"), "{words}");
}
