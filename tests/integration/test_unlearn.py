"""`erase train` on a classifier: original, cache, resuming, processes and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from erase.classification.models import load_classifier
from erase.classification.splits import Random, make_splits
from erase.evaluation.unlearning.accuracy import accuracies
from erase.evaluation.unlearning.outputs import predict
from erase.training.step_log import read_log
from tests.launch import TRAIN, at_step, run, train, train_and_stop

NETWORK = "model: {source: timm, architecture: test_resnet, stem: standard}\n"
RUN = (
    "task: classification\ndata: {name: digits}\nforget: {name: classes, labels: [8]}\n"
    + NETWORK
    + "original: {max_train_steps: 120, train_batch_size: 64, learning_rate: 0.1}\nupdate: {name: lur}\n"
    "forget_weight: 0.1\ntrain_batch_size: 16\nmax_train_steps: 8\nlearning_rate: 0.02\noutput_dir: run\n"
)
Say = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One original for all of these tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def config(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ERASE_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "config.yaml"
    file.write_text(RUN)
    return file


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def original_of(cache: Path) -> Path:
    """The one folder in the cache whose run learned from all samples."""
    found = [f.parent for f in cache.rglob("provenance.json") if made(f.parent)["config"]["learn_from"] == "all"]
    (folder,) = [f for f in found if made(f)["forgotten"]["what"]["name"] == "classes"]
    return folder


def made(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "provenance.json").read_text())
    return content


@pytest.mark.slow
def test_a_class_is_known_before_and_gone_after_and_the_rest_is_kept(config: Path, cache: Path, tmp_path: Path) -> None:
    words = ["--forget_loss.name", "random_label", "--forget_weight", "1"]
    assert train(config, *words, "--max_train_steps", "20", "--learning_rate", "0.002") == 0
    found = {}
    for name, folder in (("before", original_of(cache)), ("after", tmp_path / "run")):
        model, description = load_classifier(folder)
        splits = make_splits_of(folder)
        parts = ("forget", "retain", "test")
        found[name] = accuracies({part: predict(model, getattr(splits, part), description.normalise) for part in parts})
    assert found["before"]["UA"] < 10 < 50 < found["after"]["UA"]
    assert min(found["before"]["TA"], found["after"]["TA"]) > 85
    record = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert record["sha256"]["forget"] == made(tmp_path / "run")["forgotten"]["hash"]
    assert len(read_log(tmp_path / "run")) == 20


def make_splits_of(folder: Path) -> Any:
    from erase.config import build
    from erase.training.unlearning_settings import UnlearningRun

    settings = build(UnlearningRun, made(folder)["config"])
    return make_splits(settings.data, settings.forget, settings.split_seed)


@pytest.mark.slow
def test_the_original_is_trained_once(config: Path, cache: Path) -> None:
    assert train(config) == 0
    before = sorted(str(file) for file in cache.rglob("*"))
    stamp = (original_of(cache) / "model.safetensors").stat().st_mtime_ns
    assert train(config, "--output_dir", "other", "--update.mode", "alternating") == 0
    assert sorted(str(file) for file in cache.rglob("*")) == before
    assert (original_of(cache) / "model.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["frozen", "batch"])
def test_a_run_that_was_stopped_ends_with_the_same_bits(config: Path, tmp_path: Path, mode: str) -> None:
    """With running statistics that move, and a mask that holds half the entries under momentum and decay."""
    words = ["--batch_norm", mode, "--mask.name", "saliency", "--adam_weight_decay", "0.01"]
    assert train(config, *words, "--output_dir", "whole") == 0
    assert train_and_stop(config, 3, *words, "--output_dir", "parts") != 0
    assert train(config, *words, "--output_dir", "parts", "--resume_from_checkpoint", "latest") == 0
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert len(read_log(tmp_path / "parts")) == 8
    counts = [made(tmp_path / name)["counts"] | {"seconds": None} for name in ("whole", "parts")]
    assert counts[0] == counts[1], "what the mask took is counted once"


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(config: Path, cache: Path, tmp_path: Path) -> None:
    assert train(config, "--output_dir", "one") == 0
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = ["--config", str(config), "--train_batch_size", "8", "--output_dir", "two"]
    done = run(tmp_path, *launcher, str(TRAIN), *words)
    assert done.returncode == 0, done.stderr
    base, one, two = (weights(folder) for folder in (original_of(cache), tmp_path / "one", tmp_path / "two"))
    moved = max((one[name] - base[name]).abs().max().item() for name in one if one[name].is_floating_point())
    apart = max((one[name] - two[name]).abs().max().item() for name in one if one[name].is_floating_point())
    assert moved > 1e-3
    assert apart < 0.01 * moved


@pytest.mark.slow
def test_batch_statistics_are_refused_with_two_processes(config: Path, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = run(tmp_path, *launcher, str(TRAIN), "--config", str(config), "--batch_norm", "batch")
    assert done.returncode != 0
    assert "batch_norm: batch needs one process" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_checkpoint_of_other_samples_is_refused(config: Path, cache: Path, tmp_path: Path, capsys: Say) -> None:
    assert train(config) == 0
    shutil.copytree(original_of(cache), tmp_path / "original")
    words = ["--model.checkpoint", "original", "--output_dir", "other"]
    for dry in ([], ["--dry_run"]):
        assert train(config, *words, "--split_seed", "1", *dry) == 2
        assert "model.checkpoint: original was trained on samples of hash" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert train(config, *words) == 0


@pytest.mark.slow
def test_a_retrained_classifier_is_refused_as_the_original(
    config: Path, cache: Path, tmp_path: Path, capsys: Say
) -> None:
    """Also where it was told an original's weights, which it did not begin with."""
    assert train(config) == 0
    afresh = ["--start.name", "scratch", "--update", "{name: retain_only}", "--batch_norm", "batch"]
    assert train(config, *afresh, "--output_dir", "retrained") == 0
    assert train(config, *afresh, "--model.checkpoint", str(original_of(cache)), "--output_dir", "again") == 0
    for folder in ("retrained", "again"):
        assert train(config, "--model.checkpoint", folder, "--output_dir", "other") == 2
        assert f"model.checkpoint: {folder} was trained afresh on what is kept" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_checkpoint_of_the_same_classes_in_another_order_is_refused(
    config: Path, cache: Path, tmp_path: Path, capsys: Say
) -> None:
    assert train(config) == 0
    shutil.copytree(original_of(cache), tmp_path / "original")
    file = tmp_path / "original" / "classifier.json"
    said = json.loads(file.read_text())
    said["classes"][:2] = reversed(said["classes"][:2])
    file.write_text(json.dumps(said))
    assert train(config, "--model.checkpoint", "original", "--output_dir", "other") == 2
    assert (
        f"original knows {said['classes'][0]!r} as its class 0, which is {said['classes'][1]!r} in the data"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_the_command_takes_start_mask_and_weight(config: Path, cache: Path, tmp_path: Path) -> None:
    """Masked entries stay bit for bit under momentum and weight decay; the others move, by the forget loss too."""
    drawn = ["--adam_weight_decay", "0.1", "--batch_norm", "batch", "--mask", "{name: saliency, share: 0.3}"]
    assert train(config, *drawn, "--output_dir", "masked") == 0
    assert train(config, *drawn, "--output_dir", "lighter", "--forget_weight", "1e-6") == 0
    before, masked, lighter = map(weights, (original_of(cache), tmp_path / "masked", tmp_path / "lighter"))
    mask = load_file(tmp_path / "masked" / "mask.safetensors")
    for name, kept in mask.items():
        assert torch.equal(masked[name][kept == 0], before[name][kept == 0]), name
    moved = [(masked[name] != before[name])[kept == 1].float().mean() for name, kept in mask.items() if kept.any()]
    assert sum(moved) / len(moved) > 0.9
    assert any(not torch.equal(masked[name], lighter[name]) for name in mask)
    assert train(config, "--start", "{name: trim, share: 0.1}", "--max_train_steps", "0", "--output_dir", "cut") == 0
    cut = weights(tmp_path / "cut")
    changed = sum(int((cut[name] != before[name]).sum()) for name in mask) / sum(t.numel() for t in mask.values())
    assert 0 < changed <= 0.1


EXPAND, MOST = ["--forget_loss.name", "boundary_expand"], ["--update.name", "forget_only"]
BRIEF = ["--original.max_train_steps", "6", "--original.train_batch_size", "8", "--max_train_steps", "1"]


def interrupted(signalled: bool) -> int | None:
    """A signal, which a run answers with a checkpoint; or an end without warning."""
    if signalled:
        return signal.raise_signal(signal.SIGTERM)
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("signalled", [True, False])
def test_an_original_that_was_interrupted_goes_on_with_the_same_command(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signalled: bool, capsys: Say
) -> None:
    words = [*BRIEF, "--checkpointing_steps", "2"]
    for name in ("whole", "parts"):
        monkeypatch.setenv("ERASE_CACHE", str(tmp_path / name))
        if name == "parts":
            with monkeypatch.context() as patch:
                at_step(patch, 5, lambda: interrupted(signalled))
                assert train(config, *words, "--output_dir", name) == (143 if signalled else 130)
            said = capsys.readouterr().err
            assert "To go on, run the same command again" in said
            assert not (tmp_path / "run").exists()
            with monkeypatch.context() as patch:  # nothing is trained twice
                at_step(patch, 4, lambda: pytest.fail("began anew"))
                assert train(config, *words, "--output_dir", "run") == 0
        else:
            assert train(config, *words, "--output_dir", name) == 0
    whole, parts = (weights(original_of(tmp_path / name)) for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert len(read_log(original_of(tmp_path / "parts"))) == 6


@pytest.mark.slow
def test_from_scratch_the_teacher_is_the_original_and_not_a_network_of_random_weights(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERASE_CACHE", str(tmp_path / "own"))
    words = [*BRIEF, "--start.name", "scratch", "--batch_norm", "batch", "--update.name", "retain_only"]
    assert train(config, *words) == 0
    assert not (tmp_path / "own").exists()
    distilled = ["--retain_loss", "{name: distillation, gamma: 0, alpha: 1, temperature: 1}", "--output_dir", "other"]
    assert train(config, *words, *distilled) == 0
    assert made(original_of(tmp_path / "own"))["counts"]["gradient_evaluations"] == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--start.name", "scratch"], "batch_norm: found frozen with weights drawn at random"),
        (["--start.name", "scratch", "--dry_run"], "batch_norm: found frozen with weights drawn at random"),
        (["--start.name", "scratch", "--batch_norm", "batch", "--train_batch_size", "1"], "train_batch_size: found 1"),
        (
            ["--start.name", "scratch", "--batch_norm", "batch", "--update.name", "forget_only"],
            "update.name forget_only: the running statistics follow the retain batch",
        ),
        (["--original.train_batch_size", "1", "--seed", "5"], "original.train_batch_size"),
        (["--model.architecture", "test_vit"], "model.architecture: the network takes no pictures of 8 x 8 pixels"),
        (["--model.architecture", "test_vit", "--dry_run"], "takes no pictures of 8 x 8 pixels"),
        (["--forget.labels", "[8, 8]"], "forget.labels.1: '8' is there twice"),
        (["--model.checkpoint", "nowhere"], "model.checkpoint: nowhere: there is no such file"),
    ],
)
def test_what_data_and_network_do_not_allow_is_told_in_words(
    config: Path, words: list[str], said: str, capsys: Say
) -> None:
    assert train(config, *words) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
    assert not (config.parent / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--learn_from", "all"], "learn_from: all trains an original"),
        (["--max_train_steps", "0", "--start.name", "scratch"], "max_train_steps: found 0"),
        (["--max_train_steps", "0"], "max_train_steps: found 0 with start.name trained: nothing would be forgotten"),
        (
            [*EXPAND, "--retain_loss.name", "distillation"],
            "retain_loss.name: distillation needs the original",
        ),
        ([*EXPAND, "--mask.name", "saliency"], "mask.name: saliency is of the original's parameters"),
        (["--mask", "{name: saliency, file: no.safetensors}"], "mask.file: no.safetensors is not there"),
        ([*MOST, "--forget_loss.name", "teacher_divergence"], "forget_loss.name: teacher_divergence has no gradient"),
        (["--start", "{name: trim, layers: [conv9]}"], "start.layers: found 'conv9'"),
        (["--start", "{name: trim, share: 1e-9}"], "start.share: found 1e-09, which of "),
        (["--mask", "{name: saliency, share: 1e-9}"], "mask.share: found 1e-09, which of "),
        (
            ["--forget_loss.name", "boundary_expand", "--update.name", "retain_only", "--mask.name", "saliency"],
            "mask.name: saliency is of the original's parameters",
        ),
        (["--parameters.name", "cross_attention"], "parameters.name: cross_attention"),
        (["--parameters.name", "lora"], "parameters.name: lora is for diffusers' models"),
        (["--mask", "{name: saliency, file: .}"], "mask.file: . is a folder; give the mask.safetensors"),
        (["--forget.labels", "8"], "forget.labels: found 8; must be a list, such as [8]"),
        (["--forget.labels", "[no]"], "found False, as YAML reads it; must be text: put it between quotes"),
        (["--forget", "{name: classes, labels: [eight]}"], "forget.labels.0: found 'eight'"),
        (["--forget_los.name", "uniform"], "did you mean forget_loss?"),
        (["--task", "clasification"], "task: found 'clasification'"),
        (["--model.checkpoint", ".", "--output_dir", "..", "--overwrite"], "lies in output_dir"),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(config: Path, words: list[str], said: str, capsys: Say) -> None:
    assert train(config, *words) == 2
    assert said in capsys.readouterr().err
    assert not (config.parent / "run").exists()


def test_the_help_lists_the_classifier_s_keys(config: Path, capsys: Say) -> None:
    assert train(config, "--help") == 0
    said = capsys.readouterr().out
    assert "--batch_norm" in said and "--original.learning_rate" in said and "start.name=selective_dampening" in said


def test_the_forget_part_is_a_part_of_what_was_learned() -> None:
    from erase.classification.data import Digits

    splits = make_splits(Digits(), Random(fraction=0.1), 3)
    assert set(splits.forget.ids) | set(splits.retain.ids) == set(splits.train.ids)
    assert not set(splits.forget.ids) & set(splits.retain.ids)


def test_a_run_does_not_go_on_from_another_original(config: Path, cache: Path, tmp_path: Path, capsys: Say) -> None:
    """Of the same samples and settings, trained elsewhere: teacher, mask and what it holds would be of two networks."""
    words = ["--output_dir", "parts", "--model.checkpoint", str(tmp_path / "original")]
    assert train(config, "--output_dir", "first") == 0
    shutil.copytree(original_of(cache), tmp_path / "original")
    assert train_and_stop(config, 3, *words) != 0
    changed = weights(tmp_path / "original")
    changed["fc.bias"] += 1e-3
    save_file(changed, tmp_path / "original" / "model.safetensors")
    capsys.readouterr()
    assert train(config, *words, "--resume_from_checkpoint", "latest") == 2
    assert "begun_with" in capsys.readouterr().err


@pytest.mark.slow
def test_one_process_of_a_launcher_trains_the_original_and_goes_on(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERASE_CACHE", str(tmp_path / "own"))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1"]
    words = ["--config", str(config), "--seed", "7", "--original.max_train_steps", "3", "--max_train_steps", "2"]
    done = run(tmp_path, *launcher, str(TRAIN), *words)
    assert done.returncode == 0, done.stderr
