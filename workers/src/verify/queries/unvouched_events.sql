-- Events that nothing vouches for: their command did not succeed (succeeded = false), or there is
-- no such command and no outcome either (succeeded is null).
WITH endings AS (
    SELECT command_id, bool_or(status = 1) AS succeeded FROM adjutant.outcomes GROUP BY command_id)
SELECT e.partition, e."offset", e.stream, e.version, e.command_id, n.succeeded
  FROM adjutant.events e LEFT JOIN endings n ON n.command_id = e.command_id
 WHERE n.succeeded IS FALSE
    OR (n.succeeded IS NULL
        AND NOT EXISTS (SELECT 1 FROM adjutant.commands c WHERE c.id = e.command_id))
 ORDER BY e.partition, e."offset"
