//! `bank verify` on what a real run left: it agrees, and any single row that somebody changes makes
//! exactly its own check fail. (Every kind of damage, on a history written for it: `audit`.)

use crate::support::{
    database::Database,
    process::run,
    site::{Site, verify},
    traffic::Traffic,
};

const EVENT_DELETED: &str = "DELETE FROM adjutant.events WHERE (partition, \"offset\") =
     (SELECT partition, \"offset\" FROM adjutant.events WHERE version = 2 LIMIT 1)";
const OUTCOME_DOUBLED: &str = "ALTER TABLE adjutant.outcomes DROP CONSTRAINT outcomes_pkey;
     INSERT INTO adjutant.outcomes SELECT * FROM adjutant.outcomes WHERE status = 1 LIMIT 1";
const VIEW_EDITED: &str = "UPDATE adjutant.views
        SET value = jsonb_set(value, '{balance}', to_jsonb((value->>'balance')::bigint + 1))
      WHERE (view, key) = (SELECT view, key FROM adjutant.views WHERE view = 'balances' LIMIT 1)";
const EVENT_OF_A_REJECTED_COMMAND: &str = "INSERT INTO adjutant.events
     SELECT c.partition, (SELECT max(\"offset\") + 1 FROM adjutant.events e WHERE e.partition = c.partition),
            c.stream, (SELECT max(version) + 1 FROM adjutant.events e WHERE e.stream = c.stream),
            'account.deposited', 1, '{\"amount\": 1, \"balance\": 1}', NULL, c.id, clock_timestamp()
       FROM adjutant.commands c JOIN adjutant.outcomes o ON o.command_id = c.id
      WHERE o.status = 2 LIMIT 1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_row_fails_exactly_its_own_check() {
    let (site, answers) = filled().await;
    let (code, verdict) = site.verify(Some(answers.answers())).await;
    assert_eq!(code, 0, "{verdict}");
    assert_eq!(verdict["counts"]["commands"], answers.commands());

    for (check, tampering) in [
        ("no_holes", EVENT_DELETED),
        ("every_command_one_outcome", OUTCOME_DOUBLED),
        ("views_equal_fold", VIEW_EDITED),
        ("rejected_changed_nothing", EVENT_OF_A_REJECTED_COMMAND),
    ] {
        let copy = site.database.copy().await;
        assert_eq!(copy.run(tampering).await, 1, "{tampering}");
        let (code, verdict) = verify(&copy, Some(answers.answers())).await;
        let checks = verdict["checks"].as_object().unwrap();
        assert_eq!(checks.len(), 4);
        let failed: Vec<_> = checks.iter().filter(|(_, passed)| *passed != true).collect();
        assert_eq!(failed.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [check], "{verdict}");
        assert_eq!(code, 1);
    }
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
