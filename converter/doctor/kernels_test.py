"""What the installed runtime does with single operators."""

from __future__ import annotations

import platform

import pytest

from converter.doctor.kernels import KINDS, find_kernels, saturates
from converter.doctor.machine import X86, this_machine


def test_each_kind_is_found_for_each_type_and_layers_run_on_unsigned_codes_everywhere() -> None:
    found = {(kernel.kind, kernel.activations): kernel for kernel in find_kernels()}
    assert set(found) == {(kind, codes) for kind in KINDS for codes in ("int8", "uint8")}
    for kind, name in (("Conv", "QLinearConv"), ("Conv depthwise", "QLinearConv"), ("Gemm", "QGemm"), ("Add", "QLinearAdd")):
        kernel = found[kind, "uint8"]
        assert kernel.integer and name in kernel.ran, kernel


def test_an_operator_without_an_integer_kernel_is_told_from_those_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tanh: tuple[object, ...] = ((1, 4, 32), ("Tanh", {}, 1, None))
    monkeypatch.setattr("converter.doctor.kernels.KINDS", {"Tanh": tanh, "Add": KINDS["Add"]})
    integer = {kernel.kind: kernel.integer for kernel in find_kernels(["uint8"])}
    assert integer == {"Tanh": False, "Add": True}


@pytest.mark.skipif(platform.machine() not in X86, reason="other processors have no kernels that saturate")
def test_x86_saturates_where_it_has_avx2_and_no_vnni() -> None:
    sets = set(this_machine().instruction_sets or ())
    assert saturates() == ("avx2" in sets and not sets & {"avx_vnni", "avx512_vnni"})
