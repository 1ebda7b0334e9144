-- Where every command is kept.
SELECT bucket, id, partition, stream FROM adjutant.commands
