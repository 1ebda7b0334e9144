-- Every attempt that failed. Reads a whole table.
SELECT command_id AS command, attempt AS number, error ->> 'code' AS code, failed_at
  FROM adjutant.attempts
 ORDER BY command_id, attempt
