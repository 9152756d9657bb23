"""The model card: what was erased, how well, at what cost, and how to check it; nothing that was not measured."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from erase import embedded
from erase.generation.folder import Picture
from erase.publication.base_model import BaseModel
from erase.publication.evidence import Evidence
from erase.publication.privacy import scrub_tree
from erase.updates import label
from erase.vocabulary import UnknownConceptError

TEMPLATE = "card.md.jinja"
GRID = "before_after.png"
TAGS = ("erase", "concept-erasure", "machine-unlearning", "stable-diffusion")
SHAPING = (
    *("targets", "forget_loss", "retain_loss", "forget_weight", "update", "parameters", "optimizer", "learning_rate"),
    *("max_train_steps", "train_batch_size", "gradient_accumulation_steps", "latents", "seed"),
)
"""The settings that the card shows; config.yaml holds all that shape the result."""
OWN = ("--erased_revision", "--base_images", "--erased_images")
"""Settings of an audit that hold for the machine it was made on alone."""
SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~$-])")
NEVER = 0.1
"""A base that misses the target this often is said: what it does not draw cannot be erased."""
FORMATS = {
    "diffusers": "the whole pipeline, for diffusers",
    "lora": "LoRA weights in diffusers' keys",
    "kohya": "LoRA weights in kohya's keys, for A1111 and ComfyUI",
    "delta": "the changed tensors alone, under diffusers' UNet keys",
    "unet": "the UNet's state dict, for `load_state_dict`; UnlearnDiffAtk loads it once it is saved with `torch.save`",
}


def make_card(
    repo_id: str,
    made: Mapping[str, Any],
    base: BaseModel,
    formats: Sequence[str],
    evidence: Evidence | None,
    pairs: Sequence[tuple[Picture, Picture]],
) -> ModelCard:
    """The card of a publication; ``made`` is the run's provenance, ``pairs`` what the grid shows, if anything."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # Markdown; `md` escapes
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"md": escape}
    made = scrub_tree(made)
    config, adapter = made["config"], formats[0] == "lora"
    text = environment.get_template(TEMPLATE).render(
        repo_id=repo_id,
        concepts=made["erased"],
        base=base,
        adapter=adapter,
        made=made,
        update=label(config["update"]),
        settings=fence(
            yaml.safe_dump(said({k: config.get(k) for k in SHAPING}), sort_keys=False, allow_unicode=True), "yaml"
        ),
        snippet=fence(snippet(repo_id, base, adapter, prompt_of(config, made["erased"])), "python"),
        formats=[(name, FORMATS[name]) for name in formats[1:]],
        pairs=pairs,
        grid=GRID,
        command=fence(shlex.join(made["environment"]["command"]), "sh"),
        again=fence("erase train --config config.yaml --output_dir runs/again", "sh"),
        flat=flat,
        **_measured(made["erased"], evidence, repo_id, base),
    )
    return ModelCard(f"---\n{card_data(repo_id, base, adapter, evidence).to_yaml()}\n---\n\n{text}")


def _measured(concepts: Sequence[str], evidence: Evidence | None, repo_id: str, base: BaseModel) -> dict[str, Any]:
    """What the template says of an audit."""
    results = scrub_tree(evidence.results) if evidence else {}
    return {
        "evidence": evidence,
        "results": results,
        "unaudited": unaudited(concepts, evidence),
        "never": NEVER,
        "audit_command": fence(audit_command(results.get("command", ""), repo_id, base), "sh"),
    }


def audit_command(command: str, repo_id: str, base: BaseModel) -> str:
    """An audit's command as a reader may run it: of the models by their names on the Hub, into a new folder."""
    words = shlex.split(command)
    if words[:2] != ["erase", "audit"]:
        return command  # of `erase demo`, which makes the model, too
    given = {key: value for key, value in zip(words[2::2], words[3::2], strict=False) if key not in OWN}
    known = {"--base": base.hub_id, "--base_revision": base.hub_id and base.revision}
    given |= {key: value for key, value in known.items() if value}
    given |= {"--erased": repo_id, "--output_dir": f"runs/{repo_id.split('/')[-1]}-audit"}
    return shlex.join([*words[:2], *(word for pair in given.items() for word in pair)])


def card_data(repo_id: str, base: BaseModel, adapter: bool, evidence: Evidence | None) -> ModelCardData:
    """The card's metadata; a model-index only if there was an audit."""
    more: dict[str, Any] = dict(base.licence)
    if base.hub_id:
        more |= {"base_model": base.hub_id, "base_model_relation": "adapter" if adapter else "finetune"}
    if evidence:
        more |= {"model_name": repo_id.split("/")[1], "eval_results": evidence.eval_results()}
    return ModelCardData(
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=[*TAGS, *(["lora"] if adapter else [])],
        **more,
    )


def snippet(repo_id: str, base: BaseModel, adapter: bool, prompt: str) -> str:
    """Python that draws a picture with the published model."""
    if not adapter:
        lines = ["from diffusers import DiffusionPipeline", ""]
        lines.append(f"pipeline = DiffusionPipeline.from_pretrained({repo_id!r})")
    elif base.is_embedded:
        lines = ["import erase", "", f"pipeline = erase.load({repo_id!r}, base={embedded.NAME!r})"]
    else:
        revision = f", revision={base.revision!r}" if base.hub_id and base.revision else ""
        lines = ["from diffusers import DiffusionPipeline", ""]
        lines.append(f"pipeline = DiffusionPipeline.from_pretrained({base.name!r}{revision})")
        lines.append(f"pipeline.load_lora_weights({repo_id!r})")
    sampling = ", num_inference_steps=15, guidance_scale=4.0" if base.is_embedded else ""
    return "\n".join([*lines, f"image = pipeline({prompt!r}{sampling}).images[0]", 'image.save("picture.png")'])


def prompt_of(config: Mapping[str, Any], concepts: Sequence[str]) -> str:
    """A prompt that asks for the first erased concept, in words that the model knows."""
    if (config.get("vocabulary") or config.get("model")) != embedded.NAME:  # a model brings its own vocabulary
        return str(concepts[0])
    try:
        return embedded.VOCABULARY.concept_prompt(concepts[0])
    except UnknownConceptError:  # a target of prompts of its own
        return str(concepts[0])


def unaudited(concepts: Sequence[str], evidence: Evidence | None) -> list[str]:
    """Erased concepts of which the audit says nothing."""
    return [concept for concept in concepts if evidence and concept != evidence.results["target"]]


def flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """``(dotted.key, value)`` for each leaf."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        found += flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found


def said(tree: Any) -> Any:
    """Settings without those that are empty."""
    if isinstance(tree, list):
        return [said(entry) for entry in tree]
    if not isinstance(tree, Mapping):
        return tree
    return {key: said(value) for key, value in tree.items() if value not in (None, [], {}, "")}


def fence(text: str, language: str) -> str:
    """A block of code, whatever it holds."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    bars = "`" * max(3, longest + 1)
    return f"{bars}{language}\n{text.strip()}\n{bars}"


def escape(value: object) -> str:
    """Text that Markdown shows as it is, in a line."""
    return SPECIAL.sub(r"\\\1", " ".join(str(value).split()))
