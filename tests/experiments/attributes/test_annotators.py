"""Attributes of images whose attributes are known."""

import colorsys
import json
import string
import sys

import numpy as np
import pytest

from distilljax.types import InputError
from experiments.attributes.annotators import Clip, Measured, measured
from experiments.attributes.annotators import clip as clip_annotator


def columns(images):
    """Name -> f32[n]."""
    table = Measured()(np.asarray(images))
    assert table.values.dtype == np.float32
    assert np.isfinite(table.values).all()
    assert len(set(table.names)) == len(table.kinds) == len(table.descriptions)
    for kind, column in zip(table.kinds, table.values.T, strict=True):
        assert kind == "continuous" or set(column) <= {0.0, 1.0}
    return dict(zip(table.names, table.values.T, strict=True))


def blank(*size, level=0.0, channels=1):
    return np.full((*size, channels), level, np.float32)


def test_a_uniform_image_has_nothing():
    found = columns([blank(8, 8, level=0.5)])
    expected = dict.fromkeys(found, 0.0) | {
        "brightness": 0.5,
        "background brightness": 0.5,
        "symmetry": 1.0,
        "plain background": 1.0,
        "mostly grey": 1.0,
    }
    assert {name: float(x) for name, (x,) in found.items()} == pytest.approx(expected)


def test_light_and_edges_of_simple_patterns():
    halves, stripes = blank(8, 8), blank(8, 8)
    halves[:, 4:] = 1
    stripes[::4], stripes[1::4] = 1, 1
    ramp = (np.add.outer(np.arange(8), np.arange(8)) / 14).astype(np.float32)[..., None]
    found = columns([halves, stripes, ramp])
    np.testing.assert_allclose(found["brightness"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(found["contrast"][:2], 0.5, rtol=1e-6)
    np.testing.assert_allclose(found["symmetry"], [-1, 1, 0], atol=1e-5)
    np.testing.assert_allclose(found["vertical edges"], [1, 0, 0])
    np.testing.assert_allclose(found["horizontal edges"], [0, 1, 0])
    np.testing.assert_allclose(found["diagonal edges"], [0, 0, 1], rtol=1e-6)
    # Beside the step, two columns of eight; a ramp of sqrt(2)/14 a pixel is strong.
    np.testing.assert_allclose(found["edge density"][[0, 2]], [2 / 8, 1])
    faint = 0.9 * ramp
    assert columns([faint])["edge density"] == 0  # sqrt(2) * .9 / 14 is below .1


def test_the_object_is_found_on_plain_ground():
    images = np.stack([blank(16, 16, level=0.2)] * 3)
    images[0, 2:6, 10:14] = 0.9
    images[1, 1:15, 7:9] = 0.0
    images[2, 5:9, 5:9] = 0.3  # too near to the ground to count
    found = columns(images)
    np.testing.assert_allclose(found["object size"], [16 / 256, 28 / 256, 0])
    at = np.linspace(-1, 1, 16)
    np.testing.assert_allclose(
        found["object left or right"],
        [at[10:14].mean(), 0, at[5:9].mean()],
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        found["object up or down"],
        [at[2:6].mean(), 0, at[5:9].mean()],
        rtol=1e-5,
        atol=1e-6,
    )
    tall = 0.5 * np.log((at[1:15].var() + 1 / 256) / (at[7:9].var() + 1 / 256))
    np.testing.assert_allclose(found["object tallness"], [0, tall, 0], rtol=1e-4, atol=1e-5)
    assert found["plain background"].tolist() == [1, 1, 1]
    turned = columns(np.rot90(images, axes=(1, 2)))
    for one, other in (
        ("object tallness", "object tallness"),
        ("object up or down", "object left or right"),
    ):
        np.testing.assert_allclose(turned[one], -found[other], atol=1e-5)


def test_background_is_the_border():
    images = np.random.default_rng(0).random((3, 9, 8, 3), np.float32)
    images[1, 0], images[1, -1], images[1, :, 0], images[1, :, -1] = (0.4,) * 4
    found = columns(images)
    for i, image in enumerate(images):
        frame = [
            image[y, x].astype(float)
            for y in range(9)
            for x in range(8)
            if y in (0, 8) or x in (0, 7)
        ]
        luma = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in frame]
        variation = np.sqrt(np.mean([np.var(channel) for channel in zip(*frame)]))  # noqa: B905
        assert found["background brightness"][i] == pytest.approx(np.mean(luma), rel=1e-5)
        assert found["background variation"][i] == pytest.approx(variation, abs=1e-6)
    assert found["plain background"].tolist() == [0, 1, 0]
    assert measured.border((32, 32)).sum() == 32**2 - 28**2


def test_colours_are_those_of_colorsys():
    images = np.random.default_rng(1).integers(0, 256, (4, 12, 12, 3), np.uint8)
    images[3] = images[3] // 24 + 200  # nearly white
    images[2] = images[2] // 5  # nearly black
    found = columns(images)

    def name(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255).tolist())
        if value < 0.2:
            return "black"
        if saturation < 0.2:
            return "white" if value > 0.8 else "grey"
        degrees = 360 * hue
        for colour, (first, last) in measured.HUES.items():
            if first <= degrees < last or first <= degrees + 360 < last:
                return colour
        raise AssertionError(degrees)

    for i, image in enumerate(images):
        pixels = image.reshape(-1, 3)
        names = [name(pixel) for pixel in pixels]
        counts = {c: names.count(c) for c in (*measured.SHADES, *measured.HUES)}
        for colour in measured.HUES:
            assert found[f"share of {colour}"][i] == pytest.approx(counts[colour] / 144)
        most = max(counts, key=counts.get)
        assert [c for c in counts if found[f"mostly {c}"][i]] == [most]
        saturations = [colorsys.rgb_to_hsv(*(p / 255).tolist())[1] for p in pixels]
        assert found["saturation"][i] == pytest.approx(np.mean(saturations), rel=1e-5)


@pytest.mark.parametrize(
    ("pixel", "colour"),
    [
        ((1, 0, 0), "red"),
        ((1, 0, 0.1), "red"),
        ((1, 0.5, 0), "orange"),
        ((1, 1, 0), "yellow"),
        ((0, 1, 0), "green"),
        ((0, 1, 1), "cyan"),
        ((0.1, 0.2, 1), "blue"),
        ((1, 0, 1), "purple"),
        ((1, 1, 1), "white"),
        ((0.5, 0.5, 0.52), "grey"),
        ((0.1, 0, 0.1), "black"),
    ],
)
def test_names_of_colours(pixel, colour):
    found = columns(np.broadcast_to(np.array(pixel, np.float32), (1, 4, 4, 3)))
    assert [x for x in found if x.startswith("mostly") and found[x]] == [f"mostly {colour}"]


def test_bytes_floats_and_pieces_give_the_same(monkeypatch):
    images = np.random.default_rng(2).integers(0, 256, (5, 8, 8, 3), np.uint8)
    whole = Measured()(images)
    np.testing.assert_array_equal(Measured()(images / np.float32(255)).values, whole.values)
    monkeypatch.setattr(measured, "CHUNK", 2)
    parts = Measured()(images)
    np.testing.assert_allclose(parts.values, whole.values, rtol=1e-5, atol=1e-6)
    grey = Measured()(images[..., :1])
    assert not any("share" in name or "red" in name for name in grey.names)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((4, 8, 8)),
        np.zeros((4, 8, 8, 2)),
        np.full((1, 8, 8, 1), 2.0),
        [[[[np.nan]]]],
    ],
)
def test_what_is_no_image_is_refused(images):
    with pytest.raises(ValueError, match="expected"):
        Measured()(np.asarray(images))


ASKED = {"bright": ["bright", "dark"], "round": ["round", "a square"], "c": ["x.", "y."]}


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP of one layer, of random weights, saved as transformers saves them."""
    pytest.importorskip("torch", reason="the annotator clip needs torch")
    transformers = pytest.importorskip(
        "transformers",
        reason="pip install transformers torch pillow, for the annotator clip",
    )
    import torch

    folder = tmp_path_factory.mktemp("clip")
    letters = list(string.ascii_lowercase + ".")
    words = [*letters, *(f"{x}</w>" for x in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokens = transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt")
    )
    size = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}
    torch.manual_seed(0)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**size, **ends, "vocab_size": len(words)},
            vision_config={**size, "image_size": 16, "patch_size": 8},
            projection_dim=4,
        )
    )
    pictures = transformers.CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )
    model.save_pretrained(folder)
    transformers.CLIPProcessor(image_processor=pictures, tokenizer=tokens).save_pretrained(
        folder
    )
    (folder / "asked.json").write_text(json.dumps(ASKED))
    return folder


def clip_config(folder, **changes):
    asked = str(folder / "asked.json")
    return clip_annotator.Config(**{"path": str(folder), "prompts": asked, **changes})


def test_clip_compares_an_image_with_two_prompts(clip_folder):
    import torch
    import transformers
    from PIL import Image

    images = np.random.default_rng(3).integers(0, 256, (40, 8, 8, 1), np.uint8)
    images[20:] //= 4
    annotator = Clip(clip_config(clip_folder, batch=7))
    table = annotator(images)
    assert table.names == ("bright", "round", "c")
    assert set(table.kinds) == {"boolean"}
    assert table.descriptions[1] == "Nearer to 'round' than to 'a square'."

    model = transformers.CLIPModel.from_pretrained(clip_folder)
    processor = transformers.CLIPProcessor.from_pretrained(clip_folder)

    def unit(found):
        vector = getattr(found, "pooler_output", found)[0].detach().numpy().astype(float)
        return vector / np.linalg.norm(vector)

    with torch.no_grad():
        texts = [
            unit(model.get_text_features(**processor.tokenizer(text, return_tensors="pt")))
            for pair in ASKED.values()
            for text in pair
        ]
    expected, margins = np.zeros((40, 3)), np.zeros((40, 3))
    for i, image in enumerate(images):
        picture = Image.fromarray(np.repeat(image, 3, axis=-1))
        seen = processor.image_processor(picture, return_tensors="pt")
        with torch.no_grad():
            at = unit(model.get_image_features(**seen))
        for j in range(3):
            one, other = texts[2 * j] @ at, texts[2 * j + 1] @ at
            expected[i, j], margins[i, j] = one > other, abs(one - other)
    clear = margins > 1e-5
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(table.values[clear], expected[clear])
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(annotator(images / np.float32(255)).values, table.values)
    other = Clip(clip_config(clip_folder, prompts=None))
    assert other.identity != annotator.identity
    assert Clip(clip_config(clip_folder, batch=9)).identity == annotator.identity
    assert other(images[:2]).values.shape == (2, len(clip_annotator.PROMPTS))


def test_clip_weights_that_are_not_all_there(clip_folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    with pytest.raises(InputError, match=r"clip\.path.*none are downloaded"):
        Clip(clip_config(clip_folder, path=str(tmp_path / "absent")))
    for name in clip_folder.iterdir():
        (tmp_path / name.name).write_bytes(name.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"1 weights are missing, visual_projection"):
        Clip(clip_config(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"clip\.path.*no CLIP weights can be loaded"):
        Clip(clip_config(tmp_path))


def test_clip_without_its_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install transformers torch pillow"):
        Clip(clip_annotator.Config())


@pytest.mark.parametrize(
    ("held", "why"),
    [
        ("{", "no JSON"),
        ("[]", "no attributes"),
        ('{"a": ["one"]}', "a has not two"),
        ('{"a": ["one", "one"]}', "a has not two"),
        ('{"a": 3}', "a has not two"),
        (None, "cannot be read"),
    ],
)
def test_prompts_that_cannot_be_used(tmp_path, held, why):
    path = tmp_path / "asked.json"
    if held is not None:
        path.write_text(held)
    with pytest.raises(InputError, match=why):
        clip_annotator.read_prompts(str(path))
