-- Who called which commands off. Reads a whole table.
SELECT command_id AS command, reason, job_id AS job
  FROM adjutant.cancellations
 ORDER BY id
