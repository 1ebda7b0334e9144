-- Housekeeping and notification, as migrations/0005_housekeeping.sql has them.

-- What retention has removed: logs and outcomes of a partition are whole from here on.
CREATE TABLE retention (
    partition        INTEGER NOT NULL PRIMARY KEY,
    command_log_from INTEGER NOT NULL DEFAULT 1, -- the first offset that must be there
    outcomes_before  INTEGER                     -- those that are older may be gone
) STRICT;

CREATE INDEX dead_letters_to_remove ON dead_letters (state_at) WHERE state IN (3, 4);
CREATE INDEX dead_letters_unended_of_command ON dead_letters (partition, command_id)
 WHERE state IN (1, 2);
CREATE INDEX dead_letters_open_by_cause ON dead_letters (fingerprint) WHERE state = 1;

-- What is not as it should be, or was not: one row a condition and its subject.
CREATE TABLE conditions (
    condition  TEXT    NOT NULL, -- group_lag, …
    subject    TEXT    NOT NULL, -- the group, …
    state      INTEGER NOT NULL, -- 1 firing, 2 resolved
    summary    TEXT    NOT NULL,
    detail     TEXT    NOT NULL,
    since      INTEGER NOT NULL, -- it fires
    seen_at    INTEGER NOT NULL, -- the last time that a process saw it
    changed_at INTEGER NOT NULL,
    told_at    INTEGER NOT NULL,
    PRIMARY KEY (condition, subject)
) STRICT, WITHOUT ROWID;

-- Messages to webhooks: written with the change that they tell of, claimed with a lease, sent at
-- least once under one id.
CREATE TABLE notifications (
    id             BLOB    NOT NULL PRIMARY KEY, -- `webhook-id`
    webhook        TEXT    NOT NULL,
    condition      TEXT    NOT NULL,
    state          INTEGER NOT NULL, -- 1 gathering, 2 under way, 3 sent, 4 given up
    alerts         TEXT    NOT NULL, -- JSON array
    alert_count    INTEGER NOT NULL, -- those included that did not fit
    created_at     INTEGER NOT NULL,
    due_at         INTEGER NOT NULL,
    attempts       INTEGER NOT NULL DEFAULT 0,
    leased_until   INTEGER,
    first_tried_at INTEGER,
    last_tried_at  INTEGER,
    ended_at       INTEGER,
    error          TEXT
) STRICT;
CREATE UNIQUE INDEX notifications_gathering ON notifications (webhook, condition) WHERE state = 1;
CREATE INDEX notifications_of_webhook ON notifications (webhook, created_at);
