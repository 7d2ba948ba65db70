"""How chaotic an int8 network is: what the moving of one code of one input does to its outputs.

Where that does as much as something else, the something may well be the rounding of one number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from converter.runtime.session import Feed, open_session, run_session
from converter.verify.quality import sqnr

__all__ = ["moved_db"]

_MOVES = 12
_EXACT_DB = 200.0


def moved_db(path: Path, feed: Feed) -> float:
    """The least SQNR of any output when one element of an input moves by one code, over a few elements; 200 if none is float."""
    model = onnx.load(path)
    session = open_session(model, threads=1)
    before = run_session(session, feed)
    generator, found = np.random.default_rng(0), _EXACT_DB
    floats = [name for name, array in feed.items() if array.dtype.kind == "f" and array.size]
    for name in floats:
        for place in generator.integers(0, feed[name].size, _MOVES):
            moved = feed[name].copy()
            moved.reshape(-1)[place] += np.asarray(np.ptp(moved.astype(np.float32)) / 255.0, moved.dtype)
            after = run_session(session, {**feed, name: moved})
            for output, array in before.items():
                if array.dtype.kind == "f" and array.shape == after[output].shape and np.isfinite(array).all():
                    found = min(found, sqnr(array, after[output]))
    return found
