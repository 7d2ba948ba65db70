from __future__ import annotations

from converter.verify import LEAST_PARITY_DB
from runtime_tests.conftest import MakeFiles, damage_head
from runtime_tests.parity import measure_parity
from runtime_tests.subject import open_subject


def test_a_model_that_is_not_quantized_equals_itself(make_files: MakeFiles) -> None:
    files = make_files()
    assert measure_parity(open_subject(files.floats, files.floats)).db > 100


def test_a_sound_model_runs_as_it_is_written(make_files: MakeFiles) -> None:
    files = make_files()
    assert measure_parity(open_subject(files.floats, files.int8)).db > 40


def test_a_bias_on_a_wrong_scale_is_found(make_files: MakeFiles) -> None:
    """The runtime fuses the Gemm without a look at the scale of its bias, and is silently wrong."""
    files = make_files()
    files.edit(damage_head)
    found = measure_parity(open_subject(files.floats, files.int8))
    assert found.db < LEAST_PARITY_DB
