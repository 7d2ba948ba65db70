"""Folding at every site of a real network of each family: how many there are, and that nothing changes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from converter.canonicalise import TOLERANCE, canonicalise
from converter.testing.equalization import difference, random_equalizations
from converter.transforms.equalization.apply import apply_equalizations
from converter.transforms.equalization.find import find_sites
from models.export import build, export_model

pytestmark = pytest.mark.slow

SITES = {
    "mobilevit_xxs": {"cross_layer": 31, "query_key": 6, "per_channel_quantize": 26},
    "mobilevitv2_050": {"cross_layer": 17, "per_channel_quantize": 26},
    "mobile_former_26m": {"cross_layer": 38, "per_channel_quantize": 5},
    "efficientformer_l1": {"cross_layer": 12, "query_key": 1, "per_channel_quantize": 16},
    "efficientformerv2_s0": {"cross_layer": 6, "query_key": 5, "per_channel_quantize": 49},
}


@pytest.mark.parametrize("network", SITES)
def test_equalizing_every_site_of_a_family_changes_nothing(network: str) -> None:
    """Float32 rounds other numbers after folding; the tolerance is the one that the rewrites of canonicalisation have."""
    proto = onnx.load_from_string(export_model(build(network, size=64, classes=10)))
    (image,) = proto.graph.input
    feed = {image.name: np.random.default_rng(0).random([d.dim_value for d in image.type.tensor_type.shape.dim], dtype=np.float32)}
    model = canonicalise(proto, [feed]).model
    sites = find_sites(model)
    assert Counter(site.kind for site in sites.values()) == SITES[network]
    assert difference(model, apply_equalizations(model, sites, random_equalizations(model))) < TOLERANCE
