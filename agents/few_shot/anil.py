"""ANIL: Raghu et al. 2020, "Rapid Learning or Feature Reuse?": almost no inner loop.

Only the last layer is adapted; all layers are meta-learned.
"""

from .gradient import HEAD, Params
from .maml import Maml


class Anil(Maml):
    """MAML whose inner loop moves nothing but the head."""

    def step(self, k: int, params: Params, gradient: Params, memory: Params) -> tuple[Params, Params]:
        """φ_head ← φ_head - α ∇L(φ)_head."""
        head, memory = super().step(k, params[-HEAD:], gradient[-HEAD:], memory)
        return [*params[:-HEAD], *head], memory
