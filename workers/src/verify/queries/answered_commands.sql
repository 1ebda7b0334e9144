-- Of these ids, the commands that exist, and whether each has ended, its time has not come, or it waits.
SELECT c.id,
       (EXISTS (SELECT 1 FROM adjutant.outcomes o
                 WHERE o.partition = c.partition AND o.command_id = c.id)
        OR EXISTS (SELECT 1 FROM adjutant.schedule s
                    WHERE s.bucket = c.bucket AND s.command_id = c.id
                      AND s.reason IN ('not_before', 'immediate', 'retry', 'breaker_open') AND s.due_at > transaction_timestamp())
        OR EXISTS (SELECT 1 FROM adjutant.holds h
                    WHERE h.partition = c.partition AND h.command_id = c.id AND h.state = 2)) AS settled
  FROM jsonb_to_recordset($1) AS asked(bucket smallint, id uuid)
  JOIN adjutant.commands c ON c.bucket = asked.bucket AND c.id = asked.id
