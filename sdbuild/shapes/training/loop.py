"""The training loop that all parts share: AdamW, one cycle of the learning rate, clipped gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Say = Callable[[str], None]
"""Is told of progress, a line at a time."""


@dataclass(frozen=True)
class Course:
    """How long and how fast to learn.

    Attributes:
        name: of the part, for progress.
        steps: batches.
        rate: the highest learning rate; it rises to it over `warm` of the steps and falls to nothing.
        decay: AdamW's weight decay.
    """

    name: str
    steps: int
    rate: float
    decay: float = 0.01
    warm: float = 0.05


def run(
    course: Course,
    parameters: Iterable[nn.Parameter],
    loss: Callable[[int], Tensor],
    say: Say,
    after: Callable[[int], None] = lambda step: None,
) -> None:
    """Minimise `loss`, which is given the step's number; `after` is called when the step has been made."""
    learnt = list(parameters)
    optimizer = torch.optim.AdamW(learnt, lr=course.rate, betas=(0.9, 0.99), weight_decay=course.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, course.rate, total_steps=course.steps, pct_start=course.warm, cycle_momentum=False
    )
    sum_of_losses = 0.0
    for step in range(course.steps):
        value = loss(step)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        schedule.step()
        after(step)
        sum_of_losses += value.item()
        if (step + 1) % 100 == 0:
            say(f"{course.name} {step + 1}/{course.steps}: loss {sum_of_losses / 100:.4f}")
            sum_of_losses = 0.0
