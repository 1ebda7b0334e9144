-- Commands that did not end, but for those whose time has not come, or that wait behind another.
SELECT c.id, c.type, c.stream
  FROM adjutant.commands c
  LEFT JOIN adjutant.outcomes o ON o.command_id = c.id
 WHERE o.command_id IS NULL
   AND NOT EXISTS (SELECT 1 FROM adjutant.schedule s
                    WHERE s.command_id = c.id AND s.reason IN ('not_before', 'immediate', 'retry', 'breaker_open')
                      AND s.due_at > CAST(unixepoch('subsec') * 1000000 AS INTEGER))
   AND NOT EXISTS (SELECT 1 FROM adjutant.holds h
                    WHERE h.partition = c.partition AND h.command_id = c.id AND h.state = 2)
