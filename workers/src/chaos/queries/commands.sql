-- Every command with its outcomes (a row each; one row without, if it has none) and the offset of
-- its first entry in the log. Reads whole tables.
SELECT c.id, c.type, c.stream, c.payload, o.status, o.version, o.events, o.attempts, l.first_offset
  FROM adjutant.commands c
  LEFT JOIN adjutant.outcomes o ON o.partition = c.partition AND o.command_id = c.id
  LEFT JOIN (SELECT partition, command_id, min("offset") AS first_offset
               FROM adjutant.command_log GROUP BY partition, command_id) AS l
    ON l.partition = c.partition AND l.command_id = c.id
