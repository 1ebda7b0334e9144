-- Cancelling commands that have not ended, as migrations/0009_cancellation.sql has it.

-- Who called a command off, and why.
CREATE TABLE cancellations (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    partition  INTEGER NOT NULL,
    command_id BLOB    NOT NULL,
    who        TEXT    NOT NULL,
    reason     TEXT,
    job_id     BLOB
) STRICT;
CREATE INDEX cancellations_of_command ON cancellations (command_id, id);
CREATE TRIGGER cancellations_are_append_only BEFORE UPDATE ON cancellations
BEGIN
    SELECT RAISE(ABORT, 'cancellations is append-only');
END;

-- Of jobs that cancel commands (action 3): how far they have come in their walk.
ALTER TABLE dead_letter_jobs ADD COLUMN walk TEXT;
