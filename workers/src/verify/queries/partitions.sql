-- How many partitions the database has.
SELECT partitions FROM adjutant.log_identity
