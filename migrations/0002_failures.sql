-- When work fails: attempts, holds of streams, dead letters and what people did with them.

-- Which execution an entry of the command log owes. `first_offset` is the offset of the command's
-- first entry (null: this one); `edit` names the payload to execute (0: as it was accepted).
ALTER TABLE adjutant.command_log
    ADD COLUMN attempt      integer NOT NULL DEFAULT 1,
    ADD COLUMN first_offset bigint,
    ADD COLUMN edit         integer NOT NULL DEFAULT 0;
ALTER TABLE adjutant.schedule
    ADD COLUMN attempt      integer NOT NULL DEFAULT 1,
    ADD COLUMN first_offset bigint,
    ADD COLUMN edit         integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN adjutant.schedule.reason IS
    'not_before, type_unknown_here, stream_unreadable_here, payload_unreadable_here, retry (after a failed attempt), released (waited behind a strict command), dead_letter_retry';

-- Attempts that failed. Insert-only.
CREATE TABLE adjutant.attempts (
    partition   smallint    NOT NULL,
    command_id  uuid        NOT NULL,
    attempt     integer     NOT NULL,
    error       jsonb       NOT NULL, -- { code, message, sources }
    failed_at   timestamptz NOT NULL,
    next_due_at timestamptz,          -- null: there is no further one, the command is dead
    PRIMARY KEY (partition, command_id, attempt)
);

-- Outcomes that a retry of a dead letter took back: `dead`, always. Insert-only.
CREATE TABLE adjutant.past_outcomes (
    partition    smallint    NOT NULL,
    command_id   uuid        NOT NULL,
    attempts     integer     NOT NULL,
    version      bigint      NOT NULL,
    error        jsonb,
    completed_at timestamptz NOT NULL,
    taken_back_at timestamptz NOT NULL,
    PRIMARY KEY (partition, command_id, attempts)
);

-- Payloads that a person corrected. Insert-only; the original stays in adjutant.commands.
CREATE TABLE adjutant.command_edits (
    bucket     smallint    NOT NULL,
    command_id uuid        NOT NULL,
    edit       integer     NOT NULL, -- 1, 2, 3 …
    payload    jsonb       NOT NULL,
    edited_at  timestamptz NOT NULL,
    edited_by  text        NOT NULL,
    PRIMARY KEY (bucket, command_id, edit)
);

-- Streams that are held: a strict command waits while one of its stream with a lower first offset
-- stands here. Set and released under the partition's command-log lock.
CREATE TABLE adjutant.holds (
    partition    smallint    NOT NULL,
    stream       text        COLLATE "C" NOT NULL,
    first_offset bigint      NOT NULL,
    command_id   uuid        NOT NULL,
    bucket       smallint    NOT NULL,
    state        smallint    NOT NULL, -- 1 holds (set aside, retrying or dead), 2 waits, 3 released
    attempt      integer     NOT NULL, -- its next one
    edit         integer     NOT NULL DEFAULT 0,
    since        timestamptz NOT NULL,
    PRIMARY KEY (partition, stream, first_offset)
);
CREATE UNIQUE INDEX holds_of_command ON adjutant.holds (partition, command_id);

-- Work that a person must look at. A row a death: a command that dies again after a retry gets
-- another one.
CREATE TABLE adjutant.dead_letters (
    partition   smallint    NOT NULL,
    id          uuid        NOT NULL, -- version 7: newest last
    kind        smallint    NOT NULL, -- 1 command, 2 parked key
    group_name  text        COLLATE "C" NOT NULL,
    generation  integer     NOT NULL DEFAULT 1,
    key         text        COLLATE "C" NOT NULL, -- the stream, or what is parked
    type        text        COLLATE "C" NOT NULL, -- of the command, or of the event
    command_id  uuid        NOT NULL, -- the command, or the event's
    "offset"    bigint,               -- of the entry that failed, in its log
    error       jsonb       NOT NULL, -- { code, message, sources }
    fingerprint text        COLLATE "C" NOT NULL,
    attempts    integer     NOT NULL,
    died_at     timestamptz NOT NULL,
    state       smallint    NOT NULL DEFAULT 1, -- 1 open, 2 retrying, 3 resolved, 4 discarded
    state_at    timestamptz NOT NULL,
    PRIMARY KEY (partition, id)
) WITH (fillfactor = 80);
CREATE INDEX dead_letters_newest ON adjutant.dead_letters (id);
CREATE INDEX dead_letters_of_fingerprint ON adjutant.dead_letters (fingerprint, id);
CREATE INDEX dead_letters_of_command ON adjutant.dead_letters (command_id);

-- What people did with dead letters, and why. Append-only.
CREATE TABLE adjutant.dead_letter_audit (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at             timestamptz NOT NULL,
    dead_letter_id uuid        NOT NULL,
    action         text        NOT NULL, -- retry, retry_edited, discard
    who            text        NOT NULL,
    reason         text,
    job_id         uuid                  -- of the job that did it, if one did
);
CREATE INDEX dead_letter_audit_of ON adjutant.dead_letter_audit (dead_letter_id, id);
CREATE INDEX dead_letter_audit_by_time ON adjutant.dead_letter_audit (at);

CREATE FUNCTION adjutant.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'AJ007';
END $$;
CREATE TRIGGER dead_letter_audit_is_append_only
    BEFORE UPDATE OR TRUNCATE ON adjutant.dead_letter_audit
    FOR EACH STATEMENT EXECUTE FUNCTION adjutant.refuse_change();

-- Lets go on what waits for nobody any more: for each stream whose first row waits, all its waiting
-- rows come back through the schedule, in the order of their first offsets. The caller holds the
-- command-log locks of these partitions.
CREATE FUNCTION adjutant.release_waiting(p_partitions smallint[], p_streams text[])
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_released bigint;
BEGIN
    -- Served by holds_pkey.
    WITH free AS (
        SELECT DISTINCT f.p, f.stream FROM unnest(p_partitions, p_streams) AS f(p, stream)
         WHERE (SELECT h.state FROM adjutant.holds h
                 WHERE h.partition = f.p AND h.stream = f.stream
                 ORDER BY h.first_offset LIMIT 1) = 2),
    released AS (
        UPDATE adjutant.holds h SET state = 3 FROM free
         WHERE h.partition = free.p AND h.stream = free.stream AND h.state = 2
        RETURNING h.*)
    INSERT INTO adjutant.schedule (partition, due_at, command_id, bucket, reason, attempt,
                                   first_offset, edit)
    SELECT r.partition, v_now, r.command_id, r.bucket, 'released', r.attempt, r.first_offset, r.edit
      FROM released r ORDER BY r.partition, r.stream, r.first_offset;
    GET DIAGNOSTICS v_released = ROW_COUNT;
    RETURN v_released;
END $$;

INSERT INTO adjutant.releases (migration, oldest_release) VALUES (2, '0.1.0');
