"""More than one process: the same folder as one makes, also where processes come in later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erase.generate import main
from erase.generation.settings import Generation
from tests.generation import GENERATE, arguments, content, one_thread, settings, write_set
from tests.launch import run, started, wait_until

TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Generation:
    """Made by one process."""
    one_thread()
    place = tmp_path_factory.mktemp("whole")
    generation = settings(model, write_set(place, 30), place / "out", images_per_prompt=2)
    assert main(arguments(generation)) == 0
    return generation


def beside(whole: Generation, folder: Path) -> Generation:
    return settings(Path(whole.model), Path(whole.prompts), folder / "out", images_per_prompt=2)


@pytest.mark.slow
def test_two_processes_make_the_folder_that_one_makes(whole: Generation, tmp_path: Path) -> None:
    generation = beside(whole, tmp_path)
    done = run(tmp_path, *TWO, str(GENERATE), *arguments(generation))
    assert done.returncode == 0, done.stderr
    assert content(generation.output_dir) == content(whole.output_dir)
    assert done.stdout.count("60 images, 60 of them made now") == 1
    headers = [json.loads((g.output_dir / "generation.json").read_text()) for g in (generation, whole)]
    assert [[run["processes"] for run in header.pop("made_with")] for header in headers] == [[2], [1]]
    for header in headers:
        assert header["prompts"].pop("source") == generation.prompts
    assert headers[0] == headers[1]


@pytest.mark.slow
def test_a_second_process_may_join_on_resume_and_leave_again(whole: Generation, tmp_path: Path) -> None:
    generation = beside(whole, tmp_path)
    images = generation.output_dir / "images"
    with started(tmp_path, tmp_path / "log", str(GENERATE), *arguments(generation)) as process:
        wait_until(process, lambda: len(list(images.glob("[!.]*.png"))) >= 1)
        process.kill()
    for file in sorted(images.glob("[!.]*.png"))[1:]:
        file.unlink()
    done = run(tmp_path, *TWO, str(GENERATE), *arguments(generation))
    assert done.returncode == 0, done.stderr
    assert content(generation.output_dir) == content(whole.output_dir)
    (images / "004_1.png").unlink()
    assert main(arguments(generation)) == 0
    assert content(generation.output_dir) == content(whole.output_dir)
    header = json.loads((generation.output_dir / "generation.json").read_text())
    assert [run["processes"] for run in header["made_with"]] == [1, 2, 1], "pytest, which ran last, is another command"


@pytest.mark.slow
def test_accelerate_launches_the_file_and_a_mistake_of_all_is_said_once(whole: Generation, tmp_path: Path) -> None:
    launcher = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    generation = beside(whole, tmp_path)
    done = run(tmp_path, *launcher, str(GENERATE), *arguments(generation))
    assert done.returncode == 0, done.stderr
    assert content(generation.output_dir) == content(whole.output_dir)
    wrong = run(tmp_path, *TWO, str(GENERATE), *arguments(generation), "--guidance_scale", "9")
    assert wrong.returncode != 0
    assert wrong.stderr.count("guidance_scale: 4.0 then, 9.0 now") == 1
    assert content(generation.output_dir) == content(whole.output_dir)
