-- Where every command is kept. Ids are unique in the whole file: there are no buckets.
SELECT NULL AS bucket, id, partition, stream FROM adjutant.commands
