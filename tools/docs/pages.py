"""What the documentation says to type: commands and scripts of its Markdown pages, and their links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Command", "Fence", "anchors", "commands", "fences", "links", "mentions", "pages", "words_of"]

ROOT = Path(__file__).parents[2]

_SHELL = ("", "sh")
_DRAWN = "┏"  # the corner of a table that a command printed
_FENCE = re.compile(r"^```(\S*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_HEREDOC = re.compile(r"<<(\w+)\n(.*?)^\1\n", re.MULTILINE | re.DOTALL)
_PROGRAM = re.compile(r"(python|bridgequant|make|pip) ")
_OTHER_FLAG = re.compile(r" \| --[\w-]+(?: \[?[A-Z]+\]?(?=\s|$))?")
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Fence:
    """A block of code.

    Attributes:
        line: of its first line of code, from 1.
        language: behind the opening fence; empty without one.
        text: of the block.
    """

    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A line to type into a shell.

    Attributes:
        line: where it begins, from 1.
        text: with continued lines joined.
        script: what it reads from a here-document; empty without one.
    """

    line: int
    text: str
    script: str = ""


def pages() -> list[Path]:
    """Every page: the README first."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def fences(text: str) -> list[Fence]:
    """All blocks of code of a page, in order."""
    return [Fence(text.count("\n", 0, m.start(2)) + 1, m[1], m[2]) for m in _FENCE.finditer(text)]


def commands(text: str) -> list[Command]:
    """All commands in the shell blocks of a page: those marked ``sh``, and those not marked, but for drawn tables."""
    found = []
    for fence in fences(text):
        if fence.language in _SHELL and _DRAWN not in fence.text:
            found += list(_commands_of(fence))
    return found


def _commands_of(fence: Fence) -> Iterator[Command]:
    scripts = [m[2] for m in _HEREDOC.finditer(fence.text)]
    # what is taken out keeps its number of lines
    text = _HEREDOC.sub(lambda m: "<<" + "\n" * (m[0].count("\n")), fence.text)
    line = fence.line
    for logical in re.split(r"(?<!\\)\n(?![ \t])", text):  # an indented line goes on with the one before
        joined = re.sub(r"\s*\\?\n\s*", " ", logical).strip()
        if joined and not joined.startswith("#"):
            yield Command(line, joined, scripts.pop(0) if joined.endswith("<<") else "")
        line += logical.count("\n") + 1


def mentions(text: str) -> list[str]:
    """Commands in running text, without those in blocks."""
    return [m[1] for m in _CODE.finditer(_FENCE.sub("", text)) if _PROGRAM.match(m[1])]


def words_of(command: str, values: Mapping[str, str]) -> list[str]:
    """The words of a command, with everything that it may have.

    Brackets around what can be left out are taken off, and so are ``[options]`` and ``...``. Of flags that exclude each other, as in
    ``--a X | --b``, the first counts.

    Args:
        command: a line.
        values: what takes the place of a placeholder, which is a whole word.
    """
    plain = _OTHER_FLAG.sub("", command.replace("[options]", ""))
    plain = re.sub(r"(?<=\s)\[|\](?=\s|$)", "", plain)
    return [values.get(word, word) for word in shlex.split(plain, comments=True) if word != "..."]


def links(text: str) -> list[str]:
    """Targets of all links and pictures, without those in code."""
    return [m[1] or m[2] for m in _LINK.finditer(_CODE.sub("", _FENCE.sub("", text)))]


def anchors(text: str) -> set[str]:
    """What a link to a heading of the page may have behind the ``#``."""
    found: dict[str, int] = {}
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        found[name] = found.get(name, -1) + 1
    return {f"{name}-{number}" if number else name for name, times in found.items() for number in range(times + 1)}
