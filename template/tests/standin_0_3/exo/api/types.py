from exo.records import CompletionTokensDetails as CompletionTokensDetails
from exo.records import GenerationStats as GenerationStats
from exo.records import PromptTokensDetails as PromptTokensDetails
from exo.records import ToolCallItem as ToolCallItem
from exo.records import TopLogprobItem as TopLogprobItem
from exo.records import Usage as Usage
