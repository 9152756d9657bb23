"""From targets and a vocabulary to prompts: which show the concept, which redirect it, which are kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from erase.diffusion.concepts import Retain, Target
from erase.errors import UserError
from erase.prompt_files import read_prompts
from erase.vocabulary import UnknownConceptError, Vocabulary


@dataclass(frozen=True)
class TargetPrompts:
    """A target's prompts, with the concept's own prompt and, for each prompt, the anchor's."""

    target: Target
    prompts: tuple[str, ...]
    concepts: tuple[str, ...]
    """For each prompt, c: itself, or the concept alone."""
    baselines: tuple[str, ...]
    """For each prompt, n: itself without the concept, or the empty prompt."""
    anchors: tuple[str, ...] | None

    @property
    def without(self) -> tuple[str, ...]:
        """For each prompt, the wording without the concept that it is to be drawn as: its anchor's, or n."""
        return self.baselines if self.anchors is None else self.anchors


def names(text: str, words: Sequence[str]) -> bool:
    """Whether the text holds one of the words, as whole words, in any case."""
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in words)


def words_of(targets: Sequence[Target]) -> list[str]:
    """What names one of the targets."""
    return [word for target in targets for word in (target.concept, *target.synonyms)]


def target_prompts(
    target: Target, key: str, vocabulary: Vocabulary | None, needs_anchor: bool, needs_direction: bool = True
) -> TargetPrompts:
    """Everything that the forget loss shows for one target; ``key`` names it in messages.

    A loss that needs no direction has c = p and n = the empty prompt, which it does not look at.
    """
    words = (target.concept, *target.synonyms)
    try:
        prompts = _listed_prompts(target, key, words) or _captions(target, key, vocabulary)
        concepts, baselines = (
            _directions(target, key, prompts, vocabulary) if needs_direction else (prompts, ("",) * len(prompts))
        )
    except UnknownConceptError as error:
        raise UserError(f"{key}.concept: {error}") from None
    except ValueError as error:
        raise UserError(f"{key}.concept_prompt: {error}, or give {key}.concept_prompt") from None
    anchors = _anchors(target, key, prompts, words) if needs_anchor else None
    return TargetPrompts(target, prompts, concepts, baselines, anchors)


def _directions(
    target: Target, key: str, prompts: Sequence[str], vocabulary: Vocabulary | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """For each prompt, what says the concept and what says the same without it."""
    if target.neutral is not None:
        words = (target.concept, *target.synonyms)
        return tuple(prompts), _replaced(prompts, words, target.neutral, f"{key}.neutral", f"{key}.concept_prompt")
    alone = target.concept_prompt
    known = vocabulary is not None and alone is None
    neutral = [vocabulary.neutral(p, target.concept) if vocabulary and known else None for p in prompts]
    if alone is None:
        alone = vocabulary.concept_prompt(target.concept) if vocabulary else target.concept
    concepts = tuple(alone if n is None else p for p, n in zip(prompts, neutral, strict=True))
    return concepts, tuple(n or "" for n in neutral)


def _listed_prompts(target: Target, key: str, words: Sequence[str]) -> tuple[str, ...]:
    wrong = [template for template in target.templates if template.count("{}") != 1]
    if wrong:
        raise UserError(f"{key}.templates: {wrong[0]!r} must have {{}} once, where the concept goes")
    filled = [template.replace("{}", word) for template in target.templates for word in words]
    read = read_prompts(target.prompts_file, f"{key}.prompts_file") if target.prompts_file else []
    found = dict.fromkeys([*target.prompts, *read, *filled])
    if any(not prompt.strip() for prompt in found):
        raise UserError(f"{key}.prompts: found an empty prompt, which shows no concept; leave it out")
    return tuple(found)


def _captions(target: Target, key: str, vocabulary: Vocabulary | None) -> tuple[str, ...]:
    if vocabulary is None:
        raise UserError(
            f"{key}: {target.concept!r} has no prompts, and this model comes with no vocabulary; "
            f"give {key}.templates, .prompts or .prompts_file"
        )
    return tuple(caption.text for caption in vocabulary.captions_of(target.concept))


def _anchors(target: Target, key: str, prompts: Sequence[str], words: Sequence[str]) -> tuple[str, ...]:
    if target.anchor_prompt is not None:
        return tuple(target.anchor_prompt for _ in prompts)
    if target.anchor is None:
        raise UserError(f"{key}.anchor: anchor_redirection needs it, or {key}.anchor_prompt; found neither")
    return _replaced(prompts, words, target.anchor, f"{key}.anchor", f"{key}.anchor_prompt")


def _replaced(
    prompts: Sequence[str], words: Sequence[str], replacement: str, key: str, instead: str
) -> tuple[str, ...]:
    """Each prompt with the words replaced; one without them is refused, naming the key to give instead."""
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(w)}(?!\w)" for w in sorted(words, key=len)[::-1]), re.IGNORECASE)
    without = [prompt for prompt in prompts if not pattern.search(prompt)]
    if without:
        named = " or ".join(map(repr, words))
        raise UserError(
            f"{key}: {without[0]!r} does not name {named}, so nothing can be replaced; give {instead} instead"
        )
    return tuple(pattern.sub(lambda _: replacement, prompt) for prompt in prompts)


def retain_prompts(retain: Retain, targets: Sequence[Target], vocabulary: Vocabulary | None) -> tuple[str, ...]:
    """The prompts to keep; one that names a target is refused."""
    words = words_of(targets)
    kept = _automatic(words, vocabulary, retain) if retain.prompts == "auto" else list(retain.prompts)
    kept += read_prompts(retain.prompts_file, "retain.prompts_file") if retain.prompts_file else []
    if not kept:
        raise UserError("retain.prompts: no prompts to keep; teacher_distillation needs one at least")
    clash = [prompt for prompt in kept if names(prompt, words)]
    if clash:
        raise UserError(f"retain.prompts: {clash[0]!r} names a target of this run; a target cannot be kept too")
    return tuple(dict.fromkeys(kept))


def _automatic(words: Sequence[str], vocabulary: Vocabulary | None, retain: Retain) -> list[str]:
    """The vocabulary's captions without the targets' words; without a vocabulary a file has to do."""
    if vocabulary is not None:
        return [c.text for c in vocabulary.captions_without(words) if not names(c.text, words)]
    if retain.prompts_file is not None:
        return []
    raise UserError(
        "retain.prompts: `auto` needs a vocabulary, which this model lacks; "
        "list prompts to keep, or give retain.prompts_file"
    )
