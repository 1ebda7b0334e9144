-- Outcomes that say the command did not succeed, yet caused events.
SELECT command_id, status, events FROM adjutant.outcomes WHERE status <> 1 AND events <> 0
