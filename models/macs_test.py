from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from models.macs import PUBLISHED, Counts, count, main, measure, table
from models.mobile_former import VARIANTS
from models.mobile_former_blocks import DynamicReLU

Rows = list[tuple[str, int, Counts]]


@pytest.fixture(scope="module")
def mobile_formers() -> Rows:
    return measure(list(VARIANTS))


def test_every_mobile_former_meets_the_published_counts(mobile_formers: Rows) -> None:
    for name, _, counts in mobile_formers:
        parameters, macs = PUBLISHED[name]
        assert counts.parameters / 1e6 == pytest.approx(parameters, rel=0.03), name
        assert counts.total / 1e6 == pytest.approx(macs, rel=0.03), name
        # The part that other tools report must not exceed what the paper states.
        assert 0.9 * macs < counts.products / 1e6 < macs, name


def test_documented_table_is_what_the_command_prints(mobile_formers: Rows) -> None:
    assert table(mobile_formers) in (Path(__file__).parents[1] / "docs" / "models.md").read_text()


@pytest.mark.parametrize(
    ("layer", "products"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), 8 * 8 * 3 * 8 * 9),
        (nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3), 4 * 4 * 6 * 9),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5)), 3 * 8 * 8 * 5),
    ],
)
def test_products_of_one_layer(layer: nn.Module, products: int) -> None:
    counts = count(layer, 8)
    assert (counts.products, counts.elementwise) == (products, 0)
    assert counts.parameters == sum(p.numel() for p in layer.parameters())


def test_fused_attention_counts_as_two_matrix_products() -> None:
    class Attention(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            tokens = image.flatten(2)  # three tokens of 64 features
            return functional.scaled_dot_product_attention(tokens, tokens, tokens)

    assert count(Attention(), 8).products == 2 * 3 * 3 * 64


def test_normalisations_count_once_and_dynamic_relus_twice_an_element() -> None:
    class Acting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.act = nn.BatchNorm2d(3), DynamicReLU(3, 4)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            scaled: torch.Tensor = self.act(self.norm(image), torch.zeros(1, 4))
            return scaled

    assert count(Acting(), 8).elementwise == 3 * 3 * 8 * 8


def test_counting_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert count(model, 8) == count(model, 8)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_unknown_name_ends_in_three_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mobile_former_27m"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "mobile_former_26m" in lines[0]
