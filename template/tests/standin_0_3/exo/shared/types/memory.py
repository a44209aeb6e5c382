from exo.records import Memory as Memory
