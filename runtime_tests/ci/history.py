"""The history of a baseline as a picture: one small chart for each figure, in SVG without scripts or fonts of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from runtime_tests.ci.baseline import Version
from runtime_tests.results import KINDS

__all__ = ["history_svg", "points"]

_WIDTH, _HEIGHT = 380, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 34, 26
_COLUMNS = 2
_LINE, _NOW, _TEXT, _FAINT = "#2458a6", "#c4541c", "#222222", "#888888"


def history_svg(history: Sequence[Version], names: Sequence[str]) -> str:
    """The picture.

    Args:
        history: at least one version, the oldest first; one that is not committed yet stands out.
        names: of figures, in their order.
    """
    rows = -(-len(names) // _COLUMNS)
    width, height = _COLUMNS * _WIDTH, rows * _HEIGHT
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    lines = [f'{head} font-family="sans-serif" font-size="11" fill="{_TEXT}">', f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    for place, name in enumerate(names):
        x, y = place % _COLUMNS * _WIDTH, place // _COLUMNS * _HEIGHT
        lines += [f'<g transform="translate({x} {y})">', *_chart(history, name), "</g>"]
    return "\n".join([*lines, "</svg>"]) + "\n"


def points(values: Sequence[float | None]) -> list[tuple[float, float] | None]:
    """Where values stand in a chart, in pixels: evenly from left to right, the lowest at the bottom; None where there is no value.

    Equal values stand in the middle.
    """
    there = [value for value in values if value is not None]
    low, high = min(there), max(there)
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    step = wide / max(len(values) - 1, 1)
    share = [None if value is None else 0.5 if high == low else (value - low) / (high - low) for value in values]
    return [None if up is None else (_LEFT + place * step, _TOP + (1.0 - up) * tall) for place, up in enumerate(share)]


def _chart(history: Sequence[Version], name: str) -> Iterator[str]:
    values = [version.figures.get(name) for version in history]
    there = [value for value in values if value is not None]
    if not there:
        return
    places = points(values)
    kind = KINDS.get(name)
    way = "" if kind is None else ", higher is better" if kind.higher_is_better else ", lower is better"
    yield f'<text x="{_LEFT}" y="18" font-weight="bold">{escape(name)}</text>'
    yield f'<text x="{_WIDTH - _RIGHT}" y="18" text-anchor="end" fill="{_FAINT}">{there[-1]:.5g}{way}</text>'
    bottom = _HEIGHT - _BOTTOM
    yield f'<path d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - _RIGHT}" fill="none" stroke="{_FAINT}" stroke-width="0.5"/>'
    heights = {value: place[1] for value, place in zip(values, places, strict=True) if value is not None and place is not None}
    for value in sorted({min(there), max(there)}):
        yield f'<text x="{_LEFT - 6}" y="{heights[value] + 4:.1f}" text-anchor="end">{value:.5g}</text>'
    yield f'<text x="{_LEFT}" y="{bottom + 16}" fill="{_FAINT}">{escape(history[0].day)}</text>'
    if len(history) > 1:
        yield f'<text x="{_WIDTH - _RIGHT}" y="{bottom + 16}" text-anchor="end" fill="{_FAINT}">{escape(history[-1].day or "now")}</text>'
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place for place in places if place is not None))
    yield f'<polyline points="{line}" fill="none" stroke="{_LINE}" stroke-width="1.5"/>'
    for version, now, place in zip(history, values, places, strict=True):
        if place is not None:
            about = f"{version.day} {version.commit} {version.subject}".strip() if version.commit else "now"
            colour = _LINE if version.commit else _NOW
            title = f"<title>{now:.5g}: {escape(about)}</title>"
            yield f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="3.5" fill="{colour}">{title}</circle>'
