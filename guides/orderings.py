"""Guides of one step of play: the two orders in which the same two sites can be factorised."""

from __future__ import annotations

from typing import ClassVar, Self

import pyro
from pyro import poutine
from pyro.poutine.runtime import InferDict
from torch import Tensor

from inference_marl.described import IncompatibleError, within
from inference_marl.guides.closed_form import ClosedForm
from inference_marl.inference.plates import replicate_and_batch
from inference_marl.spaces import Discrete
from inference_marl.types import Bindable, Conditional, OneStepModel, Seat


class Guide(Bindable):
    """A variational posterior over the sites `opponent_action` and `action`, in the order of `order`.

    Discrete sites are marked for parallel enumeration, so Pyro sums over them exactly; the weights of the model
    (temperature on `action`, KL weight on `opponent_action`) scale the same sites here.

    Shapes: `obs` is `replicates x batch x event`; sites are `[extra x] replicates x batch | event`.

    Args:
        opponent_model: rho.
        policy: pi.
    """

    order: ClassVar[tuple[str, str]]

    def __init__(self, opponent_model: Conditional, policy: Conditional) -> None:
        super().__init__()
        self.opponent_model = opponent_model
        self.policy = policy

    def bind(self, seat: Seat, model: OneStepModel) -> Self:
        """A working copy for `model`, in `seat`.

        Raises:
            IncompatibleError: if a factor does not fit its place.
        """
        # As Pyro's autoguides do, so that the model is not a submodule of the guide.
        return self._bound(seat=seat, _model=(model,))

    def setup(self) -> None:
        """Bind both factors to the spaces their place in the order gives them."""
        parents = [self.seat.observation]
        spaces = {"action": self.seat.action, "opponent_action": self.seat.opponent_action}
        names = {"action": "policy", "opponent_action": "opponent_model"}
        for site in self.order:
            with within(names[site]):
                factor: Conditional = getattr(self, names[site])
                if type(factor).observe is not Conditional.observe:
                    raise IncompatibleError(
                        f"got {type(factor).__name__}, which learns from what it is shown, but a guide shows it "
                        "nothing; expected a factor that is fitted, or Empirical (rho := P) and this as opponent prior"
                    )
                bound = factor.bind(self.seat, spaces[site], parents)
            setattr(self, names[site], bound)
            parents = [*parents, spaces[site]]
        factors = {site: getattr(self, name) for site, name in names.items()}
        for site, factor in factors.items():
            if isinstance(factor, ClosedForm):
                with within(names[site]):
                    factor.attach(self.model, site, self.order, factors)

    @property
    def model(self) -> OneStepModel:
        """The model this guide approximates."""
        model: OneStepModel = self._model[0]
        return model

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Sample both sites; returns `(action, opponent_action)`."""
        weights = {"action": self.model.temperature, "opponent_action": self.model.kl_weight}
        spaces = {"action": self.seat.action, "opponent_action": self.seat.opponent_action}
        factors = {"action": self.policy, "opponent_action": self.opponent_model}
        values: dict[str, Tensor] = {}
        with replicate_and_batch(obs):
            for site in self.order:
                infer = InferDict(enumerate="parallel") if isinstance(spaces[site], Discrete) else None
                with poutine.scale(scale=weights[site]):
                    values[site] = pyro.sample(site, factors[site](obs, *values.values()), infer=infer)
        return values["action"], values["opponent_action"]


class OpponentFirst(Guide):
    """ROMMEO's order (Tian et al. 2019, Eq. 25)::

        b ~ rho(b | s)          # opponent_model
        a ~ pi(a | s, b)        # policy

    Args:
        opponent_model: rho, a conditional on the observation; `Optimal` for Eq. 11, `Empirical` for rho := P.
        policy: pi, a conditional on the observation and the opponents' action; `Optimal` for Eq. 10.
    """

    order = ("opponent_action", "action")


class PolicyFirst(Guide):
    """The other order of the same sites, as in PR2 (Wen et al. 2019)::

        a ~ pi(a | s)           # policy
        b ~ rho(b | s, a)       # opponent_model

    With full-capacity factors and equal weights on both sites the optimum is the same joint posterior as
    `OpponentFirst`'s; the two differ through unequal weights and restricted factors.

    Args:
        opponent_model: rho, a conditional on the observation and the own action.
        policy: pi, a conditional on the observation.
    """

    order = ("action", "opponent_action")
