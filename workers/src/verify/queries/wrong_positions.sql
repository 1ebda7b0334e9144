-- Succeeded outcomes whose positions do not hold exactly the command's own events. A position that
-- is missing from the log is left to the check for holes.
WITH own AS (
    SELECT partition, command_id, count(*) AS events, min("offset") AS first, max("offset") AS last,
           max(version) AS version
      FROM adjutant.events GROUP BY partition, command_id),
suspects AS MATERIALIZED (
    SELECT o.partition, o.command_id, o.first_offset, o.events, o.version,
           COALESCE(own.events, 0) AS own_events, own.version AS own_version
      FROM adjutant.outcomes o
      LEFT JOIN own ON own.partition = o.partition AND own.command_id = o.command_id
     WHERE o.status = 1
       AND (COALESCE(own.events, 0) <> o.events
            OR (o.events > 0
                AND (o.first_offset IS NULL OR own.first <> o.first_offset
                     OR own.last <> o.first_offset + o.events - 1 OR own.version <> o.version)))),
claimed AS (
    SELECT s.*,
           (SELECT count(*) FROM adjutant.events e
             WHERE e.partition = s.partition AND e.command_id = s.command_id
               AND e."offset" BETWEEN s.first_offset AND s.first_offset + s.events - 1) AS own_there,
           (SELECT count(*) FROM adjutant.events e
             WHERE e.partition = s.partition AND e.command_id <> s.command_id
               AND e."offset" BETWEEN s.first_offset AND s.first_offset + s.events - 1)
               AS foreign_events,
           EXISTS (SELECT 1 FROM adjutant.events e
                    WHERE e.partition = s.partition
                      AND e."offset" = s.first_offset + s.events - 1) AS last_is_there
      FROM suspects s)
SELECT partition, command_id, first_offset, events, own_events, foreign_events
  FROM claimed
 WHERE (events > 0 AND first_offset IS NULL)
    OR foreign_events > 0
    OR own_there <> own_events
    OR (last_is_there AND own_version <> version)
