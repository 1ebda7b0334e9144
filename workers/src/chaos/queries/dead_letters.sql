-- Every dead letter, oldest first. Reads a whole table.
SELECT id, kind, key, command_id AS command, attempts, state, error ->> 'code' AS code
  FROM adjutant.dead_letters
 ORDER BY id
