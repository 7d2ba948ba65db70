"""Exclusions: which canonical operators the user's patterns mean. Names are those of the input file."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence

import onnx
import onnx_ir as ir

from converter.errors import UsageError
from converter.graph.source_nodes import source_nodes

__all__ = ["excluded_nodes"]


def excluded_nodes(patterns: Sequence[str], source: onnx.ModelProto, canonical: ir.Model) -> frozenset[str]:
    """Names of the canonical nodes that the patterns exclude.

    A pattern is a glob over the node names of the input file, over operator types of the input file or of the canonical
    graph, or over the canonical names that reports show.

    Raises:
        UsageError: a pattern matches nothing; the message lists the nearest names.
    """
    stands_for = source_nodes(source, canonical)
    excluded: set[str] = set()
    for pattern in patterns:
        matched = {
            str(node.name)
            for node in canonical.graph
            if _matches(pattern, str(node.name), node.op_type)
            or any(_matches(pattern, origin.name, origin.op_type) for origin in stands_for.get(str(node.name), ()))
        }
        # a name of something that canonicalisation removes, such as a Dropout, asks for nothing and is no mistake
        if not matched and not any(_matches(pattern, n.name, n.op_type) for n in source.graph.node):
            raise UsageError(f"'{pattern}' matches no operator", where=f"--exclude {pattern}", hint=_nearest(pattern, source, canonical))
        excluded |= matched
    return frozenset(excluded)


def _matches(pattern: str, *names: str) -> bool:
    """True if a name is the pattern itself (it may hold brackets) or fits it."""
    return any(name and (name == pattern or fnmatch.fnmatchcase(name, pattern)) for name in names)


def _nearest(pattern: str, source: onnx.ModelProto, canonical: ir.Model) -> str:
    names = [n.name for n in source.graph.node if n.name] or [str(n.name) for n in canonical.graph]
    known = dict.fromkeys(names + [n.op_type for n in source.graph.node])
    lowered = {k.lower(): k for k in reversed(list(known))}
    near = difflib.get_close_matches(pattern.lower().strip("*"), lowered, n=3, cutoff=0.0)
    return "the nearest names are " + ", ".join(f"'{lowered[n]}'" for n in near)
