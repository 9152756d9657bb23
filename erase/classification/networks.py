"""Builds the networks of three libraries: pictures in, logits out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from erase.classification.forget_sets import near
from erase.classification.model_settings import ModelSettings
from erase.errors import UserError

WRAPPER = "network."
"""What the names of a transformers network's parameters begin with here."""


class Logits(nn.Module):
    """A transformers image classifier as a function of pictures alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, images: Tensor) -> Tensor:
        """``[b, c, h, w]`` to ``[b, k]``."""
        return self.network(pixel_values=images).logits


def build(settings: ModelSettings, classes: int, channels: int, config: dict[str, Any] | None = None) -> nn.Module:
    """The network with random or pretrained weights; one that does not take so many channels is refused.

    ``config`` is a stored transformers configuration; with it nothing is looked up.
    """
    if settings.source == "torchvision":
        network = _torchvision(settings, classes, channels)
    elif settings.source == "timm":
        network = from_timm(settings, classes, channels, _published(settings) if settings.pretrained else None)
    else:
        network = _transformers(settings, classes, channels, config)
    taken = first_convolution(network)[1].in_channels
    if taken != channels:
        there = f"{settings.architecture} takes pictures of {taken} channels"
        raise UserError(f"model.architecture: {there}; the data's have {channels}")
    return network


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """The layer that sees the picture, and its name."""
    found = next(((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d)), None)
    if found is None:
        raise UserError(f"model.architecture: a {type(network).__name__} has no convolution that sees the picture")
    return found


def _torchvision(settings: ModelSettings, classes: int, channels: int) -> nn.Module:
    from torchvision import models

    names = models.list_models(module=models)
    if settings.architecture not in names:
        raise _unknown(settings, names)
    network: nn.Module = models.get_model(settings.architecture, weights=None, num_classes=classes)
    name, first = first_convolution(network)
    if settings.stem == "small":
        replacement = nn.Conv2d(channels, first.out_channels, 3, stride=1, padding=1, bias=False)
        network.set_submodule("maxpool", nn.Identity())
    elif channels == first.in_channels:
        return network
    else:
        shape: dict[str, Any] = {"stride": first.stride, "padding": first.padding, "bias": first.bias is not None}
        replacement = nn.Conv2d(channels, first.out_channels, first.kernel_size, **shape)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(replacement.weight, mode="fan_out", nonlinearity="relu")
    network.set_submodule(name, replacement)
    return network


def from_timm(settings: ModelSettings, classes: int, channels: int, weights: Path | None) -> nn.Module:
    """timm's network with random weights, or with those of a safetensors file that timm has published."""
    import timm

    if not timm.is_model(settings.architecture):
        raise _unknown(settings, timm.list_models())
    options: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    if weights is not None:
        published = timm.get_pretrained_cfg(settings.architecture)
        _check_head(settings, published.num_classes if published else 0, classes)
        overlay = {"file": str(weights), "custom_load": False}
        options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
    try:
        network: nn.Module = timm.create_model(settings.architecture, **options)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"model.architecture: timm cannot build {settings.architecture} so: {error}") from None
    return network


def _published(settings: ModelSettings) -> Path:
    """timm's safetensors of an architecture, fetched from the Hub."""
    import timm
    from huggingface_hub import hf_hub_download

    if not timm.is_model(settings.architecture):
        raise _unknown(settings, timm.list_models(pretrained=True))
    config = timm.get_pretrained_cfg(settings.architecture)
    if config is None or not config.hf_hub_id:
        raise UserError(f"model.pretrained: timm publishes no weights of {settings.architecture} on the Hub")
    file = config.hf_hub_filename or "model.safetensors"
    try:
        return Path(hf_hub_download(config.hf_hub_id, file, revision=settings.revision))
    except (OSError, ValueError) as error:
        raise UserError(f"model.pretrained: {config.hf_hub_id} cannot be fetched: {error}") from None


def _transformers(settings: ModelSettings, classes: int, channels: int, config: dict[str, Any] | None) -> nn.Module:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForImageClassification

    options: dict[str, Any] = {"revision": settings.revision} if settings.revision else {}
    try:
        if config is not None:
            return Logits(AutoModelForImageClassification.from_config(AutoConfig.for_model(**config)))
        found = AutoConfig.from_pretrained(settings.architecture, **options)
        if settings.pretrained:
            _check_head(settings, found.num_labels, classes)
        if found.num_labels != classes:
            found.num_labels = classes
        if not settings.pretrained:
            found.num_channels = channels
            return Logits(AutoModelForImageClassification.from_config(found))
        network, report = AutoModelForImageClassification.from_pretrained(
            settings.architecture,
            config=found,
            use_safetensors=True,
            ignore_mismatched_sizes=settings.replace_head,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise UserError(f"model.architecture: {settings.architecture} cannot be loaded: {error}") from None
    new = {id(p) for p in (linear_head(network) or nn.Identity()).parameters()} if settings.replace_head else set()
    shapes = {entry[0] for entry in report["mismatched_keys"]}
    unfit = [name for name, p in network.named_parameters() if name in shapes and id(p) not in new]
    for name in [*sorted(report["missing_keys"]), *unfit]:
        raise UserError(f"model.architecture: the weights of {settings.architecture} lack {name}, or its shape differs")
    return Logits(network.float())


def _check_head(settings: ModelSettings, there: int, wanted: int) -> None:
    if there != wanted and not settings.replace_head:
        raise UserError(
            f"model.architecture: the pretrained {settings.architecture} tells {there} classes apart, the data has "
            f"{wanted}; `replace_head: true` beside `pretrained: true` trains it with a new last layer"
        )


def _unknown(settings: ModelSettings, names: list[str]) -> UserError:
    close = near(settings.architecture, names)
    return UserError(f"model.architecture: {settings.source} has no {settings.architecture!r}; {close}")


def linear_head(network: nn.Module) -> nn.Module | None:
    """The module that gives the logits: timm's own word for it, else the last one with weights."""
    if hasattr(network, "get_classifier"):
        found = network.get_classifier()  # type: ignore[operator]
        return found if isinstance(found, nn.Module) else None
    with_weights = [m for m in network.modules() if any(True for _ in m.parameters(recurse=False))]
    return with_weights[-1] if with_weights else None


def copy_of_weights(network: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer on the CPU, no two sharing memory, as safetensors wants them."""
    return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in network.state_dict().items()}


def with_own_names(network: Logits, weights: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    """The tensors of a file that transformers wrote, under the names that they have in the network.

    The names in its files are not those of its modules; it alone knows which is which.
    """
    inner = network.network
    options: dict[str, Any] = {"config": inner.config, "state_dict": weights, "output_loading_info": True}
    try:
        found, report = type(inner).from_pretrained(None, **options)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{key}: does not fit the {type(inner).__name__}: {error}") from None
    for kind, problem in (("missing_keys", "is missing"), ("unexpected_keys", "is too much")):
        for name in sorted(report[kind]):
            raise UserError(f"{key}: does not fit the {type(inner).__name__}: {name} {problem}")
    return {f"{WRAPPER}{name}": tensor for name, tensor in found.state_dict().items()}


def load_strictly(network: nn.Module, weights: dict[str, Tensor], key: str) -> None:
    """Fills the network; the first key that is missing, too much, or of another shape is named."""
    wanted = network.state_dict()
    for name, problem in (
        *((name, "is missing") for name in wanted if name not in weights),
        *((name, "is too much") for name in weights if name not in wanted),
        *(
            (name, f"is {list(weights[name].shape)}, the model's {list(tensor.shape)}")
            for name, tensor in wanted.items()
            if name in weights and weights[name].shape != tensor.shape
        ),
    ):
        raise UserError(f"{key}: does not fit the {type(network).__name__}: {name} {problem}")
    network.load_state_dict(weights)
