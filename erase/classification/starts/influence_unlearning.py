"""Influence unlearning: one Newton step towards what training without the forget set would have found."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from erase.classification.images import Images
from erase.classification.material import Material
from erase.components import STRICT
from erase.errors import UserError
from erase.randomness import generator

CHUNK = 64


@dataclass(frozen=True, config=STRICT)
class InfluenceUnlearning:
    """IU (Izzo et al. 2021; Jia et al., NeurIPS 2023): theta += scale F^-1 (grad_f / n - n_f / (n n_r) grad_r).

    grad_f and grad_r are the sums of the cross-entropy's gradients over the n_f forget and the n_r retain samples, and
    n = n_f + n_r. F = damping I + (1/m) sum_i g_i g_i^T, over the gradients of m single retain samples, is what
    WoodFisher (Singh & Alistarh, NeurIPS 2020) inverts by m rank-one updates. Those need all g_i at once, m times the
    network's memory; conjugate gradients need products with F alone, and give the same.
    """

    name: Literal["influence_unlearning"] = "influence_unlearning"
    scale: Annotated[float, Field(gt=0, description="length of the step")] = 1.0
    samples: Annotated[int, Field(ge=1, description="m, single retain samples that F is estimated from")] = 1000
    damping: Annotated[float, Field(gt=0, description="added to F's diagonal")] = 1.0
    iterations: Annotated[
        int, Field(ge=1, description="most products with F, each at the price of about 3 m gradients")
    ] = 100
    tolerance: Annotated[float, Field(gt=0, lt=1, description="error that is left, as a share of the right side")] = (
        1e-2
    )

    def __call__(self, model: nn.Module, material: Material) -> None:
        """In place; refused where F is too badly conditioned to be inverted."""
        splits, parameters = material.splits, list(material.parameters.values())
        forgotten, kept = len(splits.forget), len(splits.retain)
        total = forgotten + kept
        forget, retain = (
            _flat(list(material.gradient_sum(model, part).values())) for part in (splits.forget, splits.retain)
        )
        step = self._invert(model, material, forget / total - retain * (forgotten / (total * kept)))
        with torch.no_grad():
            for p, part in zip(parameters, step.split([p.numel() for p in parameters]), strict=True):
                p.add_(part.view_as(p), alpha=self.scale)

    def _invert(self, model: nn.Module, material: Material, right: Tensor) -> Tensor:
        """F^-1 times a vector."""
        retain = material.splits.retain
        order = torch.randperm(len(retain), generator=generator(material.seed, "influence"))[: self.samples]
        sample = retain.take(order)

        def product(vector: NDArray[Any]) -> NDArray[Any]:
            along = torch.tensor(vector, dtype=right.dtype, device=right.device)
            return self.damping * vector + _numbers(_fisher_product(model, material, sample, along))

        operator = LinearOperator((len(right), len(right)), matvec=product, dtype="float64")
        solution, left = cg(operator, _numbers(right), rtol=self.tolerance, maxiter=self.iterations)
        if left != 0:
            raise UserError(
                f"start.damping: with {self.damping} the curvature is not inverted after {self.iterations} products; "
                "give more damping, or more iterations"
            )
        return torch.tensor(solution, dtype=right.dtype, device=right.device)


def _fisher_product(model: nn.Module, material: Material, sample: Images, vector: Tensor) -> Tensor:
    """(1/m) sum_i g_i <g_i, v>: the gradient of sum_i c_i loss_i is linear in c, so its slope along v is <g_i, v>."""
    parameters = list(material.parameters.values())
    parts = [part.view_as(p) for part, p in zip(vector.split([p.numel() for p in parameters]), parameters, strict=True)]
    total = torch.zeros_like(vector)
    for images, labels in material.batches(sample, CHUNK):
        with sdpa_kernel(SDPBackend.MATH):
            losses = material.loss(model, images, labels, "none")
            weights = torch.ones_like(losses, requires_grad=True)
            slopes = torch.autograd.grad(
                (weights * losses).sum(), parameters, create_graph=True, materialize_grads=True
            )
            along = torch.stack([(s * v).sum() for s, v in zip(slopes, parts, strict=True)]).sum()
            (inner,) = torch.autograd.grad(along, weights, retain_graph=True)
            found = torch.autograd.grad((inner.detach() * losses).sum(), parameters, materialize_grads=True)
        total += _flat(list(found)) / len(sample)
    return total


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _numbers(tensor: Tensor) -> NDArray[Any]:
    return tensor.cpu().double().numpy()
