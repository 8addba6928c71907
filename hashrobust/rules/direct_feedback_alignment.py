"""Direct feedback alignment: no layer's error passes through another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hashrobust.rules._draws import xavier_bound
from hashrobust.rules._rule import LearningRule, rules


@rules.register("dfa")
class DirectFeedbackAlignment(LearningRule):
    """Direct feedback alignment: each layer gets the error at the network's output through its own fixed matrix.

    Source: Noekland 2016, arXiv 1609.01596. With e = dL/dz (B, K) at the outputs z of the network, before tanh or
    softmax, and h the input of a layer (B, ...), which is the output of the one before with its activation:
    dL/dh := e M, reshaped to the shape of h. M (K, elements of h) ~ Xavier-uniform is drawn once and fixed. Between
    h and the weights before it (activations, normalisation, pooling, sums) the derivative is the exact one. For a
    perceptron h_i = f(a_i), a_i = W_i h_{i-1}, that is the source's delta_i = (e M_i) o f'(a_i) with
    dW_i = delta_i^T h_{i-1}; the output layer has delta = e, as ever. A convolution gets e M in the shape of its
    output maps as the next layer reads them, hence after pooling.

    Shortcuts hold no weights and stay exact, so that in a residual network errors add up: what leaves a block of
    resnet20 gets the e M of the next block's first convolution and, through its shortcut (and the activation
    behind the sum), what leaves that block; what leaves the last block gets the e M of the head alone. A block's
    second convolution gets the error behind its block, the first the e M of the second. Two layers that read
    the same h send the sum of two matrices' errors. No error passes through the weight of a layer that follows the
    rule but that to the image: layers that read it send W^T delta back, the derivative through the first layer, as no
    layer stands before it.

    Matrices are large where inputs are: (K, elements of h) a layer, 4 bytes a number, 1.1 GB for VGG-16 with 32 bits
    at 224 pixels. They are bound to the size of the images. Scale "matched" does not apply, since no V stands in the
    place of a W, and there is no angle between the two to log.
    """

    def draw(self, outputs: int, elements: int, uniform: Callable[[torch.Size, float], Tensor]) -> Tensor:
        """M (outputs, elements)."""
        shape = torch.Size((outputs, elements))
        return uniform(shape, xavier_bound(shape))
