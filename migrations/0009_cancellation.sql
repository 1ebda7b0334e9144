-- Cancelling commands that have not ended: one at a time, and all that match as a job.

-- Who called a command off, and why. Append-only. A command whose `not_after` passed has no row: nobody
-- called it off.
CREATE TABLE adjutant.cancellations (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL,
    partition  smallint    NOT NULL,
    command_id uuid        NOT NULL,
    who        text        NOT NULL,
    reason     text,
    job_id     uuid                  -- of the job that did it, if one did
);
CREATE INDEX cancellations_of_command ON adjutant.cancellations (command_id, id);
CREATE TRIGGER cancellations_are_append_only
    BEFORE UPDATE OR TRUNCATE ON adjutant.cancellations
    FOR EACH STATEMENT EXECUTE FUNCTION adjutant.refuse_change();

-- Jobs that cancel commands stand beside those over dead letters: action 3.
ALTER TABLE adjutant.dead_letter_jobs
    ADD COLUMN walk jsonb; -- how far it has come in its walk over what has not ended
COMMENT ON COLUMN adjutant.dead_letter_jobs.action IS '1 retry, 2 discard, 3 cancel (commands)';

-- Raises AJ010 if one of these commands, which are to come back or to wait, has ended meanwhile. For
-- the executor, whose transaction holds the event-log locks: outcomes are written under them.
-- Served by outcomes_pkey.
CREATE FUNCTION adjutant.expect_no_outcome(p_partitions smallint[], p_commands uuid[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM unnest(p_partitions, p_commands) AS u(p, id)
                WHERE EXISTS (SELECT 1 FROM adjutant.outcomes o
                               WHERE o.partition = u.p AND o.command_id = u.id OFFSET 0))
    THEN
        RAISE EXCEPTION 'a command that was to come back has ended' USING ERRCODE = 'AJ010';
    END IF;
END $$;

-- Calls commands off that have no outcome. They are given with their partition and bucket, sorted by
-- (partition, id), each once; `p_log_partitions` are their partitions, sorted. `p_error` is what
-- their outcomes say. Answers for each its place and 0 cancelled, -1 not there, or the status of the
-- outcome that it has.
--
-- First what can wait: the job, and what a process of the immediate lane holds. Then the locks of
-- both logs (law 4). Under that of the event log outcomes are written, by whomever: so nobody waits
-- for a key of the outcomes, and the executor's transactions are before this one or behind it. Under
-- that of the command log streams are held and released. Rows of the schedule that a relay takes just
-- now are left to it: what they become is an entry that the executor passes over.
CREATE FUNCTION adjutant.cancel_commands(
    p_log_partitions smallint[],
    p_ids uuid[], p_partitions smallint[], p_buckets smallint[],
    p_who text, p_reason text, p_error jsonb,
    p_job uuid, p_owner uuid, p_walk jsonb
) RETURNS TABLE (r_place bigint, r_result smallint) LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz;
BEGIN
    IF p_job IS NOT NULL THEN
        PERFORM adjutant.hold_job(p_job, p_owner);
    END IF;
    -- Served by immediate_pkey.
    PERFORM 1 FROM unnest(p_partitions, p_ids) AS f(p, id)
      CROSS JOIN LATERAL (SELECT 1 FROM adjutant.immediate i
                           WHERE i.partition = f.p AND i.command_id = f.id FOR UPDATE) AS locked;
    PERFORM pg_advisory_xact_lock(k.class, k.p)
       FROM (SELECT c.class, t.p::integer FROM unnest(ARRAY[1094929921, 1094929922]) AS c(class),
                    unnest(p_log_partitions) AS t(p) ORDER BY 1, 2) AS k(class, p);
    v_now := clock_timestamp();
    RETURN QUERY
    WITH asked AS (
        SELECT * FROM unnest(p_ids, p_partitions, p_buckets)
                      WITH ORDINALITY AS a(id, partition, bucket, i)),
    -- Served by commands_pkey and outcomes_pkey.
    found AS MATERIALIZED (
        SELECT a.i, a.id, a.partition, a.bucket, c.stream, c.reply_to, c.type, c.callback_url,
               (SELECT o.status FROM adjutant.outcomes o
                 WHERE o.partition = a.partition AND o.command_id = a.id) AS status
          FROM asked a CROSS JOIN LATERAL (
               SELECT * FROM adjutant.commands f
                WHERE f.bucket = a.bucket AND f.id = a.id OFFSET 0) AS c),
    -- Served by events_partition_stream_version_key and attempts_pkey, read backwards.
    undecided AS MATERIALIZED (
        SELECT f.*,
               COALESCE((SELECT e.version FROM adjutant.events e
                          WHERE e.partition = f.partition AND e.stream = f.stream
                          ORDER BY e.version DESC LIMIT 1), 0) AS version,
               COALESCE((SELECT t.attempt FROM adjutant.attempts t
                          WHERE t.partition = f.partition AND t.command_id = f.id
                          ORDER BY t.attempt DESC LIMIT 1), 0) AS attempts
          FROM found f WHERE f.status IS NULL),
    -- Whoever was first after all violates the key: nothing takes place.
    ended AS (
        INSERT INTO adjutant.outcomes (partition, command_id, status, first_offset, events, version,
                                       reply, error, attempts, completed_at)
        SELECT u.partition, u.id, 4, NULL, 0, u.version, NULL, p_error, u.attempts, v_now
          FROM undecided u ORDER BY u.i),
    -- Served by schedule_of_command and schedule_pkey.
    unscheduled AS (
        DELETE FROM adjutant.schedule s
         USING (SELECT d.partition, d.due_at, d.id FROM undecided u
                 CROSS JOIN LATERAL (
                       SELECT f.partition, f.due_at, f.id FROM adjutant.schedule f
                        WHERE f.bucket = u.bucket AND f.command_id = u.id
                          FOR UPDATE SKIP LOCKED) AS d) AS d
         WHERE s.partition = d.partition AND s.due_at = d.due_at AND s.id = d.id),
    -- Served by holds_of_command.
    unheld AS (
        DELETE FROM adjutant.holds h USING undecided u
         WHERE h.partition = u.partition AND h.command_id = u.id),
    -- Served by immediate_pkey.
    taken AS (
        DELETE FROM adjutant.immediate m USING undecided u
         WHERE m.partition = u.partition AND m.command_id = u.id),
    -- A dead letter that was being retried is dealt with. Served by dead_letters_unended_of_command.
    resolved AS (
        UPDATE adjutant.dead_letters d SET state = 3, state_at = v_now FROM undecided u
         WHERE d.partition = u.partition AND d.command_id = u.id AND d.kind = 1 AND d.state = 2),
    audited AS (
        INSERT INTO adjutant.cancellations (at, partition, command_id, who, reason, job_id)
        SELECT v_now, u.partition, u.id, p_who, p_reason, p_job FROM undecided u ORDER BY u.i),
    owed AS (
        INSERT INTO adjutant.callbacks (partition, command_id, type, ended_after, url, owed_at,
                                        due_at)
        SELECT u.partition, u.id, u.type, u.attempts, u.callback_url, v_now, v_now
          FROM undecided u WHERE u.callback_url IS NOT NULL ORDER BY u.i),
    -- As commit_commands tells it.
    replied AS (
        INSERT INTO adjutant.outbox (partition, route, queue, entries, correlation_id, content_type,
                                     body, recorded_at)
        SELECT u.partition, 3, u.reply_to ->> 'queue', 0, u.reply_to ->> 'correlation_id',
               'application/json',
               convert_to(jsonb_build_object(
                   'id', u.id, 'status', 'cancelled', 'attempts', u.attempts,
                   'completed_at', to_char(v_now AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                   'outcome', jsonb_build_object(
                       'positions', '[]'::jsonb, 'version', u.version, 'reply', NULL,
                       'error', p_error))::text, 'UTF8'),
               v_now
          FROM undecided u WHERE u.reply_to ->> 'queue' IS NOT NULL ORDER BY u.i),
    stepped AS (
        UPDATE adjutant.dead_letter_jobs j
           SET done = j.done + (SELECT count(*) FROM undecided),
               failed = j.failed + cardinality(p_ids) - (SELECT count(*) FROM undecided),
               -- Not all were counted when it was made.
               total = GREATEST(j.total, j.done + j.failed + cardinality(p_ids)),
               walk = p_walk, heartbeat_at = v_now
         WHERE j.id = p_job)
    SELECT a.i, COALESCE(f.status, CASE WHEN f.i IS NULL THEN -1 ELSE 0 END)::smallint
      FROM asked a LEFT JOIN found f ON f.i = a.i
     ORDER BY a.i;
    -- The next statement sees the holds gone. Served by commands_pkey and outcomes_pkey.
    PERFORM adjutant.release_waiting(array_agg(c.partition), array_agg(c.stream))
       FROM unnest(p_ids, p_buckets) AS a(id, bucket)
      CROSS JOIN LATERAL (
            SELECT f.partition, f.stream FROM adjutant.commands f
             WHERE f.bucket = a.bucket AND f.id = a.id OFFSET 0) AS c
      CROSS JOIN LATERAL (
            SELECT 1 FROM adjutant.outcomes o
             WHERE o.partition = c.partition AND o.command_id = a.id AND o.status = 4
               AND o.completed_at = v_now OFFSET 0) AS o
     HAVING count(*) > 0;
END $$;

INSERT INTO adjutant.releases (migration, oldest_release) VALUES (9, '0.1.0');
