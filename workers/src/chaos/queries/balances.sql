-- What every account holds, as the view shows it.
SELECT key, (value ->> 'balance')::bigint AS balance
  FROM adjutant.views
 WHERE view = 'balances' AND value IS NOT NULL
