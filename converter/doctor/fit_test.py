"""Whether files fit machines, this one and others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest

from converter.doctor.fit import fit_of, machine_targets
from converter.doctor.machine import Machine
from converter.errors import ModelError
from converter.testing.command import QUICK
from converter.testing.models import Run, SaveHybrid

pytestmark = pytest.mark.usefixtures("few_turns")

PC = Machine("x86_64", "", 1, ("avx2",))
PHONE = Machine("aarch64", "", 1, ("dotprod",))


@pytest.fixture
def made(run: Run, source: Path, tmp_path: Path) -> dict[str, Path]:
    """Files that run in integer, by their target."""
    files = {name: tmp_path / f"{name}.onnx" for name in ("arm64", "x86", "x86-vnni")}
    for name, path in files.items():
        assert run(source, path, *QUICK, "--target", name, "--placement", "all").code == 0
    return files


@pytest.mark.parametrize(
    ("machine", "saturating", "targets"),
    [
        (PC, True, ("x86",)),
        (PC, False, ("x86-vnni", "x86")),
        (PHONE, False, ("arm64",)),
        (Machine("arm64", "", 8, ()), False, ("arm64-v8.0",)),
        (Machine("arm64", "", 8, None), False, ("arm64",)),
        (Machine("aarch64", "", 8, ("dotprod", "i8mm", "sme")), False, ("arm64-sme", "arm64-i8mm", "arm64")),
        (Machine("aarch64", "", 4, ("dotprod",), little=True), False, ("arm64-a55", "arm64")),
        (Machine("riscv64", "", 1, None), False, ()),
    ],
)
def test_machine_classes_of_a_machine(machine: Machine, saturating: bool, targets: tuple[str, ...]) -> None:
    assert machine_targets(machine, saturating) == targets


def test_files_and_machines(made: dict[str, Path]) -> None:
    signed, seven_bits, eight_bits = (fit_of(made[name], PC, True) for name in made)
    assert any("ARM64 with dot product" in fault and "--target x86" in fault for fault in signed.faults)
    assert seven_bits.faults == () and any("x86" in fault and "saturate" in fault for fault in eight_bits.faults)
    assert fit_of(made["x86-vnni"], PC, False).faults == ()
    assert (seven_bits.needs.activations, seven_bits.needs.target) == (("uint8",), "x86")
    assert eight_bits.needs.weight_codes == 127
    assert seven_bits.integer is not None and seven_bits.integer > 0.5
    assert seven_bits.parity_db is not None and seven_bits.parity_db > 30
    assert not any("x86_64" in fault for fault in fit_of(made["arm64"], PHONE, False).faults)


def test_a_finer_class_of_the_same_processors_is_a_remark(made: dict[str, Path]) -> None:
    fit = fit_of(made["arm64"], dataclasses.replace(PHONE, instruction_sets=()), False)
    assert not any("it is for" in fault for fault in fit.faults)
    assert any("arm64-v8.0 may be faster" in remark for remark in fit.remarks)


def test_a_float_model_fits_everywhere(source: Path) -> None:
    fit = fit_of(source, PHONE, False)
    assert fit.faults == () and "runs in float" in fit.remarks[0] and fit.integer == 0.0


def test_open_sizes_are_filled(save_hybrid: SaveHybrid) -> None:
    model = save_hybrid(dynamic_batch=True, dynamic_size=True)
    assert fit_of(model, PC, False, input_shapes={"image": (1, 3, 32, 32)}).faults == ()


def test_a_file_that_the_runtime_does_not_load(source: Path, tmp_path: Path) -> None:
    model = onnx.load(source)
    model.graph.node[0].domain = "of.somebody"
    model.opset_import.append(onnx.helper.make_opsetid("of.somebody", 1))
    onnx.save(model, tmp_path / "odd.onnx")
    fit = fit_of(tmp_path / "odd.onnx", PC, False)
    assert fit.integer is None and "ONNX Runtime does not load the model" in fit.faults[0]
    assert fit.needs.domains == ("of.somebody",)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.onnx").write_text("no model")
    with pytest.raises(ModelError, match="not ONNX"):
        fit_of(tmp_path / "odd.onnx", PC, False)
