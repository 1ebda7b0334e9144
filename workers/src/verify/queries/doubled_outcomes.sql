-- Commands that ended more than once.
SELECT command_id, count(*) AS outcomes
  FROM adjutant.outcomes GROUP BY command_id HAVING count(*) > 1
