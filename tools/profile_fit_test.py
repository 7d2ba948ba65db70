from __future__ import annotations

import numpy as np

from tools.front import Point, on_front
from tools.profile_fit import fit, nonnegative_least_squares
from tools.profile_samples import Sample


def test_prices_are_found_again() -> None:
    samples = [
        Sample("Conv", {"node": 1.0, "mac": float(m), "element": float(e)}, 50.0 + 0.25 * m) for m, e in [(100, 7), (400, 3), (1000, 90)]
    ]
    found = fit(samples, ("node", "mac", "element"), floor=1.0)
    assert found.prices == {"node": 50.0, "mac": 0.25}
    assert found.largest < 1e-9


def test_no_price_is_negative() -> None:
    """Without the bound, the first unknown would be -1; with it, the best of the second alone is 3/2 of 1."""
    found = nonnegative_least_squares(np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([1.0, 2.0]))
    np.testing.assert_allclose(found, [0.0, 1.5])


def test_the_front_leaves_out_what_is_beaten() -> None:
    cheap, dear, beaten = (Point(n, c, s, None, 0) for n, c, s in (("a", 0.5, 20.0), ("b", 0.8, 30.0), ("c", 0.9, 25.0)))
    assert on_front([beaten, dear, cheap]) == [cheap, dear]
