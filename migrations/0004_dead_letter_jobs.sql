-- Acting on dead letters: one at a time, and all that match as a job.

-- What is open is what people look at first, what jobs walk through, and what is counted. A letter
-- leaves this index once.
CREATE INDEX dead_letters_open ON adjutant.dead_letters (id) INCLUDE (kind) WHERE state = 1;
CREATE INDEX dead_letters_of_key ON adjutant.dead_letters (key, id);

-- Retrying or discarding all dead letters that match, in the background.
CREATE TABLE adjutant.dead_letter_jobs (
    id               uuid        PRIMARY KEY, -- version 7: newest last
    action           smallint    NOT NULL, -- 1 retry, 2 discard
    filter           jsonb       NOT NULL,
    rate             integer     NOT NULL, -- at most so many a second
    canary           integer     NOT NULL, -- so many first
    max_failed_share float8      NOT NULL, -- of the canary
    who              text        NOT NULL,
    reason           text,
    state            smallint    NOT NULL, -- 1 running, 2 done, 3 stopped, 4 cancelled
    note             text,                 -- why it stopped
    newest           uuid,                 -- the newest letter when it was made
    total            bigint      NOT NULL, -- how many matched then
    done             bigint      NOT NULL DEFAULT 0,
    failed           bigint      NOT NULL DEFAULT 0,
    cursor           uuid,                 -- the last letter that was dealt with
    canary_commands  jsonb,                -- [[partition, command], …], once it was sent
    canary_since     timestamptz,
    canary_died      integer,              -- how many of them died again, once it is known
    owner            uuid,                 -- the process that works on it
    heartbeat_at     timestamptz,
    created_at       timestamptz NOT NULL,
    finished_at      timestamptz
) WITH (fillfactor = 50); -- a few updates a second while it runs
CREATE INDEX dead_letter_jobs_running ON adjutant.dead_letter_jobs (id) WHERE state = 1;

-- Fences a step of a job, or raises AJ041: it must run, and be this owner's. Keeps its row locked
-- until the step has taken place.
CREATE FUNCTION adjutant.hold_job(p_job uuid, p_owner uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM adjutant.dead_letter_jobs j
      WHERE j.id = p_job AND j.owner = p_owner AND j.state = 1 FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the job is not this owner''s (any more)' USING ERRCODE = 'AJ041';
    END IF;
END $$;

-- Executes dead commands again. `p_log_partitions` are those of the letters, sorted; the letters are
-- given with their partition and the bucket of their command (null: there is no such letter), and
-- perhaps a corrected payload. Compare-and-set: an open letter whose command has the outcome `dead`
-- is taken, once. Answers for each its place and 0 done, 1 not there, 2 not open, 3 a parked key,
-- 4 its command has no outcome `dead`; and the state that it was in.
CREATE FUNCTION adjutant.retry_dead_letters(
    p_log_partitions smallint[],
    p_ids uuid[], p_partitions smallint[], p_buckets smallint[], p_payloads jsonb[],
    p_who text, p_reason text,
    p_job uuid, p_owner uuid, p_cursor uuid, p_canary boolean
) RETURNS TABLE (r_place bigint, r_result smallint, r_state smallint) LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz;
BEGIN
    -- Whatever sets aside, releases, retries or discards has this lock: rows cannot deadlock.
    PERFORM pg_advisory_xact_lock(1094929921, t.p) FROM unnest(p_log_partitions) AS t(p);
    IF p_job IS NOT NULL THEN
        PERFORM adjutant.hold_job(p_job, p_owner);
    END IF;
    v_now := clock_timestamp();
    RETURN QUERY
    WITH asked AS (
        SELECT a.*, row_number() OVER (PARTITION BY a.id ORDER BY a.i) = 1 AS is_first
          FROM unnest(p_ids, p_partitions, p_buckets, p_payloads)
               WITH ORDINALITY AS a(id, partition, bucket, payload, i)),
    -- Served by dead_letters_pkey.
    found AS (
        SELECT a.i, a.is_first, a.bucket, a.payload, d.partition, d.id, d.kind, d.state, d.key,
               d.command_id, d."offset" AS log_offset, d.attempts
          FROM asked a CROSS JOIN LATERAL (
               SELECT * FROM adjutant.dead_letters f
                WHERE f.partition = a.partition AND f.id = a.id OFFSET 0) AS d),
    -- Served by outcomes_pkey. Two letters of one command: one of them is taken.
    taken AS (
        DELETE FROM adjutant.outcomes o USING found f
         WHERE f.is_first AND f.kind = 1 AND f.state = 1
           AND o.partition = f.partition AND o.command_id = f.command_id AND o.status = 3
        RETURNING f.*, o.attempts AS outcome_attempts, o.version, o.error, o.completed_at),
    -- Served by command_edits_pkey, attempts_pkey, holds_of_command, command_log_pkey.
    owed AS (
        SELECT t.*,
               COALESCE((SELECT e.edit FROM adjutant.command_edits e
                          WHERE e.bucket = t.bucket AND e.command_id = t.command_id
                          ORDER BY e.edit DESC LIMIT 1), 0)
                   + CASE WHEN t.payload IS NULL THEN 0 ELSE 1 END AS edit,
               GREATEST(t.attempts, t.outcome_attempts,
                        (SELECT f.attempt FROM adjutant.attempts f
                          WHERE f.partition = t.partition AND f.command_id = t.command_id
                          ORDER BY f.attempt DESC LIMIT 1)) + 1 AS next_attempt,
               COALESCE((SELECT h.first_offset FROM adjutant.holds h
                          WHERE h.partition = t.partition AND h.command_id = t.command_id),
                        (SELECT COALESCE(l.first_offset, l."offset") FROM adjutant.command_log l
                          WHERE l.partition = t.partition AND l."offset" = t.log_offset
                            AND l.command_id = t.command_id)) AS first_offset
          FROM taken t),
    retrying AS (
        UPDATE adjutant.dead_letters d SET state = 2, state_at = v_now
          FROM owed o WHERE d.partition = o.partition AND d.id = o.id),
    -- A process of an older release counts every execution as the first attempt.
    history AS (
        INSERT INTO adjutant.past_outcomes (partition, command_id, attempts, version, error,
                                            completed_at, taken_back_at)
        SELECT o.partition, o.command_id,
               GREATEST(o.outcome_attempts,
                        (SELECT p.attempts + 1 FROM adjutant.past_outcomes p
                          WHERE p.partition = o.partition AND p.command_id = o.command_id
                          ORDER BY p.attempts DESC LIMIT 1)),
               o.version, o.error, o.completed_at, v_now
          FROM owed o),
    edited AS (
        INSERT INTO adjutant.command_edits (bucket, command_id, edit, payload, edited_at, edited_by)
        SELECT o.bucket, o.command_id, o.edit, o.payload, v_now, p_who
          FROM owed o WHERE o.payload IS NOT NULL),
    -- It keeps its place: later strict commands of the stream go on waiting.
    released AS (
        UPDATE adjutant.holds h SET state = 3, attempt = o.next_attempt, edit = o.edit
          FROM owed o WHERE h.partition = o.partition AND h.command_id = o.command_id),
    due AS (
        INSERT INTO adjutant.schedule (partition, due_at, command_id, bucket, reason, attempt,
                                       first_offset, edit)
        SELECT o.partition, v_now, o.command_id, o.bucket, 'dead_letter_retry', o.next_attempt,
               o.first_offset, o.edit
          FROM owed o ORDER BY o.partition, o.first_offset NULLS LAST, o.i),
    audited AS (
        INSERT INTO adjutant.dead_letter_audit (at, dead_letter_id, action, who, reason, job_id)
        SELECT v_now, o.id, CASE WHEN o.payload IS NULL THEN 'retry' ELSE 'retry_edited' END,
               p_who, p_reason, p_job
          FROM owed o ORDER BY o.i),
    stepped AS (
        UPDATE adjutant.dead_letter_jobs j
           -- Replays of parked keys are asked for by the caller.
           SET done = j.done + (SELECT count(*) FROM owed)
                    + (SELECT count(*) FROM found WHERE is_first AND kind <> 1 AND state = 1),
               failed = j.failed + cardinality(p_ids) - (SELECT count(*) FROM owed)
                    - (SELECT count(*) FROM found WHERE is_first AND kind <> 1 AND state = 1),
               cursor = p_cursor, heartbeat_at = v_now,
               -- A step that did nothing was no canary: the next one is.
               canary_commands = COALESCE(
                   (SELECT jsonb_agg(jsonb_build_array(o.partition, o.command_id) ORDER BY o.i)
                      FROM owed o WHERE p_canary), j.canary_commands),
               canary_since = CASE WHEN p_canary AND EXISTS (SELECT 1 FROM owed)
                                   THEN v_now ELSE j.canary_since END
         WHERE j.id = p_job)
    SELECT a.i,
           (CASE WHEN o.i IS NOT NULL THEN 0 WHEN f.i IS NULL THEN 1
                 WHEN f.state <> 1 OR NOT a.is_first THEN 2
                 WHEN f.kind <> 1 THEN 3 ELSE 4 END)::smallint,
           (CASE WHEN a.is_first THEN f.state ELSE 2 END)::smallint
      FROM asked a LEFT JOIN found f ON f.i = a.i LEFT JOIN owed o ON o.i = a.i
     ORDER BY a.i;
END $$;

-- Gives dead commands up: the outcome stays `dead`, what waits behind them goes on. Answers as
-- retry_dead_letters does (4 never occurs).
CREATE FUNCTION adjutant.discard_dead_letters(
    p_log_partitions smallint[], p_ids uuid[], p_partitions smallint[],
    p_who text, p_reason text,
    p_job uuid, p_owner uuid, p_cursor uuid
) RETURNS TABLE (r_place bigint, r_result smallint, r_state smallint) LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(1094929921, t.p) FROM unnest(p_log_partitions) AS t(p);
    IF p_job IS NOT NULL THEN
        PERFORM adjutant.hold_job(p_job, p_owner);
    END IF;
    v_now := clock_timestamp();
    RETURN QUERY
    WITH asked AS (
        SELECT a.*, row_number() OVER (PARTITION BY a.id ORDER BY a.i) = 1 AS is_first
          FROM unnest(p_ids, p_partitions) WITH ORDINALITY AS a(id, partition, i)),
    -- Served by dead_letters_pkey.
    found AS (
        SELECT a.i, a.is_first, d.partition, d.id, d.kind, d.state, d.command_id
          FROM asked a CROSS JOIN LATERAL (
               SELECT * FROM adjutant.dead_letters f
                WHERE f.partition = a.partition AND f.id = a.id OFFSET 0) AS d),
    taken AS (
        UPDATE adjutant.dead_letters d SET state = 4, state_at = v_now
          FROM found f
         WHERE f.is_first AND f.kind = 1 AND d.partition = f.partition AND d.id = f.id
           AND d.state = 1
        RETURNING f.*),
    -- Served by holds_of_command.
    unheld AS (
        DELETE FROM adjutant.holds h USING taken t
         WHERE h.partition = t.partition AND h.command_id = t.command_id),
    audited AS (
        INSERT INTO adjutant.dead_letter_audit (at, dead_letter_id, action, who, reason, job_id)
        SELECT v_now, t.id, 'discard', p_who, p_reason, p_job FROM taken t ORDER BY t.i),
    stepped AS (
        UPDATE adjutant.dead_letter_jobs j
           SET done = j.done + (SELECT count(*) FROM taken)
                    + (SELECT count(*) FROM found WHERE is_first AND kind <> 1 AND state = 1),
               failed = j.failed + cardinality(p_ids) - (SELECT count(*) FROM taken)
                    - (SELECT count(*) FROM found WHERE is_first AND kind <> 1 AND state = 1),
               cursor = p_cursor, heartbeat_at = v_now
         WHERE j.id = p_job)
    SELECT a.i,
           (CASE WHEN t.i IS NOT NULL THEN 0 WHEN f.i IS NULL THEN 1
                 WHEN f.state <> 1 OR NOT a.is_first THEN 2 ELSE 3 END)::smallint,
           (CASE WHEN a.is_first THEN f.state ELSE 4 END)::smallint
      FROM asked a LEFT JOIN found f ON f.i = a.i LEFT JOIN taken t ON t.i = a.i
     ORDER BY a.i;
    -- The next statement sees the holds gone. Served by dead_letters_pkey.
    PERFORM adjutant.release_waiting(array_agg(d.partition), array_agg(d.key))
       FROM unnest(p_ids, p_partitions) AS a(id, partition)
      CROSS JOIN LATERAL (
            SELECT f.partition, f.key FROM adjutant.dead_letters f
             WHERE f.partition = a.partition AND f.id = a.id AND f.kind = 1 AND f.state = 4
               AND f.state_at = v_now OFFSET 0) AS d
     HAVING count(*) > 0;
END $$;

INSERT INTO adjutant.releases (migration, oldest_release) VALUES (4, '0.1.0');
