"""The plugin's metrics stand in exo's registry, beside exo's own."""

import importlib

from plugin import PACKAGE
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase


def test_the_metrics_are_in_exos_registry_and_carry_this_plugins_prefix():
    importlib.import_module("exo.inference.rkllm.metrics")  # has rkllm_server_up
    metrics = importlib.import_module(f"{PACKAGE}.kit.metrics")
    names = {metric.name for metric in REGISTRY.collect()}
    made = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
    own = {metric.describe()[0].name for metric in made}
    assert len(own) >= 7
    assert own <= names
    assert all(name.startswith(f"{PACKAGE}_") for name in own)
