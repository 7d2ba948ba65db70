"""Lines of text with known truth, for calibrating and scoring a recogniser without any photograph.

Words, prices, dates and codes are rendered with the scalable font that Pillow carries, then treated as a camera would:
slant, rotation, colours, uneven light, blur, noise and JPEG. The strength is chosen so that a good recogniser misreads
some of them; with a score of 100 % a loss could not be seen.
"""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from converter.calibration.preprocess import Preprocess, apply_preprocess

__all__ = ["CALIBRATION_SEED", "TEST_SEED", "TextLine", "pixels", "render_lines"]

CALIBRATION_SEED, TEST_SEED = 1000, 1
"""Of the demo's lines."""

_HEIGHT, _WIDTH = 48, 320
_SYMMETRIC = Preprocess((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "stretch")

# The mask is drawn this much larger and shrunk afterwards, so that slanted edges stay smooth.
OVERSAMPLING = 2

WORD_LIST = """
able account acre after agenda airport album almond amber anchor animal apple april arch arrow artist august autumn
avenue bakery balance bamboo barrel basket beacon bicycle bishop blanket border bottle branch breeze bridge bronze
budget butter cabin camera candle canyon carbon castle cellar cheese cherry chimney circle citizen clover coffee
column copper corner cotton credit cricket crystal daily dancer decade degree delta desert diamond dinner doctor
dragon driver eagle early eastern editor eleven engine evening event fabric factory family farmer feather figure
filter finger flower forest formula fountain fragile friday galaxy garden general ginger glacier golden granite gravel
guitar hammer harbour harvest heaven helmet hidden history holiday honest hotel hundred iceberg imperial index inland
island ivory jacket january jewel journal juice jungle justice kettle keyboard kingdom kitchen ladder language lantern
laundry lemon level library linen liquid lizard local lucky machine magnet maple marble market meadow measure medical
melody mercury middle mineral mirror modern moment monday mosaic motor museum napkin narrow natural needle network
nickel night normal notice number oasis ocean office olive onion open orange orbit organ oxygen oyster packet palace
paper parcel parking partner pebble pencil pepper perfect piano pilot planet plastic pocket police portal powder
premium private pumpkin quality quarter quiet rabbit railway random receipt record region ribbon river rocket royal
safety salmon sample saturn school season second select server shadow signal silver simple sister smooth socket solar
spirit spring square station street studio summer sunday supply system tablet target temple theatre ticket tiger
timber total tower traffic travel tunnel umbrella uniform unique upper urban valley velvet version village violet
virtual vision voyage wagon walnut water weather weekly welcome western whisper window winter wisdom wonder yellow
yogurt zebra zero zigzag
"""
WORDS = tuple(WORD_LIST.split())

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True)
class TextLine:
    """One rendered line.

    Attributes:
        text: what is written on it; printable ASCII.
        image: RGB picture, 8 bits a channel.
    """

    text: str
    image: Image.Image


def render_lines(count: int, seed: int, height: int = 48, width: int = 320) -> list[TextLine]:
    """Render lines of text.

    Args:
        count: how many; line i is the same whatever the count.
        seed: different seeds give different lines.
        height: of each picture, in pixels.
        width: of each picture, in pixels.

    Returns:
        The lines, deterministic for one version of Pillow.
    """
    return [_render(random.Random(f"{seed}/{index}"), height, width) for index in range(count)]


def pixels(line: TextLine) -> npt.NDArray[np.float32]:
    """A rendered line as the recogniser wants it, float32 [3, 48, 320]."""
    return apply_preprocess(line.image, _HEIGHT, _WIDTH, 3, _SYMMETRIC)


def _render(rng: random.Random, height: int, width: int) -> TextLine:
    """Compose one line: text, mask, colours, then what a camera does to it."""
    text, mask = _text_that_fits(rng, height, width)
    darker, brighter = _colours(rng)
    paper, ink = (brighter, darker) if rng.random() < 0.7 else (darker, brighter)
    noise = np.random.Generator(np.random.PCG64(rng.getrandbits(64)))
    cover = np.asarray(mask, dtype=np.float64)[:, :, np.newaxis] / 255.0
    pixels = cover * np.array(ink) + (1.0 - cover) * np.array(paper)
    down, across = np.linspace(-0.5, 0.5, height)[:, np.newaxis], np.linspace(-0.5, 0.5, width)[np.newaxis, :]
    angle, strength = rng.uniform(0.0, 2.0 * math.pi), rng.choice((0.0, 30.0, 60.0, 90.0))
    pixels += (strength * (math.sin(angle) * down + math.cos(angle) * across))[:, :, np.newaxis]
    pixels += noise.normal(0.0, rng.choice((0.0, 4.0, 8.0, 12.0)), pixels.shape)
    image = Image.fromarray(np.rint(pixels.clip(0.0, 255.0)).astype(np.uint8))
    if rng.random() < 0.7:
        image = _through_jpeg(image, rng.randint(25, 90))
    return TextLine(text, image)


def _text_that_fits(rng: random.Random, height: int, width: int) -> tuple[str, Image.Image]:
    """Draw texts until one fills the line, as a detector would have cut it out; returns it with its mask, L [height, width]."""
    while True:
        text = _compose(rng)
        # The font's own gap between words is so narrow that the recogniser drops it even from perfect pictures.
        spaced = text.replace(" ", "  ")
        font = ImageFont.load_default(size=rng.uniform(0.56, 0.78) * height * OVERSAMPLING)
        stroke = rng.choice((0, 0, 0, 1, 2))
        left, top, right, bottom = font.getbbox(spaced, stroke_width=stroke)
        slack_across, slack_down = width * OVERSAMPLING * 0.96 - (right - left), height * OVERSAMPLING * 0.92 - (bottom - top)
        if not 0 <= slack_across <= 0.25 * width * OVERSAMPLING or slack_down < 0:
            continue
        canvas = Image.new("L", (width * OVERSAMPLING, height * OVERSAMPLING))
        place = (0.02 * canvas.width + rng.random() * slack_across - left, 0.04 * canvas.height + rng.random() * slack_down - top)
        ImageDraw.Draw(canvas).text(place, spaced, fill=255, font=font, stroke_width=stroke)
        # One degree moves the ends of a line of 320 by 3 pixels each, as much as the margins bear.
        tilt, shear = math.tan(math.radians(rng.uniform(-0.8, 0.8))), rng.uniform(-0.25, 0.25)
        slant = (1.0, shear, -shear * canvas.height / 2, tilt, 1.0, -tilt * canvas.width / 2)
        slanted = canvas.transform(canvas.size, Image.Transform.AFFINE, slant, Image.Resampling.BICUBIC)
        mask = slanted.resize((width, height), Image.Resampling.BOX)
        return text, mask.filter(ImageFilter.GaussianBlur(rng.choice((0.0, 0.4, 0.7, 1.0))))


def _compose(rng: random.Random) -> str:
    """Make up one text: words in some case, or a word and a number as they stand on receipts, labels and signs."""
    words = rng.choice((str.lower, str.title, str.upper, str.capitalize))(" ".join(rng.choices(WORDS, k=rng.randint(1, 4))))
    if rng.random() < 0.55:
        return words
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1950, 2029)
    number = rng.choice(
        (
            f"${rng.randint(0, 999)}.{rng.randint(0, 99):02d}",
            f"{day} {MONTHS[month - 1]} {year}",
            f"{year}-{month:02d}-{day:02d}",
            f"{month:02d}/{day:02d}/{year}",
            f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}",
            f"{rng.randint(1, 99)}%",
            f"{rng.randint(1000, 999999)}",
            "".join(rng.choices("ABCDEFGHKLMNPRSTUVWXYZ", k=3)) + f"-{rng.randint(1000, 9999)}",
        )
    )
    return f"{words} {number}" if rng.random() < 0.7 else f"{number} {words}"


def _colours(rng: random.Random) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draw a darker and a brighter colour at least 90 grey levels apart, so that a person can still read the line."""
    while True:
        one, other = (tuple(rng.randint(0, 255) for _ in range(3)) for _ in range(2))
        darker, brighter = sorted((one, other), key=_luma)
        if _luma(brighter) - _luma(darker) >= 90.0:
            return darker, brighter


def _luma(colour: tuple[int, ...]) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Leave the marks of lossy compression on a picture."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
