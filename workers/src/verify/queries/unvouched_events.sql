-- Events that nothing vouches for: their command did not succeed (succeeded = 0), or there is
-- no such command and no outcome either (succeeded is null), although the event is younger than what
-- retention has removed of its partition.
WITH endings AS (
    SELECT command_id, max(CASE status WHEN 1 THEN 1 ELSE 0 END) AS succeeded
      FROM adjutant.outcomes GROUP BY command_id)
SELECT e.partition, e."offset", e.stream, e.version, e.command_id, n.succeeded
  FROM adjutant.events e
  LEFT JOIN endings n ON n.command_id = e.command_id
  LEFT JOIN adjutant.retention r ON r.partition = e.partition
 WHERE n.succeeded = 0
    OR (n.succeeded IS NULL
        AND (r.outcomes_before IS NULL OR e.recorded_at >= r.outcomes_before)
        AND NOT EXISTS (SELECT 1 FROM adjutant.commands c WHERE c.id = e.command_id))
 ORDER BY e.partition, e."offset"
