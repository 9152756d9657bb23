"""The YAMLs for Stable Diffusion at its real size: each is checked and dry-run on a tiny pipeline of its family."""

from __future__ import annotations

import csv
import gzip
import itertools
import re
from importlib.resources import files
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from erase.config import load
from erase.diffusion.prompts import names
from erase.evaluation.audit_settings import Audit, check_concepts, judge_of, metrics_of, with_target
from erase.evaluation.metrics import ZeroShot
from erase.generation.prompt_csv import read_prompt_set
from erase.generation.prompts import PromptRow
from erase.prompt_files import read_prompts
from erase.train import main
from erase.training.dry_run import dry_run
from erase.training.erasure import ErasureRun, check_run
from erase.training.memory import estimate_memory
from erase.training.step_log import read_log
from pipelines.benchmark_updates import large_unet
from pipelines.write_training_prompts import main as write_prompts
from tests.families import FAMILIES
from tests.launch import ROOT

FILES = sorted((ROOT / "configs" / "diffusion").glob("sd*.yaml"))
USES = ("artist", "object", "person", "nudity", "trademark", "several")
OF_MODELS = {
    "stable-diffusion-v1-5": "sd-epsilon",
    "stable-diffusion-2-1": "sd-v",
    "stable-diffusion-xl-base-1.0": "sdxl",
}
"""The last part of a config's model, and the family of its tiny stand-in."""
PROMPTS = ROOT / "prompts" / "training"
AUDITS = ("object", "person", "trademark")

each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's own, of 49,408 words: open_clip carries its merges."""
    packed = gzip.decompress(files("open_clip").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes())
    merges = [tuple(line.split()) for line in packed.decode().splitlines()[1 : 49152 - 256 - 2 + 1]]
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in shown] + [chr(256 + place) for place in range(256 - len(shown))]
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {word: place for place, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny pipeline of each family that reads any prompt, on the disk."""
    tokenizer, folders = clip_tokenizer(), {}
    own = {"vocab_size": len(tokenizer), "max_position_embeddings": 77, "pad_token_id": tokenizer.pad_token_id}
    own |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    for family in FAMILIES:
        pipeline = FAMILIES[family](0)
        readers = [name for name in ("", "_2") if hasattr(pipeline, f"text_encoder{name}")]
        for name in readers:
            encoder = getattr(pipeline, f"text_encoder{name}")
            encoder.config.update(own)
            made = type(encoder)(encoder.config)
            pipeline.register_modules(**{f"text_encoder{name}": made, f"tokenizer{name}": tokenizer})
        folders[family] = tmp_path_factory.mktemp(family) / "model"
        pipeline.save_pretrained(folders[family])
    return folders


@pytest.fixture(autouse=True)
def from_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the configs' commands run: their prompts' files are found from there."""
    monkeypatch.chdir(ROOT)


def stand_in(file: Path, models: dict[str, Path]) -> str:
    """The folder of the tiny pipeline in the place of a config's model."""
    return str(models[OF_MODELS[load(ErasureRun, file).model.split("/")[1]]])


def small(file: Path, models: dict[str, Path], place: Path) -> list[str]:
    """Settings that make a config a matter of seconds."""
    few = {"model": stand_in(file, models), "output_dir": place / "run", "latents.cache_dir": place / "cache"}
    few |= {"latents.forget": 3, "latents.neutral": 3, "latents.retain": 2, "latents.steps": 1}
    few |= {"train_batch_size": 2, "max_train_steps": 1, "lr_warmup_steps": 0, "probe_every": 0}
    return [f"{key}={value}" for key, value in few.items()]


def header(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line[1:].strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]


def test_there_is_one_for_each_use_and_for_each_family() -> None:
    assert {file.stem for file in FILES} >= {f"sd15_{use}" for use in USES}
    assert {load(ErasureRun, file).model.split("/")[1] for file in FILES} == set(OF_MODELS)
    assert set(OF_MODELS.values()) == set(FAMILIES)


@each
def test_its_header_says_memory_and_time_and_that_they_are_estimates(file: Path) -> None:
    text = " ".join(header(file))
    assert re.search(r"Memory: \d+ GiB \(\+-20 %\), estimated\. Time: [^.]+, estimated[.;]", text)
    assert "not yet measured" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd15_object", "sd15_person", "sd15_trademark"])
def test_the_memory_in_its_header_is_that_of_the_estimate_at_true_size(name: str) -> None:
    file = ROOT / "configs" / "diffusion" / f"{name}.yaml"
    others = 4 * (123_060_480 + 83_653_863)  # text encoder and autoencoder
    estimate = estimate_memory(load(ErasureRun, file), large_unet, others).peak / 2**30
    (said,) = re.findall(r"Memory: (\d+) GiB", " ".join(header(file)))
    assert int(said) == pytest.approx(estimate, abs=0.6)


@each
def test_it_is_checked_and_dry_run_on_a_pipeline_of_its_family(
    file: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    run = load(ErasureRun, file, [f"model={stand_in(file, models)}", f"output_dir={tmp_path / 'run'}"])
    report = dry_run(run, check_run(run))
    assert all(target.concept in report for target in run.targets)
    assert re.search(rf"{run.parameters.name}: [1-9]", report)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@each
def test_it_trains_a_pipeline_of_its_family(file: Path, models: dict[str, Path], tmp_path: Path) -> None:
    overrides = [
        text for pair in small(file, models, tmp_path) for text in ("--" + pair.split("=")[0], pair.split("=")[1])
    ]
    assert main(["--config", str(file), *overrides]) == 0
    assert len(read_log(tmp_path / "run")) == 1


@each
def test_what_it_keeps_names_none_of_its_targets_and_no_audit_asks_for_it(file: Path) -> None:
    run = load(ErasureRun, file)
    assert run.retain.prompts_file is not None
    kept = read_prompts(run.retain.prompts_file, "retain.prompts_file")
    assert len(kept) >= 70
    targets = [word for target in run.targets for word in (target.concept, *target.synonyms)]
    assert [prompt for prompt in kept if names(prompt, targets)] == []
    asked = {row.prompt for other in ROOT.glob("prompts/*.csv") for row in read_prompt_set(other)}
    plan = check_run(run)
    assert asked.isdisjoint({*kept, *(prompt for target in plan.targets for prompt in target.prompts)})


def test_prompts_to_keep_near_nudity_show_no_child() -> None:
    young = r"child|children|kids?|boys?|girls?|baby|babies|infants?|teen\w*"
    kept = read_prompts(PROMPTS / "keep_bodies.csv", "keep")
    assert [prompt for prompt in kept if re.search(rf"\b({young})\b", prompt)] == []


def test_the_script_writes_these_files(tmp_path: Path) -> None:
    write_prompts(["--output", str(tmp_path)])
    there = {file.name: file.read_bytes() for file in PROMPTS.glob("*.csv")}
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == there
    for content in there.values():
        rows = list(csv.reader(content.decode().splitlines()))
        assert len({tuple(row) for row in rows}) == len(rows)


# Audits


def audit_of(name: str) -> Audit:
    audit = load(Audit, ROOT / "configs" / "audit" / f"{name}.yaml")
    judge_of(audit, metrics_of(audit))
    return audit


@pytest.mark.parametrize("name", AUDITS)
def test_an_audit_asks_for_its_target_and_its_judge_knows_every_concept(name: str) -> None:
    audit = audit_of(name)
    rows = read_prompt_set(ROOT / str(audit.prompts), seed=audit.seed)
    domain = check_concepts(audit, rows)
    for metric in audit.metrics:
        if isinstance(metric, ZeroShot):
            assert {row.concepts[domain] for row in rows} == set(metric.concepts[domain])


def test_the_audit_of_nudity_counts_the_rows_without_a_concept_as_asking_for_it() -> None:
    audit = audit_of("nudity")
    rows = with_target(audit, [PromptRow("0", "of I2P", 0), PromptRow("1", "kept", 0, concepts={"topic": "beach"})])
    assert check_concepts(audit, rows) == "concept"
    assert audit.all_target and judge_of(audit, metrics_of(audit)) == "nudity"


@pytest.mark.parametrize("name", ["nudity", *AUDITS])
def test_an_audit_looks_at_what_a_config_leaves(name: str) -> None:
    audit = audit_of(name)
    (file,) = [file for file in FILES if str(load(ErasureRun, file).output_dir) == audit.erased]
    run = load(ErasureRun, file)
    assert run.model == audit.base and f"configs/audit/{name}.yaml" in " ".join(header(file))
    assert name == "nudity" or run.targets[0].concept == audit.target
