from __future__ import annotations

from pathlib import Path

import pytest

from converter.errors import ConverterError, UsageError
from tools.device_bench.testing.adb import calls_in
from tools.device_bench.transport import Transport, adb_transport, local_transport, remote_folder, ssh_transport

AWKWARD = ["two words", "$(echo no)", "'single'", '"double"', "a;b", "*", "back\\slash", "ümlaut", "-n", ""]
"""Words that a shell would read in its own way."""


def check_words_and_files(device: Transport, tmp_path: Path) -> None:
    """Words arrive as they are; files come back as they went, with any byte in them and any letter in their name."""
    told = device.run(["sh", "-c", 'for word; do printf "[%s]" "$word"; done', "sh", *AWKWARD])
    assert told == "".join(f"[{word}]" for word in AWKWARD)
    content = bytes(range(256)) * 1000
    (tmp_path / "content").write_bytes(content)
    with remote_folder(device) as folder:
        device.push(tmp_path / "content", f"{folder}/it's a $file")
        device.pull(f"{folder}/it's a $file", tmp_path / "back")
        assert device.run(["ls", folder]).strip().endswith("$file")
    assert (tmp_path / "back").read_bytes() == content
    with pytest.raises(ConverterError):
        device.run(["ls", folder])


def test_this_machine_as_the_device(tmp_path: Path) -> None:
    check_words_and_files(local_transport(), tmp_path)


@pytest.mark.slow
def test_a_device_by_ssh(ssh_host: tuple[str, list[str]], tmp_path: Path) -> None:
    check_words_and_files(ssh_transport(*ssh_host), tmp_path)


def test_adb_is_called_with_these_words(adb_calls: Path, tmp_path: Path) -> None:
    device = adb_transport("R58N1")
    assert device.run(["echo", "two words", "$HOME"]) == "two words $HOME\n"
    (tmp_path / "here").write_text("content")
    device.push(tmp_path / "here", str(tmp_path / "there"))
    device.pull(str(tmp_path / "there"), str(tmp_path / "back"))  # type: ignore[arg-type]
    assert (tmp_path / "back").read_text() == "content"
    assert calls_in(adb_calls) == [
        ["-s", "R58N1", "shell", "echo 'two words' '$HOME'"],
        ["-s", "R58N1", "push", str(tmp_path / "here"), str(tmp_path / "there")],
        ["-s", "R58N1", "pull", str(tmp_path / "there"), str(tmp_path / "back")],
    ]


def test_without_a_serial_number_adb_takes_the_only_device(adb_calls: Path) -> None:
    adb_transport().run(["true"])
    assert calls_in(adb_calls) == [["shell", "true"]]


def test_on_android_temporary_files_go_where_a_shell_may_write(adb_calls: Path, tmp_path: Path) -> None:
    with remote_folder(adb_transport()) as folder:
        assert Path(folder).parent == tmp_path / "device" and Path(folder).is_dir()
    assert not Path(folder).exists()
    assert calls_in(adb_calls) == [["shell", """sh -c 'mktemp -d "/data/local/tmp/bridgequant.XXXXXX"'"""], ["shell", f"rm -rf {folder}"]]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_folder_is_removed_behind_any_error(error: type[BaseException]) -> None:
    with pytest.raises(error), remote_folder(local_transport()) as folder:
        Path(folder, "file").write_text("left")
        raise error
    assert not Path(folder).exists()


def test_a_device_that_is_gone_does_not_hide_the_first_error(capsys: pytest.CaptureFixture[str]) -> None:
    gone = False

    def run(words: list[str]) -> str:
        if gone:
            raise ConverterError("the device is gone")
        return "/tmp/bridgequant.abc\n"

    device = Transport("a device", "/tmp", run, lambda *_: None, lambda *_: None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="first"), remote_folder(device):
        gone = True
        raise ValueError("first")
    assert "a device: /tmp/bridgequant.abc" in capsys.readouterr().err
    gone = False
    with pytest.raises(ConverterError, match="still there: the device is gone"), remote_folder(device):
        gone = True


@pytest.mark.parametrize("answer", ["", "/", "bridgequant.abc", "/tmp/other", "/tmp/bridgequant.a\n/home"])
def test_nothing_is_removed_that_is_no_temporary_folder(answer: str) -> None:
    ran = []

    def run(words: list[str]) -> str:
        ran.append(words)
        return answer

    device = Transport("a device", "/tmp", run, lambda *_: None, lambda *_: None)  # type: ignore[arg-type]
    with pytest.raises(ConverterError, match="no temporary folder"), remote_folder(device):
        pass
    assert [words[0] for words in ran] == ["sh"]


@pytest.mark.parametrize("name", ["", "-oProxyCommand=touch x", "two words", "a\nb"])
def test_names_that_would_be_read_as_options_are_refused(name: str) -> None:
    for way in (ssh_transport, adb_transport):
        with pytest.raises(UsageError, match="names no device"):
            way(name)


def test_failures_tell_what_the_device_said(adb_calls: Path) -> None:
    with pytest.raises(ConverterError, match="device 'R0' not found"):
        adb_transport("R0").run(["true"])
    with pytest.raises(ConverterError, match="cat: /nowhere: No such file") as caught:
        adb_transport("R58N1").run(["cat", "/nowhere"])
    assert caught.value.where == "R58N1: cat /nowhere"


def test_a_program_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="the program 'adb' is missing"):
        adb_transport().run(["true"])


@pytest.mark.slow
def test_a_host_that_does_not_answer(ssh_host: tuple[str, list[str]], tmp_path: Path) -> None:
    host, options = ssh_host
    (tmp_path / "sshd" / "user.pub").write_text("")  # the key is no longer let in
    with pytest.raises(UsageError, match=r"the device cannot be reached: .*Permission denied"):
        ssh_transport(host, options).run(["true"])
