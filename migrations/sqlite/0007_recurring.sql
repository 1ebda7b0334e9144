-- Recurring commands, as migrations/0007_recurring.sql has them.

CREATE TABLE recurring (
    name             TEXT    NOT NULL PRIMARY KEY,
    revision         INTEGER NOT NULL, -- counts changes by people
    turn             INTEGER NOT NULL, -- counts every change: what compare-and-set compares
    state            INTEGER NOT NULL, -- 1 active, 2 paused
    cron             TEXT    NOT NULL,
    time_zone        TEXT    NOT NULL,
    missed_runs      INTEGER NOT NULL, -- 1 skip, 2 once, 3 all
    type             TEXT    NOT NULL,
    stream           TEXT    NOT NULL,
    lane             INTEGER NOT NULL, -- 1 queued, 2 immediate
    payload          TEXT    NOT NULL,
    metadata         TEXT,
    expected_version INTEGER,
    next_due_at      INTEGER,          -- null: paused, or never again
    owed             TEXT    NOT NULL DEFAULT '[]', -- times; decided, and perhaps not sent yet
    wake_at          INTEGER GENERATED ALWAYS AS (COALESCE(owed ->> '$[0]', next_due_at)) STORED,
    runs             INTEGER NOT NULL DEFAULT 0,
    missed           INTEGER NOT NULL DEFAULT 0, -- due times without a run of their own
    last_due_at      INTEGER,
    last_command_id  BLOB,
    created_at       INTEGER NOT NULL,
    created_by       TEXT    NOT NULL,
    changed_at       INTEGER NOT NULL,
    changed_by       TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX recurring_due ON recurring (wake_at, name) WHERE state = 1;
