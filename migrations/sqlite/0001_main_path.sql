-- The main path on SQLite: the same tables as migrations/0001_main_path.sql, with what one writer
-- makes simpler. There is a single write transaction at a time, so no lock is taken anywhere:
-- offsets are max + n, and a compare-and-set is an UPDATE.
--
-- Ids are the 16 bytes of the UUID, times microseconds since 1970 (UTC), JSON is text as it came.

-- What is fixed when the file is initialised (one row).
CREATE TABLE log_identity (
    only_row       INTEGER PRIMARY KEY CHECK (only_row = 1),
    log_id         BLOB    NOT NULL,
    partitions     INTEGER NOT NULL CHECK (partitions BETWEEN 1 AND 1024),
    initialised_at INTEGER NOT NULL
) STRICT;

-- Commands as they were accepted. Insert-only.
CREATE TABLE commands (
    id               BLOB    NOT NULL PRIMARY KEY,
    partition        INTEGER NOT NULL,
    stream           TEXT    NOT NULL,
    type             TEXT    NOT NULL,
    lane             INTEGER NOT NULL, -- 1 queued, 2 immediate
    payload          TEXT    NOT NULL,
    metadata         TEXT,
    expected_version INTEGER,
    not_before       INTEGER,
    reply_to         TEXT,
    content_hash     BLOB    NOT NULL,
    accepted_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX commands_newest ON commands (accepted_at, id);
CREATE INDEX commands_of_stream ON commands (stream, accepted_at, id);

-- The command log: executions that the queued lane owes. Gapless per partition (law 4).
CREATE TABLE command_log (
    partition   INTEGER NOT NULL,
    "offset"    INTEGER NOT NULL,
    command_id  BLOB    NOT NULL,
    recorded_at INTEGER NOT NULL,
    PRIMARY KEY (partition, "offset")
) STRICT, WITHOUT ROWID;

-- The event log. Gapless per partition (law 4); a stream's versions are gapless too.
CREATE TABLE events (
    partition      INTEGER NOT NULL,
    "offset"       INTEGER NOT NULL,
    stream         TEXT    NOT NULL,
    version        INTEGER NOT NULL,
    type           TEXT    NOT NULL,
    schema_version INTEGER NOT NULL,
    data           TEXT    NOT NULL,
    metadata       TEXT,
    command_id     BLOB    NOT NULL,
    recorded_at    INTEGER NOT NULL,
    PRIMARY KEY (partition, "offset"),
    UNIQUE (partition, stream, version)
) STRICT;

-- How commands ended. One row a command, ever (law 3).
CREATE TABLE outcomes (
    partition    INTEGER NOT NULL,
    command_id   BLOB    NOT NULL,
    status       INTEGER NOT NULL, -- 1 succeeded, 2 rejected, 3 dead, 4 cancelled
    first_offset INTEGER,          -- of its events in the event log
    events       INTEGER NOT NULL,
    version      INTEGER NOT NULL, -- of the stream, afterwards
    reply        TEXT,
    error        TEXT,             -- { code, message }
    attempts     INTEGER NOT NULL,
    completed_at INTEGER NOT NULL,
    PRIMARY KEY (partition, command_id)
) STRICT, WITHOUT ROWID;

-- Messages that wait for the broker. One row is one message (law 2). AUTOINCREMENT: an id is never
-- used again, not even when the table was empty in between; readers remember ids and read on from
-- the next one.
CREATE TABLE outbox (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    partition      INTEGER NOT NULL,
    route          INTEGER NOT NULL, -- 1 commands, 2 events, 3 reply, 4 intake dead letter
    queue          TEXT,             -- of a reply
    first_offset   INTEGER,          -- of the log entries it carries, if any
    entries        INTEGER NOT NULL,
    correlation_id TEXT,
    content_type   TEXT    NOT NULL,
    headers        TEXT,
    body           BLOB    NOT NULL,
    recorded_at    INTEGER NOT NULL
) STRICT;

-- Commands that become a log entry when due.
CREATE TABLE schedule (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    partition  INTEGER NOT NULL,
    due_at     INTEGER NOT NULL,
    command_id BLOB    NOT NULL,
    reason     TEXT    NOT NULL -- not_before, type_unknown_here
) STRICT;
CREATE INDEX schedule_by_time ON schedule (partition, due_at, id);
CREATE INDEX schedule_of_command ON schedule (command_id);

-- How far each group has finished each partition: one row, moved in place. (PostgreSQL keeps a
-- chain of moves, because dead row versions would slow an updated row; here there are none.)
CREATE TABLE checkpoints (
    group_name TEXT    NOT NULL,
    partition  INTEGER NOT NULL,
    reached    INTEGER NOT NULL CHECK (reached > 0),
    moved_at   INTEGER NOT NULL,
    PRIMARY KEY (group_name, partition)
) STRICT, WITHOUT ROWID;

-- Documents. `partition` is the only one that feeds it (scope Stream) or null (scope Shared).
CREATE TABLE views (
    view       TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    partition  INTEGER,
    version    INTEGER NOT NULL, -- counts changes
    value      TEXT,             -- null: deleted
    as_of      TEXT    NOT NULL, -- { partition: last offset that touched it }
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (view, key)
) STRICT;

-- The newest snapshot of a stream.
CREATE TABLE snapshots (
    partition     INTEGER NOT NULL,
    stream        TEXT    NOT NULL,
    version       INTEGER NOT NULL,
    state_version INTEGER NOT NULL,
    state         BLOB    NOT NULL,
    PRIMARY KEY (partition, stream)
) STRICT;

-- Processes that run, by their heartbeats.
CREATE TABLE members (
    id           BLOB    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL,
    release      TEXT    NOT NULL,
    roles        TEXT    NOT NULL, -- JSON array
    groups       TEXT    NOT NULL, -- JSON array
    draining     INTEGER NOT NULL,
    stats        TEXT    NOT NULL,
    started_at   INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL
) STRICT;

-- Messages that were on our queues but are not of this log: never applied, counted by origin.
CREATE TABLE foreign_messages (
    group_name TEXT    NOT NULL,
    partition  INTEGER NOT NULL,
    log_id     TEXT    NOT NULL, -- as the message names it; '' if unreadable
    reason     TEXT    NOT NULL,
    count      INTEGER NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL,
    PRIMARY KEY (group_name, partition, log_id, reason)
) STRICT, WITHOUT ROWID;
