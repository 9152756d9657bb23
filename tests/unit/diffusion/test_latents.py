"""The base's own latents: which prompts, under which key, and once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from erase.diffusion.concepts import LatentSettings
from erase.diffusion.denoiser import EvaluationCounter
from erase.diffusion.latents import LatentRequest, cached_latents, default_cache, make_latents, spread
from tests.properties import assert_same_bits
from tests.tiny import tiny_pipeline

REQUEST = LatentRequest(
    base="b" * 64, prompts=("a star", "a red circle", "a star"), seed=0, scheduler="DDIM", steps=2, guidance_scale=4.0
)
BATCH_ROUNDING = 1e-4
"""Latents are of size 1 to 10; float32 convolutions round otherwise in another batch, and guidance multiplies it."""


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


def latents(pipeline: Any, cache: Path, request: LatentRequest = REQUEST) -> tuple[Tensor, int]:
    """The latents, and the denoiser evaluations that they took now; they always say what they took when made."""
    counter = EvaluationCounter()
    with counter.watch(pipeline.unet):
        made = cached_latents(pipeline, request, LatentSettings(cache_dir=cache, batch_size=2), quiet=True)
    assert made.evaluations == 3 * 2 * 2
    return made.tensor, counter.count


def files(cache: Path) -> list[Path]:
    return sorted(file for file in cache.rglob("*") if file.is_file())


def test_latents_are_made_once(pipeline: Any, tmp_path: Path) -> None:
    made, evaluations = latents(pipeline, tmp_path)
    again, none = latents(pipeline, tmp_path)
    assert made.shape == (3, 4, 8, 8) and made.dtype == torch.float32
    assert evaluations == 3 * 2 * 2  # latents, steps, with and without the prompt
    assert none == 0
    assert_same_bits([again], [made])


def test_the_cache_holds_one_folder_named_by_the_key(pipeline: Any, tmp_path: Path) -> None:
    latents(pipeline, tmp_path)
    expected = tmp_path / f"latents-{REQUEST.key()[:32]}" / "latents.safetensors"
    assert files(tmp_path) == [expected]
    assert [folder.name for folder in tmp_path.iterdir()] == [expected.parent.name]


@pytest.mark.parametrize(
    "change",
    [
        {"base": "c" * 64},
        {"prompts": ("a red circle", "a star", "a star")},
        {"prompts": ("a star", "a red circle")},
        {"seed": 1},
        {"scheduler": "PNDM"},
        {"steps": 3},
        {"guidance_scale": 4.5},
    ],
)
def test_whatever_shapes_the_latents_is_in_the_key(change: dict[str, Any]) -> None:
    assert replace(REQUEST, **change).key() != REQUEST.key()


def test_equal_requests_have_equal_keys() -> None:
    assert replace(REQUEST).key() == REQUEST.key()
    assert len(REQUEST.key()) == 64


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 100, None])
def test_a_damaged_cache_file_is_made_again(pipeline: Any, tmp_path: Path, damage: bytes | None) -> None:
    made, _ = latents(pipeline, tmp_path)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    again, evaluations = latents(pipeline, tmp_path)
    assert evaluations == 12
    assert_same_bits([again], [made])
    assert latents(pipeline, tmp_path)[1] == 0, "the damaged file was not replaced"


def test_a_failure_leaves_no_half_written_cache(pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("erase.diffusion.latents.save_file", full_disk)
    with pytest.raises(Exception, match="No space left"):
        latents(pipeline, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_batch_size_does_not_change_the_latents(pipeline: Any, batch_size: int) -> None:
    together = make_latents(pipeline, REQUEST, 3, quiet=True)
    apart = make_latents(pipeline, REQUEST, batch_size, quiet=True)
    torch.testing.assert_close(apart, together, rtol=0, atol=BATCH_ROUNDING)


def test_the_same_prompt_gives_another_latent_in_another_place_and_from_another_seed(pipeline: Any) -> None:
    made = make_latents(pipeline, REQUEST, 3, quiet=True)
    other = make_latents(pipeline, replace(REQUEST, seed=1), 3, quiet=True)
    assert (made[0] - made[2]).abs().max() > 1000 * BATCH_ROUNDING
    assert (made - other).abs().amax((1, 2, 3)).min() > 1000 * BATCH_ROUNDING


def test_latents_depend_on_their_prompt_and_on_guidance(pipeline: Any) -> None:
    made = make_latents(pipeline, REQUEST, 3, quiet=True)
    prompts = ("a moon", *REQUEST.prompts[1:])
    for changed in (replace(REQUEST, prompts=prompts), replace(REQUEST, guidance_scale=8.0)):
        assert (make_latents(pipeline, changed, 3, quiet=True)[0] - made[0]).abs().max() > 10 * BATCH_ROUNDING


def test_the_global_random_state_does_not_matter(pipeline: Any) -> None:
    first = make_latents(pipeline, REQUEST, 3, quiet=True)
    torch.manual_seed(99)
    assert_same_bits([make_latents(pipeline, REQUEST, 3, quiet=True)], [first])


@pytest.mark.parametrize("count", [1, 3, 5, 12])
def test_no_prompt_repeats_before_every_one_had_its_turn(count: int) -> None:
    words = tuple("abcde")
    used = Counter(spread(words, count, seed=0))
    assert sum(used.values()) == count
    assert max(used.values()) - min(used.get(word, 0) for word in words) <= 1


def test_prompts_are_shuffled_by_the_seed() -> None:
    words = tuple("abcdefghij")
    assert spread(words, 10, 0) == spread(words, 10, 0)
    assert spread(words, 10, 0) != spread(words, 10, 1)
    assert spread(words, 10, 0) != words
    assert spread(words, 20, 0)[:10] == spread(words, 20, 0)[10:] == spread(words, 10, 0)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ERASE_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("ERASE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "erase"


def test_without_a_folder_of_its_own_the_default_cache_is_used(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ERASE_CACHE", str(tmp_path))
    cached_latents(pipeline, REQUEST, LatentSettings(), quiet=True)
    assert len(files(tmp_path)) == 1
