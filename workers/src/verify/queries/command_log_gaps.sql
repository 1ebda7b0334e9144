-- Places of the command logs between two entries that are not neighbours (first > last: one offset
-- twice). A log begins at 1, or where retention says that it begins now. Reads the primary key in
-- order.
SELECT partition, previous + 1 AS first_missing, "offset" - 1 AS last_missing
  FROM (SELECT l.partition, l."offset",
               COALESCE(lag(l."offset") OVER (PARTITION BY l.partition ORDER BY l."offset"),
                        r.command_log_from - 1, 0) AS previous
          FROM adjutant.command_log l
          LEFT JOIN adjutant.retention r ON r.partition = l.partition) AS entries
 WHERE "offset" <> previous + 1
