"""A run: what is missing is made, what is there is kept, two runs do not mix."""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import os
import shutil
import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import save_file

from erase.errors import UserError
from erase.generation.folder import open_folder
from erase.generation.header import default_look
from erase.generation.plan import Ask
from erase.generation.prompt_csv import write_prompt_set
from erase.generation.run import Stopped, generate_folder
from erase.generation.sampler import load_sampler
from erase.generation.settings import Generation
from tests.generation import Painter, content, rows_of, settings, write_set
from tests.launch import listing
from tests.tiny import save_tiny
from tests.unit.generation.test_folder import cut, flip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def generation(model: Path, tmp_path: Path) -> Generation:
    return settings(model, write_set(tmp_path), tmp_path / "out", images_per_prompt=2)


def paint(generation: Generation, stop: Any = None) -> list[Ask]:
    """Makes what is missing, and says what the sampler was asked for."""
    painter = Painter()
    generate_folder(generation, stop, painter.make)
    return painter.asked


def test_a_folder_holds_header_set_manifest_and_images_and_no_notes(generation: Generation) -> None:
    assert len(paint(generation)) == 20
    names = sorted(file.name for file in generation.output_dir.iterdir())
    assert names == [".lock", "generation.json", "images", "manifest.jsonl", "prompts.csv"]
    assert len(list((generation.output_dir / "images").iterdir())) == 20


def test_the_same_command_again_samples_nothing_and_changes_nothing(generation: Generation) -> None:
    paint(generation)
    before, when = listing(generation.output_dir), (generation.output_dir / "manifest.jsonl").stat().st_mtime_ns
    assert paint(generation) == []
    assert listing(generation.output_dir) == before
    assert (generation.output_dir / "manifest.jsonl").stat().st_mtime_ns == when


class StopAfter:
    """Asks to end after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def received(self) -> int:
        self.looks -= 1
        return signal.SIGINT if self.looks < 0 else 0

    @contextmanager
    def listen(self) -> Iterator[None]:
        yield


def test_a_stopped_run_goes_on_to_the_same_folder(generation: Generation, tmp_path: Path) -> None:
    whole = settings(Path(generation.model), Path(generation.prompts), tmp_path / "whole", images_per_prompt=2)
    paint(whole)
    with pytest.raises(Stopped, match="8 of 20 images are in"):
        paint(generation, StopAfter(2))
    with pytest.raises(UserError, match="not complete: 8 of 20 images are there"):
        open_folder(generation.output_dir)
    with pytest.raises(Stopped, match="14 of 20"):  # the first 14 look alike: batches of 4, 4, 4 and 2
        paint(generation, StopAfter(2))
    assert len(paint(generation)) == 6
    assert content(generation.output_dir) == content(tmp_path / "whole")


@pytest.mark.parametrize("spoil", [cut, flip, Path.unlink])
def test_a_damaged_image_is_made_again_with_its_whole_batch_and_the_others_are_left(
    generation: Generation, spoil: Callable[[Path], None]
) -> None:
    paint(generation)
    images = generation.output_dir / "images"
    before, when = content(generation.output_dir), {f.name: f.stat().st_mtime_ns for f in images.iterdir()}
    spoil(images / "004_1.png")
    assert len(paint(generation)) == 4
    assert content(generation.output_dir) == before
    assert [f.name for f in images.iterdir() if f.stat().st_mtime_ns != when[f.name]] == ["004_1.png"]


@pytest.mark.parametrize("name", ["manifest.jsonl", "prompts.csv"])
def test_a_damaged_or_lost_set_or_manifest_is_written_again(generation: Generation, name: str) -> None:
    paint(generation)
    before = content(generation.output_dir)
    (generation.output_dir / name).unlink()
    paint(generation)
    assert content(generation.output_dir) == before
    cut(generation.output_dir / name)
    paint(generation)
    assert content(generation.output_dir) == before


def test_what_a_killed_process_was_writing_is_removed(generation: Generation) -> None:
    with pytest.raises(Stopped):
        paint(generation, StopAfter(1))
    folder = generation.output_dir
    for name in (".manifest.jsonl.tmp1", "images/.003_0.png.tmp1", "parts/.done.jsonl.tmp1"):
        (folder / name).write_text("half")
    with (folder / "parts" / "00000.jsonl").open("a") as stream:
        stream.write('{"file": "images/003_0.png", "by')
    paint(generation)
    assert list(folder.rglob(".*")) == [folder / ".lock"]
    assert not (folder / "parts").exists()


def test_the_notes_of_several_processes_count_together(generation: Generation) -> None:
    with pytest.raises(Stopped):
        paint(generation, StopAfter(2))
    first, second = (generation.output_dir / "parts" / f"{i:05d}.jsonl" for i in (0, 1))
    lines = first.read_text().splitlines(keepends=True)
    first.write_text("".join(lines[::2]))
    second.write_text("".join(lines[1::2]))
    assert len(paint(generation)) == 12
    open_folder(generation.output_dir)


def test_an_image_in_place_but_not_noted_is_made_again(generation: Generation) -> None:
    with pytest.raises(Stopped):
        paint(generation, StopAfter(1))
    (generation.output_dir / "images" / "001_0.png").write_text("not noted, not ours to trust")
    (generation.output_dir / "parts" / "00000.jsonl").unlink()
    assert len(paint(generation)) == 20
    open_folder(generation.output_dir)


CHANGES: list[tuple[dict[str, Any], list[str]]] = [
    ({"num_inference_steps": 3}, ["sampling.num_inference_steps: 2 then, 3 now"]),
    ({"guidance_scale": 5.0}, ["sampling.guidance_scale: 4.0 then, 5.0 now"]),
    ({"width": 32, "height": 24}, ["sampling.height: 16 then, 24 now", "sampling.width: 16 then, 32 now"]),
    ({"images_per_prompt": 3}, ["images_per_prompt: 2 then, 3 now"]),
    ({"dtype": "bfloat16"}, ["sampling.dtype: 'float32' then, 'bfloat16' now"]),
]


@pytest.mark.parametrize(("change", "says"), CHANGES)
def test_a_folder_of_other_settings_is_refused_and_they_are_named(
    generation: Generation, change: dict[str, Any], says: list[str]
) -> None:
    paint(generation)
    before = listing(generation.output_dir)
    other = settings(
        Path(generation.model), Path(generation.prompts), generation.output_dir, **{"images_per_prompt": 2, **change}
    )
    with pytest.raises(UserError) as caught:
        paint(other)
    assert "holds images of another run; give another output_dir, or overwrite" in caught.value.problems[0]
    assert list(caught.value.problems[1:]) == says
    assert listing(generation.output_dir) == before


def test_a_folder_of_another_model_or_set_is_refused(generation: Generation, tmp_path: Path) -> None:
    paint(generation)
    other = save_tiny(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match=r"model\.hash: '"):
        paint(settings(other, Path(generation.prompts), generation.output_dir, images_per_prompt=2))
    write_prompt_set(rows_of(11), Path(generation.prompts))
    with pytest.raises(UserError, match=r"prompts\.hash: '(.|\n)*prompts\.rows: 10 then, 11 now"):
        paint(generation)


def test_another_scheduler_is_another_run(generation: Generation, tmp_path: Path) -> None:
    moved = shutil.copytree(generation.model, tmp_path / "moved")
    same = settings(moved, Path(generation.prompts), generation.output_dir, images_per_prompt=2)
    paint(generation)
    assert paint(same) == [], "the folder's name does not matter, its hash does"
    file = moved / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eta": 1, "beta_end": 0.02}))
    with pytest.raises(UserError, match=r"sampling\.scheduler_hash"):
        paint(same)


def test_what_changes_no_image_may_differ(generation: Generation, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        paint(generation, StopAfter(1))
    prompts = Path(shutil.copy(generation.prompts, tmp_path / "renamed.csv"))
    free: dict[str, Any] = {"batch_size": 3, "images_per_prompt": 2}
    before = json.loads((generation.output_dir / "generation.json").read_text())
    paint(settings(Path(generation.model), prompts, generation.output_dir, **free))
    header = open_folder(generation.output_dir).header
    assert len(open_folder(generation.output_dir).pictures) == 20
    assert [run["batch_size"] for run in header.pop("made_with")] == [4, 3]
    before.pop("made_with")
    assert header == before


def test_the_header_lists_every_run_that_made_images_and_no_run_twice(generation: Generation) -> None:
    def made_with() -> list[int]:
        header = json.loads((generation.output_dir / "generation.json").read_text())
        return [run["batch_size"] for run in header["made_with"]]

    with pytest.raises(Stopped):
        paint(generation, StopAfter(1))
    with pytest.raises(Stopped):
        paint(generation, StopAfter(1))
    assert made_with() == [4], "the same command again"
    other = settings(
        Path(generation.model), Path(generation.prompts), generation.output_dir, images_per_prompt=2, batch_size=7
    )
    paint(other)
    assert made_with() == [4, 7]
    third = settings(
        Path(generation.model), Path(generation.prompts), generation.output_dir, images_per_prompt=2, batch_size=1
    )
    assert paint(third) == []
    assert made_with() == [4, 7], "it found all of them made"
    cut(generation.output_dir / "images" / "003_0.png")
    paint(generation)
    assert made_with() == [4, 7]


def test_overwrite_makes_all_again_and_leaves_nothing_of_the_old(generation: Generation, model: Path) -> None:
    paint(generation)
    (generation.output_dir / "notes.txt").write_text("of the old")
    new = settings(model, Path(generation.prompts), generation.output_dir, overwrite=True, guidance_scale=9.0)
    assert len(paint(new)) == 10
    assert open_folder(generation.output_dir).header["sampling"]["guidance_scale"] == 9.0
    assert len(list((generation.output_dir / "images").iterdir())) == 10
    assert not (generation.output_dir / "notes.txt").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_touched(generation: Generation, model: Path, overwrite: bool) -> None:
    generation.output_dir.mkdir()
    (generation.output_dir / "thesis.txt").write_text("years of work")
    before = listing(generation.output_dir)
    new = settings(model, Path(generation.prompts), generation.output_dir, overwrite=overwrite)
    with pytest.raises(UserError, match=r"output_dir: .* is not empty and has no generation\.json"):
        paint(new)
    assert listing(generation.output_dir) == before


def test_overwrite_never_removes_what_the_run_reads(generation: Generation, model: Path) -> None:
    paint(generation)
    inside = generation.output_dir / "prompts.csv"
    with pytest.raises(UserError, match=r"prompts: .*prompts\.csv lies in .*, which overwrite would empty"):
        paint(settings(model, inside, generation.output_dir, overwrite=True))
    assert paint(settings(model, inside, generation.output_dir, images_per_prompt=2)) == []
    copied = shutil.copytree(model, generation.output_dir / "mine")
    lora = copied / "unet" / "diffusion_pytorch_model.safetensors"
    given: dict[str, dict[str, Any]] = {"model": {"model": str(copied)}, "lora": {"lora": lora}}
    for key, one in given.items():
        with pytest.raises(UserError, match=rf"{key}: .* lies in .*, which overwrite would empty"):
            paint(replace(generation, overwrite=True, **one))
    assert lora.is_file()


def test_a_folder_does_not_go_on_with_other_weights_of_the_same_name(generation: Generation, tmp_path: Path) -> None:
    file = tmp_path / "l.safetensors"
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    save_file({name: torch.zeros(16, 16)}, file)
    paint(replace(generation, lora=file))
    save_file({name: torch.ones(16, 16)}, file)
    with pytest.raises(UserError, match=r"lora\.hash: '"):
        paint(replace(generation, lora=file))


def test_pictures_are_as_high_and_as_wide_as_the_model_says(
    generation: Generation, model: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(model, tmp_path / "moved")
    config = moved / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": [8, 12]}))
    look = default_look(generation, moved)
    assert (look.height, look.width) == (16, 24)


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_writes(generation: Generation) -> None:
    generation.output_dir.mkdir()
    handle = os.open(generation.output_dir / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        with pytest.raises(UserError, match="another run is writing to"):
            paint(generation)
    finally:
        os.close(handle)
    assert len(paint(generation)) == 20


def test_a_run_holds_its_folder_until_its_end_and_overwriting_does_not_let_go(generation: Generation) -> None:
    seen: list[str] = []

    class Watching(Painter):
        def __call__(self, batch: Any) -> Any:
            with pytest.raises(UserError) as caught:
                paint(generation)
            seen.append(caught.value.problems[0])
            return super().__call__(batch)

    paint(generation)
    generate_folder(replace(generation, overwrite=True), None, Watching().make)
    assert len(seen) == 6 and all("another run is writing to" in problem for problem in seen)
    assert paint(generation) == []


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOSYS, "Function not implemented")


def test_a_file_system_without_locks_is_named_with_its_remedy(
    generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)  # as Lustre has it unless mounted with `flock`
    with pytest.raises(
        UserError, match=r"out/\.lock cannot be locked: .*not implemented; give a folder on a file system"
    ):
        paint(generation)
    monkeypatch.undo()
    assert len(paint(generation)) == 20


def test_a_lock_that_cannot_be_opened_is_said(generation: Generation) -> None:
    paint(generation)
    (generation.output_dir / ".lock").unlink()
    (generation.output_dir / ".lock").mkdir()
    with pytest.raises(UserError, match=r"cannot be locked: .*Is a directory"):
        paint(generation)


@pytest.fixture
def trained_in_bfloat16() -> Iterator[None]:
    """This process has an accelerator of another precision, as after a training; all of it goes at the end."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_process_that_trained_in_another_precision_generates(
    generation: Generation, trained_in_bfloat16: None
) -> None:
    assert Accelerator(mixed_precision="bf16").mixed_precision == "bf16"
    assert len(paint(generation)) == 20
    assert AcceleratorState().mixed_precision == "bf16", "and may go on training"


def test_one_that_generated_first_may_train_in_any_precision(generation: Generation, trained_in_bfloat16: None) -> None:
    paint(generation)
    assert Accelerator(mixed_precision="bf16").mixed_precision == "bf16"


def test_a_model_is_gone_before_the_next_is_loaded(generation: Generation, tmp_path: Path) -> None:
    """An audit has memory for one, not for two; without the collector's help from outside."""
    models: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def load(*given: Any) -> Any:
        alive.append(sum(model() is not None for model in models))
        sampler = load_sampler(*given)
        models.extend(weakref.ref(part) for part in (sampler.pipeline, sampler.pipeline.unet))
        return sampler

    gc.collect()
    gc.disable()
    try:
        for number in range(3):
            generate_folder(replace(generation, output_dir=tmp_path / str(number)), None, load)
            assert [model() for model in models] == [None] * len(models)
    finally:
        gc.enable()
    assert alive == [0, 0, 0]


def test_a_sampler_that_fails_leaves_what_was_made_and_the_rest_is_made_later(generation: Generation) -> None:
    class Failing(Painter):
        def __call__(self, batch: Any) -> Any:
            if len(self.asked) >= 8:
                raise UserError("model: too warm")
            return super().__call__(batch)

    with pytest.raises(UserError, match="too warm"):
        generate_folder(generation, None, Failing().make)
    assert len(paint(generation)) == 12


def test_a_model_that_is_refused_leaves_no_folder(generation: Generation) -> None:
    def broken(*_: object) -> Painter:
        raise UserError("model: is damaged")

    with pytest.raises(UserError, match="is damaged"):
        generate_folder(generation, None, broken)
    assert not generation.output_dir.exists()


def test_all_mistakes_are_told_of_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wrong = Generation(
        model=str(tmp_path / "none"),
        prompts=str(tmp_path / "none.csv"),
        lora=tmp_path / "l",
        output_dir=tmp_path / "file",
    )
    with pytest.raises(UserError) as caught:
        paint(wrong)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["prompts", "model", "lora", "output_dir"]


def test_a_revision_of_a_local_model_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"revision: .* has none; found main; leave it out"):
        paint(settings(model, write_set(tmp_path), tmp_path / "out", revision="main"))


def test_a_set_without_seeds_takes_them_from_the_run(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "bare.csv"
    file.write_text("prompt\na star\na ring\n")
    seeds = {}
    for seed in (0, 1):
        generation = settings(model, file, tmp_path / str(seed), seed=seed)
        paint(generation)
        seeds[seed] = [picture.seed for picture in open_folder(generation.output_dir).pictures]
    assert len({*seeds[0], *seeds[1]}) == 4
    with pytest.raises(UserError, match=r"prompts\.hash"):
        paint(settings(model, file, tmp_path / "0", seed=1))
