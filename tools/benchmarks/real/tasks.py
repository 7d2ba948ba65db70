"""All really trained networks that are judged."""

from __future__ import annotations

from collections.abc import Mapping

from tools.benchmarks.real.networks.checkpoints import checkpoint_tasks
from tools.benchmarks.real.networks.published import PUBLISHED
from tools.benchmarks.real.networks.recogniser import recogniser_task
from tools.benchmarks.real.networks.task import Task

__all__ = ["TASKS"]

TASKS: Mapping[str, Task] = {**PUBLISHED, **{task.name: task for task in (recogniser_task(), *checkpoint_tasks())}}
"""By name."""
