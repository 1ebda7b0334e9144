-- The documents of the view `statements`, account by account and entry by entry.
SELECT split_part(key, '/', 1) AS account, key, partition, version, value, as_of
  FROM adjutant.views
 WHERE view = 'statements' AND value IS NOT NULL
 ORDER BY split_part(key, '/', 1) COLLATE "C", length(key), key
