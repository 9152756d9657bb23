"""A prompt set: a row for each prompt, with its seed, its sampling and what it asks for; and ways to make one."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

from erase.errors import UserError
from erase.provenance import hash_json
from erase.randomness import derive
from erase.vocabulary import Vocabulary

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a case number may be: it names files on any file system."""
MULTIPLE = 8
"""Pixels that width and height are counted in: diffusers refuses other sizes."""
MAX_STEPS = 1000
"""Denoising steps: schedulers have no more."""
SEED_LIMIT, SHORT_SEED = 2**63, 10**9


@dataclass(frozen=True)
class PromptRow:
    """One prompt of a set; ``None`` leaves the choice to the run."""

    case_number: str
    """Names the row's images, ``{case_number}_{k}.png``; no two rows of a set share it."""
    prompt: str
    seed: int
    """Of image k = 0, from 0 to 2^63 - 1; :meth:`image_seed` has the others."""
    guidance_scale: float | None = None
    width: int | None = None
    """Pixels, a multiple of 8; so is the height."""
    height: int | None = None
    steps: int | None = None
    """Denoising steps."""
    group: str = ""
    """``target``, ``synonym``, ``neighbour`` or ``other``; or what the set itself calls it."""
    concepts: Mapping[str, str] = field(default_factory=dict)
    """The concept asked for in each domain: ``{"object": "star", "color": "red"}``."""

    def __post_init__(self) -> None:
        if not FILE_NAME.fullmatch(self.case_number):
            rule = "letters, digits, `.`, `_` and `-`, 100 at most, beginning with a letter or a digit: it names files"
            raise ValueError(f"case_number {self.case_number!r}: must be {rule}")
        if not self.prompt.strip():
            raise ValueError("has no prompt")
        if not 0 <= self.seed < SEED_LIMIT:
            raise ValueError(f"seed {self.seed}: must be from 0 to 2^63 - 1")
        self._check_sampling()
        for text in (self.group, *self.concepts, *self.concepts.values()):
            if text != text.strip():
                raise ValueError(f"{text!r}: a group, a domain or a concept has no space at its ends")
        if not all([*self.concepts, *self.concepts.values()]):
            raise ValueError(f"concepts {dict(self.concepts)!r}: neither a domain nor a concept is empty")

    def _check_sampling(self) -> None:
        if self.guidance_scale is not None and not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 0):
            raise ValueError(f"guidance_scale {self.guidance_scale}: must be a number, 0 or more")
        for name, size in (("width", self.width), ("height", self.height)):
            if size is not None and (size <= 0 or size % MULTIPLE):
                raise ValueError(f"{name} {size}: must be a positive multiple of {MULTIPLE} pixels")
        if self.steps is not None and not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(f"steps {self.steps}: must be from 1 to {MAX_STEPS}")

    def image_seed(self, k: int) -> int:
        """The seed of image k: the row's own for k = 0, then ones derived from it."""
        return self.seed if k == 0 else derive(self.seed, "image", k) % SHORT_SEED


def hash_rows(rows: Sequence[PromptRow]) -> str:
    """SHA-256 of the set: every value of every row, in order."""
    names = [one.name for one in fields(PromptRow)]
    return hash_json([{**{name: getattr(row, name) for name in names}, "concepts": dict(row.concepts)} for row in rows])


def check_set(rows: Sequence[PromptRow], key: str) -> None:
    """Refuses an empty set, and rows whose images would bear one name, on any file system: case tells none apart."""
    if not rows:
        raise UserError(f"{key}: holds no prompts; one at least is needed")
    counts = Counter(row.case_number.casefold() for row in rows)
    repeated = [row.case_number for row in rows if counts[row.case_number.casefold()] > 1]
    if repeated:
        shown = ", ".join(dict.fromkeys(repeated[:5]))
        raise UserError(f"{key}: {len(repeated)} rows share a case_number, such as {shown}; each names its own images")


def vocabulary_set(vocabulary: Vocabulary, template: str, seed: int, images: int = 1) -> list[PromptRow]:
    """Every way to fill a vocabulary's template, ``images`` times; row i's seed is derived from ``seed`` and i."""
    captions = vocabulary.captions([template]) * images
    return [
        PromptRow(f"{index:05d}", caption.text, evaluation_seed(seed, index), concepts=dict(caption.concepts))
        for index, caption in enumerate(captions)
    ]


def evaluation_seed(seed: int, index: int) -> int:
    """The seed of a row that has none of its own, below 10^9; training never draws from it."""
    return derive(seed, "evaluation", index) % SHORT_SEED


def gives_seeds(seed: int, rows: Sequence[PromptRow]) -> bool:
    """Whether the rows' seeds are those that ``seed`` gives a set without its own."""
    return all(row.seed == evaluation_seed(seed, index) for index, row in enumerate(rows))


def idle_seed(seed: int, rows: Sequence[PromptRow]) -> Iterator[str]:
    """A seed that would change no picture; the default is let pass."""
    if seed and not gives_seeds(seed, rows):
        yield (
            f"seed: found {seed}; each of these prompts has a seed of its own, so it would change nothing; leave it "
            "out, or take the column of seeds out of the set; images_per_prompt makes more pictures of each prompt"
        )


def concept_set(
    target: str,
    synonyms: Sequence[str],
    neighbours: Sequence[str],
    unrelated: Sequence[str],
    templates: Sequence[str],
    seed: int,
    paraphrases: Sequence[str] = (),
    domain: str = "concept",
) -> list[PromptRow]:
    """A set that shows what an erasure of ``target`` takes with it.

    Every word fills every template: ``{}`` stands for the word, ``{a}`` for the word with its article. ``paraphrases``
    are whole prompts that say the target in other words. Groups: ``target``; ``synonym``, which asks for the target
    too; ``neighbour``; ``other``.
    """
    groups = {"target": [target], "synonym": [*synonyms], "neighbour": [*neighbours], "other": [*unrelated]}
    _check_words([word for words in groups.values() for word in words], templates)
    asked = [
        (fill(template, word), group, target if group == "synonym" else word)
        for group, words in groups.items()
        for word in words
        for template in templates
    ]
    asked += [(paraphrase, "synonym", target) for paraphrase in paraphrases]
    return [
        PromptRow(f"{index:05d}", prompt, evaluation_seed(seed, index), group=group, concepts={domain: concept})
        for index, (prompt, group, concept) in enumerate(asked)
    ]


def _check_words(words: Sequence[str], templates: Sequence[str]) -> None:
    repeated = sorted(word for word, count in Counter(word.casefold() for word in words).items() if count > 1)
    if repeated:
        raise UserError(f"concepts: {', '.join(repeated)} given twice; a word is target, synonym, neighbour or other")
    wrong = [template for template in templates if template.count("{}") + template.count("{a}") != 1]
    if wrong or not templates:
        raise UserError(f"templates: found {wrong[:1] or 'none'}; each has `{{}}` or `{{a}}` once, where the word goes")


def fill(template: str, word: str) -> str:
    """The template with the word in place of ``{}``, or with its article in place of ``{a}``."""
    return template.replace("{a}", with_article(word)).replace("{}", word)


def with_article(word: str) -> str:
    """``"an apple"``, ``"a unicorn"``: by the first sound, as far as the letters tell it."""
    low = word.lower()
    vowel = low.startswith(tuple("aeiou")) and not low.startswith(("uni", "use", "eu", "one"))
    return f"{'an' if vowel or low.startswith(('hour', 'honest', 'heir')) else 'a'} {word}"
