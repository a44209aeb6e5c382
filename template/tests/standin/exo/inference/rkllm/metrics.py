"""A metric name that exo has taken: a plugin that takes it too fails at its import."""

from prometheus_client import Gauge

server_up = Gauge("rkllm_server_up", "1 while the RKLLM server answers")
