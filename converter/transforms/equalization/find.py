"""Find the places of a model where an equalization is exact.

A site is a set of channels whose factors can be chosen freely, found by giving every element of every tensor a label and
following the labels through the graph (:mod:`converter.transforms.equalization.rules`). Tensors that must share factors, such as those of
one residual stream, make up one site. Folding per-channel ranges into neighbouring layers goes back to cross-layer
equalisation (Nagel et al., arXiv 1906.04721, section 4.1); with a shift, behind normalizations, to RepQ-ViT (arXiv
2212.08254, section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import networkx
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.graph.queries import constant, is_float
from converter.transforms.equalization.labels import Labels
from converter.transforms.equalization.rules import visit
from converter.transforms.equalization.site import BiasAbsorption, Channels, EqualizationSite, Insertion, Member, Scaling, Shifting
from converter.transforms.equalization.tracker import RawBiasAbsorption, RawScaling, RawShifting, Reading, Tracked, Tracker

__all__ = ["EqualizationSite", "find_sites"]

_MAP_RANK = 4


def find_sites(model: ir.Model, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, EqualizationSite]:
    """Find all sites, by the name of their key tensor, in graph order.

    Args:
        model: canonical float model.
        shapes: of its float tensors, by name, as observed; needed where the model leaves dimensions open.
    """
    tracker = _track(model, {**_declared_shapes(model), **(shapes or {})})
    resolved = _resolve(tracker)
    sites = {str(g.key.value.name): _site(resolved, g) for g in _groups(tracker.readings, resolved) if g.channels > 1}
    inserted = {name: site for name, site in _inserted(tracker, resolved).items() if name not in sites}
    order = {str(v.name): i for i, v in enumerate(tracker.made)}
    return dict(sorted({**sites, **inserted}.items(), key=lambda item: order[item[0]]))


def _declared_shapes(model: ir.Model) -> dict[str, tuple[int, ...]]:
    values = [*model.graph.inputs, *(o for node in model.graph for o in node.outputs)]
    shapes = {str(v.name): [n for n in v.shape if isinstance(n, int)] for v in values if v.shape is not None and v.shape.is_static()}
    return {name: tuple(shape) for name, shape in shapes.items()}


def _track(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> Tracker:
    tracker = Tracker(shapes)
    for value in model.graph.inputs:
        tracker.store(value)
    for node in model.graph:
        if any(is_float(v) for v in (*node.inputs, *node.outputs)) and node.op_type not in ("Shape", "Size", "Constant"):
            visit(tracker, node)
    for value in model.graph.outputs:
        tracker.pin(value)
    # nothing is known of tensors without a shape, and they are pinned
    tracker.readings = [reading for reading in tracker.readings if reading.value in tracker.made]
    return tracker


@dataclass(frozen=True)
class _Resolved:
    """All labels as they are when every operator has been visited; ``users`` are the tensors by factor and by shift."""

    tensors: dict[ir.Value, Tracked]
    scalings: list[RawScaling]
    shiftings: list[RawShifting]
    absorptions: list[RawBiasAbsorption]
    scale_users: dict[int, set[ir.Value]]
    shift_users: dict[int, set[ir.Value]]


def _resolve(tracker: Tracker) -> _Resolved:
    tensors = {value: tracker.labels(value) for value in tracker.made}
    users: tuple[dict[int, set[ir.Value]], dict[int, set[ir.Value]]] = ({}, {})
    for value, tracked in tensors.items():
        for known, labels in zip(users, (tracked.scale, tracked.shift), strict=True):
            for root in _distinct(labels):
                known.setdefault(int(root), set()).add(value)
    return _Resolved(
        tensors,
        [replace(raw, labels=tracker.scale.resolve(raw.labels)) for raw in tracker.scalings],
        [replace(raw, labels=tracker.shift.resolve(raw.labels)) for raw in tracker.shiftings],
        [replace(raw, labels=tracker.shift.resolve(raw.labels)) for raw in tracker.absorptions],
        *users,
    )


def _distinct(labels: Labels) -> npt.NDArray[np.int64]:
    """Free labels without their signs, each once."""
    return np.unique(np.abs(labels[labels != 0]))


@dataclass(frozen=True)
class _Group:
    """Factors, or shifts, that belong together, numbered as they occur in the key tensor."""

    key: Reading
    roots: npt.NDArray[np.int64]

    @property
    def channels(self) -> int:
        return len(self.roots)

    def has(self, labels: Labels) -> bool:
        return bool(np.isin(np.abs(labels), np.abs(self.roots)).any())

    def find(self, labels: Labels) -> tuple[Channels, npt.NDArray[np.int64]]:
        """Channel and sign of labels; -1 and 1 where they are not of this group."""
        order = np.argsort(np.abs(self.roots))
        ranked = np.abs(self.roots)[order]
        places = np.searchsorted(ranked, np.abs(labels)).clip(0, self.channels - 1)
        found = ranked[places] == np.abs(labels)
        channels = np.where(found, order[places], -1)
        return channels, np.where(found, np.sign(labels) * np.sign(self.roots)[channels], 1)


def _groups(readings: Sequence[Reading], resolved: _Resolved) -> list[_Group]:
    """Factors that occur together in a tensor that is read."""
    seen = networkx.Graph()
    labels = [resolved.tensors[reading.value].scale for reading in readings]
    roots = [_distinct(some) for some in labels]
    for number, some in enumerate(roots):
        networkx.add_path(seen, [("reading", number), *(("root", int(r)) for r in some)])
    groups = []
    for component in networkx.connected_components(seen):
        numbers = sorted(n for kind, n in component if kind == "reading")
        # the key holds as many of the channels as any, and enters a layer and has no others besides if it can
        numbers.sort(key=lambda n: (-len(roots[n]), not readings[n].layer, not labels[n].all()))
        ordered = np.concatenate([_by_appearance(labels[n]) for n in numbers])
        _, first = np.unique(np.abs(ordered), return_index=True)
        groups.append(_Group(readings[numbers[0]], ordered[np.sort(first)]))
    return groups


def _by_appearance(labels: Labels) -> npt.NDArray[np.int64]:
    flat = labels[labels != 0]
    _, first = np.unique(np.abs(flat), return_index=True)
    return np.asarray(flat[np.sort(first)])


def _site(resolved: _Resolved, group: _Group) -> EqualizationSite:
    users = set().union(*(resolved.scale_users[int(abs(root))] for root in group.roots))
    members = {value: tracked for value, tracked in resolved.tensors.items() if value in users}
    scalings = [(raw, *group.find(raw.labels)) for raw in resolved.scalings if group.has(raw.labels)]
    lengths = group.find(members[group.key.value].scale)[0].shape
    axes = [i for i, n in enumerate(lengths) if n > 1]
    shifts = _shifts(resolved, group)
    shiftings = [raw for raw in resolved.shiftings if shifts is not None and shifts.has(raw.labels)]
    absorptions = [raw for raw in resolved.absorptions if shifts is not None and shifts.has(raw.labels)]
    return EqualizationSite(
        tensor=str(group.key.value.name),
        kind="cross_layer" if group.key.layer else "query_key",
        channels=group.channels,
        axis=axes[0] if len(axes) == 1 else None,
        shift=shifts is not None,
        members=tuple(_member(value, tracked, group, shifts) for value, tracked in members.items()),
        scalings=tuple(Scaling(raw.node, raw.index, channels, signs * raw.power) for raw, channels, signs in scalings),
        shiftings=tuple(Shifting(raw.node, raw.index, shifts.find(raw.labels)[0]) for raw in shiftings if shifts is not None),
        absorptions=tuple(
            BiasAbsorption(raw.node, shifts.find(raw.labels)[0], raw.axis, raw.bias_node, raw.bias_index)
            for raw in absorptions
            if shifts is not None
        ),
    )


def _member(value: ir.Value, tracked: Tracked, group: _Group, shifts: _Group | None) -> Member:
    channels, powers = group.find(tracked.scale)
    return Member(str(value.name), channels, powers, shifts is not None and shifts.has(tracked.shift))


def _shifts(resolved: _Resolved, group: _Group) -> _Group | None:
    """The shifts that belong to the channels of a group: one for each, which occurs nowhere else."""
    of_channel = _pairs(group, resolved.tensors[group.key.value])
    roots = [shift for _, shift in sorted(of_channel)]
    if len(of_channel) != group.channels or len(set(roots)) != group.channels or not all(roots):
        return None
    users = set().union(*(resolved.shift_users[root] for root in roots))
    everywhere = set().union(*(_pairs(group, resolved.tensors[value]) for value in users))
    elsewhere = {(channel, shift) for channel, shift in everywhere if shift in set(roots)} - of_channel
    return None if elsewhere else _Group(group.key, np.asarray(roots, np.int64))


def _pairs(group: _Group, tracked: Tracked) -> set[tuple[int, int]]:
    """(channel, shift) of all elements."""
    channels, shifts = np.broadcast_arrays(group.find(tracked.scale)[0], tracked.shift)
    return {(int(c), int(s)) for c, s in np.unique(np.stack([channels.reshape(-1), shifts.reshape(-1)]), axis=1).T}


def _inserted(tracker: Tracker, resolved: _Resolved) -> dict[str, EqualizationSite]:
    """Maps that enter convolutions and have channels that no constant in front of them could rescale."""
    readings: dict[ir.Value, list[Reading]] = {}
    for reading in tracker.readings:
        if reading.layer and reading.node.op_type == "Conv" and len(tracker.shapes[str(reading.value.name)]) == _MAP_RANK:
            readings.setdefault(reading.value, []).append(reading)
    sites = {}
    for value, readers in readings.items():
        channels = tracker.shapes[str(value.name)][1]
        labels = resolved.tensors[value].scale.reshape(-1)
        if channels > 1 and not np.broadcast_to(labels, channels).all():
            sites[str(value.name)] = _inserted_site(value, readers, channels)
    return sites


def _inserted_site(value: ir.Value, readers: Sequence[Reading], channels: int) -> EqualizationSite:
    scalings = []
    for reader in readers:
        weight = constant(reader.node.inputs[1])
        assert weight is not None
        per_group = weight.shape[1]
        read = np.arange(weight.shape[0]) * (channels // per_group) // weight.shape[0] * per_group
        numbers = (read[:, None] + np.arange(per_group)).reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))
        scalings.append(Scaling(str(reader.node.name), 1, numbers, np.ones_like(numbers)))
    insertion = Insertion(tuple((str(r.node.name), r.index) for r in readers))
    return EqualizationSite(str(value.name), "per_channel_quantize", channels, 1, scalings=tuple(scalings), insertion=insertion)
