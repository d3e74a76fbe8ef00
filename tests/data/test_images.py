import io
import warnings

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from hadas_jax.data.images import ImageError, decode, fit, random_fit, read_header


def saved(image, ending="png", **options):
    file = io.BytesIO()
    image.save(file, ending, **options)
    return file.getvalue()


def drawn(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("mode", "ending"),
    [("RGB", "png"), ("RGB", "bmp"), ("RGB", "webp"), ("RGBA", "png"), ("P", "png"), ("CMYK", "jpeg"), ("L", "png")],
)
def test_images_of_every_mode_become_coloured_ones(tmp_path, mode, ending):
    image = Image.fromarray(drawn(5, 7, 3)).convert(mode)
    content = saved(image, ending, **({"lossless": True} if ending == "webp" else {}))
    pixels = decode(content, channels=3, name="x")
    expected = np.asarray(image.convert("RGB"))
    assert pixels.shape == (5, 7, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.astype(int), expected.astype(int), atol=110 if ending == "jpeg" else 0)
    path = tmp_path / f"x.{ending}"
    path.write_bytes(content)
    assert read_header(path) == (5, 7, 1 if mode == "L" else 3)
    assert (decode(path, channels=3, name="x") == pixels).all()


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_images_keep_one_channel_where_one_is_wanted(mode):
    image = Image.fromarray(drawn(4, 6)).convert(mode)
    pixels = decode(saved(image), channels=1, name="x")
    assert pixels.shape == (4, 6, 1)
    assert (pixels[..., 0] == np.asarray(image.convert("L"))).all()


def test_a_palette_with_transparency_is_read():
    image = Image.fromarray(drawn(4, 6, 3)).convert("P")
    assert decode(saved(image, transparency=b"\0" * 20), channels=3, name="x").shape == (4, 6, 3)


BROKEN = {
    "nothing": b"",
    "text": b"not an image",
    "half a file": saved(Image.fromarray(drawn(40, 40, 3)))[:900],
    "half a jpeg": saved(Image.fromarray(drawn(40, 40, 3)), "jpeg")[:700],
    "16 bits": saved(Image.fromarray(drawn(4, 4).astype(np.uint16))),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_image_of_8_bits_is_named(case):
    with pytest.raises(ImageError, match="expected an image of 8 bits, cannot read cats/7") as caught:
        decode(BROKEN[case], channels=3, name="cats/7")
    assert caught.value.image == "cats/7"


def test_a_coloured_image_among_grey_ones_is_named():
    with pytest.raises(ImageError, match=r"cannot read x \(in colour, where others are grey\)"):
        decode(saved(Image.fromarray(drawn(4, 4, 3))), channels=1, name="x")


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_that_fits_is_left_as_it_is(channels):
    pixels = drawn(6, 6, channels)
    assert (fit(pixels, 6) == pixels).all()


@pytest.mark.parametrize(("height", "width"), [(6, 10), (10, 6)])
def test_the_middle_is_kept(height, width):
    pixels = drawn(height, width, 3)
    side = slice(2, 8)
    expected = pixels[:, side] if width > height else pixels[side]
    assert (fit(pixels, 6) == expected).all()


def test_the_short_side_is_resized():
    ramp = np.broadcast_to(np.arange(0, 200, 2, dtype=np.uint8)[None, :, None], (40, 100, 3))
    small = fit(np.ascontiguousarray(ramp), 10)
    assert small.shape == (10, 10, 3)
    expected = 60 + 3 + 8 * np.arange(10)  # the middle 40 columns hold 60 .. 138, four to a new column
    np.testing.assert_allclose(small[5, 1:-1, 0], expected[1:-1], atol=1)


def test_random_parts_keep_colours_and_depend_on_the_generator_alone():
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :15] = (200, 10, 10)
    pixels[:, 15:] = (10, 10, 200)
    parts = [random_fit(pixels, 8, np.random.default_rng(seed)).astype(int) for seed in range(40)]
    again = [random_fit(pixels, 8, np.random.default_rng(seed)) for seed in range(40)]
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))
    assert {part.shape for part in parts} == {(8, 8, 3)}
    red_left = sum(part[4, 0, 0] > part[4, -1, 0] + 50 for part in parts)
    red_right = sum(part[4, -1, 0] > part[4, 0, 0] + 50 for part in parts)
    assert red_left > 4
    assert red_right > 4
    assert len({part.tobytes() for part in parts}) > 10


def test_a_random_part_of_a_very_long_image_is_taken_all_the_same():
    assert random_fit(drawn(2, 200, 1), 8, np.random.default_rng(0)).shape == (8, 8, 1)


def oriented(image, ending, orientation, **options):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return saved(image, ending, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpeg", "png", "webp", "tiff", "avif"])
def test_images_are_turned_as_viewers_show_them(tmp_path, ending, orientation):
    image = Image.fromarray(np.repeat(np.repeat(drawn(2, 3), 8, axis=0), 8, axis=1))
    content = oriented(image.convert("RGB"), ending, orientation)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    plain = np.asarray(Image.open(io.BytesIO(saved(image.convert("RGB"), ending))).convert("RGB"))
    assert expected.shape == ((24, 16, 3) if orientation > 4 else (16, 24, 3))
    assert (np.abs(expected[:4, :4].astype(int) - plain[:4, :4]).mean() > 9) == (orientation > 1 and orientation != 5)
    assert (decode(content, channels=3, name="x") == expected).all()
    path = tmp_path / f"x.{ending}"
    path.write_bytes(content)
    assert read_header(path) == (*expected.shape[:2], 3)


def test_the_orientation_behind_the_pixels_of_a_png_file_counts():
    content = oriented(Image.fromarray(drawn(2, 3)), "png", 6)
    start = content.index(b"eXIf") - 4
    length = 12 + int.from_bytes(content[start : start + 4], "big")
    late = content[:start] + content[start + length : -12] + content[start : start + length] + content[-12:]
    assert decode(late, channels=1, name="x").shape == (3, 2, 1)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0rubbish", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"\0"])
def test_damaged_exif_is_passed_over(tmp_path, exif):
    image = Image.fromarray(drawn(2, 3))
    (tmp_path / "x.png").write_bytes(saved(image, exif=exif))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own
        assert read_header(tmp_path / "x.png") == (2, 3, 1)
        assert (decode(tmp_path / "x.png", channels=1, name="x")[..., 0] == np.asarray(image)).all()


def test_a_turned_photo_with_odd_other_tags_is_read():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.MakerNote] = b"\xff" * 9
    exif[0xC4A5] = b"PrintIM"
    content = saved(Image.fromarray(drawn(16, 24)), "jpeg", exif=exif)
    assert decode(content, channels=1, name="x").shape == (24, 16, 1)


@pytest.mark.parametrize("ending", ["jpe", "jfif", "tga", "jp2", "qoi", "pcx", "dib", "pgm", "ico", "sgi", "avif"])
def test_every_kind_of_file_that_pillow_writes_is_read(tmp_path, ending):
    image = Image.fromarray(drawn(16, 16))
    path = tmp_path / f"x.{ending}"
    image.convert("L" if ending not in ("qoi", "jp2", "avif") else "RGB").save(path)
    expected = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))
    assert read_header(path)[:2] == (16, 16)
    assert (decode(path, channels=3, name="x") == expected).all()
