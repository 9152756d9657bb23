"""Augmented pictures are the crops and mirror images that torchvision makes, drawn evenly, from the seed alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import crop, hflip, pad

from erase.classification.augmentation import Augment, augment
from erase.classification.data import Folder
from erase.classification.images import Images, Normalise
from erase.classification.losses import CrossEntropy, GradientAscent
from erase.classification.splits import Random, make_splits
from erase.classification.task import UnlearningTask
from erase.parameters import Full
from erase.protocols import Shard
from tests.unit.classification.pictures import noise

HEIGHT, WIDTH = 16, 24
PLAIN = Normalise((0.0,) * 3, (1.0,) * 3)


def pictures(count: int) -> Tensor:
    """No two pixels of a row or a column alike, none black."""
    one = torch.arange(1, HEIGHT * WIDTH + 1, dtype=torch.int64).remainder(251).add(1).to(torch.uint8)
    return one.view(1, 1, HEIGHT, WIDTH).repeat(count, 3, 1, 1)


def possible(picture: Tensor, mirror: bool) -> dict[bytes, tuple[int, int, bool]]:
    """Every crop that torchvision makes of the picture with a black border, and what it was."""
    wide = pad(picture, [WIDTH // 8, HEIGHT // 8])
    found = {}
    for top in range(2 * (HEIGHT // 8) + 1):
        for left in range(2 * (WIDTH // 8) + 1):
            part = crop(wide, top, left, HEIGHT, WIDTH)
            for flipped in (False, True)[: 1 + mirror]:
                found[(hflip(part) if flipped else part).contiguous().numpy().tobytes()] = (top, left, flipped)
    return found


@pytest.mark.parametrize(("how", "mirror"), [("shift", False), ("shift_and_mirror", True)])
def test_each_picture_is_one_of_torchvisions_and_all_come_equally_often(how: Augment, mirror: bool) -> None:
    known = possible(pictures(1)[0], mirror)
    assert len(known) == 5 * 7 * (1 + mirror)
    drawn = [known[picture.numpy().tobytes()] for picture in augment(pictures(7000), how, 1)]
    counts = torch.tensor([drawn.count(what) for what in known.values()]).double()
    expected = 7000 / len(known)
    assert counts.sub(expected).abs().max() < 5 * expected**0.5


def test_none_gives_the_pictures_as_they_are() -> None:
    given = pictures(2)
    assert augment(given, "none", 1) is given


def test_the_draw_follows_from_the_seed_and_leaves_what_was_given() -> None:
    given = pictures(20)
    first, again, other = (augment(given, "shift_and_mirror", seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(given, pictures(20))
    assert first.dtype == torch.uint8 and first.is_contiguous()


def test_a_batch_is_drawn_anew_in_each_step() -> None:
    images = Images(pictures(1), torch.zeros(1, dtype=torch.int64), ("one",))
    batches = [images.draw(4, 0, "retain", step, PLAIN, "shift").images for step in range(3)]
    assert len({batch.numpy().tobytes() for batch in batches}) == 3
    assert images.draw(4, 0, "retain", 0, PLAIN).images.unique(dim=0).shape[0] == 1


class Eyes(torch.nn.Linear):
    """A network of 2 logits that remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach())
        return super().forward(images.mean((2, 3)))


@pytest.mark.parametrize("how", ["none", "shift"])
def test_both_objectives_see_what_the_data_ask_for_and_the_parts_stay(tmp_path: Path, how: Augment) -> None:
    for place in range(24):
        file = tmp_path / ("cat", "dog")[place % 2] / f"{place:02d}.png"
        file.parent.mkdir(exist_ok=True)
        noise(place, 16, 16).save(file)
    splits = make_splits(Folder(path=tmp_path, size=16, augment=how), Random(fraction=0.3), 0)
    assert splits.augment == how
    eyes = Eyes()
    task = UnlearningTask(eyes, Full(), (GradientAscent(), CrossEntropy()), splits, total_steps=1)
    objectives = task.objectives(0, Shard(batch_size=len(splits.forget)))
    for objective, part in zip(objectives, ("retain", "forget"), strict=True):
        eyes.seen.clear()
        list(objective())
        whole = {picture.numpy().tobytes() for picture in splits.normalise(getattr(splits, part).pixels)}
        unchanged = [picture.numpy().tobytes() in whole for picture in eyes.seen[0]]
        assert all(unchanged) if how == "none" else sum(unchanged) < len(unchanged)
