"""Stand-in package: see exo/__init__.py."""

from exo.orchestration.node import Node as Node
