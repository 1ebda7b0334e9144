-- Commands of the schedule that a process with an immediate lane claims when they are due: `reason` is
-- 'immediate'. They leave the schedule for adjutant.immediate in one transaction; what nobody claims
-- in time, a relay takes, as everything else that is due.
CREATE INDEX schedule_for_lanes ON adjutant.schedule (partition, due_at, id)
    WHERE reason = 'immediate';

-- Cancelling locks what can wait before the logs (law 4). A row of the schedule that is just being
-- claimed can wait, too: when the claim is committed, the command is in the hands of a process, and
-- is taken out of them as ever. Without this lock it would be in neither place for the one that cancels.
ALTER FUNCTION adjutant.cancel_commands(
    smallint[], uuid[], smallint[], smallint[], text, text, jsonb, uuid, uuid, jsonb
) RENAME TO cancel_settled_commands;

CREATE FUNCTION adjutant.cancel_commands(
    p_log_partitions smallint[],
    p_ids uuid[], p_partitions smallint[], p_buckets smallint[],
    p_who text, p_reason text, p_error jsonb,
    p_job uuid, p_owner uuid, p_walk jsonb
) RETURNS TABLE (r_place bigint, r_result smallint) LANGUAGE plpgsql AS $$
BEGIN
    -- In the order in which claims and relays lock them. Served by schedule_of_command and
    -- schedule_pkey.
    PERFORM 1 FROM (
        SELECT d.partition, d.due_at, d.id FROM unnest(p_ids, p_buckets) AS u(id, bucket)
         CROSS JOIN LATERAL (
               SELECT f.partition, f.due_at, f.id FROM adjutant.schedule f
                WHERE f.bucket = u.bucket AND f.command_id = u.id AND f.reason = 'immediate'
               OFFSET 0) AS d
         ORDER BY d.partition, d.due_at, d.id) AS o
      CROSS JOIN LATERAL (
            SELECT 1 FROM adjutant.schedule s
             WHERE s.partition = o.partition AND s.due_at = o.due_at AND s.id = o.id
               FOR UPDATE) AS locked;
    RETURN QUERY SELECT * FROM adjutant.cancel_settled_commands(
        p_log_partitions, p_ids, p_partitions, p_buckets, p_who, p_reason, p_error, p_job, p_owner,
        p_walk);
END $$;

INSERT INTO adjutant.releases (migration, oldest_release) VALUES (10, '0.1.0');
