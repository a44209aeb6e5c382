from exo.records import PipelineShardMetadata as PipelineShardMetadata
from exo.records import ShardMetadata as ShardMetadata
