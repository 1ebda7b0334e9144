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
    'not_before, type_unknown_here, stream_unreadable_here, payload_unreadable_here, retry (after a failed attempt), released (waited behind a strict command), dead_letter_retry, breaker_open';

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

-- Appends entries as the older form of it does, each with the execution that it owes.
CREATE FUNCTION adjutant.append_commands(
    p_partitions smallint[],
    p_places integer[], p_entry_partitions smallint[], p_ids uuid[], p_buckets smallint[],
    p_attempts integer[], p_first_offsets bigint[], p_edits integer[],
    p_message_partitions smallint[], p_message_places integer[], p_message_entries integer[],
    p_bodies bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_heads bigint[];
    v_now timestamptz;
BEGIN
    -- Sorted by the caller.
    PERFORM pg_advisory_xact_lock(1094929921, t.p) FROM unnest(p_partitions) AS t(p);
    -- Served by command_log_pkey, read backwards.
    SELECT array_agg(COALESCE((SELECT l."offset" FROM adjutant.command_log l
                               WHERE l.partition = t.p ORDER BY l."offset" DESC LIMIT 1), 0)
                     ORDER BY t.i)
      INTO v_heads FROM unnest(p_partitions) WITH ORDINALITY AS t(p, i);
    v_now := clock_timestamp();
    INSERT INTO adjutant.command_log (partition, "offset", command_id, bucket, recorded_at, attempt,
                                      first_offset, edit)
    SELECT e.p, v_heads[array_position(p_partitions, e.p)] + e.place, e.id, e.bucket, v_now,
           e.attempt, e.first_offset, e.edit
      FROM unnest(p_entry_partitions, p_places, p_ids, p_buckets, p_attempts, p_first_offsets,
                  p_edits) AS e(p, place, id, bucket, attempt, first_offset, edit);
    INSERT INTO adjutant.outbox (partition, route, first_offset, entries, content_type, body,
                                 recorded_at)
    SELECT m.p, 1, v_heads[array_position(p_partitions, m.p)] + m.place, m.entries,
           'application/msgpack', m.body, v_now
      FROM unnest(p_message_partitions, p_message_places, p_message_entries, p_bodies)
           WITH ORDINALITY AS m(p, place, entries, body, i)
     ORDER BY m.i;
END $$;

-- Everything that the executor writes when something of a batch failed or came back: what the older
-- form writes, and from `f` (arrays of objects; p is a partition):
--   aside     commands that come back by the schedule: p, id, bucket, delay_ms, reason, attempt,
--             first_offset, edit
--   failed    failed attempts: p, id, attempt, error, delay_ms (null: none follows)
--   dead      dead letters: p, id, stream, type, command_id, offset, error, fingerprint, attempts
--   retried   commands that ended by a later attempt: p, id
--   let_go    rows of holds whose command holds nobody any more: p, stream, first_offset
--   holds     rows of holds: p, stream, first_offset, id, bucket, state, attempt, edit
-- Raises AJ006 if nothing holds a command that waits. Rows of holds change under the command-log
-- locks, which come before the event-log locks (law 4).
CREATE FUNCTION adjutant.commit_commands(
    p_partitions smallint[],
    e_partitions smallint[], e_places integer[], e_streams text[], e_versions bigint[],
    e_types text[], e_schema_versions smallint[], e_data jsonb[], e_metadata jsonb[],
    e_commands uuid[],
    o_partitions smallint[], o_commands uuid[], o_log_offsets bigint[], o_statuses smallint[],
    o_places integer[], o_events integer[], o_versions bigint[], o_replies jsonb[],
    o_errors jsonb[], o_attempts integer[], o_reply_queues text[], o_reply_correlations text[],
    m_partitions smallint[], m_places integer[], m_entries integer[], m_bodies bytea[],
    v_partitions smallint[], v_streams text[], v_versions bigint[],
    c_group text, c_partitions smallint[], c_from bigint[], c_to bigint[],
    f jsonb,
    OUT v_heads bigint[], OUT v_now timestamptz
) LANGUAGE plpgsql AS $$
BEGIN
    IF f ? 'holds' OR f ? 'let_go' THEN
        PERFORM pg_advisory_xact_lock(1094929921, t.p)
           FROM (SELECT DISTINCT (x ->> 'p')::integer AS p
                   FROM jsonb_array_elements(COALESCE(f -> 'holds', '[]')
                                             || COALESCE(f -> 'let_go', '[]')) AS x
                  ORDER BY 1) AS t;
    END IF;
    SELECT c.v_heads, c.v_now INTO v_heads, v_now
      FROM adjutant.commit_commands(
           p_partitions, e_partitions, e_places, e_streams, e_versions, e_types, e_schema_versions,
           e_data, e_metadata, e_commands, o_partitions, o_commands, o_log_offsets, o_statuses,
           o_places, o_events, o_versions, o_replies, o_errors, o_attempts, o_reply_queues,
           o_reply_correlations, m_partitions, m_places, m_entries, m_bodies, '{}', '{}', '{}',
           '{}', '{}', v_partitions, v_streams, v_versions, c_group, c_partitions, c_from, c_to)
           AS c;
    IF f ? 'aside' THEN
        INSERT INTO adjutant.schedule (partition, due_at, command_id, bucket, reason, attempt,
                                       first_offset, edit)
        SELECT s.p, v_now + s.delay_ms * interval '1 millisecond', s.id, s.bucket, s.reason,
               s.attempt, s.first_offset, s.edit
          FROM jsonb_to_recordset(f -> 'aside')
               AS s(p smallint, id uuid, bucket smallint, delay_ms bigint, reason text,
                    attempt integer, first_offset bigint, edit integer);
    END IF;
    IF f ? 'failed' THEN
        INSERT INTO adjutant.attempts (partition, command_id, attempt, error, failed_at,
                                       next_due_at)
        SELECT a.p, a.id, a.attempt, a.error, v_now,
               v_now + a.delay_ms * interval '1 millisecond'
          FROM jsonb_to_recordset(f -> 'failed')
               AS a(p smallint, id uuid, attempt integer, error jsonb, delay_ms bigint);
    END IF;
    -- Served by dead_letters_of_command.
    IF f ? 'retried' THEN
        UPDATE adjutant.dead_letters d SET state = 3, state_at = v_now
          FROM jsonb_to_recordset(f -> 'retried') AS r(p smallint, id uuid)
         WHERE d.command_id = r.id AND d.partition = r.p AND d.kind = 1 AND d.state = 2;
    END IF;
    IF f ? 'dead' THEN
        INSERT INTO adjutant.dead_letters (partition, id, kind, group_name, key, type, command_id,
                                           "offset", error, fingerprint, attempts, died_at,
                                           state_at)
        SELECT d.p, d.id, 1, 'commands', d.stream, d.type, d.command_id, d."offset", d.error,
               d.fingerprint, d.attempts, v_now, v_now
          FROM jsonb_to_recordset(f -> 'dead')
               AS d(p smallint, id uuid, stream text, type text, command_id uuid, "offset" bigint,
                    error jsonb, fingerprint text, attempts integer);
    END IF;
    -- The rest is served by holds_pkey.
    IF f ? 'let_go' THEN
        DELETE FROM adjutant.holds h
         USING jsonb_to_recordset(f -> 'let_go') AS l(p smallint, stream text, first_offset bigint)
         WHERE h.partition = l.p AND h.stream = l.stream AND h.first_offset = l.first_offset;
    END IF;
    IF f ? 'holds' THEN
        INSERT INTO adjutant.holds (partition, stream, first_offset, command_id, bucket, state,
                                    attempt, edit, since)
        SELECT n.p, n.stream, n.first_offset, n.id, n.bucket, n.state, n.attempt, n.edit, v_now
          FROM jsonb_to_recordset(f -> 'holds')
               AS n(p smallint, stream text, first_offset bigint, id uuid, bucket smallint,
                    state smallint, attempt integer, edit integer)
        ON CONFLICT (partition, stream, first_offset) DO UPDATE
           SET state = EXCLUDED.state, attempt = EXCLUDED.attempt, edit = EXCLUDED.edit;
        IF EXISTS (SELECT 1
                     FROM jsonb_to_recordset(f -> 'holds')
                          AS n(p smallint, stream text, first_offset bigint, state smallint)
                    WHERE n.state = 2 AND NOT EXISTS (
                          SELECT 1 FROM adjutant.holds h
                           WHERE h.partition = n.p AND h.stream = n.stream
                             AND h.first_offset < n.first_offset))
        THEN
            RAISE EXCEPTION 'nothing holds a command that waits' USING ERRCODE = 'AJ006';
        END IF;
    END IF;
    IF f ? 'let_go' THEN
        PERFORM adjutant.release_waiting(array_agg(l.p), array_agg(l.stream))
           FROM jsonb_to_recordset(f -> 'let_go') AS l(p smallint, stream text);
    END IF;
END $$;

-- Which process runs a partition of a group, written when its loop starts and when it ends well. A
-- loop that starts and finds another one that did not end well has a window of entries that are
-- suspect.
CREATE TABLE adjutant.partition_owners (
    group_name text        COLLATE "C" NOT NULL,
    partition  smallint    NOT NULL,
    member     uuid        NOT NULL,
    released   boolean     NOT NULL,
    since      timestamptz NOT NULL,
    PRIMARY KEY (group_name, partition)
) WITH (fillfactor = 50);

-- How often a process vanished while it ran this entry alone. Counted before the entry is run,
-- removed afterwards.
CREATE TABLE adjutant.suspects (
    group_name text        COLLATE "C" NOT NULL,
    partition  smallint    NOT NULL,
    "offset"   bigint      NOT NULL,
    crashes    integer     NOT NULL,
    PRIMARY KEY (group_name, partition, "offset")
);

INSERT INTO adjutant.releases (migration, oldest_release) VALUES (2, '0.1.0');
