"""What a model is told: that of its own pipeline, cut, put together and moved as one thing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erase.diffusion.conditioning import Conditioning, encode, encode_prompts, look_up, no_prompt, together
from tests.families import POOLED_WIDTH, SECOND_WIDTH, tiny_xl_pipeline
from tests.tiny import WIDTH, tiny_pipeline


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def xl() -> Any:
    return tiny_xl_pipeline()


def both(count: int = 3) -> Conditioning:
    numbers = torch.arange(float(count))
    return Conditioning(numbers.view(-1, 1, 1).repeat(1, 2, 3), numbers.view(-1, 1).repeat(1, 4), torch.ones(count, 6))


def test_one_encoders_is_what_the_pipeline_itself_uses(pipeline: Any) -> None:
    prompts = ["a star", "", "a red circle in dotted style"]
    told = encode_prompts(pipeline, prompts)
    with torch.no_grad():
        expected, _ = pipeline.encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)
    found = look_up(told, prompts)
    torch.testing.assert_close(found.states, expected, rtol=0, atol=1e-6)
    assert found.pooled is found.ids is None and found.arguments() == {}


def test_two_encoders_is_what_the_pipeline_itself_uses(xl: Any) -> None:
    prompts = ["a star", "a red circle in dotted style"]
    found = look_up(encode_prompts(xl, prompts), prompts)
    with torch.no_grad():
        states, _, pooled, _ = xl.encode_prompt(prompts, device="cpu", do_classifier_free_guidance=False)
    assert found.states.shape == (2, 12, WIDTH + SECOND_WIDTH) and pooled.shape == (2, POOLED_WIDTH)
    assert found.pooled is not None and found.ids is not None
    torch.testing.assert_close(found.states, states, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.pooled, pooled, rtol=0, atol=1e-6)
    assert found.ids.tolist() == [[16, 16, 0, 0, 16, 16]] * 2
    assert (found.pooled[0] - found.pooled[1]).abs().max() > 1e-3


def test_each_distinct_prompt_is_told_alike_whatever_the_batch(pipeline: Any) -> None:
    prompts = ["a star", "a circle", "a star", "", "a moon"]
    at_once, singly = encode_prompts(pipeline, prompts), encode_prompts(pipeline, prompts, batch_size=1)
    assert list(at_once) == list(singly) == ["a star", "a circle", "", "a moon"]
    for prompt, told in at_once.items():
        assert told.states.shape == (1, 12, WIDTH) and not told.states.requires_grad
        torch.testing.assert_close(singly[prompt].states, told.states, rtol=0, atol=1e-6)  # rounds by batch size
    assert (at_once["a star"].states - at_once["a circle"].states).abs().max() > 1e-3


def test_a_prompt_that_is_too_long_is_cut(pipeline: Any) -> None:
    words = "a red star in dotted style a red star in dotted style"
    first, longer = encode_prompts(pipeline, [words, f"{words} a red star"]).values()
    assert first.says_the_same(longer)


def test_no_prompt_is_the_empty_one_or_zeros_as_the_pipeline_says(pipeline: Any, xl: Any) -> None:
    empty = encode(pipeline, [""])
    assert no_prompt(pipeline, empty) is empty
    told = encode_prompts(xl, ["", "a star"])[""]
    assert told.pooled is not None and told.ids is not None
    assert not told.states.any() and not told.pooled.any() and told.ids.tolist() == [[16, 16, 0, 0, 16, 16]]
    other = tiny_xl_pipeline()
    other.register_to_config(force_zeros_for_empty_prompt=False)
    kept = encode_prompts(other, ["", "a star"])[""]
    assert kept.states.any() and kept.pooled is not None and kept.pooled.any()


def test_parts_of_it_put_together_are_the_whole() -> None:
    whole = both()
    assert together([whole[0:1], whole[1:3]]).says_the_same(whole)
    assert len(whole[1:3]) == 2 and whole[1:3].parts()[1][:, 0].tolist() == [1.0, 2.0]
    assert whole[0:1].expand(3).says_the_same(together([whole[0:1]] * 3))


def test_one_number_apart_is_not_the_same_in_any_part() -> None:
    for part in range(3):
        other = both().clone()
        other.parts()[part][0, 0] += 1
        assert not other.says_the_same(both())


def test_it_is_moved_and_converted_as_one() -> None:
    half = Conditioning(*(part.half() for part in both().parts()))
    assert {part.dtype for part in half.float().parts()} == {torch.float32}
    assert {part.device.type for part in both().to(torch.device("meta")).parts()} == {"meta"}
    assert both().nbytes == 4 * 3 * (6 + 4 + 6)
    arguments = both().arguments()["added_cond_kwargs"]
    assert arguments.keys() == {"text_embeds", "time_ids"}


def test_kinds_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        together([both(), Conditioning(both().states)])
