"""H2Q: see the function."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from hashrobust.rotations import quantization_error, rotations
from hashrobust.rotations._error import scaled
from hashrobust.seeding import keyed_generator

BATCH = 128
STEPS = 1500
LEARNING_RATE = 0.1


@rotations.register("h2q")
def h2q(outputs: Tensor, *, seed: int) -> Tensor:
    """H2Q: a product of Householder reflections, learnt by stochastic gradient descent.

    Source: Schwengber, Resende, Orenstein, Oliveira, "Deep Hashing via Householder Quantization",
    arXiv 2311.04207: minimises the mean of (|z R| - 1)^2 (their L2 loss, on outputs scaled to a mean square
    of 1) over R in the orthogonal group, written as Householder reflections. Batches of 128, plain gradient
    descent with their rate of 0.1, from no rotation, as in their code; 1,500 steps, where they make 300
    epochs. The best R of all epochs is kept, no rotation among them.
    """
    z = scaled(outputs.float())
    with torch.random.fork_rng(devices=[]):
        rotation = nn.Linear(z.shape[1], z.shape[1], bias=False)
    nn.init.eye_(rotation.weight)
    orthogonal(rotation, orthogonal_map="householder")
    optimizer = torch.optim.SGD(rotation.parameters(), lr=LEARNING_RATE)
    generator = keyed_generator("h2q", seed)
    best, least = rotation.weight.detach().clone(), quantization_error(z)
    steps = 0
    while steps < STEPS:
        for chosen in torch.split(torch.randperm(len(z), generator=generator), BATCH):
            loss = (rotation(z[chosen]).abs() - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
        weight = rotation.weight.detach().clone()
        error = quantization_error(z @ weight.T)
        if error < least:
            best, least = weight, error
    return best.T.to(outputs)
