"""What the losses share: their members' defaults, cross-entropy, and the distance between two networks' answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from erase.classification.images import Batch

Network = Callable[[Tensor], Tensor]
"""Normalised images ``[b, c, h, w]`` to logits ``[b, k]``."""


class Loss:
    """A loss of one example each, a function of the network's logits and the batch.

    What does not follow from these is the target: worked out once a step, when the loss is first looked at, with the
    parameters that the step begins with, and fixed from then on. So every look within a step is at the same function.
    """

    needs_original: ClassVar[bool] = False
    """Whether the teacher is the network as it was before unlearning."""
    needs_random: ClassVar[bool] = False
    """Whether the teacher is a network of random weights."""
    needs_student: ClassVar[bool] = False
    """Whether the target is of the network's own answers, at the weights that the step begins with."""
    extra_class: ClassVar[bool] = False
    """Whether the network is given one class more."""
    whole_batch: ClassVar[bool] = False
    """Whether an example's target depends on the step's other examples, or on its place among them."""

    def target(self, teacher: Network | None, model: Network, batch: Batch) -> Tensor | None:
        """``[b, ...]``, without gradient; ``None``: the labels are all that is needed."""
        return None

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[b]``"""
        raise NotImplementedError

    def penalty(self, parameters: Iterable[Tensor], batch: Batch) -> Tensor | None:
        """A scalar that is added to the step's mean, once; ``None``: nothing is."""
        return None


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """``[b]`` cross-entropy, -log softmax(logits)[label], in nats."""
    return cross_entropy(logits, labels, reduction="none")


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """``[b]`` T^2 KL(softmax(teacher / T) || softmax(student / T)) in nats (Hinton et al. 2015); 0 where they agree.

    T^2 keeps the gradient's size as T grows.
    """
    soft, log_soft = softmax(teacher / temperature, 1), log_softmax(student / temperature, 1)
    return temperature**2 * kl_div(log_soft, soft, reduction="none").sum(1)


def found_target(batch: Batch) -> Tensor:
    """The batch's target; there must be one."""
    if batch.target is None:
        raise ValueError("the batch has no target; call the loss's `target` first")
    return batch.target


def asked_teacher(teacher: Network | None) -> Network:
    """The teacher; there must be one."""
    if teacher is None:
        raise ValueError("the loss needs a teacher")
    return teacher
