"""`pipelines/unlearn_class.py` and the study: original, reference, unlearned model, numbers, page, table."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification

from erase.classification.images import Normalise
from erase.classification.models import load_classifier
from erase.classification.splits import make_splits
from erase.config import load
from erase.errors import UserError
from erase.evaluation.unlearning.outputs import Outputs
from erase.evaluation.unlearning.study import AGAIN, NOTHING, RETRAIN
from erase.protocols import UpdateState
from erase.training.unlearning import UnlearningCounts, train_from_scratch, unlearn
from erase.training.unlearning_settings import UnlearningRun
from pipelines import unlearn_class, unlearning_methods, unlearning_study, unlearning_table
from pipelines.search import choose
from tests.integration.test_unlearn import NETWORK, RUN
from tests.unit.updates.problems import bowls

QUICK = RUN.replace("max_train_steps: 120", "max_train_steps: 20").replace("max_train_steps: 8", "max_train_steps: 3")


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("ERASE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(QUICK)


def go(patch: pytest.MonkeyPatch, *words: str) -> int:
    patch.setattr(sys, "argv", ["unlearn_class.py", "--config", "config.yaml", *words])
    return unlearn_class.main()


@pytest.mark.slow
def test_all_three_models_are_judged_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert go(monkeypatch, "--shadow_models", "2") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["judged"]) == ["original", "retrained", "unlearned"]
    assert results["judged"]["retrained"]["Avg_gap"]["value"] == 0
    assert {"UA", "RA", "TA", "MIA", "JS", "ToW", "RTE"} <= set(results["judged"]["unlearned"])
    assert set(results["shadows"]) == {"RMIA", "U-LiRA", "challenge", "models", "made"}
    assert results["shadows"]["RMIA"]["unseen"] == "test_forgotten", "a whole class is forgotten"
    assert "shadow models" not in results and len(results["shadows"]["challenge"]["epsilons"]) > 100
    page = (tmp_path / "run" / "report.html").read_text()
    assert "class 8" in page and "python pipelines/unlearn_class.py --config config.yaml --shadow_models 2" in page
    assert "after LUR chained (gradient ascent, cross entropy), " in page
    assert str(tmp_path) not in page
    assert "<dt>challenge, final</dt>" in page and "epsilons" not in page


@pytest.mark.slow
def test_a_shadow_model_that_diverges_is_left_out_and_costs_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two, one is too few for the attacks, and what was judged stays; of three, two are enough."""

    def one_too_fast(run: UnlearningRun) -> UnlearningCounts:
        return unlearn(replace(run, learning_rate=1e30) if run.seed == 1 else run)

    monkeypatch.setattr(unlearn_class, "unlearn", one_too_fast)
    assert go(monkeypatch, "--shadow_models", "2") == 2
    said = capsys.readouterr()
    assert "shadow model 1 of 2 diverged and is left out" in said.out
    assert "shadow_models: 1 of 2 diverged, 1 are left; the attacks need 2" in said.err
    assert json.loads((tmp_path / "run" / "results.json").read_text())["shadows"] == {}
    assert (tmp_path / "run" / "report.html").is_file()
    assert go(monkeypatch, "--shadow_models", "3") == 0
    shadows = json.loads((tmp_path / "run" / "results.json").read_text())["shadows"]
    assert shadows["models"] == {"asked": 3, "diverged": 1}
    assert [shadows[attack]["models"] for attack in ("RMIA", "U-LiRA", "challenge")] == [2, 3, 3]


@pytest.mark.slow
def test_a_second_go_trains_nothing_and_another_run_in_its_place_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(monkeypatch) == 0
    stamp = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    assert go(monkeypatch) == 0
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == stamp
    assert go(monkeypatch, "--forget_weight", "0.2") == 2
    assert "holds a run of other settings" in capsys.readouterr().err


def settings(*overrides: str) -> UnlearningRun:
    return load(UnlearningRun, Path("config.yaml"), overrides)


def is_made(run: UnlearningRun) -> bool:
    return unlearn_class.is_made(run, make_splits(run.data, run.forget, run.split_seed))


@pytest.mark.slow
def test_only_the_run_s_own_model_is_taken_for_it(tmp_path: Path) -> None:
    """Whatever differs, in the settings or in the samples, is named; how it was run may differ."""
    ids = make_splits(settings().data, settings().forget, 0).train.ids
    (tmp_path / "ids.txt").write_text("\n".join(ids[:20]))
    listed = "forget={name: listed, file: ids.txt}"
    assert not is_made(settings(listed))
    unlearn(settings(listed))
    free = ["overwrite=false", "checkpointing_steps=7", "resume_from_checkpoint=latest", "output_dir=./run"]
    assert is_made(settings(listed)) and is_made(settings(listed, *free))
    for other in ("model.architecture=test_resnext", "model.checkpoint=else.safetensors", "seed=1"):
        with pytest.raises(UserError, match=f"other settings(.|\n)*{other.split('=')[0]}"):
            is_made(settings(listed, other))
    (tmp_path / "ids.txt").write_text("\n".join(ids[20:40]))
    with pytest.raises(UserError, match=r"other settings(.|\n)*forget samples: other than then"):
        is_made(settings(listed))
    assert not is_made(settings(listed, "overwrite=true"))
    unlearn(settings(listed, "overwrite=true"))
    assert is_made(settings(listed))


@pytest.mark.slow
def test_attacks_and_shadow_models_that_are_there_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run" / "results.json"

    def stamps() -> list[int]:
        return [file.stat().st_mtime_ns for file in sorted(tmp_path.glob("run/**/model.safetensors"))]

    def attacks() -> Any:
        return json.loads(file.read_text())["shadows"]

    assert go(monkeypatch, "--shadow_models", "2") == 0
    made, found = stamps(), attacks()
    assert len(made) == 3 and found
    assert go(monkeypatch) == 0
    assert (stamps(), attacks()) == (made, found)
    with monkeypatch.context() as patch:
        patch.setattr(unlearn_class, "ulira", None)  # what is there is not worked out again
        assert go(patch, "--shadow_models", "2") == 0
    assert attacks() == found
    results = json.loads(file.read_text())
    results["shadows"]["made"]["version"] -= 1
    file.write_text(json.dumps(results))
    assert go(monkeypatch, "--shadow_models", "2") == 0
    assert attacks()["made"]["version"] == found["made"]["version"]
    assert go(monkeypatch, "--shadow_models", "3") == 0
    assert attacks()["models"]["asked"] == 3
    assert set(made) < set(stamps())


@pytest.mark.slow
def test_a_run_is_not_taken_for_one_that_began_with_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = settings()
    original = train_from_scratch(run, make_splits(run.data, run.forget, 0), "all")
    shutil.copy(original / "model.safetensors", tmp_path / "original.safetensors")
    assert go(monkeypatch, "--model.checkpoint", "original.safetensors") == 0
    assert go(monkeypatch, "--model.checkpoint", "original.safetensors") == 0
    other = load_file(tmp_path / "original.safetensors")
    save_file({name: 1.5 * tensor for name, tensor in other.items()}, tmp_path / "original.safetensors")
    capsys.readouterr()
    assert go(monkeypatch, "--model.checkpoint", "original.safetensors") == 2
    assert "model.checkpoint: original.safetensors holds other weights than then" in capsys.readouterr().err


@pytest.mark.slow
def test_a_weights_file_is_an_original_like_its_folder_and_an_unlearned_model_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(monkeypatch) == 0
    run = settings()
    original = train_from_scratch(run, make_splits(run.data, run.forget, 0), "all")
    (tmp_path / "alone").mkdir()
    shutil.copy(original / "model.safetensors", tmp_path / "alone" / "weights.safetensors")
    found = [json.loads((tmp_path / "run" / "results.json").read_text())["judged"]]
    for number, place in enumerate([original / "model.safetensors", tmp_path / "alone" / "weights.safetensors"]):
        out = tmp_path / f"run-{number}"
        assert go(monkeypatch, "--model.checkpoint", str(place), "--output_dir", str(out)) == 0
        found.append(json.loads((out / "results.json").read_text())["judged"])
    assert found[0]["original"] == found[1]["original"] == found[2]["original"]
    one, two, three = ({k: v for k, v in judged["unlearned"].items() if k != "RTE"} for judged in found)
    assert one == two == three
    words = ["--model.checkpoint", str(original / "model.safetensors"), "--output_dir", "x", "--split_seed", "1"]
    assert go(monkeypatch, *words) == 2
    capsys.readouterr()
    assert go(monkeypatch, "--model.checkpoint", "run", "--output_dir", "x") == 2
    assert "model.checkpoint: run has unlearned this forget set already" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.parametrize("pretrained", [False, True])
def test_a_transformers_model_is_the_original_as_it_is_or_trained_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrained: bool
) -> None:
    """As a checkpoint it is judged as it stands; pretrained, both original and reference begin with its weights."""
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=10, **small)
    network = ViTForImageClassification(config).eval()
    network.save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text('{"image_mean": [0.5], "image_std": [0.25]}')
    begins = "pretrained: true" if pretrained else "checkpoint: vit"
    brief = "--original.max_train_steps", "1", "--original.learning_rate", "1e-6"
    model = f"{{source: transformers, architecture: vit, stem: standard, {begins}}}"
    assert go(monkeypatch, "--model", model, *brief, "--learning_rate", "1e-6") == 0
    run = settings(f"model={model}", "original.max_train_steps=1", "original.learning_rate=1e-6")
    splits = make_splits(run.data, run.forget, 0)
    kept = train_from_scratch(run, splits, "retain")
    found = [load_file(folder / "model.safetensors") for folder in (tmp_path / "run", kept)]
    there = network.state_dict()
    apart = [max((w[f"network.{n}"] - t).abs().max().item() for n, t in there.items()) for w in found]
    assert apart[0] < 1e-4
    assert (apart[1] < 1e-4) is pretrained
    if not pretrained:
        normalise = load_classifier(tmp_path / "run")[1].normalise
        assert normalise == Normalise((0.5,), (0.25,))
        logits = network(pixel_values=normalise(splits.forget.pixels)).logits
        wrong = 100 * (logits.argmax(1) != splits.forget.labels).double().mean().item()
        judged = json.loads((tmp_path / "run" / "results.json").read_text())["judged"]
        assert judged["original"]["UA"]["value"] == pytest.approx(wrong)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shadow_models", "1"], "shadow_models: found 1; RMIA, U-LiRA and"),
        (["--shadow_models", "-2"], "give 2 or more, or 0 for none"),
        (["--shadow_models", "2", "--model.checkpoint", "a.safetensors"], "found 2 beside model.checkpoint"),
        (["--shadow_models", "2", "--mask", "{name: saliency, file: a.safetensors}"], "found 2 beside mask.file"),
    ],
)
def test_shadow_models_that_attacks_cannot_do_with_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    for dry in ([], ["--dry_run"]):
        assert go(monkeypatch, *words, *dry) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(monkeypatch, "--dry_run", "--shadow_models", "3", "--forget.labels", "[4, 8]") == 0
    said = capsys.readouterr().out
    assert "forget: classes" in said and "attacks: by 3 shadow models of each kind" in said
    assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_the_study_tunes_judges_and_renders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two methods, with the network and the steps made small; a second go makes nothing again."""
    configs = tmp_path / "configs"
    configs.mkdir()
    for name in ("digits_finetune", "digits_random10", "digits_flipped10"):
        text = (unlearning_methods.CONFIGS / f"{name}.yaml").read_text()
        (configs / f"{name}.yaml").write_text(re.sub(r"steps: \d00\b", "steps: 4", text) + NETWORK)
    monkeypatch.setattr(unlearning_methods, "CONFIGS", configs)
    smaller = partial(replace, modes=("batch",), rates=unlearning_methods.RATES[2:5])
    few = {name: smaller(unlearning_methods.METHODS[name]) for name in ("finetune", "lur chained")}
    for module in (unlearning_study, unlearning_table):
        monkeypatch.setattr(module, "METHODS", few)
    monkeypatch.setattr(unlearning_study, "TUNING_SEEDS", (100, 101))
    store = tmp_path / "store" / "table"
    words = ["--settings", "digits_flipped10", "--seeds", "0", "--output", "scratch", "--store", str(store)]
    unlearning_table.main(words)
    files = {file: file.stat().st_mtime_ns for file in store.rglob("*.json")}
    assert len([file for file in files if "tune" in file.parts]) == 2 * (5 + 3)
    study = unlearning_study.Study(store, tmp_path / "unused")
    rows = unlearning_table.all_rows(study)
    assert [row.method for row in rows] == [RETRAIN, AGAIN, NOTHING, "finetune", "lur chained"]
    few["scrub"] = unlearning_methods.METHODS["scrub"]  # which has no runs: the setting is not complete
    assert unlearning_table.all_rows(study) == []
    del few["scrub"]
    finetune, given = configs / "digits_finetune.yaml", (configs / "digits_finetune.yaml").read_text()
    finetune.write_text(given + "adam_weight_decay: 0.5\n")  # its runs are of other settings than that
    assert unlearning_table.all_rows(study) == []
    finetune.write_text(given)
    table = store.with_suffix(".md").read_text()
    assert "| digits, 10 % flipped labels | lur chained | " in table
    assert "### digits, 10 % flipped labels" in table and "| lur chained | 1 |" in table
    assert store.with_suffix(".svg").stat().st_size > 1000
    unlearning_table.main(words)
    assert {file: file.stat().st_mtime_ns for file in files} == files


@pytest.mark.parametrize(("of", "budget"), [("digits_class", 30), ("digits_flipped10", 30), ("shapes_flipped10", 100)])
@pytest.mark.parametrize("name", unlearning_methods.METHODS)
def test_every_method_has_the_same_search_and_budget(name: str, of: str, budget: int) -> None:
    """Counted by the rule itself; nearest labels take the gradient of an attack beside each look at the forget set.

    Not counted: what a mask or a start looks at before the first step.
    """
    method, setting = unlearning_methods.METHODS[name], unlearning_methods.SETTINGS[of]
    tries: set[tuple[str, ...]] = set()
    method.search(lambda overrides: tries.add(overrides) or 1.0)
    assert len(tries) == (12 if len(method.modes) == 2 else 8)
    for overrides in tries:
        run = unlearning_methods.make_run(setting, method, overrides, 0, Path("x"))
        problem, state, ahead = bowls(), UpdateState(), 0
        evaluations = 0
        for _ in range(run.max_train_steps):
            seen = run.update(problem.retain, problem.forget, problem.parameters, state)
            ahead += seen.alpha is not None and seen.alpha > 0
            attacked = run.forget_loss.name == "boundary_shrink" and seen.forget_loss is not None
            evaluations += seen.evaluations + attacked
        assert evaluations <= budget
        assert ahead >= 2 or not name.startswith("lur")


@pytest.mark.parametrize(("best", "place"), [(0.0003, 0), (0.02, 4), (3.0, 8)])
def test_a_search_finds_rate_mode_and_number(best: float, place: int) -> None:
    """With a gap that is least at one rate, by orders of magnitude, and smaller for the number's third value."""
    method = unlearning_methods.METHODS["neggrad_plus"]

    def gap(overrides: tuple[str, ...]) -> float:
        rate, mode, weight = (given.partition("=")[2] for given in overrides)
        far = abs(math.log(float(rate) / best))
        return far - (0.01 if float(weight) == method.values[2] else 0.0) + (0.1 if mode == "frozen" else 0.0)

    assert method.search(gap) == method.overrides((method.rates[place], "batch"), method.values[2])


def test_tuning_looks_at_the_validation_part_in_place_of_the_test_part() -> None:
    parts: Any = {"test": "test", "validation": "validation", "retain": "retain"}
    assert unlearning_study.for_tuning(parts, tuning=True) == {**parts, "test": "validation"}
    assert unlearning_study.for_tuning(parts, tuning=False) == parts


def test_the_challenges_score_counts_what_unlearning_loses() -> None:
    """Two pairs of models alike in forgetting; the unlearned are right on half of what the retrained are right on."""
    margins = [np.random.default_rng(seed).normal(size=(3, 40)) for seed in (0, 0)]

    def right(share: float) -> Any:
        outputs = Outputs(np.array([[1.0, 0.0]] * 10), (np.arange(10) >= 10 * share).astype(np.int64))
        return dict.fromkeys(("forget", "retain", "test"), outputs)

    found = unlearn_class.challenged(margins, 3 * [right(0.4)], 3 * [right(0.8)])
    assert found["final"] == pytest.approx(found["forgetting"] / 4)


def test_a_choice_is_of_more_than_one_seed() -> None:
    """What is best by luck on the first seed is among the finalists, and loses there."""
    first = {"lucky": 0.0, "good": 1.0, "fair": 2.0, "bad": 3.0}
    others = {"lucky": [5.0, 5.0], "good": [1.0, 2.0], "fair": [1.0, 2.0]}

    def search(loss: Callable[[str], float]) -> None:
        for name in first:
            loss(name)

    assert choose(search, first.__getitem__, others.__getitem__) == "good"


def test_what_fails_on_another_seed_is_not_chosen_where_something_does_not() -> None:
    """Three finalists diverge; the fourth is not looked at unless they all do, and the last failed at once."""
    first = {"a": 0.0, "b": 1.0, "c": 2.0, "d": 3.0, "e": 4.0, "f": math.inf}
    looked: list[str] = []

    def choice(failing: str) -> str:
        def others(name: str) -> list[float]:
            looked.append(name)
            return [math.inf if name in failing else 1.0]

        return choose(lambda loss: [loss(name) for name in first], first.__getitem__, others)

    assert choice("abc") == "d" and looked == ["a", "b", "c", "d"]
    looked.clear()
    assert choice("ab") == "c" and looked == ["a", "b", "c"]
    looked.clear()
    assert choice("abcde") == "a" and looked == ["a", "b", "c", "d", "e"]


def test_steps_grow_with_the_data() -> None:
    method = unlearning_methods.METHODS["scrub"]
    runs = [
        unlearning_methods.make_run(unlearning_methods.SETTINGS[name], method, (), 0, Path("x"))
        for name in ("digits_class", "shapes_flipped10")
    ]
    assert [run.max_train_steps for run in runs] == [30, 99]
    assert [run.update.forget_until for run in runs] == [20, 66]
