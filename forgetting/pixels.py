"""One image file of any kind as the uint8 pixels that a viewer shows."""

import os
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from forgetting.errors import UserError
from forgetting.names import printable

# Under what is transparent: neither black nor white ink may vanish.
GROUND = 128
ORIENTATION = 0x0112  # a tag of EXIF and TIFF
PHOTOMETRIC, SAMPLE_IS_WHITE_AT_ZERO = 262, 0  # a tag of TIFF
# Their "transparency" is in the file's few bits, their pixels in 8.
FEW_BITS = {"L;2": 85, "L;4": 17}
COLOURS_OF_16_BITS = (";16B", ";16L", ";16N")  # ends of what Pillow calls such layouts
NUMBERS, FLOATS = "whole numbers of 16 bits", "floats"
MOST_NAMED = 5  # files that cannot be read
STATED = "whole numbers of fewer than 16 bits"


class NeedsScale(Exception):
    """An image's values have more than 8 bits: what is black and white must be known first."""


@dataclass(frozen=True)
class Scale:
    """One rule for all images of more than 8 bits in a folder: `black` becomes 0, `white` 255."""

    kind: str  # in what numbers the values come
    black: float
    white: float

    def __str__(self) -> str:
        return f"{self.kind}: {self.black:g} is black and {self.white:g} white"


@dataclass(frozen=True)
class Picture:
    """Pixels (3, S, S) uint8; whether the file holds further pictures; the file as it was read."""

    pixels: np.ndarray
    several: bool
    stat: os.stat_result


def read_picture(path: str, size: int, scale: Scale | None) -> Picture:
    """The image, upright, on a grey ground where it is transparent, its shorter side resized to
    `size` and the middle cut out. Raises NeedsScale, or UserError with the reason in one line."""
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            several = _holds_several(image)
            shown = _shown(image, scale)
            if shown.size != (size, size):
                shown = ImageOps.fit(shown, (size, size), Image.Resampling.BICUBIC)
            return Picture(np.asarray(shown).transpose(2, 0, 1), several, os.fstat(file.fileno()))
    except Exception as error:  # of a damaged file, a decoder may make anything
        raise _refusal(path, error) from None


def find_scale(paths: Iterable[str]) -> Scale:
    """The scale of all images of more than 8 bits among `paths`.

    Whole numbers: white is what the files state, else the largest of as few bits (8, 10, 12, ...)
    as hold the folder's largest value, so that 12 bits may come in a container of 16. Floats and
    signed numbers: black is 0, or the smallest value if that is negative, and white is the largest.
    Raises UserError where one rule cannot fit all.
    """
    found: dict[str, tuple[str, float, float]] = {}  # kind -> an example, least and largest value
    colours = None
    for path in paths:
        try:
            with Image.open(path) as image:
                kind = _kind(image)
                if not kind:
                    continue
                if _has_deep_colours(image):
                    colours = path
                values = _values(image)
        except Exception as error:
            raise _refusal(path, error) from None
        _, least, largest = found.get(kind, (path, np.inf, -np.inf))
        found[kind] = (path, min(least, values.min()), max(largest, values.max()))
    if not found:
        raise UserError("dataset.root: images changed while they were read; start again")
    if len(found) > 1:
        (one, (path, *_)), (other, (other_path, *_)) = list(found.items())[:2]
        raise UserError(
            f"dataset.root: {printable(path)} holds {one} and {printable(other_path)} {other}: "
            f"what is white in both cannot be known; give all images 8 bits, or one kind"
        )
    ((kind, (_, least, largest)),) = found.items()
    if kind == FLOATS or least < 0:
        black = min(0.0, float(least))
        return Scale(kind, black, float(largest) if largest > black else black + 1)
    bits = 16 if kind == STATED else 8
    while 2**bits - 1 < largest:
        bits += 2
    if colours and bits < 16:
        raise UserError(
            f"dataset.root: {printable(colours)} has colours of 16 bits, and no image uses more "
            f"than {bits}; only the upper 8 of 16 can be read: save them with 8"
        )
    return Scale(kind, 0.0, 2.0**bits - 1)


# ------------------------------------------------------------------ what a file holds


def _refusal(path: str, error: Exception) -> Exception:
    """Why a file cannot be read, in one line."""
    name = f"dataset.root: {printable(path)}"
    if isinstance(error, NeedsScale | UserError):
        return error
    if isinstance(error, UnidentifiedImageError):
        return UserError(
            f"{name} is no image that can be read here ({_content(path)}); convert it to PNG or "
            f"JPEG, or remove it"
        )
    if isinstance(error, Image.DecompressionBombError):
        millions = 2 * Image.MAX_IMAGE_PIXELS // 10**6
        return UserError(
            f"{name} has more than {millions} million pixels, which Pillow does not open; make it "
            f"smaller or remove it"
        )
    if isinstance(error, MemoryError):
        return UserError(f"{name} does not fit in memory; make it smaller or remove it")
    if isinstance(error, OSError) and error.errno:
        return UserError(f"dataset.root: cannot read {printable(path)}: {error.strerror}")
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{name} is not a whole image ({printable(reason)}); replace or remove it")


def as_one(refused: Sequence[tuple[str, UserError]]) -> UserError:
    """Of some files that cannot be read, (path, why): the first with its reason, and the others."""
    (_, first), *others = refused
    named = [printable(path) for path, _ in others[:MOST_NAMED]]
    if len(others) > MOST_NAMED:
        named.append(f"{len(others) - MOST_NAMED:,} more")
    return UserError(f"{first}; nor can {', '.join(named)} be read" if others else str(first))


def _content(path: str) -> str:
    """What a file is that Pillow does not know."""
    with open(path, "rb") as file:
        start = file.read(12)
    if not start:
        return "it is empty"
    if start[4:8] == b"ftyp":  # ISO 14496-12
        brand = start[8:].decode("latin-1").strip()
        return {"heic": "HEIC", "heix": "HEIC", "mif1": "HEIF"}.get(brand, printable(brand))
    if start.startswith(b"\xff\x0a") or start.startswith(b"\0\0\0\x0cJXL "):
        return "JPEG XL"
    if start.lstrip().startswith(b"<"):
        return "a text such as HTML or SVG"
    return "no format that Pillow knows"


def _holds_several(image: Image.Image) -> bool:
    # In a JPEG, what follows is a preview or a depth map.
    with suppress(Exception):  # the first one may be whole
        return image.format not in ("JPEG", "MPO") and getattr(image, "is_animated", False)
    return False


def _shown(image: Image.Image, scale: Scale | None) -> Image.Image:
    """The image as RGB of 8 bits a channel."""
    rawmode, deep = _rawmode(image), _kind(image)
    if deep:
        if not scale:
            raise NeedsScale
        if image.mode[0] in "IF":
            return _turned(_scaled(image, scale), image)
    image.load()
    if image.has_transparency_data:
        key = image.info.get("transparency")
        if isinstance(key, tuple) and deep:
            image.info["transparency"] = tuple(channel >> 8 for channel in key)
        elif rawmode in FEW_BITS and isinstance(key, int):
            image.info["transparency"] = key * FEW_BITS[rawmode]
        ground = Image.new("RGBA", image.size, (GROUND, GROUND, GROUND, 255))
        ground.alpha_composite(image.convert("RGBA"))
        return _turned(ground.convert("RGB"), image)
    return _turned(image if image.mode == "RGB" else image.convert("RGB"), image)


# A value of ORIENTATION -> what sets the image upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turned(pixels: Image.Image, image: Image.Image) -> Image.Image:
    """`pixels` as the orientation that `image` was stored with says."""
    if image.format == "JPEG" and not image.info.keys() & {"exif", "xmp"}:
        return pixels  # as are most: getexif() would cost a tenth of the reading
    try:
        with warnings.catch_warnings(action="ignore"):
            turn = TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:  # what cannot be read is passed over, as viewers do
        return pixels
    return pixels if turn is None else pixels.transpose(turn)


# ------------------------------------------------------------------ more than 8 bits


def _rawmode(image: Image.Image) -> str:
    """How Pillow names the layout of the values in the file."""
    args = image.tile[0].args if image.tile else ""
    return args if isinstance(args, str) else str(args[0]) if args else ""


def _has_deep_colours(image: Image.Image) -> bool:
    return image.mode[0] not in "IF" and _rawmode(image).endswith(COLOURS_OF_16_BITS)


def _kind(image: Image.Image) -> str | None:
    """In what numbers the image's values come; None: in 8 bits or fewer."""
    if image.mode == "F":
        return FLOATS
    if image.mode[0] == "I":
        rawmode = _rawmode(image)
        if rawmode == "I;12" or (image.format == "PPM" and image.tile[0].codec_name != "raw"):
            return STATED
        if image.mode == "I" and image.format != "PPM":
            return f"whole numbers of {'16 bits with a sign' if '16' in rawmode else '32 bits'}"
        return NUMBERS
    return NUMBERS if _has_deep_colours(image) else None


def _values(image: Image.Image) -> np.ndarray:
    """All values of an image of more than 8 bits, (H, W) or (H, W, C) float64; of kind STATED,
    from 0 to 65535."""
    rawmode = _rawmode(image)
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == SAMPLE_IS_WHITE_AT_ZERO:
        raise ValueError("its 0 is white, which is read only where there are 8 bits")
    values = np.asarray(image)
    if rawmode == "I;32N":  # Pillow has no mode for a number of 32 bits without a sign
        values = values.view(np.uint32)
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite numbers")
    if rawmode == "I;12":
        values = values * 65535 / 4095  # exact at the ends
    elif image.mode[0] not in "IF":  # Pillow keeps the upper 8 bits; a fourth channel is alpha
        values = values[..., :3] * 257
    return values


def _scaled(image: Image.Image, scale: Scale) -> Image.Image:
    """The image as grey of 8 bits; where one value of it means transparent, on the ground."""
    values = _values(image)
    grey = (values - scale.black) * (255 / (scale.white - scale.black))
    grey = grey.round().clip(0, 255).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey[values == key] = GROUND
    return Image.fromarray(grey).convert("RGB")
