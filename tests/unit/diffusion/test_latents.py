"""The base's own latents: which prompts, under which key, and once."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from erase.diffusion.concepts import LatentSettings
from erase.diffusion.denoiser import EvaluationCounter
from erase.diffusion.latents import LatentRequest, _read, cached_latents, make_latents, spread
from erase.errors import UserError
from erase.provenance import default_cache
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
    return made.tensor.clone(), counter.count  # the tests spoil the file that it is mapped from


def files(cache: Path) -> list[Path]:
    """All but the empty file that processes lock."""
    return sorted(file for file in cache.rglob("*") if file.is_file() and file.stat().st_size)


def part(cache: Path, start: int) -> Path:
    """The file of the batch of two that starts there."""
    return cache / f"latents-{REQUEST.key()[:32]}" / "parts-2" / f"2-{start:06d}.safetensors"


def test_latents_are_made_once(pipeline: Any, tmp_path: Path) -> None:
    made, evaluations = latents(pipeline, tmp_path)
    again, none = latents(pipeline, tmp_path)
    assert made.shape == (3, 4, 8, 8) and made.dtype == torch.float32
    assert evaluations == 3 * 2 * 2  # latents, steps, with and without the prompt
    assert none == 0
    assert_same_bits([again], [made])


def test_the_cache_holds_one_folder_named_by_the_key_and_in_it_one_file(pipeline: Any, tmp_path: Path) -> None:
    latents(pipeline, tmp_path)
    expected = tmp_path / f"latents-{REQUEST.key()[:32]}" / "latents.safetensors"
    assert files(tmp_path) == [expected]
    assert list(tmp_path.iterdir()) == [expected.parent]


def test_the_file_is_what_the_library_would_write(pipeline: Any, tmp_path: Path) -> None:
    made, _ = latents(pipeline, tmp_path / "cache")
    (file,) = files(tmp_path / "cache")
    about = {"key": REQUEST.key(), "evaluations": "12"}
    save_file({"latents": made}, tmp_path / "judge.safetensors", about)
    with safe_open(file, "pt") as ours, safe_open(tmp_path / "judge.safetensors", "pt") as judge:
        assert ours.metadata() == judge.metadata() == about
        assert ours.keys() == judge.keys()
    assert_same_bits(load_file(file).values(), load_file(tmp_path / "judge.safetensors").values())
    assert file.stat().st_size == pytest.approx((tmp_path / "judge.safetensors").stat().st_size, abs=64)


def test_cached_latents_are_those_of_the_pipeline_in_the_same_batches(pipeline: Any, tmp_path: Path) -> None:
    made, _ = latents(pipeline, tmp_path)
    assert_same_bits([made], [make_latents(pipeline, REQUEST, 2, quiet=True)])


def test_a_file_of_another_base_is_not_taken_for_this_ones(pipeline: Any, tmp_path: Path) -> None:
    made, _ = latents(pipeline, tmp_path)
    (file,) = files(tmp_path)
    save_file({"latents": made + 1}, file, {"key": replace(REQUEST, base="c" * 64).key(), "evaluations": "12"})
    again, evaluations = latents(pipeline, tmp_path)
    assert evaluations == 12
    assert_same_bits([again], [made])


def resident_file_pages() -> int:
    """Kibibytes of files that are mapped into this process and in memory."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc here")
def test_what_is_not_looked_at_takes_no_memory(pipeline: Any, tmp_path: Path) -> None:
    latents(pipeline, tmp_path)
    (file,) = files(tmp_path)
    save_file({"latents": torch.ones(256, 4, 128, 128)}, file, {"key": REQUEST.key(), "evaluations": "12"})  # 64 MiB
    before = resident_file_pages()
    large = cached_latents(pipeline, REQUEST, LatentSettings(cache_dir=tmp_path), quiet=True).tensor
    assert resident_file_pages() - before < 16 * 1024
    assert large.sum().item() == large.numel()
    assert resident_file_pages() - before >= 64 * 1024


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


def fails_at(start: int) -> Callable[..., None]:
    """`save_file`, on a disk that is full when a batch is written."""

    def save(tensors: dict[str, Tensor], file: Path, about: dict[str, str]) -> None:
        if f"-{start:06d}" in file.name:
            raise OSError(28, "No space left on device")
        save_file(tensors, file, about)

    return save


def test_a_full_disk_is_said_and_leaves_no_half_written_file(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erase.diffusion.latents.save_file", fails_at(0))
    with pytest.raises(UserError, match=r"latents\.cache_dir: .*No space left"):
        latents(pipeline, tmp_path)
    assert files(tmp_path) == []


def test_the_next_run_goes_on_with_the_batches_that_are_there(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = latents(pipeline, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(UserError):
        patch.setattr("erase.diffusion.latents.save_file", fails_at(2))
        latents(pipeline, tmp_path)
    assert [file for file in files(tmp_path) if "whole" not in file.parts] == [part(tmp_path, 0)]
    again, evaluations = latents(pipeline, tmp_path)
    assert evaluations == 1 * 2 * 2, "the third latent alone; what is written says what all three took"
    assert_same_bits([again], [whole])
    assert not part(tmp_path, 0).parent.exists()


def test_a_batch_that_is_damaged_or_of_another_request_is_made_again(pipeline: Any, tmp_path: Path) -> None:
    whole, _ = latents(pipeline, tmp_path / "whole")
    part(tmp_path, 0).parent.mkdir(parents=True)
    part(tmp_path, 0).write_bytes(b"damaged")
    save_file({"latents": whole[2:] + 1}, part(tmp_path, 2), {"key": "another", "evaluations": "4"})
    again, evaluations = latents(pipeline, tmp_path)
    assert evaluations == 12
    assert_same_bits([again], [whole])


MANY = replace(REQUEST, prompts=REQUEST.prompts * 4)
"""Six batches of two."""


def make_and_stop(cache: Path, stopped: Any) -> None:
    """A process that makes one batch and stands still in the middle of its second, which it holds."""
    pipeline, seen = tiny_pipeline(), []

    def stand_still(*_: object) -> None:
        seen.append(1)
        if len(seen) == 1 * REQUEST.steps + 1:
            stopped.set()
            time.sleep(600)

    torch.set_num_threads(1)
    pipeline.unet.register_forward_pre_hook(stand_still)
    cached_latents(pipeline, MANY, LatentSettings(cache_dir=cache, batch_size=2), quiet=True)


def test_a_file_that_vanishes_while_it_is_read_is_none(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """safetensors opens a file twice; between the two, the process that joins the batches removes them."""
    latents(pipeline, tmp_path)
    (whole,) = files(tmp_path)
    opened = torch.UntypedStorage.from_file

    def too_late(name: str, *given: Any, **more: Any) -> Any:
        Path(name).unlink()
        return opened(name, *given, **more)

    assert _read(whole, REQUEST.key()) is not None
    monkeypatch.setattr(torch.UntypedStorage, "from_file", staticmethod(too_late))
    assert _read(whole, REQUEST.key()) is None and not whole.exists()


def make_in(cache: Path, batch_size: int, failed: Any) -> None:
    """A process that asks for a row of requests, in batches of its own size."""
    torch.set_num_threads(1)
    pipeline = tiny_pipeline()
    try:
        for seed in range(12):
            request = replace(REQUEST, seed=seed, steps=1)
            cached_latents(pipeline, request, LatentSettings(cache_dir=cache, batch_size=batch_size), quiet=True)
    except BaseException:
        failed.set()
        raise


@pytest.mark.slow
def test_runs_with_batches_of_other_sizes_share_a_cache(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    failed = spawn.Event()
    makers = [spawn.Process(target=make_in, args=(tmp_path, size, failed)) for size in (1, 2)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join(timeout=120)
    assert not failed.is_set() and [maker.exitcode for maker in makers] == [0, 0]
    assert len(files(tmp_path)) == 12


@pytest.mark.slow
def test_processes_share_the_batches_and_a_killed_one_is_replaced(pipeline: Any, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    spawn = multiprocessing.get_context("spawn")
    stopped = spawn.Event()
    other = spawn.Process(target=make_and_stop, args=(tmp_path, stopped), daemon=True)
    other.start()
    assert stopped.wait(timeout=120)
    counter, left = EvaluationCounter(), []

    def kill_when_only_its_batch_is_left() -> None:
        while len(files(tmp_path)) < 5:
            time.sleep(0.01)
        left.append(counter.count)
        other.kill()

    killer = threading.Thread(target=kill_when_only_its_batch_is_left, daemon=True)
    killer.start()
    with counter.watch(pipeline.unet):
        made = cached_latents(pipeline, MANY, LatentSettings(cache_dir=tmp_path, batch_size=2), quiet=True)
    killer.join()
    of_a_batch = 2 * 2 * 2  # latents, steps, with and without the prompt
    assert left == [4 * of_a_batch], "a batch that another had made or held was made again"
    assert counter.count == 5 * of_a_batch
    assert made.evaluations == 6 * of_a_batch
    assert_same_bits([made.tensor], [make_latents(pipeline, MANY, 2, quiet=True)])


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
