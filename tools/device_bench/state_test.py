from __future__ import annotations

from pathlib import Path

import pytest

from converter.errors import ConverterError, UsageError
from tools.device_bench.state import Core, core_mask, fastest_cores, read_state
from tools.device_bench.transport import local_transport

FILES = {
    "/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "/proc/cpuinfo": "processor\t: 0\n",
    "/proc/self/status": "Name:\tsh\nCpus_allowed_list:\t0-1,3\n",
    "/sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "/sys/class/thermal/thermal_zone0/temp": "48250\n",
    "/sys/class/thermal/thermal_zone1/type": "battery\n",
    "/sys/class/thermal/thermal_zone2/type": "skin\n",
    "/sys/class/thermal/thermal_zone2/temp": "-1500\n",
    "/sys/class/thermal/thermal_zone3/type": "skin\n",
    "/sys/class/thermal/thermal_zone3/temp": "31000\n",
    **{f"/sys/devices/system/cpu/cpu{n}/cpu_capacity": f"{capacity}\n" for n, capacity in enumerate((400, 400, 1024, 1024))},
    "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1800000\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "/sys/devices/system/cpu/cpufreq/ondemand/up_threshold": "50\n",
}


def test_a_board_is_read_from_the_files_of_its_kernel(tmp_path: Path) -> None:
    for path, text in FILES.items():
        (tmp_path / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path.lstrip("/")).write_text(text)
    state = read_state(local_transport(), str(tmp_path))
    assert state.name == "Raspberry Pi 5 Model B Rev 1.0"
    assert state.cores == (Core(0, 400, 1800000, 600000, "ondemand"), Core(1, 400, None, None, None), Core(3, 1024, None, None, None))
    assert state.celsius == {"cpu-thermal": 48.25, "skin 2": -1.5, "skin 3": 31.0}


def test_a_device_that_tells_nothing(tmp_path: Path) -> None:
    state = read_state(local_transport(), str(tmp_path))
    assert (state.name, state.cores, state.celsius) == ("", (), {})
    assert state.kernel.split()[0]


def test_this_machine_has_cores() -> None:
    assert read_state(local_transport()).cores


def core(number: int, capacity: int | None, khz: int | None) -> Core:
    return Core(number, capacity, khz, None, None)


@pytest.mark.parametrize(
    ("cores", "count", "wanted"),
    [
        ([core(0, 300, 9), core(1, 1024, 5), core(2, 700, 7)], 1, (1,)),
        ([core(0, None, 9), core(1, None, 5)], 1, (0,)),
        ([core(0, None, None), core(1, None, None), core(2, None, None)], 2, (1, 2)),
    ],
    ids=["by capacity", "by clock rate", "the last of equals"],
)
def test_the_fastest_cores(cores: list[Core], count: int, wanted: tuple[int, ...]) -> None:
    assert fastest_cores(cores, count) == wanted


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(ConverterError, match="on 1 cores, not on 2"):
        fastest_cores([core(0, None, None)], 2)


@pytest.mark.parametrize(("cores", "mask"), [((0,), "1"), ((4, 5), "30"), ((10,), "400")])
def test_masks_of_cores(cores: tuple[int, ...], mask: str) -> None:
    assert core_mask(cores) == mask


def test_no_cores_have_no_mask() -> None:
    with pytest.raises(UsageError, match="no such cores"):
        core_mask(())
