from exo.records import Chunk as Chunk
from exo.records import ErrorChunk as ErrorChunk
from exo.records import TokenChunk as TokenChunk
from exo.records import ToolCallChunk as ToolCallChunk
