"""Attributes by CLIP, zero-shot.

Radford et al. 2021, sec. 3.1: an image and a text are compared by the cosine of their
embeddings. An attribute is a pair of prompts, one of an image that has it and one of an
image that has not; an image has it where the first is the nearer. Images of 28 or 32
pixels are enlarged to the size of the model (224) and are far from its training data: its
answers are noisy, alike for the images of both sides.

Nothing is ever downloaded: the weights are a folder, or lie in the cache of transformers.
"""

import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.types import InputError
from experiments.attributes.annotators.table import Annotations, Kind, unit_range
from experiments.lab.kept import digest
from experiments.lab.progress import SECONDS_BETWEEN_LINES, duration

Prompts = dict[str, tuple[str, str]]

# Attribute -> the prompt of an image that has it, and of one that has not.
PROMPTS: Prompts = {
    "striped": ("a photo of something striped", "a photo of something without stripes"),
    "patterned": ("a photo of a patterned thing", "a photo of a plain thing"),
    "shiny": ("a photo of a shiny thing", "a photo of a matt thing"),
    "furry": ("a photo of something furry", "a photo of something smooth"),
    "metallic": ("a photo of something made of metal", "a photo of something soft"),
    "large": ("a photo of a large thing", "a photo of a small thing"),
    "close-up": ("a close-up photo", "a photo taken from far away"),
    "whole": ("a photo of a whole thing", "a photo of a part of a thing"),
    "seen from the side": ("a photo taken from the side", "a photo taken from the front"),
    "several": ("a photo of several things", "a photo of a single thing"),
    "person": ("a photo with a person", "a photo without people"),
    "outdoors": ("a photo taken outdoors", "a photo taken indoors"),
    "sky": ("a photo with sky", "a photo without sky"),
    "water": ("a photo with water", "a photo without water"),
    "grass": ("a photo with grass", "a photo without grass"),
    "road": ("a photo with a road", "a photo without a road"),
    "plain ground": (
        "a photo in front of a plain background",
        "a photo in front of a cluttered background",
    ),
    "text": ("a photo with text in it", "a photo without text"),
    "modern": ("a photo of a modern thing", "a photo of an old thing"),
    "moving": ("a photo of something in motion", "a photo of something at rest"),
}


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """The model, and its prompts."""

    path: str = option(
        "openai/clip-vit-base-patch32",
        "CLIP weights: a folder, or a name that the cache of transformers holds.",
    )
    prompts: str | None = option(
        None, 'JSON file, {"striped": ["a striped thing", "a plain thing"]}; none: ours.'
    )
    batch: int = option(64, "Batch size.", low=1)


def read_prompts(path: str | None) -> Prompts:
    """Returns the prompts of a file, or ours.

    Raises:
      FieldError: of `clip.prompts`: a file that cannot be read, or holds something else.
    """
    if path is None:
        return PROMPTS

    def wrong(why: object) -> FieldError:
        form = '{"striped": ["a striped thing", "a plain thing"]}'
        return FieldError("clip.prompts", path, f"{why}; give a JSON file such as {form}")

    try:
        held = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise wrong(f"it cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise wrong(f"it is no JSON ({error})") from None
    if not isinstance(held, Mapping) or not held:
        raise wrong("it holds no attributes")
    for name, pair in held.items():
        texts = isinstance(pair, list) and all(isinstance(x, str) and x for x in pair)
        if not texts or len(set(pair)) != 2 or len(pair) != 2:
            raise wrong(f"{name} has not two different prompts")
    return {name: (positive, negative) for name, (positive, negative) in held.items()}


class Clip:
    """The annotator; the model is loaded at once.

    Raises:
      InputError: transformers is not installed, or there are no such weights.
      FieldError: prompts that cannot be used.
    """

    name = "clip"

    def __init__(self, config: Config):
        self._prompts = read_prompts(config.prompts)
        self._batch = config.batch
        self._model, self._processor = _load(config.path)
        weights = (x.detach().cpu().numpy() for x in self._model.state_dict().values())
        self.identity = digest(["clip, version 1", self._prompts], weights)

    def __call__(self, images: np.ndarray) -> Annotations:
        """Returns the table of u8[n, h, w, c], or f[n, h, w, c] in 0..1."""
        import torch
        from PIL import Image

        levels = np.rint(255 * unit_range(images)).astype(np.uint8)
        levels = np.broadcast_to(levels, (*levels.shape[:-1], 3))
        texts = [text for pair in self._prompts.values() for text in pair]
        found, began, spoke = [], time.monotonic(), time.monotonic()
        for start in range(0, len(levels), self._batch):
            shown = [Image.fromarray(one) for one in levels[start : start + self._batch]]
            given = self._processor(
                text=texts, images=shown, return_tensors="pt", padding=True, truncation=True
            )
            with torch.inference_mode():
                logits = self._model(**given).logits_per_image.numpy()
            found.append(logits[:, 0::2] > logits[:, 1::2])
            if time.monotonic() - spoke > SECONDS_BETWEEN_LINES:
                spoke, done = time.monotonic(), start + len(shown)
                left = (spoke - began) / done * (len(levels) - done)
                print(
                    f"clip {done}/{len(levels)}  about {duration(left)} left",
                    file=sys.stderr,
                    flush=True,
                )
        kinds: tuple[Kind, ...] = tuple("boolean" for _ in self._prompts)
        return Annotations(
            tuple(self._prompts),
            kinds,
            tuple(
                f"Nearer to {positive!r} than to {negative!r}."
                for positive, negative in self._prompts.values()
            ),
            np.concatenate(found).astype(np.float32),
        )


def _load(path: str) -> tuple[Any, Any]:
    try:
        import torch  # noqa: F401
        import transformers
        from PIL import Image  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"the annotator clip needs transformers, torch and pillow ({error}): pip "
            "install transformers torch pillow, or leave clip out of --annotators"
        ) from None
    place = pathlib.Path(path).expanduser()
    where = str(place) if place.is_dir() else path
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    def wrong(why: object) -> FieldError:
        return FieldError(
            "clip.path",
            path,
            f"no CLIP weights can be loaded from there ({why}), and none are downloaded; "
            "give the folder that holds config.json, model.safetensors and the processor's "
            "files, or leave clip out of --annotators",
        )

    try:
        load: Any = transformers.CLIPModel.from_pretrained
        model, about = load(where, local_files_only=True, output_loading_info=True)
        processor = transformers.CLIPProcessor.from_pretrained(where, local_files_only=True)
    # Damaged files raise what the readers of their formats do.
    except Exception as error:
        (first, *_) = str(error).splitlines() or [type(error).__name__]
        raise wrong(first) from None
    if missing := sorted(about["missing_keys"]):
        raise wrong(f"{len(missing)} weights are missing, {missing[0]} is one")
    return model.eval(), processor
