"""An order in which to visit points, such as the embeddings of tasks: neighbours are near each other."""

import torch
from torch import Tensor


def tour(points: Tensor) -> Tensor:
    """Points [K, Z] in order, from the outermost on, each the nearest that is left to the one before it."""
    distance = torch.cdist(points, points)
    here = (points - points.mean(0)).norm(dim=-1).argmax()
    order = [here]
    for _ in range(len(points) - 1):
        distance[:, here] = torch.inf
        here = distance[here].argmin()
        order.append(here)
    return points[torch.stack(order)]
