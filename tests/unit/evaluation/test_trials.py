"""Trials: what a run's course comes to, whose settings a result is of, and that each is one process's alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from erase.config import dump
from erase.evaluation import trials
from erase.evaluation.trials import Trial, TrialStore, base_hash, course, settings_of

TRIAL = Trial("star", "star", 3, 7, ("max_train_steps=5",))


def write_result(store: TrialStore, trial: Trial, **changed: Any) -> None:
    """A stored result as far as its identity goes."""
    config = dump(trial.run(Path("runs/trial"))) | changed
    judged = {"prompts": {"evaluation_seed": trial.evaluation_seed}, "sampling": {"steps": trial.sampling_steps}}
    content = {"config": config, "base": {"hash": base_hash()}, **judged}
    store.folder.mkdir(exist_ok=True)
    (store.folder / f"{trial.name}.json").write_text(json.dumps(content))


NO_LOOKS: dict[str, Any] = {"correction": None, "blocks": {}}


@pytest.fixture
def store(tmp_path: Path) -> TrialStore:
    return TrialStore(tmp_path / "results", tmp_path / "scratch")


def test_the_course_is_the_one_worked_by_hand() -> None:
    log = [{"cosine": value} for value in (0.5, -0.5, None, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2)]
    expected = {"mean_cosine": pytest.approx(0.02), "final_cosine": 0.2}
    expected |= {"conflict_share": 0.2, "steps_in_conflict": 0.2}
    assert course(log) == {"at": "step", "count": 10, **NO_LOOKS} | expected, "an older log, or one without probes"
    assert (
        course([{**line, "cosine_before": None} for line in log]) == {"at": "step", "count": 10, **NO_LOOKS} | expected
    )
    nothing = dict.fromkeys(("mean_cosine", "final_cosine", "conflict_share", "steps_in_conflict"))
    assert course([{"cosine": None}]) == {"at": "step", "count": 0, **NO_LOOKS} | nothing


def test_where_there_are_probes_the_course_is_theirs_whatever_the_rule_saw() -> None:
    log = [{"cosine": -0.9, "cosine_before": before} for before in (None, 0.25, None, -0.5, None, 0.75)]
    expected = {"mean_cosine": pytest.approx(0.5 / 3), "final_cosine": 0.75, "conflict_share": pytest.approx(1 / 3)}
    expected["steps_in_conflict"] = 1
    assert course(log) == {"at": "theta", "count": 3, **NO_LOOKS} | expected
    one_objective = [line | {"cosine": None} for line in log]
    assert course(one_objective) == course(log) | {"steps_in_conflict": None}


def test_each_block_has_its_mean_over_the_probes() -> None:
    log = [{"cosine": 0.1}, {"cosine": 0.1, "cosine_before": 0.0, "cosine_before/mid": -0.5, "cosine_before/up": 1.0}]
    log.append({"cosine": 0.1, "cosine_before": 0.0, "cosine_before/mid": 0.25, "cosine_before/up": 0.0})
    assert course(log)["blocks"] == {"mid": -0.125, "up": 0.5}


def test_the_correction_is_the_median_of_those_measured() -> None:
    """One step that overshot is no measure of a run."""
    log = [{"cosine": 0.1, "correction": seen} for seen in (0.1, None, 40.0, 0.2, 0.3, 0.0)]
    assert course(log)["correction"] == 0.2


def test_a_trial_is_the_shipped_configuration_with_its_own_changes(tmp_path: Path) -> None:
    run = TRIAL.run(tmp_path)
    assert (run.targets[0].concept, run.seed, run.max_train_steps, run.output_dir) == ("star", 3, 5, tmp_path)


def test_where_things_are_written_is_no_setting(tmp_path: Path) -> None:
    assert settings_of(TRIAL.run(tmp_path / "a")) == settings_of(TRIAL.run(tmp_path / "b"))


def test_a_result_belongs_to_its_settings_seed_and_exam(store: TrialStore) -> None:
    assert not store.has(TRIAL)
    write_result(store, TRIAL)
    assert store.has(TRIAL)
    for changed in (
        {"seed": 4},
        {"evaluation_seed": 8},
        {"overrides": ("max_train_steps=6",)},
        {"target": "circle"},
        {"sampling_steps": 8},
    ):
        other = Trial(**(vars(TRIAL) | changed))
        assert not store.has(other), changed


def test_a_setting_that_came_later_does_not_outdate_a_result_if_it_has_its_default(store: TrialStore) -> None:
    write_result(store, TRIAL)
    file = store.folder / "star.json"
    content = json.loads(file.read_text())
    del content["config"]["probe_every"]
    file.write_text(json.dumps(content))
    assert store.has(TRIAL)
    assert not store.has(Trial(**(vars(TRIAL) | {"overrides": (*TRIAL.overrides, "probe_every=7")})))


def test_a_trial_is_made_by_one_process_and_once(store: TrialStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def outcome(trial: Trial, *_: Any) -> dict[str, Any]:
        TrialStore(store.folder, store.scratch).make([trial])  # a second worker, meanwhile: it finds the trial taken
        made.append(trial.name)
        (store.scratch / trial.name).mkdir()
        judged = {"prompts": {"evaluation_seed": 7}, "sampling": {"steps": trial.sampling_steps}}
        return {"base": {"hash": base_hash()}, **judged, "erased": None}

    monkeypatch.setattr(trials, "outcome", outcome)
    store.make([TRIAL, TRIAL])
    assert made == ["star"]
    result = store.results()["star"]
    assert result["seed"] == 3 and store.has(TRIAL)
    assert str(store.scratch) not in (store.folder / "star.json").read_text(), "a place got into the result"
    assert not (store.scratch / "star").exists(), "the model was not removed"
