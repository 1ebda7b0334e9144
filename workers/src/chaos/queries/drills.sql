-- How often every drill ran, as the view shows it.
SELECT key, (value ->> 'runs')::bigint AS runs
  FROM adjutant.views
 WHERE view = 'drills' AND value IS NOT NULL
