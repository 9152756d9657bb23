"""A run that is killed, at any moment, goes on with the same command and ends with the same folder."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from erase.generate import main
from erase.generation.folder import open_folder
from erase.generation.settings import Generation
from tests.generation import GENERATE, arguments, content, one_thread, settings, write_set
from tests.launch import started, wait_until

ROWS, IMAGES = 60, 2


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Generation:
    """A run that nothing disturbed."""
    one_thread()
    place = tmp_path_factory.mktemp("whole")
    generation = settings(model, write_set(place, ROWS), place / "out", images_per_prompt=IMAGES)
    assert main(arguments(generation)) == 0
    return generation


def beside(whole: Generation, folder: Path) -> Generation:
    """The same run into another folder."""
    return settings(Path(whole.model), Path(whole.prompts), folder / "out", images_per_prompt=IMAGES)


def there(generation: Generation) -> int:
    """Images in place."""
    return len(list((generation.output_dir / "images").glob("[!.]*.png")))


def kill_at(generation: Generation, folder: Path, count: int, wait: float = 0.0) -> None:
    """Starts the command and kills it with SIGKILL once so many images are there, and a moment more."""
    with started(folder, folder / "log", str(GENERATE), *arguments(generation)) as process:
        wait_until(process, lambda: there(generation) >= count)
        time.sleep(wait)
        process.kill()
        process.wait()


@pytest.mark.slow
def test_killed_at_several_moments_it_ends_with_the_same_folder(whole: Generation, tmp_path: Path) -> None:
    generation, moments = beside(whole, tmp_path), random.Random(0)
    for count in (1, 30, 75):
        kill_at(generation, tmp_path, count, moments.uniform(0, 0.02))
        assert not (generation.output_dir / "manifest.jsonl").exists(), "killed before its end"
    assert main(arguments(generation)) == 0
    assert content(generation.output_dir) == content(whole.output_dir)
    open_folder(generation.output_dir)


@pytest.mark.slow
def test_killed_then_damaged_it_ends_with_the_same_folder(whole: Generation, tmp_path: Path) -> None:
    """What a crash of the machine may leave: a truncated image, a flipped byte, an empty file, half a line."""
    generation = beside(whole, tmp_path)
    kill_at(generation, tmp_path, 40)
    cut, flipped, emptied, lost = sorted((generation.output_dir / "images").glob("[!.]*.png"))[:4]
    cut.write_bytes(cut.read_bytes()[:-20])
    content_ = bytearray(flipped.read_bytes())
    content_[60] ^= 4
    flipped.write_bytes(content_)
    emptied.write_bytes(b"")
    lost.unlink()
    (part,) = (generation.output_dir / "parts").glob("00000.jsonl")
    part.write_text(part.read_text()[:-15])
    assert main(arguments(generation)) == 0
    assert content(generation.output_dir) == content(whole.output_dir)


@pytest.mark.slow
def test_killed_while_it_overwrites_the_folder_is_still_known(whole: Generation, tmp_path: Path) -> None:
    generation = beside(whole, tmp_path)
    assert main([*arguments(generation), "--guidance_scale", "2"]) == 0
    other = content(generation.output_dir)
    with started(tmp_path, tmp_path / "log", str(GENERATE), *arguments(generation), "--overwrite") as process:
        wait_until(process, lambda: there(generation) < ROWS * IMAGES)
        process.kill()
        process.wait()
    assert (generation.output_dir / "generation.json").exists()
    assert main([*arguments(generation), "--overwrite"]) == 0
    assert content(generation.output_dir) == content(whole.output_dir) != other
