"""Pictures with the statistics of natural ones, for conversions without calibration data.

White noise drives a network into ranges that photographs never reach. What photographs share is well known, and each
of it is drawn here:

1. an amplitude spectrum that falls as 1/f: equal energy in each octave of a lattice noise;
2. three decorrelated colour axes, light-dark far stronger than orange-blue, that stronger than green-purple
   (Ohta, Kanade and Sakai 1980; Ruderman, Cronin and Chiao 1998);
3. objects that hide each other, with sizes spread as radius^-3 so that no scale is special
   (dead leaves: Lee, Mumford and Huang 2001);
4. a brightness, contrast, slope of light and sharpness that differ from picture to picture.

The same seed gives the same bytes everywhere: random bits come straight from PCG64, whose stream NumPy promises to
keep, and pixel values are made of additions, products, quotients and square roots only, which IEEE 754 defines to the
last bit. That is why there is no FFT, no matrix product, no sine and no exponential in this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["natural_image", "natural_images", "normal_values", "zeros_and_ones"]

Field = npt.NDArray[np.float64]
Uniform = Callable[..., Field]

# Deviations along the light-dark, orange-blue and green-purple axes.
AXIS_DEVIATIONS = (1.0, 0.27, 0.12)

# Each octave is this much stronger than the next finer one: photographs are a little smoother than exactly 1/f, since
# lenses blur.
STEEPENING = 1.15


def natural_images(count: int, height: int, width: int, seed: int) -> list[npt.NDArray[np.uint8]]:
    """Colour pictures with natural statistics.

    Args:
        count: how many; picture i is the same whatever the count.
        seed: not negative.

    Returns:
        `count` arrays uint8 [height, width, 3], red, green, blue, 0..255.
    """
    return [natural_image(index, height, width, seed) for index in range(count)]


def natural_image(index: int, height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """The picture of that number of :func:`natural_images`, uint8 [height, width, 3]."""
    return _image(_uniform_source(seed, index), height, width)


def normal_values(shape: Sequence[int], seed: int) -> npt.NDArray[np.float64]:
    """Draw standard normal numbers, float64 of `shape`, by the ratio of uniforms (Kinderman and Monahan 1977).

    The logarithm only decides which candidates stay, so its last bit, which differs between platforms, is never seen.
    """
    uniform, wanted = _uniform_source(seed, 0), math.prod(shape)
    values: Field = np.empty(0)
    while values.size < wanted:
        draws = uniform(2, wanted - values.size + 16)
        divisor = 1.0 - draws[1]  # in (0, 1]: never a division by zero
        candidates = np.sqrt(np.float64(8.0) / np.e) * (draws[0] - 0.5) / divisor
        values = np.concatenate([values, candidates[candidates * candidates <= -4.0 * np.log(divisor)]])
    return values[:wanted].reshape(tuple(shape))


def zeros_and_ones(shape: Sequence[int], seed: int) -> npt.NDArray[np.bool_]:
    """Toss fair coins, bool of `shape`."""
    return _uniform_source(seed, 0)(*shape) < 0.5


def _uniform_source(seed: int, index: int) -> Uniform:
    """Make a function of a shape that draws float64 in [0, 1), each call continuing the stream of (seed, index)."""
    bits = np.random.PCG64(np.random.SeedSequence([seed, index]))

    def draw(*shape: int) -> Field:
        raw = np.asarray(bits.random_raw(math.prod(shape)), dtype=np.uint64)
        return (raw >> np.uint64(11)).astype(np.float64).reshape(shape) * 2.0**-53

    return draw


def _image(uniform: Uniform, height: int, width: int) -> npt.NDArray[np.uint8]:
    """One picture, uint8 [height, width, 3]."""
    deviations = np.array(AXIS_DEVIATIONS).reshape(3, 1, 1)
    texture = _octave_noise(uniform, height, width) * deviations
    scene = 0.6 * texture + deviations * (uniform(3, 1, 1) - 0.5)
    size = max(height, width)
    for _ in range(4 + int(uniform(1)[0] * 10)):
        _paint_leaf(uniform, scene, texture, size * (0.1 + 0.4 * uniform(1)[0]))
    for _ in range(int(uniform(1)[0] * 400)):
        _paint_leaf(uniform, scene, texture, _leaf_radius(uniform, min(2.0, 0.3 * size), 0.3 * size))
    direction, strength = _direction(uniform), 1.2 * uniform(1)[0]
    down = np.linspace(-0.5, 0.5, height)[:, np.newaxis]
    across = np.linspace(-0.5, 0.5, width)[np.newaxis, :]
    scene[0] += strength * (direction[0] * down + direction[1] * across)
    contrast, brightness = 0.5 + 1.3 * uniform(1)[0], 1.2 * (uniform(1)[0] - 0.5)
    grain = 0.01 * (uniform(3, height, width) - 0.5)
    exposed = contrast * _to_rgb(scene) + brightness
    # A film curve: straight in the middle, flattening towards black and white and just reaching them.
    developed = 0.5 + 0.53 * exposed / np.sqrt(1.0 + exposed * exposed) + grain
    levels = np.rint(np.clip(developed, 0.0, 1.0) * 255.0).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(1, 2, 0))


def _to_rgb(axes: Field) -> Field:
    """From the three decorrelated axes to red, green, blue; an orthonormal change of axes, float64 [3, H, W]."""
    light, orange, purple = axes[0] / np.sqrt(3.0), axes[1] / np.sqrt(2.0), axes[2] / np.sqrt(6.0)
    return np.stack([light + orange + purple, light - 2.0 * purple, light - orange + purple])


def _octave_noise(uniform: Uniform, height: int, width: int) -> Field:
    """Three independent fields with a spectrum near 1/f and a deviation near 1, float64 [3, height, width].

    Equal variance in each octave is a power spectrum of 1/f^2 in two dimensions, an amplitude spectrum of 1/f.
    """
    total: Field = np.zeros((3, height, width))
    energy, spacing, weight = 0.0, 1, 1.0
    while spacing < max(height, width):
        rows, row_weights = _spline_taps(uniform, height, spacing)
        columns, column_weights = _spline_taps(uniform, width, spacing)
        lattice = 2.0 * uniform(3, int(rows.max()) + 3, int(columns.max()) + 3) - 1.0
        along: Field = np.zeros((3, height, lattice.shape[2]))
        for tap in range(3):
            along += weight * row_weights[tap][:, np.newaxis] * lattice[:, rows + tap, :]
        for tap in range(3):
            total += column_weights[tap] * along[:, :, columns + tap]
        energy, spacing, weight = energy + weight * weight, spacing * 2, weight * STEEPENING
    # Lattice values have variance 1/3, and quadratic spline weights keep (11/20)^2 of it on average.
    return total / math.sqrt(max(energy, 1.0) * (1.0 / 3.0) * (11.0 / 20.0) * (11.0 / 20.0))


def _spline_taps(uniform: Uniform, size: int, spacing: int) -> tuple[npt.NDArray[np.int64], Field]:
    """Quadratic B-spline of a lattice with a random phase: first lattice index [size] and three weights [3, size]."""
    place = (np.arange(size) + spacing * uniform(1)[0]) / spacing
    first = np.floor(place).astype(np.int64)
    part = place - first
    return first, np.stack([0.5 * (1.0 - part) * (1.0 - part), 0.75 - (part - 0.5) * (part - 0.5), 0.5 * part * part])


def _leaf_radius(uniform: Uniform, smallest: float, largest: float) -> float:
    """Draw a radius from the density radius^-3 between two limits, in pixels, by its inverse cumulated density."""
    ratio = smallest / largest
    return float(smallest / np.sqrt(1.0 - uniform(1)[0] * (1.0 - ratio * ratio)))


def _paint_leaf(uniform: Uniform, scene: Field, texture: Field, radius: float) -> None:
    """Lay one ellipse or rectangle with its own colour, shading and texture strength over `scene`, in place."""
    height, width = scene.shape[1:]
    shape, squash, softness, roughness, slope = uniform(5)
    half_height, half_width = radius, radius * (0.25 + 0.75 * squash)
    blur = 1.0 + 3.0 * softness * softness * softness
    centre = uniform(2) * (height, width)
    reach = 1.5 * radius + blur
    top, bottom = max(0, int(centre[0] - reach)), min(height, int(centre[0] + reach) + 1)
    left, right = max(0, int(centre[1] - reach)), min(width, int(centre[1] + reach) + 1)
    down, across = _direction(uniform)
    y = np.arange(top, bottom)[:, np.newaxis] + 0.5 - centre[0]
    x = np.arange(left, right)[np.newaxis, :] + 0.5 - centre[1]
    along, aside = (down * y + across * x) / half_height, (down * x - across * y) / half_width
    # Distance inside the edge in pixels, up to a factor for the ellipse.
    round_shape = 1.0 - np.sqrt(along * along + aside * aside)
    square_shape = 1.0 - np.maximum(np.abs(along), np.abs(aside))
    cover = np.clip(0.5 + (round_shape if shape < 0.7 else square_shape) * half_width / blur, 0.0, 1.0)
    colour = 2.2 * (uniform(3, 1, 1) + uniform(3, 1, 1) - 1.0) * np.array(AXIS_DEVIATIONS).reshape(3, 1, 1)
    surface = colour + (0.9 * roughness * roughness) * texture[:, top:bottom, left:right]
    surface[0] += 0.8 * (slope - 0.5) * aside
    patch = scene[:, top:bottom, left:right]
    patch += cover * (surface - patch)


def _direction(uniform: Uniform) -> Field:
    """Draw a unit vector in any direction, float64 [2], by rejection so that no sine is needed."""
    while True:
        vector = 2.0 * uniform(2) - 1.0
        square = vector[0] * vector[0] + vector[1] * vector[1]
        if 0.01 < square < 1.0:
            return vector / math.sqrt(square)
