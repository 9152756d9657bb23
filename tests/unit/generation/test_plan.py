"""What is to be made, and in which batches."""

from __future__ import annotations

from erase.generation.plan import Look, make_asks, make_batches, pending
from erase.generation.prompts import PromptRow

RUN = Look(50, 7.5, 512, 512)
ROWS = [
    PromptRow("a", "a cat", 1),
    PromptRow("b", "a dog", 2, guidance_scale=3.0),
    PromptRow("c", "a cow", 3, width=768, steps=20),
    PromptRow("d", "a cat", 4),
    PromptRow("e", "an ox", 5, guidance_scale=7.5, height=512),
]


def test_every_row_k_times_in_order_with_its_own_sampling_or_the_runs() -> None:
    asks = make_asks(ROWS, 2, RUN)
    assert [ask.file for ask in asks[:4]] == ["images/a_0.png", "images/a_1.png", "images/b_0.png", "images/b_1.png"]
    assert [asks[2 * i].look for i in range(5)] == [
        RUN,
        Look(50, 3.0, 512, 512),
        Look(20, 7.5, 768, 512),
        RUN,
        RUN,
    ]
    assert [ask.seed for ask in asks[:2]] == [1, ROWS[0].image_seed(1)]


def test_a_guidance_of_0_is_the_rows_own() -> None:
    assert make_asks([PromptRow("a", "x", 1, guidance_scale=0.0)], 1, RUN)[0].look.guidance_scale == 0.0


def test_batches_look_alike_and_hold_every_image_once() -> None:
    asks = make_asks(ROWS, 3, RUN)
    batches = list(make_batches(asks, 4))
    assert sorted(ask.file for batch in batches for ask in batch) == sorted(ask.file for ask in asks)
    assert [len({ask.look for ask in batch}) for batch in batches] == [1] * len(batches)
    assert [len(batch) for batch in batches] == [4, 4, 1, 3, 3]


def test_a_batch_of_which_anything_is_missing_is_whole() -> None:
    asks = make_asks([PromptRow(str(i), "x", i) for i in range(10)], 1, RUN)
    done = {ask.file for ask in asks} - {"images/5_0.png", "images/9_0.png"}
    assert [[ask.file for ask in batch] for batch in pending(asks, 4, done)] == [
        [f"images/{i}_0.png" for i in range(4, 8)],
        ["images/8_0.png", "images/9_0.png"],
    ]
    assert pending(asks, 4, {ask.file for ask in asks}) == []
