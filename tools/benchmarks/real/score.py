"""Score of one model on a task, as one number: ``python -m tools.benchmarks.real.score TASK --data FOLDER MODEL.onnx``.

It is what ``--metric`` wants of a command: the model's path comes last, and the number is all that is printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.load.files import check_input
from tools.benchmarks.real.answers import answerer, chosen
from tools.benchmarks.real.networks.task import Task
from tools.benchmarks.real.tasks import TASKS

__all__ = ["main", "score"]


def score(task: Task, data: Path, model: Path, *, figure: str = "", part: str = "all", threads: int = 1) -> float:
    """Judge a model, float or quantized, on the images of a task.

    Args:
        task: with labels.
        data: folder of networks and images.
        model: its file.
        figure: which of the task's; by default the main one.
        part: ``all`` images, or those at ``even`` or ``odd`` places.
        threads: of the runtime.

    Raises:
        ModelError: the model does not run.
        KeyError: the task has no such figure.
    """
    answer = answerer(model, task.input, threads)
    kept, truths = [], []
    for sample in chosen(part, task.samples(data, frozenset())):
        kept.append(task.reduced(answer(sample.value), sample.truth))
        truths.append(sample.truth)
    figures = task.figures(kept, truths)
    return figures[figure] if figure else next(iter(figures.values()))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.benchmarks.real.score", description="Score of one model on a task, as one number.")
    add = parser.add_argument
    labelled = [name for name in TASKS if name != "lanes"]  # which has no labels to judge a single model by
    add("task", choices=labelled, metavar="TASK", help=f"of {', '.join(labelled)}")
    add("model", type=Path, metavar="MODEL.onnx")
    add("--data", type=Path, required=True, metavar="FOLDER", help="networks and images, see docs/real.md")
    add("--figure", default="", metavar="NAME", help="another one than the task's main figure, such as AUC of faces")
    add("--part", default="all", choices=("all", "even", "odd"), help="of the images, by places of their sorted names")
    add("--threads", type=int, default=1, metavar="N", help="of the runtime (default 1)")
    flags = parser.parse_args(arguments)
    if not flags.data.is_dir():
        parser.error(f"there is no folder {flags.data}")
    check_input(flags.model)
    try:
        found = score(TASKS[flags.task], flags.data, flags.model, figure=flags.figure, part=flags.part, threads=flags.threads)
    except KeyError:
        parser.error(f"{flags.task} has no figure {flags.figure}")
    print_line(f"{found:.6f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
