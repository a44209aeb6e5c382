from exo.records import ShardMetadata as ShardMetadata
