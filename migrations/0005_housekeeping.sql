-- Housekeeping and notification.

-- What retention has removed. The logs and outcomes of a partition are whole from here on: what is
-- missing before was removed, what is missing behind is a hole. Written by housekeeping alone, once
-- a batch, in the transaction that removes.
CREATE TABLE adjutant.retention (
    partition        smallint    PRIMARY KEY,
    command_log_from bigint      NOT NULL DEFAULT 1, -- the first offset that must be there
    outcomes_before  timestamptz                     -- those that are older may be gone
) WITH (fillfactor = 50);

-- For housekeeping: touched when a dead letter ends, and when it dies; never by work that goes well.
CREATE INDEX dead_letters_to_remove ON adjutant.dead_letters (state_at) WHERE state IN (3, 4);
CREATE INDEX dead_letters_unended_of_command ON adjutant.dead_letters (partition, command_id)
 WHERE state IN (1, 2);
CREATE INDEX dead_letters_open_by_cause ON adjutant.dead_letters (fingerprint) WHERE state = 1;

-- What is not as it should be, or was not: one row a condition and its subject.
CREATE TABLE adjutant.conditions (
    condition  text        COLLATE "C" NOT NULL, -- group_lag, …
    subject    text        COLLATE "C" NOT NULL, -- the group, …
    state      smallint    NOT NULL,             -- 1 firing, 2 resolved
    summary    text        NOT NULL,
    detail     jsonb       NOT NULL,
    since      timestamptz NOT NULL,             -- it fires
    seen_at    timestamptz NOT NULL,             -- the last time that a process saw it
    changed_at timestamptz NOT NULL,
    told_at    timestamptz NOT NULL,
    PRIMARY KEY (condition, subject)
) WITH (fillfactor = 50);

-- Messages to webhooks. Written with the change that they tell of, claimed with a lease, sent at
-- least once under one id.
CREATE TABLE adjutant.notifications (
    id             uuid        PRIMARY KEY, -- `webhook-id`
    webhook        text        COLLATE "C" NOT NULL,
    condition      text        COLLATE "C" NOT NULL,
    state          smallint    NOT NULL,    -- 1 gathering, 2 under way, 3 sent, 4 given up
    alerts         jsonb       NOT NULL,
    alert_count    integer     NOT NULL,    -- those included that did not fit
    created_at     timestamptz NOT NULL,
    due_at         timestamptz NOT NULL,
    attempts       integer     NOT NULL DEFAULT 0,
    leased_until   timestamptz,
    first_tried_at timestamptz,
    last_tried_at  timestamptz,
    ended_at       timestamptz,
    error          text
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX notifications_gathering ON adjutant.notifications (webhook, condition)
 WHERE state = 1;
CREATE INDEX notifications_of_webhook ON adjutant.notifications (webhook, created_at);

-- What a process has seen of all conditions, and what changed by it. One process at a time (lock
-- class 3), so each change is found once, and its messages are written with it. A condition that
-- nobody has seen for a while is over; only conditions that this process could look at
-- (`p_looked_at`) are judged.
CREATE FUNCTION adjutant.report_conditions(
    p_conditions text[], p_subjects text[], p_summaries text[], p_details jsonb[],
    p_looked_at text[], p_resolve_ms bigint, p_remind_ms bigint,
    p_webhooks text[], p_gather_ms bigint, p_apart_ms bigint, p_most_alerts integer
) RETURNS TABLE (
    o_condition text, o_subject text, o_state smallint, o_summary text, o_detail jsonb,
    o_since timestamptz, o_reminder boolean
) LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(1094929923, 0);
    v_now := clock_timestamp();
    FOR o_condition, o_subject, o_state, o_summary, o_detail, o_since, o_reminder IN
        WITH seen AS (
            SELECT * FROM unnest(p_conditions, p_subjects, p_summaries, p_details)
                          AS s(condition, subject, summary, detail)),
        before AS (
            SELECT c.condition, c.subject, c.told_at FROM seen
             CROSS JOIN LATERAL (SELECT * FROM adjutant.conditions f
                                  WHERE f.condition = seen.condition AND f.subject = seen.subject
                                    AND f.state = 1 OFFSET 0) AS c),
        written AS (
            INSERT INTO adjutant.conditions AS c (condition, subject, state, summary, detail, since,
                                                  seen_at, changed_at, told_at)
            SELECT condition, subject, 1, summary, detail, v_now, v_now, v_now, v_now FROM seen
            ON CONFLICT (condition, subject) DO UPDATE
               SET state = 1, summary = EXCLUDED.summary, detail = EXCLUDED.detail, seen_at = v_now,
                   since = CASE c.state WHEN 1 THEN c.since ELSE v_now END,
                   changed_at = CASE c.state WHEN 1 THEN c.changed_at ELSE v_now END,
                   told_at = CASE WHEN c.state = 1 AND (p_remind_ms = 0 OR c.told_at
                                       > v_now - p_remind_ms * interval '1 millisecond')
                             THEN c.told_at ELSE v_now END
            RETURNING c.*),
        ended AS (
            UPDATE adjutant.conditions c SET state = 2, changed_at = v_now, told_at = v_now
             WHERE c.state = 1 AND c.condition = ANY(p_looked_at)
               AND c.seen_at < v_now - p_resolve_ms * interval '1 millisecond'
               AND NOT EXISTS (SELECT 1 FROM seen
                                WHERE seen.condition = c.condition AND seen.subject = c.subject)
            RETURNING c.*)
        SELECT w.condition, w.subject, w.state, w.summary, w.detail, w.since, b.condition IS NOT NULL
          FROM written w LEFT JOIN before b ON b.condition = w.condition AND b.subject = w.subject
         WHERE w.told_at = v_now
        UNION ALL
        SELECT o.condition, o.subject, o.state, o.summary, o.detail, o.since, false FROM ended o
    LOOP
        INSERT INTO adjutant.notifications AS n (id, webhook, condition, state, alerts, alert_count,
                                                 created_at, due_at)
        SELECT gen_random_uuid(), w, o_condition, 1, jsonb_build_array(jsonb_build_object(
                   'condition', o_condition, 'subject', o_subject,
                   'state', CASE o_state WHEN 1 THEN 'firing' ELSE 'resolved' END,
                   'summary', o_summary, 'detail', o_detail, 'reminder', o_reminder,
                   'since', to_char(o_since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                   'at', to_char(v_now AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))), 1,
               v_now, GREATEST(v_now + p_gather_ms * interval '1 millisecond',
                   (SELECT max(l.due_at) FROM adjutant.notifications l
                     WHERE l.webhook = w AND l.condition = o_condition AND l.state <> 1
                       AND l.created_at > v_now - interval '1 day')
                   + p_apart_ms * interval '1 millisecond')
          FROM unnest(p_webhooks) AS w
        ON CONFLICT (webhook, condition) WHERE state = 1 DO UPDATE
           SET alert_count = n.alert_count + 1,
               alerts = CASE WHEN n.alert_count < p_most_alerts THEN n.alerts || EXCLUDED.alerts
                             ELSE n.alerts END;
        RETURN NEXT;
    END LOOP;
END $$;

-- The next message to a webhook that is due, leased to the caller; none if as many as a minute may
-- have were tried within the last one.
CREATE FUNCTION adjutant.claim_notification(
    p_webhook text, p_per_minute integer, p_lease_ms bigint
) RETURNS TABLE (
    o_id uuid, o_condition text, o_alerts jsonb, o_alert_count integer, o_attempts integer,
    o_first_tried_at timestamptz, o_now timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(1094929923, 1);
    v_now := clock_timestamp();
    -- Served by notifications_of_webhook.
    IF (SELECT count(*) FROM adjutant.notifications n
         WHERE n.webhook = p_webhook AND n.last_tried_at > v_now - interval '1 minute')
       >= p_per_minute
    THEN
        RETURN;
    END IF;
    RETURN QUERY
    UPDATE adjutant.notifications n
       SET state = 2, attempts = n.attempts + 1, last_tried_at = v_now,
           first_tried_at = COALESCE(n.first_tried_at, v_now),
           leased_until = v_now + p_lease_ms * interval '1 millisecond'
     WHERE n.id = (SELECT d.id FROM adjutant.notifications d
                    WHERE d.webhook = p_webhook AND d.state IN (1, 2) AND d.due_at <= v_now
                      AND (d.leased_until IS NULL OR d.leased_until <= v_now)
                    ORDER BY d.due_at, d.id LIMIT 1)
    RETURNING n.id, n.condition, n.alerts, n.alert_count, n.attempts, n.first_tried_at, v_now;
END $$;

INSERT INTO adjutant.releases (migration, oldest_release) VALUES (5, '0.1.0');
