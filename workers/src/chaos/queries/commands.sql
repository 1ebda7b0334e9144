-- Every command with its outcomes (a row each; one row without, if it has none), the offset of its
-- first entry in the log, and how many events name it. Reads whole tables.
SELECT c.id, c.partition, c.type, c.stream, c.payload, c.accepted_at, c.not_before, c.not_after,
       o.status, o.version, o.events, o.attempts, o.completed_at, o.reply, o.error ->> 'code' AS code,
       o.first_offset AS first_event, l.first_offset, COALESCE(e.own_events, 0) AS own_events
  FROM adjutant.commands c
  LEFT JOIN adjutant.outcomes o ON o.partition = c.partition AND o.command_id = c.id
  LEFT JOIN (SELECT partition, command_id, min("offset") AS first_offset
               FROM adjutant.command_log GROUP BY partition, command_id) AS l
    ON l.partition = c.partition AND l.command_id = c.id
  LEFT JOIN (SELECT command_id, count(*) AS own_events
               FROM adjutant.events GROUP BY command_id) AS e
    ON e.command_id = c.id
