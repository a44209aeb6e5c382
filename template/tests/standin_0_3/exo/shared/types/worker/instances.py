from exo.records import BoundInstance as BoundInstance
