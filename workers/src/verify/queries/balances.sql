-- The documents of the view `balances`, by account.
SELECT key AS account, key, partition, version, value, as_of
  FROM adjutant.views
 WHERE view = 'balances' AND value IS NOT NULL
 ORDER BY key
