-- How much there is.
SELECT (SELECT count(*) FROM adjutant.commands) AS commands,
       (SELECT count(*) FROM adjutant.outcomes) AS outcomes,
       (SELECT count(*) FROM adjutant.outcomes WHERE status = 1) AS succeeded,
       (SELECT count(*) FROM adjutant.outcomes WHERE status = 2) AS rejected,
       (SELECT count(*) FROM adjutant.events) AS events,
       (SELECT count(*) FROM adjutant.views) AS documents,
       (SELECT count(*) FROM adjutant.schedule) AS scheduled
