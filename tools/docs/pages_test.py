"""What is read out of a page, and that no link of the documentation leads nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.docs.pages import ROOT, Command, Fence, anchors, commands, fences, links, mentions, pages, words_of

PAGE = """# A `title`: once, twice

See [usage](usage.md#exit-codes) and ![a picture](a.svg), run `python -m some.tool` or `other`, not `[x](y)`.

```sh
python one.py a \\
  b    # a remark
# only a remark
python two.py
```

## Again

```
python - <<EOF
print(1)
EOF
python three.py [--flag N] [options]
python four.py
    [--more]
```

## Again

```text
python printed.py
```

```
┏━━━━┓
```
"""


def test_blocks_are_found_with_their_languages_and_lines() -> None:
    assert [(f.line, f.language) for f in fences(PAGE)] == [(6, "sh"), (15, ""), (26, "text"), (30, "")]
    assert fences("```x\na\n```\n") == [Fence(2, "x", "a\n")]


def test_commands_are_joined_and_what_was_printed_is_none() -> None:
    assert commands(PAGE) == [
        Command(6, "python one.py a b    # a remark"),
        Command(9, "python two.py"),
        Command(15, "python - <<", "print(1)\n"),
        Command(18, "python three.py [--flag N] [options]"),
        Command(19, "python four.py [--more]"),
    ]


def test_mentions_are_code_in_running_text_that_begins_with_a_program() -> None:
    assert mentions(PAGE) == ["python -m some.tool"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python t.py [--flag N] [options]", ["python", "t.py", "--flag", "3"]),
        ("python t.py --n 0 30 ...  # why", ["python", "t.py", "--n", "0", "30"]),
        ("python t.py --a HOST | --b [SERIAL] | --c [--d N]", ["python", "t.py", "--a", "HOST", "--d", "3"]),
        ("pip install 'tool[extra]'", ["pip", "install", "tool[extra]"]),
    ],
)
def test_what_can_be_left_out_counts_and_placeholders_get_values(command: str, words: list[str]) -> None:
    assert words_of(command, {"N": "3"}) == words


def test_links_and_anchors() -> None:
    assert links(PAGE) == ["usage.md#exit-codes", "a.svg"]
    assert anchors(PAGE) == {"a-title-once-twice", "again", "again-1"}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links(page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


def test_every_page_is_linked_from_another() -> None:
    linked = {(page.parent / link.partition("#")[0]).resolve() for page in pages() for link in links(page.read_text())}
    assert [page.name for page in pages()[1:] if page not in linked] == []
