"""Exclusions: which canonical operators the user's patterns mean. Names are those of the input file."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence

import onnx
import onnx_ir as ir

from converter.errors import UsageError
from converter.graph import constant

__all__ = ["excluded_nodes", "origins"]


def origins(source: onnx.ModelProto, canonical: ir.Model) -> dict[str, tuple[onnx.NodeProto, ...]]:
    """The nodes of the input file that each canonical node stands for, by canonical node name.

    Rewrites keep the names of the tensors that leave them, so a canonical node stands for whatever lies in the input
    file between the tensors it reads and the tensors it writes.
    """
    makers = {output: node for node in source.graph.node for output in node.output}
    result: dict[str, tuple[onnx.NodeProto, ...]] = {}
    for node in canonical.graph:
        borders = {str(v.name) for v in node.inputs if v is not None and constant(v) is None}
        found: dict[str, onnx.NodeProto] = {}
        pending = [str(o.name) for o in node.outputs]
        while pending:
            tensor = pending.pop()
            maker = makers.get(tensor)
            if maker is None or tensor in borders or maker.output[0] in found:
                continue
            found[maker.output[0]] = maker
            pending.extend(maker.input)
        if borders or len(found) <= 1:
            result[str(node.name)] = tuple(found.values())
    return result


def excluded_nodes(patterns: Sequence[str], source: onnx.ModelProto, canonical: ir.Model) -> frozenset[str]:
    """Names of the canonical nodes that the patterns exclude.

    A pattern is a glob over the node names of the input file, or over operator types, of the input file or canonical.

    Raises:
        UsageError: a pattern matches nothing; the message lists the nearest names.
    """
    stands_for = origins(source, canonical)
    excluded: set[str] = set()
    for pattern in patterns:
        matched = {
            str(node.name)
            for node in canonical.graph
            if fnmatch.fnmatchcase(node.op_type, pattern)
            or any(
                fnmatch.fnmatchcase(n.name, pattern) or fnmatch.fnmatchcase(n.op_type, pattern) for n in stands_for.get(str(node.name), ())
            )
        }
        in_source = any(fnmatch.fnmatchcase(n.name, pattern) or fnmatch.fnmatchcase(n.op_type, pattern) for n in source.graph.node)
        if not matched and not in_source:
            raise UsageError(f"'{pattern}' matches no operator", where=f"--exclude {pattern}", hint=_nearest(pattern, source))
        excluded |= matched
    return frozenset(excluded)


def _nearest(pattern: str, source: onnx.ModelProto) -> str:
    known = dict.fromkeys([n.name for n in source.graph.node if n.name] + [n.op_type for n in source.graph.node])
    lowered = {k.lower(): k for k in reversed(list(known))}
    near = difflib.get_close_matches(pattern.lower().strip("*"), lowered, n=3, cutoff=0.0)
    return "the nearest names are " + ", ".join(f"'{lowered[n]}'" for n in near)
