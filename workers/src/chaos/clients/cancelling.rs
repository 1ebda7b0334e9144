//! Clients that call commands off: fresh ones, before, while or after they are answered, old ones, and
//! all that have not ended of a stream; at times two wishes come at once.

use std::time::Instant;

use hyper::Uri;
use serde_json::{Value, json};
use uuid::Uuid;

use super::sender::{Answered, Sender};
use crate::chaos::log::{CalledOffAll, CancelTold};

/// How often a client without an answer asks again.
const ATTEMPTS: u32 = 5;

/// What calls commands off for a client, by connections of its own.
pub(super) struct CallingOff {
    sender: Sender,
    wishes: u64,
}

impl CallingOff {
    pub(super) fn new(sender: Sender) -> Self {
        Self { sender, wishes: 0 }
    }

    /// Calls a command off, at times twice at once. `is_there`: it was told accepted before.
    pub(super) async fn one(&mut self, command: Uuid, is_there: bool) {
        let wish = self.wish(command);
        if !self.sender.draw.happens(30) {
            return self.until_answered(wish, is_there).await;
        }
        let other = self.wish(command);
        let Some([one, two]) = self.sender.delete_twice(&wish.path, &other.path).await else {
            return;
        };
        for (wish, answer) in [(wish, one), (other, two)] {
            if self.hears(&wish, is_there, &answer) == CancelTold::Unknown {
                self.until_answered(wish, is_there).await;
            }
        }
    }

    fn wish(&mut self, command: Uuid) -> Wish {
        let reason = self.reason();
        let path = format!("/v1/commands/{command}?reason={reason}");
        Wish { command, place: self.sender.log.calls_off(command, &reason), path }
    }

    fn reason(&mut self) -> String {
        self.wishes += 1;
        format!("client-{}-wish-{}", self.sender.client, self.wishes)
    }

    /// Asked again after no answer, it was cancelled before: perhaps by this wish.
    async fn until_answered(&mut self, wish: Wish, is_there: bool) {
        for _ in 0..ATTEMPTS {
            let answer = self.sender.delete(&wish.path).await;
            if self.hears(&wish, is_there, &answer) != CancelTold::Unknown {
                return;
            }
            self.sender.turn_to_another();
            tokio::time::sleep(self.sender.draw.millis(30..400)).await;
        }
    }

    fn hears(&self, wish: &Wish, is_there: bool, answer: &Answered) -> CancelTold {
        let (told, words) = judge(answer);
        self.sender.log.told_of_wish(wish.place, told, &words);
        let is_wrong = told == CancelTold::NotThere && is_there;
        let is_strange = told == CancelTold::Unknown
            && answer.as_ref().is_ok_and(|answer| answer.status.is_client_error())
            && answer.as_ref().is_ok_and(|answer| answer.status.as_u16() != 429);
        if is_wrong || is_strange {
            let id = wish.command;
            self.sender.log.violated(format!("command {id} was called off: {words}"));
        }
        told
    }

    /// Calls off all of a stream that have not ended. It is asked once: who asks again makes another
    /// job.
    pub(super) async fn all_of(&mut self, stream: &str) {
        let (asked, reason) = (Instant::now(), self.reason());
        let body = json!({ "stream": stream, "reason": reason });
        let answer = self.sender.post_to(&Uri::from_static("/v1/commands/cancel"), &body).await;
        let words = match &answer {
            Ok(answer) => answer.in_words(),
            Err(error) => error.to_string(),
        };
        let job = answer.ok().filter(|answer| answer.status.as_u16() == 202).and_then(|answer| {
            let job: Value = serde_json::from_slice(&answer.body).ok()?;
            job["id"].as_str()?.parse().ok()
        });
        let wish = CalledOffAll { asked, stream: stream.to_owned(), reason, job };
        self.sender.log.called_off_all(wish, &words);
    }
}

struct Wish {
    command: Uuid,
    place: usize,
    path: String,
}

fn judge(answer: &Answered) -> (CancelTold, String) {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return (CancelTold::Unknown, error.to_string()),
    };
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let told = match (answer.status.as_u16(), body["code"].as_str()) {
        (200, _) if body["status"] == "cancelled" => CancelTold::Cancelled,
        (409, Some("already_cancelled")) => CancelTold::AlreadyCancelled,
        (409, Some("already_ended")) => CancelTold::AlreadyEnded,
        (404, _) => CancelTold::NotThere,
        _ => CancelTold::Unknown,
    };
    (told, answer.in_words())
}
