//! `bank move`: an embedded database becomes a PostgreSQL one, whole or not at all.

use std::process::Output;

use serde_json::json;

use crate::support::{
    api::Api,
    directory::Directory,
    process::{program, run},
    site::Site,
};

async fn carry(directory: &Directory, site: &Site) -> Output {
    let mut command = program();
    command.args(["move", "--from"]).arg(directory.path()).args(["--to", &site.database.url()]);
    run(command).await
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Accounts with a history, commands that are not finished, one that is not due yet, a dead one and
/// one that waits behind it.
async fn fill(directory: &Directory) {
    let mut demo = program();
    demo.args(["demo", "--commands", "1000", "--accounts", "20", "--set"])
        .arg(format!("embedded.directory={}", directory.path().display()));
    let output = run(demo).await;
    assert!(output.status.success(), "{}", words(&output));
    let launch = directory.launch().set("worker.batch", 1).set("bank.fault_injection", true);
    let mut bank = launch.start().await;
    let api = Api(bank.api());
    let dead = json!({ "type": "drill.run_in_order", "stream": "drill/x",
                       "payload": { "fatal": true } });
    let dead = api.request("POST", "/v1/commands", &[("Prefer", "wait=30")], &dead).await;
    assert_eq!((dead.status, &dead.json()["status"]), (200, &json!("dead")), "{}", dead.body);
    let waits = json!({ "type": "drill.run_in_order", "stream": "drill/x", "payload": {} });
    let waits = api.request("POST", "/v1/commands", &[], &waits).await.json();
    let target = format!("/v1/commands/{}", waits["id"].as_str().unwrap());
    crate::support::eventually("it waits", async || {
        (api.get(&target).await.json()["status"] == "waiting").then_some(())
    })
    .await;
    let later = json!({ "type": "account.deposit", "stream": "account/acc-later",
                        "payload": { "amount": 1 }, "not_before": "2999-01-01T00:00:00Z" });
    assert_eq!(api.request("POST", "/v1/commands", &[], &later).await.status, 202);
    let mut of_the_lane = later.clone();
    of_the_lane["lane"] = json!("immediate");
    assert_eq!(api.request("POST", "/v1/commands", &[], &of_the_lane).await.status, 202);
    let lines: Vec<String> = (0..500)
        .map(|_| {
            json!({ "type": "account.open", "stream": format!("account/{}", uuid::Uuid::now_v7()),
                    "payload": { "owner": "Grüße \u{1F980}" } })
            .to_string()
        })
        .collect();
    assert_eq!(api.batch(&lines).await.len(), 500);
    let recurs = json!({ "cron": "0 0 1 1 *", "command": { "type": "account.deposit",
                         "stream": "account/acc-yearly", "payload": { "amount": 1 } } });
    let recurs = api.request("PUT", "/v1/recurring/yearly", &[], &recurs).await;
    assert_eq!(recurs.status, 201, "{}", recurs.body);
    bank.kill();
    directory.run(PARKED);
    directory.run(OWED);
}

/// A stream and a document that are parked, with an event that waits, and what a person did.
const PARKED: &str = "
    INSERT INTO parked_keys
    SELECT 'projection.balances', 1, 1, stream, partition, \"offset\", \"offset\", version, 1,
           randomblob(16), 3, 0, NULL, recorded_at
      FROM events e
     WHERE version = (SELECT max(version) FROM events l WHERE l.stream = e.stream) AND version > 3
     ORDER BY stream LIMIT 1;
    INSERT INTO parked_keys
    SELECT 'projection.balances', 1, 2, 'shared', partition, \"offset\", 0, 0, 1, randomblob(16), 3,
           0, NULL, recorded_at
      FROM events LIMIT 1;
    INSERT INTO parked_references
    SELECT group_name, 1, key, partition, failed_offset FROM parked_keys WHERE scope = 2;
    INSERT INTO dead_letters
    SELECT partition, dead_letter_id, 2, group_name, 1, key, 'account.opened', randomblob(16),
           failed_offset, '{\"code\": \"projection_failed\", \"message\": \"no\"}', 'f', 3, parked_at,
           1, parked_at
      FROM parked_keys;
    INSERT INTO callbacks
    SELECT partition, randomblob(16), command_id, 'account.open', attempts,
           'https://hooks.example/' || hex(command_id), 'hooks.example', 1, completed_at, completed_at, 2, 1,
           'it answered 500', NULL
      FROM outcomes LIMIT 3;
    INSERT INTO dead_letter_audit (at, dead_letter_id, action, who)
    SELECT died_at, id, 'retry', 'ada' FROM dead_letters";

/// Runs that were decided and not sent: 2026-01-01 00:00:00 and 2026-01-01 00:00:01 UTC.
const OWED: &str = "UPDATE recurring SET owed = '[1767225600000000,1767225601000000]'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_carried_over_and_work_goes_on_there() {
    let directory = Directory::new();
    fill(&directory).await;
    let count = |table: &str| directory.count(&format!("SELECT count(*) FROM {table}"));
    let unfinished = count("commands") - count("outcomes");
    assert!(unfinished > 1, "{unfinished}");
    let site = Site::with_partitions(8).await;
    let output = carry(&directory, &site).await;
    println!("{}{unfinished} were unfinished", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", words(&output));

    let mut look = site.look().await;
    for (table, here) in [
        ("SELECT count(*) FROM adjutant.commands", count("commands")),
        ("SELECT count(*) FROM adjutant.command_log", count("command_log")),
        ("SELECT count(*) FROM adjutant.events", count("events")),
        ("SELECT count(*) FROM adjutant.outcomes", count("outcomes")),
        ("SELECT count(*) FROM adjutant.checkpoints", count("checkpoints")),
        ("SELECT count(*) FROM adjutant.views", count("views")),
        ("SELECT count(*) FROM adjutant.schedule", count("schedule")),
        ("SELECT count(*) FROM adjutant.parked_keys", count("parked_keys")),
        ("SELECT count(*) FROM adjutant.parked_references", count("parked_references")),
        ("SELECT count(*) FROM adjutant.dead_letter_audit", count("dead_letter_audit")),
        ("SELECT count(*) FROM adjutant.attempts", count("attempts")),
        ("SELECT count(*) FROM adjutant.holds", count("holds")),
        (
            "SELECT count(*) FROM adjutant.callbacks
              WHERE host = 'hooks.example' AND attempts = 2 AND error = 'it answered 500'",
            count("callbacks"),
        ),
        ("SELECT count(*) FROM adjutant.dead_letters", count("dead_letters")),
        ("SELECT count(*) FROM adjutant.recurring", count("recurring")),
    ] {
        assert_eq!(look.number(table).await, here, "{table}");
        assert!(here > 0, "{table} has something to carry");
    }

    let owed = "SELECT count(*) FROM adjutant.recurring
                 WHERE owed = '{2026-01-01T00:00:00Z,2026-01-01T00:00:01Z}' AND wake_at = owed[1]";
    assert_eq!(look.number(owed).await, 1);

    // What was unfinished is finished there; those that are not due wait, and so does the one behind the
    // dead one.
    let mut bank = site.launch("all").start().await;
    crate::support::eventually("all but these three are finished", async || {
        let sent = look.number("SELECT sum(runs)::bigint FROM adjutant.recurring").await;
        (look.unfinished().await == 3 && sent == 2).then_some(())
    })
    .await;
    let api = Api(bank.api());
    let opened = api.open("acc-new").await;
    assert_eq!(api.balance_after("acc-new", &opened).await, 0);
    crate::support::eventually("the audit agrees", async || {
        let (code, _) = site.verify(None).await;
        (code == 0).then_some(())
    })
    .await;
    assert_eq!(bank.stop().await.0.code(), Some(0));

    // The directory is not served any more: there is one truth.
    let refused = directory.launch().output().await;
    assert!(words(&refused).contains("was moved to postgres://"), "{}", words(&refused));

    // A second time there is something already.
    let again = carry(&directory, &site).await;
    assert_eq!(again.status.code(), Some(2), "{}", words(&again));
    assert!(words(&again).contains("is not empty"), "{}", words(&again));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_cannot_be_is_refused_and_changes_nothing() {
    let directory = Directory::new();
    let site = Site::with_partitions(8).await;
    let nothing = carry(&directory, &site).await;
    assert!(words(&nothing).contains("there is no such file"), "{}", words(&nothing));

    let bank = directory.launch().start().await;
    Api(bank.api()).open("acc-1").await;
    let served = carry(&directory, &site).await;
    assert!(words(&served).contains("another process"), "{}", words(&served));
    drop(bank);

    let mut elsewhere = program();
    elsewhere
        .args(["move", "--from"])
        .arg(directory.path())
        .args(["--to", "mysql://me:secret@x/y"]);
    let elsewhere = run(elsewhere).await;
    assert_eq!(elsewhere.status.code(), Some(2));
    let said = words(&elsewhere);
    assert!(said.contains("is no PostgreSQL") && !said.contains("secret"), "{said}");

    // Set up for another number of partitions, with nothing in it: the positions would not fit.
    let other = Site::with_partitions(4).await;
    other.launch("ingress").start().await.stop().await;
    let refused = carry(&directory, &other).await;
    assert_eq!(refused.status.code(), Some(2), "{}", words(&refused));
    assert!(words(&refused).contains("partitions"), "{}", words(&refused));
}

/// The comparison must be able to fail: here the target changes what it is given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_does_not_arrive_as_it_was_undoes_the_move() {
    let directory = Directory::new();
    let mut bank = directory.launch().start().await;
    Api(bank.api()).open("acc-1").await;
    assert_eq!(bank.stop().await.0.code(), Some(0));
    let site = Site::with_partitions(8).await;
    site.launch("ingress").start().await.stop().await; // sets it up
    site.database
        .run(
            "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN NEW.data := jsonb_build_object('owner', 'Mallory'); RETURN NEW; END $$;
             CREATE TRIGGER meddle BEFORE INSERT ON adjutant.events
             FOR EACH ROW EXECUTE FUNCTION meddle()",
        )
        .await;
    let output = carry(&directory, &site).await;
    let said = words(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("events: 0 of 1 rows arrived as they were"), "{said}");
    let mut look = site.look().await;
    assert_eq!(look.number("SELECT count(*) FROM adjutant.commands").await, 0);
}
