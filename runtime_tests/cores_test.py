from __future__ import annotations

import pytest

from runtime_tests.cores import measure_cores
from runtime_tests.emulation import emulator
from runtime_tests.emulation.cores import CORES, short_name
from runtime_tests.emulation.testing.stand_in import PER_REGION, emulate_here
from runtime_tests.model_pair import open_model_pair
from runtime_tests.testing.files import MakeFiles


def test_counts_and_outputs_of_each_core(make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the emulator runs the guest's code here, and says that every run takes as many instructions."""
    monkeypatch.setattr(emulator, "emulate", emulate_here)
    files = make_files()
    counted, found = measure_cores(open_model_pair(files.floats, files.int8, count=2), ["cortex-a53", "cortex-a76"])
    assert [(c.core, c.float_count, c.int8_count, c.ratio) for c in counted] == [
        ("cortex-a53", PER_REGION, PER_REGION, 1.0),
        ("cortex-a76", PER_REGION, PER_REGION, 1.0),
    ]
    assert [(p.reference, p.predictions, p.equal) for p in found] == [("cortex-a53", 2, 2)] * 2
    assert found[0].other == "cortex-a76"


def test_short_names_are_keys_of_toml() -> None:
    assert [short_name(core) for core in CORES] == ["a53", "a72", "a55", "a76", "n1", "max_sve128", "max_sme", "max_sme_off", "max"]
