from __future__ import annotations

import numpy as np
import pytest

from tools.demo.text_lines import WORDS, render_lines


def test_words_are_many_and_distinct() -> None:
    assert len(WORDS) == len(set(WORDS)) >= 150
    assert all(word.isalpha() and word.islower() for word in WORDS)


def test_lines_depend_on_seed_and_place_but_not_on_the_count() -> None:
    few, many, other = render_lines(3, seed=1), render_lines(6, seed=1), render_lines(3, seed=2)
    assert [line.text for line in few] == [line.text for line in many[:3]]
    assert [line.image.tobytes() for line in few] == [line.image.tobytes() for line in many[:3]]
    assert len({line.image.tobytes() for line in many + other}) == 9


@pytest.mark.parametrize(("height", "width"), [(48, 320), (32, 256), (64, 480)])
def test_size_and_mode(height: int, width: int) -> None:
    for line in render_lines(3, seed=4, height=height, width=width):
        assert (line.image.mode, line.image.size) == ("RGB", (width, height))


def test_texts_are_clean_and_varied() -> None:
    texts = [line.text for line in render_lines(80, seed=3)]
    assert all(text == text.strip() and "  " not in text and text.isascii() and text.isprintable() for text in texts)
    assert len(set(texts)) == 80
    assert sum(any(character.isdigit() for character in text) for text in texts) > 15
    assert any(text.isupper() for text in texts)
    assert any(text.islower() for text in texts)
    assert any(text.istitle() for text in texts)
    assert any("$" in text for text in texts)


def test_writing_is_seen_and_both_polarities_occur() -> None:
    darker_ink = 0
    lines = render_lines(60, seed=5)
    for line in lines:
        levels = np.asarray(line.image.convert("L"), dtype=np.float64)
        paper = np.median(levels)
        low, high = np.percentile(levels, [2, 98])
        assert high - low > 40
        darker_ink += paper - low > high - paper
    assert 20 < darker_ink < 58
