//! One command a request.

use std::time::Instant;

use hyper::Uri;

use super::{Pause, State};
use crate::load::{Connection, Planned};

pub(super) async fn send_all(state: &State, mut connection: Connection) {
    let uri = Uri::from_static("/v1/commands");
    while let Some((numbers, due)) = state.take(1).await {
        let command = state.plan.workload.command(numbers.start);
        send(state, &mut connection, &uri, &command, due).await;
    }
}

/// Sends a command until there is a final answer.
async fn send(
    state: &State,
    connection: &mut Connection,
    uri: &Uri,
    command: &Planned,
    submitted: Instant,
) {
    let mut pause = Pause::default();
    loop {
        let asked = match connection.post(uri, "application/json", command.body.clone()).await {
            Ok(answer) if matches!(answer.status.as_u16(), 200 | 202) => {
                state.answered(submitted);
                let code = answer.status.as_u16();
                state.accepted(command.id, command.kind, command.account, code, submitted);
                return;
            }
            Ok(answer) if !answer.is_temporary() => {
                state.answered(submitted);
                state.refused(|| answer.in_words());
                return;
            }
            Ok(answer) => answer.retry_after,
            Err(_) => None,
        };
        state.repeated();
        pause.wait(asked).await;
    }
}
