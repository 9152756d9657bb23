"""Erases and audits in one go: trains as a YAML says, then one audit for each target, in `<output_dir>-audit/`.

    python pipelines/erase_concept.py --config configs/diffusion/shapes_star.yaml
    python pipelines/erase_concept.py --config configs/diffusion/shapes_star.yaml --output_dir runs/one --seed 1
    python pipelines/erase_concept.py --config my_run.yaml --audit my_audit.yaml

Any key of `erase train` may follow. What is erased from another model than the embedded one needs `--audit`: a YAML of
`erase audit` with `prompts` and `metrics`; its `base`, `erased`, `also_erased` and `output_dir` are the run's, whatever
it says of them, and its `target` counts where the run has one. A run that is there already is not trained again; start
from nothing with `--overwrite`. Nothing is published: that is `erase publish`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from erase.audit import show
from erase.command_line import guarded, parse, stoppable
from erase.config import build, differences, dump, load, read_yaml
from erase.errors import UserError
from erase.evaluation.audit import run_audit
from erase.evaluation.audit_settings import Audit, plan_audit
from erase.provenance import beside, read_json
from erase.training.erasure import ErasureRun, erase_concepts
from erase.training.output import PROVENANCE
from erase.training.settings import FREE_ON_RESUME

REMEDY = "To go on, run the same command again, without --overwrite and --resume_from_checkpoint"
"""The model is there: either would train it anew, and throw away its pictures."""


def audits(run: ErasureRun, given: dict[str, Any]) -> list[Audit]:
    """One for each target, of this run's model alone; they share the pictures."""
    if "target" in given and len(run.targets) > 1:
        raise UserError(f"--audit: found target: {given['target']!r}, and the run has several; leave it out")
    place, concepts = beside(run.output_dir, "-audit"), [target.concept for target in run.targets]
    names = [re.sub(r"[^\w.-]+", "-", concept).strip(".-").lower() for concept in concepts]
    if len(set(names)) < len(names) or not all(names):
        raise UserError(f"targets: {', '.join(concepts)} would share a folder, or have none; audit them one by one")
    shared = {"base_images": place / "images" / "base", "erased_images": place / "images" / "erased"}
    made = []
    for concept, name in zip(concepts, names, strict=True):
        own = {
            "base": run.model,
            "base_revision": run.revision,
            "erased": str(run.output_dir),
            "erased_revision": None,
            "also_erased": [other for other in concepts if other != concept],
            "output_dir": place if len(concepts) == 1 else place / name,
        }
        made.append(build(Audit, {**shared, "target": concept, **given, **own}))
    return made


def check(wanted: list[Audit]) -> None:
    """Refuses what an audit would refuse, before anything is trained: the base stands in for the model to come."""
    for audit in wanted:
        plan_audit(replace(audit, erased=audit.base, erased_revision=audit.base_revision))


def work(config: Path, audit: Path | None, rest: list[str]) -> None:
    run = load(ErasureRun, config, parse(rest, frozenset()).overrides)
    if run.push_to_hub:
        raise UserError("push_to_hub: found true, but this script does not publish; leave it out, then `erase publish`")
    wanted = audits(run, read_yaml(audit) if audit else {})
    check(wanted)
    if not is_made(run):
        print(erase_concepts(run).describe())
        shutil.rmtree(beside(run.output_dir, "-audit") / "images" / "erased", ignore_errors=True)  # of a former model
    for one in wanted:
        show(one, stoppable(partial(run_audit, one), REMEDY))


def is_made(run: ErasureRun) -> bool:
    """Whether the run's model is there already; that of another run in its place is refused."""
    file = run.output_dir / PROVENANCE
    if run.overwrite or run.resume_from_checkpoint or not file.is_file():
        return False
    made = read_json(file, "output_dir").get("config", {})
    changed = [line for line in differences(made, dump(run)) if not line.startswith(FREE_ON_RESUME)]
    if changed:
        raise UserError(f"output_dir: {run.output_dir} holds another run; give another, or --overwrite:", *changed)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="of `erase train`")
    parser.add_argument("--audit", type=Path, help="a YAML of `erase audit`; default: that of the embedded model")
    given, rest = parser.parse_known_args()
    return guarded("concept", lambda: work(given.config, given.audit, rest))


if __name__ == "__main__":
    sys.exit(main())
