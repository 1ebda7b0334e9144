-- Of these ids, the commands that exist, and whether each has ended, its time has not come, or it waits.
SELECT c.id,
       (EXISTS (SELECT 1 FROM adjutant.outcomes o
                 WHERE o.partition = c.partition AND o.command_id = c.id)
        OR EXISTS (SELECT 1 FROM adjutant.schedule s
                    WHERE s.command_id = c.id AND s.reason IN ('not_before', 'immediate', 'retry', 'breaker_open')
                      AND s.due_at > CAST(unixepoch('subsec') * 1000000 AS INTEGER))
        OR EXISTS (SELECT 1 FROM adjutant.holds h
                    WHERE h.partition = c.partition AND h.command_id = c.id AND h.state = 2)) AS settled
  FROM json_each(?1) AS asked
 CROSS JOIN adjutant.commands c -- in this order: a lookup for each id
    ON c.id = unhex(asked.value ->> 'id', '-')
