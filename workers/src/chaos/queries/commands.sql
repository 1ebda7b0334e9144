-- Every command with its outcomes (a row each; one row without, if it has none). Reads whole tables.
SELECT c.id, c.type, c.stream, c.payload, o.status, o.version, o.events
  FROM adjutant.commands c
  LEFT JOIN adjutant.outcomes o ON o.partition = c.partition AND o.command_id = c.id
