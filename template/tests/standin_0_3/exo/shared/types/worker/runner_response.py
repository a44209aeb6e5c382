from exo.records import CancelledResponse as CancelledResponse
from exo.records import FinishedResponse as FinishedResponse
from exo.records import ModelLoadingResponse as ModelLoadingResponse
