//! Sending a file of commands: batch after batch, each again until the service
//! says what became of it. Every line has an id, so nothing happens twice.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    api::{Api, LONGEST_WAIT},
    failure::Failure,
    lines::{Line, Lines, MAX_LINE_BYTES},
    output::{Output, note, table},
    status::ended,
    tally::Tally,
};

/// How long a batch is sent again before this gives up.
const PATIENCE: Duration = Duration::from_mins(1);
/// How many outcomes are asked for at a time.
const QUESTIONS: usize = 64;

pub(crate) async fn run(
    api: &Api,
    output: &Output,
    file: &Path,
    results: Option<&Path>,
    wait: u64,
) -> Result<(), Failure> {
    let (mut lines, size) = Lines::open(file)?;
    let mut tally = Tally::new(results, output.is_json())?;
    let bar = bar(size, "sent {msg}");
    let accepted = send_all(api, &mut lines, &mut tally, &bar).await;
    bar.finish_and_clear();
    tally.finish()?;
    let accepted = accepted?;
    if wait > 0 {
        count_outcomes(api, &accepted, &mut tally, Duration::from_secs(wait)).await?;
    }
    output.value(&tally.to_json(), |_| table(&["WHAT", "COMMANDS"], tally.rows().into_iter()));
    judge(&tally)
}

/// The exit code: all well, some refused or failed, or some not ended in time.
fn judge(tally: &Tally) -> Result<(), Failure> {
    match (tally.refused() + tally.failed(), tally.unfinished()) {
        (0, 0) => Ok(()),
        (0, unfinished) => Err(Failure::NotYet(format!("{unfinished} commands have not ended"))),
        (no, _) => Err(Failure::No(format!("{no} commands were refused or did not succeed"))),
    }
}

/// Sends batch after batch, in the order of the file; the ids of what was accepted.
async fn send_all(
    api: &Api,
    lines: &mut Lines,
    tally: &mut Tally,
    bar: &ProgressBar,
) -> Result<Vec<Uuid>, Failure> {
    let mut accepted = Vec::new();
    loop {
        let batch = lines.batch()?;
        if batch.is_empty() {
            return Ok(accepted);
        }
        let answers = send_batch(api, &batch, bar).await?;
        for (line, answer) in batch.iter().zip(&answers) {
            tally.answered(line, answer)?;
            if answer["code"] == 202 {
                accepted.extend(line.id);
            }
        }
        bar.set_position(lines.bytes_read);
        bar.set_message(format!("{}, refused {}", tally.sent, tally.refused()));
    }
}

/// Sends a batch until every line has its answer.
async fn send_batch(api: &Api, lines: &[Line], bar: &ProgressBar) -> Result<Vec<Value>, Failure> {
    let mut answers: Vec<Option<Value>> = lines.iter().map(too_long).collect();
    let started = Instant::now();
    loop {
        let open: Vec<_> = (0..lines.len()).filter(|n| answers[*n].is_none()).collect();
        if open.is_empty() {
            return Ok(answers.into_iter().flatten().collect());
        }
        let is_last = started.elapsed() > PATIENCE;
        match try_batch(api, open.iter().map(|n| &lines[*n])).await {
            Ok(found) => {
                for (n, answer) in open.iter().zip(found) {
                    // What passes is sent again: no room, or its fate is not known.
                    let passes = matches!(answer["code"].as_u64(), Some(429 | 500 | 503));
                    answers[*n] = (!passes || is_last).then_some(answer);
                }
                if answers.iter().any(Option::is_none) {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            }
            Err((failure, Some(pause))) if !is_last => {
                bar.suspend(|| note(&format!("trying again: {failure}")));
                tokio::time::sleep(pause).await;
            }
            Err((failure, _)) => return Err(failure),
        }
    }
}

/// The service would refuse the whole batch because of such a line.
fn too_long(line: &Line) -> Option<Value> {
    (line.json.len() > MAX_LINE_BYTES).then(|| {
        let detail = format!("the line is longer than {MAX_LINE_BYTES} bytes; it was not sent");
        json!({ "id": line.id, "code": 413, "problem": { "code": "too_large", "detail": detail } })
    })
}

/// One try. A failure comes with a pause if another try is worth it.
async fn try_batch(
    api: &Api,
    lines: impl Iterator<Item = &Line>,
) -> Result<Vec<Value>, (Failure, Option<Duration>)> {
    let mut body = Vec::new();
    for line in lines {
        body.extend_from_slice(&line.json);
        body.push(b'\n');
    }
    let request = api.request(Method::POST, &["commands", "batch"]).map_err(|f| (f, None))?;
    let request = request.header(CONTENT_TYPE, "application/x-ndjson").body(body);
    let answer =
        api.send(request).await.map_err(|failure| (failure, Some(Duration::from_secs(1))))?;
    if !answer.status.is_success() {
        let problem = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
        let failure = Failure::Answer { status: answer.status.as_u16(), problem };
        return Err((failure, answer.retry_after()));
    }
    answer
        .body
        .lines()
        .map(|line| {
            serde_json::from_str(line)
                .map_err(|_| (Failure::Answer { status: 200, problem: Value::Null }, None))
        })
        .collect()
}

/// Asks for the outcome of every accepted command.
async fn count_outcomes(
    api: &Api,
    ids: &[Uuid],
    tally: &mut Tally,
    within: Duration,
) -> Result<(), Failure> {
    let deadline = Instant::now() + within;
    let bar = bar(Some(ids.len() as u64), "ended");
    let mut outcomes = stream::iter(ids)
        .map(|id| async move { outcome(api, *id, deadline).await })
        .buffer_unordered(QUESTIONS);
    while let Some(status) = outcomes.next().await {
        tally.ended(&status?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// The status of a command at its end, or `unfinished`.
async fn outcome(api: &Api, id: Uuid, deadline: Instant) -> Result<String, Failure> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_secs();
        let wait = [("wait", left.min(LONGEST_WAIT).to_string())];
        let command = api.get(&["commands", &id.to_string()], &wait).await?;
        if ended(&command) {
            return Ok(command["status"].as_str().unwrap_or_default().to_owned());
        }
        if left == 0 {
            return Ok("unfinished".to_owned());
        }
    }
}

/// A bar on standard error; invisible if that is no terminal.
fn bar(length: Option<u64>, what: &str) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{bar:40} {percent}% "),
        None => (ProgressBar::new_spinner(), "{spinner} "),
    };
    let style = ProgressStyle::with_template(&format!("{template}{what} {{elapsed}}"));
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
