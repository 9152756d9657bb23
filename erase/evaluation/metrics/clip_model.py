"""An open_clip model as a judge: unit features of pictures and of prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any

import open_clip
import torch
from huggingface_hub import hf_hub_download, snapshot_download
from open_clip.constants import HF_SAFE_WEIGHTS_NAME
from open_clip.transformer import QuickGELU
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from torch import Tensor

from erase import embedded
from erase.components import STRICT
from erase.errors import UserError
from erase.evaluation.metrics.labels import near
from erase.evaluation.metrics.loading import device, hash_weights, library
from erase.evaluation.metrics.protocols import Asked

LOCAL, HUB = "local-dir:", "hf-hub:"
NEEDED = ["*.json", "*.txt", "*.model", HF_SAFE_WEIGHTS_NAME]
"""The files of a Hub repository that are fetched."""
CONFIG = "open_clip_config.json"


class ClipModel:
    """Any architecture of open_clip with its weights, in float32; only safetensors are read.

    ``model`` is ``shapes`` (the embedded one), ``local-dir:FOLDER``, ``hf-hub:owner/name``, or an architecture such
    as ``ViT-B-32``, which needs ``pretrained``: a tag such as ``openai``, or a ``.safetensors`` file. A tag brings the
    activation that its weights were trained with. A file says nothing of it, so the architecture's own holds: for
    weights trained with QuickGELU, as OpenAI's are, there are architectures by name, such as ``ViT-B-32-quickgelu``.
    """

    def __init__(self, model: str, pretrained: str = "") -> None:
        self.name, self.pretrained = model, pretrained
        try:
            found = find_clip(model, pretrained)
            self.model, self.preprocess = open_clip.create_model_from_pretrained(
                found, pretrained=pretrained or None, force_quick_gelu=needs_quick_gelu(found, pretrained)
            )
            self.tokenizer = open_clip.get_tokenizer(found)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise UserError(f"clip: {model} cannot be loaded: {error}") from None
        self.device = device()
        self.model.float().eval().requires_grad_(False).to(self.device)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str], batch_size: int = 128) -> list[float]:
        """100 x cosine of each picture's and its prompt's features (Hessel et al. 2021, without factor and prefix)."""
        scores: list[float] = []
        for start in range(0, len(images), batch_size):
            stop = start + batch_size
            shown, said = self.embed(images[start:stop]), self.read(prompts[start:stop])
            scores += (100 * (shown * said).sum(-1)).tolist()
        return scores

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image], normalize: bool = True) -> Tensor:
        """``[n, width]`` features of pictures, of length 1 if normalized."""
        pixels = torch.stack([self.preprocess(image.convert("RGB")) for image in images])
        return self.model.encode_image(pixels.to(self.device), normalize=normalize).cpu()

    @torch.no_grad()
    def read(self, prompts: Sequence[str]) -> Tensor:
        """``[n, width]`` unit features of prompts; a prompt longer than the context is cut, as CLIP does."""
        return self.model.encode_text(self.tokenizer(list(prompts)).to(self.device), normalize=True).cpu()

    @property
    def logit_scale(self) -> float:
        """What the model multiplies a cosine by before a softmax."""
        return float(self.model.logit_scale.exp())

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of the weights as loaded."""
        return hash_weights(self.model)

    def identity(self) -> dict[str, Any]:
        """Which model this is, and how it reads pictures and prompts."""
        return {
            **library("open_clip_torch"),
            "model": self.name,
            "pretrained": self.pretrained or None,
            "weights_sha256": self.weights_hash,
            "quick_gelu": any(isinstance(module, QuickGELU) for module in self.model.modules()),
            "dtype": "float32",
            "preprocessing": {key: _plain(value) for key, value in self.model.visual.preprocess_cfg.items()},
            "context_length": int(self.model.context_length),
            "long_prompts": "cut at the context length",
        }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


@lru_cache(maxsize=2)
def load_clip(model: str, pretrained: str = "") -> ClipModel:
    """The model, loaded once for all metrics that use it."""
    return ClipModel(model, pretrained)


def needs_quick_gelu(model: str, pretrained: str) -> bool:
    """Whether a tag's weights were trained with QuickGELU, by open_clip's table; it only warns if a model has GELU."""
    return bool(open_clip.get_pretrained_cfg(model, pretrained).get("quick_gelu", False))


def brings_weights(model: str) -> bool:
    """Whether a model is a folder with its own weights, and not an architecture."""
    return model == embedded.NAME or model.startswith((LOCAL, HUB))


def check_clip(model: str, pretrained: str) -> None:
    """Refuses, without a network and before anything is loaded, a model or weights that cannot be had or are pickles.

    Of a Hub repository only its download tells.
    """
    if brings_weights(model):
        if pretrained:
            raise UserError(f"clip: pretrained: found {pretrained!r}; {model} brings its own weights, leave it empty")
        if model.startswith(LOCAL):
            _check_folder(Path(model.removeprefix(LOCAL)))
        return
    known = open_clip.list_models()
    if _plain_name(model) not in known:
        raise UserError(f"clip: {model} cannot be loaded: open_clip has no such architecture; {near(model, known)}")
    _check_weights(_plain_name(model), pretrained)


def find_clip(model: str, pretrained: str) -> str:
    """The model as open_clip takes it, once it is sure that its weights are safetensors."""
    check_clip(model, pretrained)
    if model == embedded.NAME:
        return f"{LOCAL}{embedded.WEIGHTS / 'clip'}"
    if model.startswith(HUB):
        model = f"{LOCAL}{snapshot_download(model.removeprefix(HUB), allow_patterns=NEEDED)}"
        check_clip(model, pretrained)
    if model.startswith(LOCAL):
        return model
    if not pretrained.endswith(".safetensors"):  # open_clip takes what is there already, else a pickle
        hf_hub_download(_repository(_plain_name(model), pretrained), HF_SAFE_WEIGHTS_NAME)
    return _plain_name(model)


def clip_width(model: str) -> int | None:
    """How many features a model has, by its configuration; ``None`` where that is still to be downloaded."""
    if model.startswith(HUB):
        return None
    if not brings_weights(model):
        return int(open_clip.get_model_config(_plain_name(model))["embed_dim"])
    folder = embedded.WEIGHTS / "clip" if model == embedded.NAME else Path(model.removeprefix(LOCAL))
    try:
        return int(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_cfg"]["embed_dim"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"clip: {model} cannot be loaded: {CONFIG}: {error}") from None


def _plain_name(model: str) -> str:
    """``ViT-B/32`` is ``ViT-B-32``, as open_clip reads it."""
    return model.replace("/", "-")


def _check_folder(folder: Path) -> None:
    pickles = [file.name for ending in ("*.bin", "*.pth", "*.pt") for file in sorted(folder.glob(ending))]
    if pickles and not (folder / HF_SAFE_WEIGHTS_NAME).is_file():
        remedy = f"save the weights as {HF_SAFE_WEIGHTS_NAME}"
        raise UserError(f"clip: {folder / pickles[0]} is a pickle, which can run code; {remedy}")
    if not (folder / CONFIG).is_file():
        raise UserError(f"clip: {LOCAL}{folder} cannot be loaded: it holds no {CONFIG}")


def _check_weights(model: str, pretrained: str) -> None:
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not pretrained:
        raise UserError(f"clip: pretrained: {model} needs weights; its tags: {', '.join(tags)}")
    if pretrained.endswith(".safetensors"):
        if not Path(pretrained).is_file():
            raise UserError(f"clip: pretrained: there is no file {pretrained}; give a file that is there, or a tag")
        return
    if not open_clip.get_pretrained_cfg(model, pretrained):
        raise UserError(f"clip: pretrained: {model} has no tag {pretrained!r}; known: {', '.join(tags)}")
    if _repository(model, pretrained).count("/") != 1:
        raise UserError(
            f"clip: pretrained: {pretrained!r} of {model} is not to be had as safetensors; take another tag"
        )


def _repository(model: str, tag: str) -> str:
    return str(open_clip.get_pretrained_cfg(model, tag).get("hf_hub", "")).rstrip("/")


MODEL = "`shapes`, an architecture of open_clip, `hf-hub:owner/name` or `local-dir:FOLDER`"
PRETRAINED = "weights of an architecture: a tag (`openai` if left open) or a .safetensors file; the others bring theirs"


@dataclass(frozen=True, config=STRICT)
class UsesClip:
    """The fields of a metric that asks an open_clip model; a description beside a field is not inherited."""

    model: Annotated[str, Field(min_length=1, description=MODEL)] = "ViT-B-32"
    pretrained: Annotated[str | None, Field(description=PRETRAINED)] = None

    @property
    def _weights(self) -> str:
        return self.pretrained or ("" if brings_weights(self.model) else "openai")

    @property
    def clip(self) -> ClipModel:
        """The model, loaded on first use."""
        return load_clip(self.model, self._weights)

    @property
    def width(self) -> int | None:
        """How many features it has, without loading it; ``None`` where only a download would tell."""
        check_clip(self.model, self._weights)
        return clip_width(self.model)

    def check(self, pictures: Sequence[Asked]) -> None:
        """Refuses a model that cannot be had, without loading it; any prompts will do."""
        check_clip(self.model, self._weights)
