from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pytest

from converter.calibration.synthetic_images import natural_images, normal_values, zeros_and_ones


@pytest.fixture(scope="module")
def pictures() -> npt.NDArray[np.uint8]:
    return np.stack(natural_images(24, 128, 128, seed=5))


def spectrum_slope(plane: npt.NDArray[np.float64]) -> float:
    """Exponent of the amplitude spectrum, from a line through its logarithm over the middle frequencies."""
    size = len(plane)
    window = np.hanning(size)[:, None] * np.hanning(size)[None, :]
    power = np.abs(np.fft.fft2((plane - plane.mean()) * window)) ** 2
    frequency = np.abs(np.fft.fftfreq(size, 1 / size))
    ring = np.hypot(frequency[:, None], frequency[None, :]).astype(int).ravel()
    mean_power = np.bincount(ring, power.ravel()) / np.bincount(ring)
    used = np.arange(3, size * 3 // 8)
    return float(np.polyfit(np.log(used), 0.5 * np.log(mean_power[used]), 1)[0])


def test_bytes_are_fixed_for_a_seed() -> None:
    data = b"".join(image.tobytes() for image in natural_images(3, 48, 64, seed=7))
    assert hashlib.sha256(data).hexdigest() == "addda8e238be3293c0c0bc29394e6550f9b67a52b5296e308b7f479b3f5cf929"
    values = np.ascontiguousarray(normal_values((1000,), seed=7), dtype="<f8").tobytes()
    assert hashlib.sha256(values).hexdigest() == "8e9fbee636d938c5a746323b1382985e54eecf7036843bfb47bd52b5166b10f8"


def test_picture_depends_on_seed_and_place_but_not_on_the_count() -> None:
    few, many, other = natural_images(2, 16, 24, 0), natural_images(5, 16, 24, 0), natural_images(2, 16, 24, 1)
    assert all(np.array_equal(one, same) for one, same in zip(few, many, strict=False))
    assert len({image.tobytes() for image in many + other}) == 7


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 3), (48, 320)])
def test_any_size(height: int, width: int) -> None:
    (image,) = natural_images(1, height, width, 3)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8


def test_no_picture_when_none_is_wanted() -> None:
    assert natural_images(0, 8, 8, 0) == []


def test_amplitude_spectrum_falls_like_that_of_photographs(pictures: npt.NDArray[np.uint8]) -> None:
    slopes = [spectrum_slope(picture.mean(axis=2)) for picture in pictures]
    # Measured on photographs with this function: -1.4 on average. White noise has 0, a smooth ramp less than -2.
    assert -1.7 < np.mean(slopes) < -1.1
    assert max(slopes) < -0.8


def test_channels_are_correlated_and_the_axes_are_not(pictures: npt.NDArray[np.uint8]) -> None:
    colours = pictures.reshape(-1, 3).astype(np.float64)
    between = np.asarray(np.corrcoef(colours.T))
    assert between[0, 1] > 0.85
    assert between[1, 2] > 0.85
    assert 0.6 < between[0, 2] < min(between[0, 1], between[1, 2])
    light, orange, purple = colours.sum(axis=1), colours[:, 0] - colours[:, 2], colours @ [1.0, -2.0, 1.0]
    assert light.std() / np.sqrt(3) > orange.std() / np.sqrt(2) > purple.std() / np.sqrt(6)
    assert abs(np.corrcoef(light, orange)[0, 1]) < 0.3


def test_brightness_and_contrast_vary_and_the_range_is_used(pictures: npt.NDArray[np.uint8]) -> None:
    assert pictures.min() == 0
    assert pictures.max() == 255
    assert 90 < pictures.mean() < 165
    assert pictures.mean(axis=(1, 2, 3)).std() > 15
    assert pictures.std(axis=(1, 2, 3)).std() > 6


def test_edges_make_gradients_far_from_gaussian(pictures: npt.NDArray[np.uint8]) -> None:
    gradients = np.diff(pictures.mean(axis=3), axis=2).ravel()
    kurtosis = np.mean(gradients**4) / np.mean(gradients**2) ** 2
    assert kurtosis > 8  # 3 for noise of any spectrum, about 22 for photographs


def test_normal_values_have_the_moments_of_the_normal_distribution() -> None:
    values = normal_values((100, 1000), seed=3)
    assert values.shape == (100, 1000)
    # Five standard errors: sqrt(1/n), sqrt(2/n) / 2, sqrt(15/n) and sqrt(96/n) at n = 100,000.
    assert abs(values.mean()) < 0.016
    assert abs(values.std() - 1) < 0.012
    assert abs(np.mean(values**3)) < 0.062
    assert abs(np.mean(values**4) - 3) < 0.16
    assert abs(np.mean(np.abs(values) < 1) - 0.6827) < 0.0074


def test_coins_are_fair() -> None:
    coins = zeros_and_ones((100, 100), seed=1)
    assert coins.dtype == np.bool_
    assert abs(coins.mean() - 0.5) < 0.025


def test_shapes_without_elements_and_without_dimensions() -> None:
    assert normal_values((0, 3), 0).shape == (0, 3)
    assert normal_values((), 0).shape == ()
    assert zeros_and_ones((), 0).shape == ()
