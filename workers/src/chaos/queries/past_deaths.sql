-- Deaths that a retry took back. Reads a whole table.
SELECT command_id AS command, attempts
  FROM adjutant.past_outcomes
