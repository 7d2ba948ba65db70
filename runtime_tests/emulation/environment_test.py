from __future__ import annotations

from pathlib import Path

import pytest

from converter.errors import UsageError
from runtime_tests.emulation.environment import FOLDER_VARIABLE, NEWEST, OLDEST, environment


def test_the_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment().folder == tmp_path / ".cache" / "bridgequant" / "arm64"
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "other"))
    assert environment().folder == tmp_path / "other"
    assert environment(tmp_path / "third").folder == tmp_path / "third"


def test_the_newest_runtime_is_taken_unless_another_is_asked_for() -> None:
    assert environment().runtime == environment(runtime="newest").runtime == NEWEST
    assert environment(runtime="oldest").runtime == environment(runtime=OLDEST).runtime == OLDEST


def test_versions_of_the_runtime_share_all_but_the_packages_of_python(tmp_path: Path) -> None:
    old, new = environment(tmp_path, OLDEST), environment(tmp_path)
    assert old.site != new.site
    assert (old.root, old.plugin, old.stamps) == (new.root, new.plugin, new.stamps)


def test_a_runtime_that_is_not_counted_with_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        environment(runtime="1.0.0")
    assert str(caught.value).splitlines() == [
        "error: there is no emulated ONNX Runtime '1.0.0'",
        "  at: --runtime",
        f"  do: choose from: oldest ({OLDEST}) | newest ({NEWEST})",
    ]
