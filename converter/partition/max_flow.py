"""Minimum s-t cuts in whole numbers: exact, and the same for the same capacities in whatever order they come.

Flows in floating point compare sums of roundings with capacities, and may stop short of the maximum.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

__all__ = ["minimum_cut"]

_BITS = 50
"""To which capacities are rounded: those of the largest cut that can be minimal."""

Vertex = TypeVar("Vertex", bound=Hashable)


def minimum_cut(capacities: Mapping[tuple[Vertex, Vertex], float], source: Vertex, sink: Vertex) -> tuple[float, frozenset[Vertex]]:
    """A cut of the least capacity; of several that one whose source side is largest.

    Args:
        capacities: of directed edges, 0 or more; infinity for those that must not be cut. Edges that leave the source are finite.
        source: always on the source side.
        sink: never on it.

    Returns:
        the capacity of the cut, to 50 bits of what leaves the source; all vertices on the source side.
    """
    numbers: dict[Vertex, int] = {source: 0, sink: 1}
    for vertex in (end for edge in capacities for end in edge):
        numbers.setdefault(vertex, len(numbers))
    leaving = [capacity for (start, _), capacity in capacities.items() if start == source]
    most = math.fsum(leaving)
    shift = _BITS - math.frexp(most)[1]
    # no minimum cut costs more than to cut off the source, so what does might as well be infinite
    never = sum(round(math.ldexp(capacity, shift)) for capacity in leaving) + 1
    whole = [(numbers[a], numbers[b], never if each > most else round(math.ldexp(each, shift))) for (a, b), each in capacities.items()]
    flow, distances = _maximum_flow(len(numbers), whole)
    return math.ldexp(flow, -shift), frozenset(vertex for vertex, number in numbers.items() if distances[number] < 0)


def _maximum_flow(vertices: int, edges: Sequence[tuple[int, int, int]]) -> tuple[int, list[int]]:
    """The most that flows from vertex 0 to vertex 1, by Dinic's algorithm, and how many edges with some left lead from each to vertex 1.

    Distances are -1 where no way is left. They do not depend on which of several maximum flows was found (Picard and Queyranne 1980).
    """
    leaving: list[list[int]] = [[] for _ in range(vertices)]
    ends: list[int] = []
    residual: list[int] = []
    for start, end, capacity in edges:
        leaving[start].append(len(ends))
        leaving[end].append(len(ends) + 1)  # the same edge backwards: its number differs in the last bit
        ends += [end, start]
        residual += [capacity, 0]
    total = 0
    while True:
        distances = _distances(leaving, ends, residual)
        if distances[0] < 0:
            return total, distances
        total += _blocking_flow(leaving, ends, residual, list(distances))


def _distances(leaving: Sequence[Sequence[int]], ends: Sequence[int], residual: Sequence[int]) -> list[int]:
    distances = [-1] * len(leaving)
    distances[1] = 0
    reached = [1]
    for vertex in reached:
        for edge in leaving[vertex]:
            before = ends[edge]
            if distances[before] < 0 and residual[edge ^ 1]:
                distances[before] = distances[vertex] + 1
                reached.append(before)
    return distances


def _blocking_flow(leaving: Sequence[Sequence[int]], ends: Sequence[int], residual: list[int], distances: list[int]) -> int:
    """Fill shortest ways until there is none left; dead ends lose their distance."""
    tried = [0] * len(leaving)
    total, vertex = 0, 0
    way: list[int] = []
    while True:
        if vertex == 1:
            amount = min(residual[edge] for edge in way)
            total += amount
            for edge in way:
                residual[edge] -= amount
                residual[edge ^ 1] += amount
            full = next(place for place, edge in enumerate(way) if not residual[edge])
            vertex = ends[way[full] ^ 1]
            del way[full:]
        edges = leaving[vertex]
        place = tried[vertex]
        while place < len(edges) and not (residual[edges[place]] and distances[ends[edges[place]]] == distances[vertex] - 1):
            place += 1
        tried[vertex] = place
        if place < len(edges):
            way.append(edges[place])
            vertex = ends[edges[place]]
        elif way:
            distances[vertex] = -1
            vertex = ends[way.pop() ^ 1]
        else:
            return total
