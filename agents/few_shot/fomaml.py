"""First-order MAML: Finn et al. 2017, section 5.2: the gradient of L_query at φ, taken as if it were θ."""

from .gradient import Params
from .maml import Maml


class Fomaml(Maml):
    """MAML that takes the inner gradient for a constant."""

    def step(self, k: int, params: Params, gradient: Params, memory: Params) -> tuple[Params, Params]:
        """φ ← φ - α ∇L(φ), with ∂φ/∂θ = I."""
        return super().step(k, params, [g.detach() for g in gradient], memory)
