//! What is carried over: every table with its columns, in both databases' words.

/// A column, by what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `smallint`
    Small,
    /// The partition hash of the command's id, which only PostgreSQL keeps: the source selects the id.
    Bucket,
    /// `integer`
    Int,
    /// `bigint`
    Big,
    /// `uuid`; 16 bytes in SQLite
    Uuid,
    /// `text`
    Text,
    /// `jsonb`; text in SQLite
    Json,
    /// `bytea`
    Bytes,
    /// `timestamptz`; microseconds since 1970 in SQLite
    Time,
    /// `timestamptz[]`, in whole seconds; a JSON array of microseconds since 1970 in SQLite
    Times,
}

impl Kind {
    /// The type of an array parameter, and how an element becomes a value of the column.
    pub(super) fn in_sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Small | Self::Bucket => ("smallint[]", ""),
            Self::Int => ("integer[]", ""),
            Self::Big => ("bigint[]", ""),
            Self::Uuid => ("uuid[]", ""),
            Self::Text => ("text[]", ""),
            Self::Json => ("text[]", "::jsonb"),
            Self::Bytes => ("bytea[]", ""),
            Self::Time => ("timestamptz[]", ""),
            Self::Times => ("text[]", "::timestamptz[]"),
        }
    }
}

pub(super) struct Table {
    pub(super) name: &'static str,
    /// The first [`Self::key`] of them are the primary key.
    pub(super) columns: &'static [(&'static str, Kind)],
    pub(super) key: usize,
    /// The rest of the source's question: which rows, in which order.
    pub(super) rows: &'static str,
}

use Kind::{Big, Bucket, Bytes, Int, Json, Small, Text, Time, Times, Uuid};

/// In the order in which they are written.
///
/// Not carried: messages of the outbox that carry log entries (their groups read the logs), members,
/// owners of partitions with their suspects, foreign messages, conditions and notifications (they
/// belong to the old place), and jobs over dead letters (one that is not done is made again; what it did is in the audit).
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "commands",
        columns: &[
            ("bucket", Bucket),
            ("id", Uuid),
            ("partition", Small),
            ("stream", Text),
            ("type", Text),
            ("lane", Small),
            ("payload", Json),
            ("metadata", Json),
            ("expected_version", Big),
            ("not_before", Time),
            ("reply_to", Json),
            ("content_hash", Bytes),
            ("accepted_at", Time),
            ("not_after", Time),
            ("callback_url", Text),
        ],
        key: 2,
        rows: "ORDER BY id",
    },
    // Their process is gone: the first relay of the new place puts them into the command log.
    Table {
        name: "immediate",
        columns: &[
            ("partition", Small),
            ("command_id", Uuid),
            ("bucket", Bucket),
            ("owner", Uuid),
            ("accepted_at", Time),
        ],
        key: 2,
        rows: "ORDER BY id",
    },
    Table {
        name: "command_log",
        columns: &[
            ("partition", Small),
            ("offset", Big),
            ("command_id", Uuid),
            ("bucket", Bucket),
            ("recorded_at", Time),
            ("attempt", Int),
            ("first_offset", Big),
            ("edit", Int),
        ],
        key: 2,
        rows: "ORDER BY partition, \"offset\"",
    },
    Table {
        name: "events",
        columns: &[
            ("partition", Small),
            ("offset", Big),
            ("stream", Text),
            ("version", Big),
            ("type", Text),
            ("schema_version", Small),
            ("data", Json),
            ("metadata", Json),
            ("command_id", Uuid),
            ("recorded_at", Time),
        ],
        key: 2,
        rows: "ORDER BY partition, \"offset\"",
    },
    Table {
        name: "outcomes",
        columns: &[
            ("partition", Small),
            ("command_id", Uuid),
            ("status", Small),
            ("first_offset", Big),
            ("events", Int),
            ("version", Big),
            ("reply", Json),
            ("error", Json),
            ("attempts", Int),
            ("completed_at", Time),
        ],
        key: 2,
        rows: "ORDER BY partition, command_id",
    },
    Table {
        name: "checkpoints",
        columns: &[
            ("group_name", Text),
            ("partition", Small),
            ("previous", Big),
            ("reached", Big),
            ("moved_at", Time),
        ],
        key: 3,
        rows: "ORDER BY group_name, partition",
    },
    Table {
        name: "views",
        columns: &[
            ("view", Text),
            ("key", Text),
            ("partition", Small),
            ("version", Big),
            ("value", Json),
            ("as_of", Json),
            ("updated_at", Time),
            ("parked", Text),
        ],
        key: 2,
        rows: "ORDER BY view, key",
    },
    Table {
        name: "parked_keys",
        columns: &[
            ("group_name", Text),
            ("generation", Int),
            ("scope", Small),
            ("key", Text),
            ("partition", Small),
            ("failed_offset", Big),
            ("cursor", Big),
            ("cursor_version", Big),
            ("state", Small),
            ("dead_letter_id", Uuid),
            ("attempts", Int),
            ("parked_at", Time),
        ],
        key: 4,
        rows: "ORDER BY group_name, generation, scope, key",
    },
    Table {
        name: "parked_references",
        columns: &[
            ("group_name", Text),
            ("generation", Int),
            ("key", Text),
            ("partition", Small),
            ("offset", Big),
        ],
        key: 5,
        rows: "ORDER BY group_name, generation, key, partition, \"offset\"",
    },
    Table {
        name: "snapshots",
        columns: &[
            ("partition", Small),
            ("stream", Text),
            ("version", Big),
            ("state_version", Small),
            ("state", Bytes),
        ],
        key: 2,
        rows: "ORDER BY partition, stream",
    },
    Table {
        name: "schedule",
        columns: &[
            ("partition", Small),
            ("due_at", Time),
            ("command_id", Uuid),
            ("bucket", Bucket),
            ("reason", Text),
            ("attempt", Int),
            ("first_offset", Big),
            ("edit", Int),
        ],
        key: 3,
        rows: "ORDER BY id",
    },
    Table {
        name: "attempts",
        columns: &[
            ("partition", Small),
            ("command_id", Uuid),
            ("attempt", Int),
            ("error", Json),
            ("failed_at", Time),
            ("next_due_at", Time),
        ],
        key: 3,
        rows: "ORDER BY partition, command_id, attempt",
    },
    Table {
        name: "past_outcomes",
        columns: &[
            ("partition", Small),
            ("command_id", Uuid),
            ("attempts", Int),
            ("version", Big),
            ("error", Json),
            ("completed_at", Time),
            ("taken_back_at", Time),
        ],
        key: 3,
        rows: "ORDER BY partition, command_id, attempts",
    },
    Table {
        name: "command_edits",
        columns: &[
            ("bucket", Bucket),
            ("command_id", Uuid),
            ("edit", Int),
            ("payload", Json),
            ("edited_at", Time),
            ("edited_by", Text),
        ],
        key: 3,
        rows: "ORDER BY command_id, edit",
    },
    Table {
        name: "holds",
        columns: &[
            ("partition", Small),
            ("stream", Text),
            ("first_offset", Big),
            ("command_id", Uuid),
            ("bucket", Bucket),
            ("state", Small),
            ("attempt", Int),
            ("edit", Int),
            ("since", Time),
        ],
        key: 3,
        rows: "ORDER BY partition, stream, first_offset",
    },
    Table {
        name: "dead_letters",
        columns: &[
            ("partition", Small),
            ("id", Uuid),
            ("kind", Small),
            ("group_name", Text),
            ("generation", Int),
            ("key", Text),
            ("type", Text),
            ("command_id", Uuid),
            ("offset", Big),
            ("error", Json),
            ("fingerprint", Text),
            ("attempts", Int),
            ("died_at", Time),
            ("state", Small),
            ("state_at", Time),
        ],
        key: 2,
        rows: "ORDER BY id",
    },
    // Those that were delivered are gone.
    Table {
        name: "callbacks",
        columns: &[
            ("partition", Small),
            ("id", Uuid),
            ("command_id", Uuid),
            ("type", Text),
            ("ended_after", Int),
            ("url", Text),
            ("state", Small),
            ("owed_at", Time),
            ("due_at", Time),
            ("attempts", Int),
            ("first_attempt", Int),
            ("error", Text),
            ("dead_letter_id", Uuid),
        ],
        key: 2,
        rows: "ORDER BY partition, id",
    },
    Table {
        name: "dead_letter_audit",
        columns: &[
            ("at", Time),
            ("dead_letter_id", Uuid),
            ("action", Text),
            ("who", Text),
            ("reason", Text),
            ("job_id", Uuid),
        ],
        key: 4,
        rows: "ORDER BY id",
    },
    Table {
        name: "cancellations",
        columns: &[
            ("at", Time),
            ("partition", Small),
            ("command_id", Uuid),
            ("who", Text),
            ("reason", Text),
            ("job_id", Uuid),
        ],
        key: 4,
        rows: "ORDER BY id",
    },
    Table {
        name: "retention",
        columns: &[("partition", Small), ("command_log_from", Big), ("outcomes_before", Time)],
        key: 1,
        rows: "ORDER BY partition",
    },
    Table {
        name: "recurring",
        columns: &[
            ("name", Text),
            ("revision", Big),
            ("turn", Big),
            ("state", Small),
            ("cron", Text),
            ("time_zone", Text),
            ("missed_runs", Small),
            ("type", Text),
            ("stream", Text),
            ("lane", Small),
            ("payload", Json),
            ("metadata", Json),
            ("expected_version", Big),
            ("next_due_at", Time),
            ("owed", Times),
            ("runs", Big),
            ("missed", Big),
            ("last_due_at", Time),
            ("last_command_id", Uuid),
            ("created_at", Time),
            ("created_by", Text),
            ("changed_at", Time),
            ("changed_by", Text),
        ],
        key: 1,
        rows: "ORDER BY name",
    },
    Table {
        name: "outbox",
        columns: &[
            ("partition", Small),
            ("route", Small),
            ("queue", Text),
            ("entries", Int),
            ("correlation_id", Text),
            ("content_type", Text),
            ("headers", Json),
            ("body", Bytes),
            ("recorded_at", Time),
        ],
        key: 9,
        rows: "WHERE first_offset IS NULL ORDER BY id",
    },
];
