-- Jobs that call commands off (action 3). Reads a whole table.
SELECT id, reason, state, done, created_at, finished_at
  FROM adjutant.dead_letter_jobs
 WHERE action = 3
