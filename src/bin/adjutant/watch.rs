//! `watch`: a command's changes as they come.

use std::time::Duration;

use clap::Args;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    api::Api,
    events::{Event, Events},
    failure::Failure,
    output::{Output, line, plain},
    status::{describe, ended},
};

/// How long to wait before coming back, unless the service says otherwise.
const RETRY: Duration = Duration::from_secs(2);
/// The service shows every 15 seconds that it is there; whoever is silent for so long is not.
const SILENCE: Duration = Duration::from_secs(45);
/// How often in a row the service may be out of reach.
const TRIES: u32 = 15;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The command.
    id: Uuid,
    /// For how many seconds; without it, until it ends.
    #[arg(long)]
    timeout: Option<u64>,
}

/// Shows each status as it comes, and the whole command when it has ended.
pub(crate) async fn run(api: &Api, output: &Output, arguments: Arguments) -> Result<(), Failure> {
    let mut watch = Watch { api, output, id: arguments.id, seen: None, shown: String::new() };
    let end = match arguments.timeout {
        None => watch.until_it_ends().await?,
        Some(seconds) => {
            let limit = Duration::from_secs(seconds);
            let Ok(end) = tokio::time::timeout(limit, watch.until_it_ends()).await else {
                let (id, shown) = (watch.id, &watch.shown);
                return Err(Failure::NotYet(format!("the command {id} has not ended: {shown}")));
            };
            end?
        }
    };
    output.value(&end, describe);
    match plain(&end["status"]) {
        status if status == "succeeded" => Ok(()),
        status => Err(Failure::No(format!("the command {} was {status}", arguments.id))),
    }
}

struct Watch<'a> {
    api: &'a Api,
    output: &'a Output,
    id: Uuid,
    /// The id of the last event.
    seen: Option<String>,
    shown: String,
}

impl Watch<'_> {
    /// Comes back as often as the connection breaks, and asks for what is new.
    async fn until_it_ends(&mut self) -> Result<Value, Failure> {
        let (mut retry, mut failures) = (RETRY, 0);
        loop {
            let began = self.seen.clone();
            let failure = match self.once(&mut retry).await {
                Ok(Some(end)) => return Ok(end),
                Ok(None) => None,
                // Whoever was never reached is not waited for.
                Err(failure) if self.seen.is_none() || !may_pass(&failure) => return Err(failure),
                Err(failure) => Some(failure),
            };
            failures = if self.seen == began { failures + 1 } else { 0 };
            match failure {
                Some(failure) if failures >= TRIES => return Err(failure),
                _ => tokio::time::sleep(retry).await,
            }
        }
    }

    /// One connection; the command if it ended, `None` if the stream did.
    async fn once(&mut self, retry: &mut Duration) -> Result<Option<Value>, Failure> {
        let id = self.id.to_string();
        let mut request = self.api.request(Method::GET, &["commands", &id, "watch"])?;
        if let Some(seen) = &self.seen {
            request = request.header("Last-Event-ID", seen);
        }
        let response = self.api.open(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            // It ended, and that was heard: only its last words are missing.
            return self.api.get(&["commands", &id], &[]).await.map(Some);
        }
        let mut events = Events::new(response);
        loop {
            let next = tokio::time::timeout(SILENCE, events.next());
            let Ok(event) = next.await else { return Ok(None) };
            let Some(event) = event.map_err(|error| self.api.unreachable(&error))? else {
                return Ok(None);
            };
            if let Some(milliseconds) = event.retry {
                *retry = Duration::from_millis(milliseconds);
            }
            if let Some(command) = self.show(event)? {
                return Ok(Some(command));
            }
        }
    }

    /// Shows a status; the command if it is its last.
    fn show(&mut self, event: Event) -> Result<Option<Value>, Failure> {
        if event.id.is_some() {
            self.seen = event.id;
        }
        let Some(data) = event.data else { return Ok(None) };
        let command: Value = serde_json::from_str(&data).map_err(|error| Failure::Unreachable {
            url: self.api.base().into(),
            reason: format!("no JSON: {error}"),
        })?;
        if ended(&command) {
            return Ok(Some(command));
        }
        self.shown = plain(&command["status"]);
        if self.output.is_json() {
            line(&command.to_string());
        } else {
            line(&format!("{} …", self.shown));
        }
        Ok(None)
    }
}

/// Whether the service may answer otherwise the next time.
fn may_pass(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable { .. } => true,
        Failure::Answer { status, .. } => *status >= 500 || *status == 429,
        _ => false,
    }
}
