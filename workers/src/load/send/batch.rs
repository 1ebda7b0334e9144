//! Many commands a request, as NDJSON. Lines succeed and fail alone: those without a final answer
//! go into the next request.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use hyper::{StatusCode, Uri};
use serde::Deserialize;

use super::{Pause, State};
use crate::load::{Connection, LoadError, Planned};

pub(in crate::load) const NDJSON: &str = "application/x-ndjson";

pub(in crate::load) fn batch_uri() -> Uri {
    Uri::from_static("/v1/commands/batch")
}

/// What became of one line.
#[derive(Debug, Deserialize)]
pub(in crate::load) struct LineResult {
    pub(in crate::load) code: u16,
    #[serde(default)]
    problem: serde_json::Value,
}

impl LineResult {
    pub(in crate::load) fn is_temporary(&self) -> bool {
        self.code >= 500 || self.code == 429
    }

    pub(in crate::load) fn in_words(&self) -> String {
        format!("{} {}", self.code, self.problem)
    }
}

/// Reads the answer to a batch, a line for each command.
pub(in crate::load) fn line_results(body: &Bytes) -> Result<Vec<LineResult>, LoadError> {
    body.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()
        .map_err(|error| LoadError::Answer(format!("a line of a batch: {error}")))
}

pub(super) async fn send_all(state: &State, mut connection: Connection) {
    while let Some((numbers, due)) = state.take(u64::from(state.plan.batch)).await {
        let mut commands: Vec<Planned> =
            numbers.map(|number| state.plan.workload.command(number)).collect();
        let mut pause = Pause::default();
        while !commands.is_empty() {
            let sent = send(state, &mut connection, commands, due).await;
            commands = sent;
            if !commands.is_empty() {
                state.repeated();
                pause.wait(None).await;
            }
        }
    }
}

/// Sends a batch; answers the commands that have no final answer.
async fn send(
    state: &State,
    connection: &mut Connection,
    commands: Vec<Planned>,
    submitted: Instant,
) -> Vec<Planned> {
    let mut body = BytesMut::with_capacity(commands.iter().map(|it| it.body.len() + 1).sum());
    for command in &commands {
        body.extend_from_slice(&command.body);
        body.extend_from_slice(b"\n");
    }
    let answer = match connection.post(&batch_uri(), NDJSON, body.freeze()).await {
        Ok(answer) if answer.status == StatusCode::OK => answer,
        Ok(answer) if !answer.is_temporary() => {
            state.all_refused(&commands, &answer.in_words());
            return Vec::new();
        }
        Ok(_) | Err(_) => return commands,
    };
    state.answered(submitted);
    match line_results(&answer.body) {
        Ok(lines) if lines.len() == commands.len() => {
            let mut left = Vec::new();
            for (command, line) in commands.into_iter().zip(lines) {
                match line.code {
                    200 | 202 => state.accepted(
                        command.id,
                        command.kind,
                        command.account,
                        line.code,
                        submitted,
                    ),
                    _ if line.is_temporary() => left.push(command),
                    _ => state.refused(|| line.in_words()),
                }
            }
            left
        }
        Ok(lines) => {
            let words = format!("{} results for {} lines", lines.len(), commands.len());
            state.all_refused(&commands, &words);
            Vec::new()
        }
        Err(error) => {
            state.all_refused(&commands, &error.to_string());
            Vec::new()
        }
    }
}

impl State {
    fn all_refused(&self, commands: &[Planned], words: &str) {
        for _ in commands {
            self.refused(|| words.to_owned());
        }
    }
}
