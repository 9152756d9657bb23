"""Prompt embeddings: those of the pipeline, once a prompt, in bounded memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erase.diffusion.conditioning import Conditioning
from erase.generation.embeddings import MEMORY, PromptEmbeddings
from tests.families import tiny_xl_pipeline
from tests.tiny import WIDTH, tiny_pipeline


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


@torch.no_grad()
def test_they_are_the_pipelines_own(pipeline: Any) -> None:
    states = PromptEmbeddings(pipeline)(["a star", "", "a red circle"]).states
    expected, empty = pipeline.encode_prompt(["a star", "a red circle"], "cpu", 1, True)
    assert states.shape[2] == WIDTH
    torch.testing.assert_close(states[[0, 2]], expected)
    torch.testing.assert_close(states[1], empty[0])


@torch.no_grad()
def test_each_distinct_prompt_is_encoded_once(pipeline: Any) -> None:
    embeddings = PromptEmbeddings(pipeline)
    first = embeddings(["a star", "a ring", "a star"])
    assert torch.equal(embeddings(["a ring", "a star"]).states, first.states[[1, 0]])
    assert embeddings.encoded == 2


@torch.no_grad()
def test_an_embedding_is_the_same_bits_in_any_company(pipeline: Any) -> None:
    alone = PromptEmbeddings(pipeline)(["a star"])
    among = PromptEmbeddings(pipeline)(["a blue moon in dotted style", "a ring", "a star"])
    assert torch.equal(alone.states[0], among.states[2])


@torch.no_grad()
def test_beyond_its_memory_the_longest_unused_goes(pipeline: Any) -> None:
    one = PromptEmbeddings(pipeline)(["a star"]).nbytes
    embeddings = PromptEmbeddings(pipeline, memory=2 * one)
    for prompt in ("a star", "a ring", "a star", "a moon", "a star"):
        embeddings([prompt])
        assert len(embeddings) <= 2
    assert embeddings.encoded == 3, "the ring made room for the moon, the star stayed"
    embeddings(["a ring"])
    assert embeddings.encoded == 4


@torch.no_grad()
def test_one_prompt_is_held_however_little_memory_there_is(pipeline: Any) -> None:
    embeddings = PromptEmbeddings(pipeline, memory=0)
    assert len(embeddings(["a star", "a ring"])) == 2
    assert len(embeddings) == 1


@torch.no_grad()
def test_two_encoders_prompts_are_held_whole_pooled_embeddings_and_all() -> None:
    embeddings = PromptEmbeddings(tiny_xl_pipeline())
    first = embeddings(["a star", "a ring", "a star"])
    assert first.pooled is not None and len(first) == len(first.pooled) == 3
    again = embeddings(["a star", "a ring", "a star"])
    assert embeddings.encoded == 2 and again.says_the_same(first)
    assert first[0:1].says_the_same(first[2:3]) and not first[0:1].says_the_same(first[1:2])


def test_sdxls_prompts_that_fit_into_the_memory_are_as_many_as_said() -> None:
    prompt = Conditioning(torch.empty(1, 77, 2048), torch.empty(1, 1280), torch.empty(1, 6))
    assert MEMORY // prompt.nbytes == 422
    assert MEMORY // Conditioning(torch.empty(1, 77, 768)).nbytes == 1134
