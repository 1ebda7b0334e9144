-- The locks of all event logs, as whoever appends to them takes them.
SELECT count(pg_advisory_xact_lock(1094929922, n))
  FROM adjutant.log_identity i, generate_series(0, i.partitions - 1) AS series(n)
