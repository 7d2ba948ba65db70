"""Running statistics for networks whose weights are random."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["settle_statistics"]


@torch.no_grad()
def settle_statistics(model: nn.Module, images: torch.Tensor) -> None:
    """Set every BatchNorm's running mean and variance to those of a batch.

    With the initial mean 0 and variance 1 the activations of an untrained network in evaluation mode grow or vanish
    from layer to layer. Only the BatchNorm layers are put into training mode, so that dropout stays off, and one
    thread is used, so that the last bits do not depend on the number of cores. The network is left in evaluation mode.

    Args:
        model: changed in place.
        images: normalised, float32 [N, 3, H, W], N at least 2.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches instead of a moving one
        norm.train()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model(images)
    finally:
        torch.set_num_threads(threads)
        model.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
