//! What is found when everything has come to rest after a process died.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{case::Sent, ways::Found};
use crate::support::{
    api::Api,
    directory::Directory,
    drills::{command, until_runs},
    process::Bank,
    site::{Look, Site},
};

/// Waits until everything that was accepted has ended, and checks it; then sends again what got no
/// answer, and checks everything once more. Answers what was found of those.
pub async fn look(site: &Site, survivor: &Bank, sent: &[Sent], case: &str) -> Vec<Found> {
    let api = Api(survivor.api());
    let mut look = site.look().await;
    look.until_quiet().await;
    let mut found = Vec::new();
    for it in sent {
        let stored = outcomes(&mut look, it).await;
        match &it.answer {
            Some(_) => assert_eq!(stored, 1, "{case}: answered, {stored} outcomes: {it:?}"),
            None if stored == 0 => {
                let answer = api.get(&format!("/v1/commands/{}", it.id)).await;
                assert_eq!(answer.status, 404, "{case}: {}", answer.body);
                found.push(Found::Absent);
            }
            None => {
                assert_eq!(stored, 1, "{case}: {stored} outcomes: {it:?}");
                found.push(Found::Ended);
            }
        }
        // What was told is what is stored.
        if let Some((200, told)) = &it.answer {
            let stored = command(api, it.id).await;
            assert_eq!(told["outcome"], stored["outcome"], "{case}");
        }
    }
    let accepted = look.number("SELECT count(*) FROM adjutant.commands").await;
    let absent = found.iter().filter(|found| **found == Found::Absent).count();
    assert_eq!(accepted as usize, sent.len() - absent, "{case}: nothing that nobody sent");

    for it in sent.iter().filter(|it| it.answer.is_none()) {
        let again = it.clone().send(api, Some(30)).await;
        let (status, _) = again.answer.expect("the survivor answers");
        assert_eq!(status, 200, "{case}: sent again, it ends");
    }
    each_ran_once(api, &mut look, sent, case).await;
    let held = look.number("SELECT count(*) FROM adjutant.immediate").await;
    assert_eq!(held, 0, "{case}: nobody holds anything");
    look.until_quiet().await;
    look.close().await;
    audit(site, sent, case).await;
    found
}

async fn outcomes(look: &mut Look, sent: &Sent) -> i64 {
    let sql = "SELECT count(*) FROM adjutant.outcomes WHERE command_id = $1";
    sqlx::query_scalar(sql).bind(sent.id).fetch_one(look.connection()).await.unwrap()
}

/// A drill counts its runs and answers the number: what each command was answered, their events and
/// the view agree that each ran once.
async fn each_ran_once(api: Api, look: &mut Look, sent: &[Sent], case: &str) {
    let mut runs: BTreeMap<&str, Vec<(u64, uuid::Uuid)>> = BTreeMap::new();
    for it in sent {
        let stored = command(api, it.id).await;
        assert_eq!(stored["status"], "succeeded", "{case}: {stored}");
        let number = stored["outcome"]["reply"].as_u64().expect("a number");
        runs.entry(&it.drill).or_default().push((number, it.id));
        let events = "SELECT count(*) FROM adjutant.events WHERE command_id = $1";
        let events: i64 =
            sqlx::query_scalar(events).bind(it.id).fetch_one(look.connection()).await.unwrap();
        assert_eq!(events, 1, "{case}: {it:?}");
        assert_eq!(outcomes(look, it).await, 1, "{case}: {it:?}");
    }
    for (drill, mut numbers) in runs {
        numbers.sort_unstable();
        let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
        let told: Vec<u64> = numbers.iter().map(|(number, _)| *number).collect();
        assert_eq!(told, expected, "{case}: {drill}");
        let (count, last) = numbers.last().expect("some");
        until_runs(api, drill, *last, *count).await;
    }
}

async fn audit(site: &Site, sent: &[Sent], case: &str) {
    let directory = Directory::new();
    let mut answers = String::new();
    for it in sent {
        let code = it.answer.as_ref().map_or(200, |(code, _)| *code);
        let _ = writeln!(answers, "{}", serde_json::json!({ "id": it.id, "code": code }));
    }
    std::fs::create_dir_all(directory.path()).unwrap();
    let file = directory.path().join("answers.ndjson");
    std::fs::write(&file, answers).unwrap();
    let (code, verdict) = site.verify(Some(&file)).await;
    assert_eq!(code, 0, "{case}: {verdict}");
}
