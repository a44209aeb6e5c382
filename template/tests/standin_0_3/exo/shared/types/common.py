from exo.records import ModelId as ModelId
