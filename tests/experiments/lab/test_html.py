"""Elements of the page escape what they are given; pictures are inside."""

import numpy as np
import PIL.Image
import pytest

from distilljax.types import InputError
from experiments.lab.html import MOST_PIXELS, PIXELS_SHOWN, el, join, picture


def drawn(path, size=(40, 30), noise=False):
    values = np.full((size[1], size[0], 3), 200, np.uint8)
    if noise:
        values = np.random.default_rng(0).integers(0, 256, values.shape, np.uint8)
    PIL.Image.fromarray(values).save(path)


def test_large_pictures_are_made_smaller(tmp_path):
    drawn(tmp_path / "small.png")
    small = picture(tmp_path / "small.png", "alt", "caption")
    assert "data:image/png" in small
    drawn(tmp_path / "large.png", (2400, 600), noise=True)
    large = picture(tmp_path / "large.png", "alt", "caption")
    assert "data:image/webp" in large
    assert f'width="{round(PIXELS_SHOWN * MOST_PIXELS)}"' in large
    assert len(large) < (tmp_path / "large.png").stat().st_size


@pytest.mark.parametrize("content", [b"no picture", b"\x89PNG\r\n\x1a\n" + b"0" * 600_000])
def test_what_is_no_picture_is_refused(tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.png is no picture"):
        picture(tmp_path / "broken.png", "alt", "caption")


def test_elements_escape_text_and_attributes():
    made = el("p", "a < b & c", title='"quoted"')
    assert made == '<p title="&quot;quoted&quot;">a &lt; b &amp; c</p>'
    assert el("p", made) == f"<p>{made}</p>"
    assert el("p", None, ["x", None], class_="y") == '<p class="y">x</p>'
    assert el("img", src="data:,") == '<img src="data:,">'
    assert join("5 %") == "5\u00a0%"
