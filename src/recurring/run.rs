//! A run: one due time of a recurring command, and the command that it sends.

use std::{fmt, str::FromStr};

use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::{
    message::{CommandContent, CommandId, Metadata, Timestamp},
    store::{CommandTemplate, NewCommand, RecurringName, WhenDue},
};

/// The namespace of the ids of runs. Never changes.
const NAMESPACE: Uuid = Uuid::from_u128(0x2f0c_9d6e_7a41_4f6b_8d0e_51b7_c3a9_6e14);

/// What a run's `causation_id` begins with.
const CAUSE: &str = "recurring/";

/// One due time of a recurring command. The metadata of its command name it as what caused it, so
/// that whoever decides about the command knows which one it is:
///
/// ```
/// use adjutant::recurring::Run;
/// use time::macros::datetime;
///
/// let run: Run = "recurring/nightly@2026-01-01T03:00:00Z".parse().unwrap();
/// assert_eq!(run.name.as_str(), "nightly");
/// assert_eq!(run.due_at, datetime!(2026-01-01 3:00 UTC));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Of which recurring command.
    pub name: RecurringName,
    /// When it was due; not when it was sent.
    pub due_at: Timestamp,
}

/// A text that names no run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a run is named `recurring/name@time`, for example `recurring/nightly@2026-01-01T03:00:00Z`"
)]
pub struct NoRun;

impl Run {
    /// The id of its command (UUID version 5, RFC 9562): the same whoever sends it, so that there is
    /// one.
    pub fn command_id(&self) -> CommandId {
        let name = format!("{}@{}", self.name, self.due_at.unix_timestamp());
        CommandId(Uuid::new_v5(&NAMESPACE, name.as_bytes()))
    }

    /// The run that caused a command, if one did.
    pub fn of(metadata: &Metadata) -> Option<Self> {
        metadata.causation_id.as_deref()?.parse().ok()
    }

    /// Its command.
    pub(super) fn command(
        &self,
        template: &CommandTemplate,
        needs_log: bool,
    ) -> Result<NewCommand, serde_json::Error> {
        let id = if planted!(RunWithNewId) { CommandId::generate() } else { self.command_id() };
        let content = CommandContent {
            command_type: &template.command_type,
            stream: &template.stream,
            payload: &template.payload.decode()?,
            not_before: None,
            not_after: None,
            expected_version: template.expected_version,
        };
        Ok(NewCommand {
            id,
            content_hash: content.hash()?,
            command_type: template.command_type.clone(),
            stream: template.stream.clone(),
            payload: template.payload.clone(),
            metadata: Metadata {
                causation_id: Some(self.to_string()),
                traceparent: Some(traceparent(id)),
                ..template.metadata.clone()
            },
            lane: template.lane,
            expected_version: template.expected_version,
            not_before: None,
            reply_to: None,
            not_after: None,
            callback_url: None,
            or_queued: false,
            // It is sent by a relay, which executes nothing.
            held_by: None,
            when_due: WhenDue::of(template.lane, needs_log),
        })
    }
}

/// The first span of the run's own trace (W3C Trace Context): its ids are made of the command's, so
/// that they are the same whoever sends it.
fn traceparent(id: CommandId) -> String {
    let span = (id.0.as_u128() >> 64) as u64;
    format!("00-{}-{span:016x}-01", id.0.simple())
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.due_at.to_offset(time::UtcOffset::UTC).format(&Rfc3339);
        write!(f, "{CAUSE}{}@{}", self.name, time.map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Run {
    type Err = NoRun;

    fn from_str(text: &str) -> Result<Self, NoRun> {
        let named = text.strip_prefix(CAUSE).and_then(|rest| rest.split_once('@'));
        let (name, time) = named.ok_or(NoRun)?;
        let due_at = Timestamp::parse(time, &Rfc3339).map_err(|_| NoRun)?;
        Ok(Self { name: name.parse().map_err(|_| NoRun)?, due_at })
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn run(name: &str, due_at: Timestamp) -> Run {
        Run { name: name.parse().unwrap(), due_at }
    }

    /// Golden: a run that was sent before an upgrade must not be sent again behind it.
    #[test]
    fn a_run_always_has_the_same_id() {
        let nightly = run("nightly", datetime!(2026-01-01 3:00 UTC));
        assert_eq!(nightly.command_id().to_string(), "3f2897f9-22b4-5508-9922-f071b1c48a65");
        assert_eq!(
            run("nightly", datetime!(2026-01-01 4:00 +1)).command_id(),
            nightly.command_id()
        );
        assert_ne!(
            run("nightly", datetime!(2026-01-01 3:00:01 UTC)).command_id(),
            nightly.command_id()
        );
        assert_ne!(
            run("nightl", datetime!(2026-01-01 3:00 UTC)).command_id(),
            nightly.command_id()
        );
    }

    #[test]
    fn its_command_names_it_as_its_cause() {
        let nightly = run("nightly", datetime!(2026-01-01 3:00 UTC));
        let template = CommandTemplate {
            command_type: "counter.add".into(),
            stream: "counter/a".parse().unwrap(),
            payload: crate::message::RawJson::from_trusted(r#"{ "amount": 5 }"#.into()),
            metadata: Metadata { actor: Some("ann".into()), ..Metadata::default() },
            lane: crate::message::Lane::Queued,
            expected_version: None,
        };
        let command = nightly.command(&template, false).unwrap();
        assert_eq!(command.id, nightly.command_id());
        assert_eq!(Run::of(&command.metadata), Some(nightly.clone()));
        assert_eq!(command.metadata.actor.as_deref(), Some("ann"));
        assert_eq!(
            command.metadata.causation_id.as_deref(),
            Some("recurring/nightly@2026-01-01T03:00:00Z")
        );
        let trace = command.metadata.trace_id().unwrap();
        assert_eq!(trace, nightly.command_id().0.simple().to_string());
        assert_eq!(nightly.command(&template, false).unwrap().metadata, command.metadata);
    }

    #[test]
    fn what_a_person_caused_is_no_run() {
        for other in [
            "",
            "nightly",
            "recurring/",
            "recurring/x@",
            "recurring/X@2026-01-01T03:00:00Z",
            "order-17",
        ] {
            assert_eq!(other.parse::<Run>(), Err(NoRun), "{other}");
        }
    }
}
