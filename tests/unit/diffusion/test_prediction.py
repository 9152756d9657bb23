"""How x_t is mixed and what is predicted of it, by hand and by diffusers' own schedulers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
)
from torch import Tensor

from erase.diffusion.prediction import Diffusion, Flow, make_schedule
from erase.errors import UserError
from erase.shapes.build.denoiser import make_scheduler

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TIMES = torch.tensor([0, 300, 700])


def pair() -> tuple[Tensor, Tensor]:
    """Latents and noise."""
    latents, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    return latents, noise


def test_noisy_latents_are_the_schedules_mixture() -> None:
    schedule, (latents, noise) = make_schedule(make_scheduler()), pair()
    assert isinstance(schedule, Diffusion) and schedule.steps == 1000
    a = schedule.alphas[TIMES].view(3, 1, 1, 1)
    torch.testing.assert_close(schedule.noisy(latents, noise, TIMES), a.sqrt() * latents + (1 - a).sqrt() * noise)
    assert schedule.alphas[0].item() == pytest.approx(1 - 0.00085)  # Stable Diffusion 1.x
    assert schedule.alphas[999].item() == pytest.approx(0.00466, rel=2e-3)


def test_they_are_the_same_bits_as_diffusers_own() -> None:
    latents, noise = pair()
    velocity = make_schedule(DDIMScheduler(**BETAS, prediction_type="v_prediction"))
    for scheduler in (DDIMScheduler(**BETAS), PNDMScheduler(**BETAS)):
        mine = make_schedule(scheduler).noisy(latents, noise, TIMES)
        assert torch.equal(mine, scheduler.add_noise(latents, noise, TIMES))
    expected = DDIMScheduler(**BETAS).get_velocity(latents, noise, TIMES)
    assert torch.equal(velocity.truth(latents, noise, TIMES), expected)


def test_a_schedule_is_the_same_whichever_sampler_walks_it() -> None:
    """Euler's own ``add_noise``, in SDXL's folder, mixes in units of the noise; the UNet was trained in the others."""
    (latents, noise), euler = pair(), EulerDiscreteScheduler(**BETAS)
    mixed = [make_schedule(s).noisy(latents, noise, TIMES) for s in (euler, DDIMScheduler(**BETAS))]
    assert torch.equal(*mixed)
    theirs, sigmas = euler.add_noise(latents, noise, TIMES.float()), euler.sigmas[999 - TIMES].view(3, 1, 1, 1)
    torch.testing.assert_close(mixed[0], theirs / (sigmas**2 + 1).sqrt())  # as its scale_model_input does
    assert (mixed[0] - theirs).abs().max() > 0.1


def test_the_truth_is_the_noise_the_velocity_the_latents_or_the_flow() -> None:
    """sqrt(a) = 0.6, sqrt(1 - a) = 0.8, x_0 = 5, noise = 10; the flow at step 250 of 1000."""
    latents, noise, time = torch.full((1, 4, 2, 2), 5.0), torch.full((1, 4, 2, 2), 10.0), torch.tensor([0])
    expected = {"epsilon": 10.0, "v_prediction": 0.6 * 10 - 0.8 * 5, "sample": 5.0}
    for prediction, value in expected.items():
        schedule = Diffusion(torch.tensor([0.36]), prediction)
        torch.testing.assert_close(schedule.truth(latents, noise, time), torch.full_like(latents, value))
        torch.testing.assert_close(schedule.noisy(latents, noise, time), torch.full_like(latents, 11.0))  # 3 + 8
    flow, quarter = Flow(1000), torch.tensor([250])
    torch.testing.assert_close(flow.noisy(latents, noise, quarter), torch.full_like(latents, 6.25))
    torch.testing.assert_close(flow.truth(latents, noise, quarter), torch.full_like(latents, 5.0))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow_prediction"])
def test_diffusers_told_the_truth_finds_the_latents(prediction: str) -> None:
    """A solver of diffusers turns the truth at x_t into x_0: truth, mixture and timestep belong together."""
    flow = prediction == "flow_prediction"
    solver = DPMSolverMultistepScheduler(**BETAS, prediction_type=prediction, use_flow_sigmas=flow)
    solver.set_timesteps(8)
    schedule, (latents, noise) = make_schedule(solver), pair()
    for index, time in enumerate(solver.timesteps):
        times = time.expand(3)
        noisy, truth = (f(latents, noise, times) for f in (schedule.noisy, schedule.truth))
        solver._step_index = index
        found = solver.convert_model_output(truth, sample=noisy)
        torch.testing.assert_close(found, latents, rtol=0, atol=2e-2 if flow else 1e-4)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_guiding_away_means_the_same_in_every_prediction(prediction: str) -> None:
    """Weights that add up to 1: converting p - eta (c - n) is combining the converted. With other weights it is not."""
    noisy, p, c, n = torch.randn(4, 3, 4, 2, 2, generator=torch.Generator().manual_seed(1)).double()
    a = make_schedule(make_scheduler()).alphas[TIMES].view(3, 1, 1, 1).double()  # type: ignore[attr-defined]

    def epsilon(predicted: Tensor) -> Tensor:
        if prediction == "v_prediction":
            return a.sqrt() * predicted + (1 - a).sqrt() * noisy
        return (noisy - a.sqrt() * predicted) / (1 - a).sqrt()

    guided = epsilon(p) - 2 * (epsilon(c) - epsilon(n))
    torch.testing.assert_close(epsilon(p - 2 * (c - n)), guided)
    assert (epsilon(p - 2 * c) - (epsilon(p) - 2 * epsilon(c))).abs().max() > 0.1


def test_the_squared_errors_of_noise_and_velocity_differ_by_a_factor_of_the_timestep() -> None:
    latents, noise = pair()
    schedule = make_schedule(DDIMScheduler(**BETAS, prediction_type="v_prediction"))
    a = schedule.alphas[TIMES].view(3, 1, 1, 1)  # type: ignore[attr-defined]
    noisy, error = schedule.noisy(latents, noise, TIMES), torch.randn(3, 4, 2, 2)
    wrong = schedule.truth(latents, noise, TIMES) + error
    epsilon = a.sqrt() * wrong + (1 - a).sqrt() * noisy
    torch.testing.assert_close((epsilon - noise).pow(2), a * error.pow(2), rtol=1e-3, atol=1e-5)


def test_flow_matching_has_its_own_schedule() -> None:
    assert make_schedule(FlowMatchEulerDiscreteScheduler()) == Flow(1000)


@pytest.mark.parametrize(
    ("scheduler", "named"),
    [
        (EDMEulerScheduler(), "a EDMEulerScheduler that predicts 'epsilon'"),
        (DDIMScheduler(prediction_type="other"), "a DDIMScheduler that predicts 'other'"),
        (EulerDiscreteScheduler(timestep_type="continuous"), "a continuous EulerDiscreteScheduler"),
    ],
)
def test_a_schedule_that_cannot_be_trained_along_is_refused(scheduler: Any, named: str) -> None:
    with pytest.raises(UserError) as caught:
        make_schedule(scheduler)
    (message,) = caught.value.problems
    assert named in message
    assert message.endswith(
        "supported: schedules of betas that predict epsilon, v_prediction or sample, and flow_prediction"
    )
