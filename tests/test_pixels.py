"""Image files of every kind that people have: what a viewer shows is what is learnt from."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from forgetting import pixels
from forgetting.errors import UserError

SIDE = 16


def read(path, others=()) -> np.ndarray:
    """(H, W, 3) as in a folder of this file and others."""
    try:
        picture = pixels.read_picture(str(path), SIDE, None)
    except pixels.NeedsScale:
        scale = pixels.find_scale([str(p) for p in (path, *others)])
        picture = pixels.read_picture(str(path), SIDE, scale)
    return picture.pixels.transpose(1, 2, 0)


def refusal(path, others=()) -> str:
    with pytest.raises(UserError) as error:
        read(path, others)
    text = str(error.value)
    assert text.startswith("dataset.root: ") and "\n" not in text
    return text


def png(path, values: np.ndarray, bits: int, colour_type: int, transparent=None) -> None:
    """A PNG of any depth (one value a pixel, or several), with a tRNS chunk if asked for."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    height, width = values.shape[:2]
    rows = values.reshape(height, -1)
    if bits == 16:
        rows = rows.astype(">u2").view(np.uint8)
    elif bits < 8:
        shifts = 8 - bits * (1 + np.arange(8 // bits))
        rows = (rows.reshape(height, -1, 8 // bits) << shifts).sum(2)
    content = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    ghost = b"" if transparent is None else struct.pack(f">{len(transparent)}H", *transparent)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"tRNS", ghost) if ghost else b"")
        + chunk(b"IDAT", zlib.compress(content))
        + chunk(b"IEND", b"")
    )


def tiff(path, content: bytes, bits: int, sample_format: int, photometric: int = 1) -> None:
    """An uncompressed grey TIFF of SIDE x SIDE values; sample_format: 1 unsigned, 2 signed, 3
    floats."""
    tags = {
        256: SIDE,
        257: SIDE,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: SIDE,
        279: len(content),
        339: sample_format,
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = struct.pack("<2sHI", b"II", 42, 8 + len(content))
    path.write_bytes(start + content + struct.pack("<H", len(tags)) + entries + bytes(4))


# ------------------------------------------------------------------ upright

# What a camera stores, held so that the picture must be turned by the tag's value.
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, -1),
}


@pytest.mark.parametrize("tag", STORED)
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif", "lzw.tif", "avif", "16.png"])
def test_an_image_is_turned_as_its_tag_says(tmp_path, kind, tag):
    if kind == "avif" and not pixels_can("avif"):
        pytest.skip("this Pillow reads no AVIF")
    upright = np.full((SIDE, SIDE, 3), 40, np.uint8)
    upright[:8, :8] = 250
    upright[:8, 8:] = 160
    grey = kind == "16.png"
    stored = np.ascontiguousarray(STORED[tag](upright))
    image = Image.fromarray(stored[..., 0].astype(np.uint16) * 257 if grey else stored)
    exif = Image.Exif()
    exif[pixels.ORIENTATION] = tag
    options = {
        "jpg": {"quality": 100, "subsampling": 0},
        "webp": {"lossless": True},
        "lzw.tif": {"compression": "tiff_lzw"},
        "avif": {"quality": 100, "subsampling": "4:4:4"},
    }.get(kind, {})
    image.save(tmp_path / f"x.{kind}", exif=exif, **options)
    found = read(tmp_path / f"x.{kind}").astype(int)
    expected = upright.astype(int)
    if grey:  # the folder's largest value is not the container's: 250 * 257 needs all 16 bits
        expected = np.repeat(expected[..., :1], 3, 2)
    assert np.abs(found - expected).max() <= (4 if kind in ("jpg", "avif") else 0)


def pixels_can(what: str) -> bool:
    from PIL import features

    return features.check(what)


@pytest.mark.filterwarnings("error")
def test_a_broken_tag_turns_nothing(tmp_path):
    image = Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE))
    image.save(tmp_path / "x.png", exif=b"Exif\0\0MM\0*garbage")
    assert (read(tmp_path / "x.png")[..., 0] == np.asarray(image)).all()


# ------------------------------------------------------------------ transparent

INK = {"black": 0, "white": 255}


def drawing(ink: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey values and alpha of a bar of ink on transparent ground of the same ink."""
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    alpha[4:8] = 255
    return np.full((SIDE, SIDE), ink, np.uint8), alpha


def save_transparent(kind: str, path, ink: int) -> None:
    grey, alpha = drawing(ink)
    other = np.where(alpha, grey, 100).astype(np.uint8)  # where one value means transparent
    if kind == "LA":
        Image.merge("LA", [Image.fromarray(x) for x in (grey, alpha)]).save(path)
    elif kind == "palette":
        image = Image.fromarray((alpha > 0).astype(np.uint8), "P")
        image.putpalette([ink] * 6)
        image.save(path, transparency=bytes([0, 255]))
    elif kind == "gif":
        image = Image.fromarray((alpha > 0).astype(np.uint8), "P")
        image.putpalette([ink] * 6)
        image.save(path, "GIF", transparency=0)
    elif kind == "RGB and a colour":
        png(path, np.stack([other] * 3, 2), 8, 2, (100, 100, 100))
    elif kind == "RGB of 16 bits and a colour":
        png(path, np.stack([other.astype(np.uint16) * 257] * 3, 2), 16, 2, (25700,) * 3)
    elif kind == "L and a value":
        png(path, other, 8, 0, (100,))
    elif kind == "2 bits and a value":
        png(path, np.where(alpha, ink // 85, 1), 2, 0, (1,))
    elif kind == "4 bits and a value":
        png(path, np.where(alpha, ink // 17, 7), 4, 0, (7,))
    elif kind == "1 bit and a value":
        png(path, np.where(alpha, ink // 255, 1 - ink // 255), 1, 0, (1 - ink // 255,))
    elif kind == "16 bits and a value":
        png(path, other.astype(np.uint16) * 257, 16, 0, (25700,))
    else:
        image = Image.merge("RGBA", [Image.fromarray(x) for x in (grey, grey, grey, alpha)])
        image.save(path, kind, lossless=True)


@pytest.mark.parametrize("ink", INK)
@pytest.mark.parametrize(
    "kind",
    [
        *("PNG", "WEBP", "TIFF", "LA", "palette", "gif", "RGB and a colour", "L and a value"),
        *("1 bit and a value", "2 bits and a value", "4 bits and a value", "16 bits and a value"),
        "RGB of 16 bits and a colour",
    ],
)
def test_ink_differs_from_a_transparent_ground(tmp_path, kind, ink):
    save_transparent(kind, tmp_path / "x.png", INK[ink])
    bright = tmp_path / "bright.png"  # so that 16 bits are 16 bits
    png(bright, np.full((SIDE, SIDE), 65535, np.uint16), 16, 0)
    found = read(tmp_path / "x.png", [bright])
    assert (found[4:8] == INK[ink]).all()
    assert (found[:4] == pixels.GROUND).all() and (found[8:] == pixels.GROUND).all()


def test_half_transparent_is_half_ground(tmp_path):
    Image.new("RGBA", (SIDE, SIDE), (255, 0, 128, 128)).save(tmp_path / "x.png")
    assert np.abs(read(tmp_path / "x.png")[0, 0].astype(int) - (192, 64, 128)).max() <= 1


# ------------------------------------------------------------------ more than 8 bits


def ramp(top, dtype) -> np.ndarray:
    return np.linspace(0, top, SIDE * SIDE).reshape(SIDE, SIDE).astype(dtype)


def test_sixteen_bits_are_scaled_alike_in_a_whole_folder(tmp_path):
    for name, top in (("dark", 20000), ("bright", 65535)):
        Image.fromarray(ramp(top, np.uint16)).save(tmp_path / f"{name}.png")
    dark = read(tmp_path / "dark.png", [tmp_path / "bright.png"])
    assert (dark[..., 0] == (ramp(20000, np.uint16) / 257).round()).all()


def test_the_endian_and_the_container_make_no_difference(tmp_path):
    values = ramp(65535, np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    tiff(tmp_path / "little.tif", values.astype("<u2").tobytes(), 16, 1)
    Image.frombytes("I;16B", (SIDE, SIDE), values.astype(">u2").tobytes()).save(
        tmp_path / "big.tif"
    )
    pgm = f"P5 {SIDE} {SIDE} 65535 ".encode() + values.astype(">u2").tobytes()
    (tmp_path / "x.pgm").write_bytes(pgm)
    expected = (values / 257).round()
    for name in ("x.png", "little.tif", "big.tif", "x.pgm"):
        assert (read(tmp_path / name)[..., 0] == expected).all(), name


def test_twelve_bits_are_not_taken_for_sixteen(tmp_path):
    values = ramp(4095, np.uint16)
    expected = (values / 4095 * 255).round()
    Image.fromarray(values).save(tmp_path / "x.png")  # they come in 16
    pairs = values.reshape(-1, 2).astype(int)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1
    )
    tiff(tmp_path / "x.tif", packed.astype(np.uint8).tobytes(), 12, 1)
    (tmp_path / "x.pgm").write_bytes(
        f"P5 {SIDE} {SIDE} 4095 ".encode() + values.astype(">u2").tobytes()
    )
    for name in ("x.png", "x.tif", "x.pgm"):
        assert (read(tmp_path / name)[..., 0] == expected).all(), name
    assert (read(tmp_path / "x.tif", [tmp_path / "x.pgm"])[..., 0] == expected).all()
    said = refusal(tmp_path / "x.tif", [tmp_path / "x.png"])  # 12 stated bits beside 12 of 16
    assert "x.tif holds whole numbers of fewer than 16 bits" in said


def test_thirty_two_bits_and_signs(tmp_path):
    tiff(tmp_path / "high.tif", ramp(2**32 - 1, np.uint32).astype("<u4").tobytes(), 32, 1)
    assert (read(tmp_path / "high.tif")[..., 0] == (ramp(255, float)).round()).mean() > 0.95
    tiff(tmp_path / "low.tif", ramp(255, "<u4").tobytes(), 32, 1)  # 8 bits in 32
    assert (read(tmp_path / "low.tif")[..., 0] == ramp(255, np.uint32)).all()
    hounsfield = ramp(4000, "<i2") - np.int16(1000)
    tiff(tmp_path / "signed.tif", hounsfield.astype("<i2").tobytes(), 16, 2)
    expected = ((hounsfield.astype(float) + 1000) / 4000 * 255).round()
    assert (read(tmp_path / "signed.tif")[..., 0] == expected).all()


def test_floats_have_one_scale_in_a_folder(tmp_path):
    for name, top in (("half", 0.5), ("one", 1.0), ("many", 255.0)):
        tiff(tmp_path / f"{name}.tif", ramp(top, "<f4").tobytes(), 32, 3)
    half, one, many = (tmp_path / f"{name}.tif" for name in ("half", "one", "many"))
    assert read(half, [one]).max() == 128 and read(one, [half]).max() == 255
    assert read(one, [many]).max() == 1 and read(many, [one]).max() == 255
    negative = tmp_path / "negative.tif"
    tiff(negative, (ramp(2.0, "<f4") - 1).astype("<f4").tobytes(), 32, 3)
    assert read(negative).min() == 0 and read(negative).max() == 255
    assert abs(int(read(one, [negative])[0, 0, 0]) - 128) <= 1  # zero is in the middle


def test_what_has_no_one_scale_is_refused(tmp_path):
    floats, whole, none = tmp_path / "floats.tif", tmp_path / "whole.png", tmp_path / "none.tif"
    tiff(floats, ramp(1, "<f4").tobytes(), 32, 3)
    Image.fromarray(ramp(65535, np.uint16)).save(whole)
    said = refusal(floats, [whole])
    assert "floats.tif holds floats" in said and "whole.png whole numbers of 16 bits" in said
    tiff(none, np.full((SIDE, SIDE), np.nan, "<f4").tobytes(), 32, 3)
    assert "not finite" in refusal(none)
    tiff(none, ramp(65535, "<u2").tobytes(), 16, 1, photometric=0)
    assert "its 0 is white" in refusal(none)


def test_colours_of_sixteen_bits(tmp_path):
    values = np.stack([ramp(65535, np.uint16)] * 3, 2)
    png(tmp_path / "x.png", values, 16, 2)
    assert (read(tmp_path / "x.png")[..., 0] == values[..., 0] >> 8).all()
    png(tmp_path / "x.png", values // 16, 16, 2)  # 12 bits in 16: Pillow would keep 4 of them
    assert "only the upper 8" in refusal(tmp_path / "x.png")
    opaque = np.full((SIDE, SIDE, 1), 65535)
    png(tmp_path / "x.png", np.concatenate([values // 16, opaque], 2), 16, 6)
    assert "only the upper 8" in refusal(tmp_path / "x.png")


# ------------------------------------------------------------------ all the rest


def test_other_kinds_of_pixels(tmp_path):
    Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(read(tmp_path / "cmyk.jpg")[0, 0].astype(int) - (255, 0, 0)).max() <= 2
    half = np.zeros((SIDE, SIDE), bool)
    half[:8] = True
    for name in ("bit.png", "bit.tif", "bit.pbm"):
        Image.fromarray(half).save(tmp_path / name)
        assert (read(tmp_path / name)[..., 1] == half * 255).all(), name


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_pictures_the_first_is_taken(tmp_path, kind):
    first, second = (Image.new("RGB", (SIDE, SIDE), c) for c in ("red", "blue"))
    first.save(tmp_path / "x", kind, save_all=True, append_images=[second], lossless=True)
    picture = pixels.read_picture(str(tmp_path / "x"), SIDE, None)
    assert picture.several and picture.pixels[:, 0, 0].tolist() == [255, 0, 0]
    first.save(tmp_path / "x", kind)
    assert not pixels.read_picture(str(tmp_path / "x"), SIDE, None).several


def test_the_content_counts_not_the_name(tmp_path):
    Image.new("RGB", (SIDE, SIDE), (1, 2, 3)).save(tmp_path / "x.jpg", "PNG")
    assert read(tmp_path / "x.jpg")[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"\xff\x0a" + bytes(30), "JPEG XL"),
        (bytes(100), "no format that Pillow knows"),
    ],
)
def test_what_is_no_image_is_called_so(tmp_path, content, said):
    (tmp_path / "x.jpg").write_bytes(content)
    text = refusal(tmp_path / "x.jpg")
    assert "x.jpg is no image that can be read here" in text and said in text


def test_each_failure_has_its_name(tmp_path, monkeypatch):
    path = tmp_path / "a\nb.png"
    Image.effect_noise((64, 64), 50).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert r"a\nb.png is not a whole image (" in refusal(path)
    path.write_bytes(whole)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "million pixels, which Pillow does not open" in refusal(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    assert read(path).shape == (SIDE, SIDE, 3)
    assert "No such file" in refusal(tmp_path / "gone.png")
    path.chmod(0)
    root = os.geteuid() == 0  # who may read everything
    if root:
        tmp_path.chmod(0o755)
        monkeypatch.chdir(tmp_path)  # the folders above are root's alone
        os.seteuid(65534)
    try:
        assert "cannot read" in (said := refusal(path.name)) and "Permission denied" in said
    finally:
        if root:
            os.seteuid(0)
