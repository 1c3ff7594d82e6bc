"""Opponent priors from counts of the opponents' actions in each state."""

from __future__ import annotations

from typing import Annotated, Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import In, NotNegative, Positive, expect
from inference_marl.models.priors import OpponentPrior
from inference_marl.spaces import Discrete
from inference_marl.types import Counting

Window = Annotated[int | None, In("a positive integer", ", or null to remember everything")]
"""Number of observations remembered."""


class TabularCounts(Counting, OpponentPrior):
    """Counts of each joint action in each state, over the last `window` observations or all of them.

    Args:
        window: observations remembered per replicate, over all states; `None` for all.
    """

    targets = (Discrete,)
    conditions = (Discrete,)
    counters = ("position",)
    position: int = 0
    counts: Tensor
    recent: Tensor

    def __init__(self, window: Window = None) -> None:
        super().__init__()
        self.window = window

    def setup(self) -> None:
        """Start with no observations; `counts` is `replicates x states x opponent_actions`."""
        seat = self.seat
        states, actions = self.parents[0].features, self.target.features
        counts = torch.zeros(seat.replicates, states, actions, dtype=seat.dtype, device=seat.device)
        self.register_buffer("counts", counts)
        # One cell past the end marks entries not yet filled.
        recent = torch.full((seat.replicates, self.window or 0), states * actions, device=seat.device)
        self.register_buffer("recent", recent)

    def observe(self, obs: Tensor, opponent_action: Tensor) -> None:
        """Count the newest observations and drop those that leave the window."""
        _, states, actions = self.counts.shape
        cells = obs * actions + opponent_action
        counts = self.counts.view(-1, states * actions)
        if self.window is not None:
            cells = cells[:, -self.window :]
            where = torch.arange(self.position, self.position + cells.shape[1], device=obs.device) % self.window
            leaving = self.recent[:, where]
            seen = leaving < states * actions
            counts.scatter_add_(1, leaving.clamp_max(states * actions - 1), -seen.to(counts.dtype))
            self.recent[:, where] = cells
            self.position = int((self.position + cells.shape[1]) % self.window)
        counts.scatter_add_(1, cells, torch.ones_like(cells, dtype=counts.dtype))

    def counts_at(self, obs: Tensor) -> Tensor:
        """Counts at the given states, `replicates x batch x opponent_actions`."""
        return self.counts[self.seat.rows, obs]


class EmpiricalFrequency(TabularCounts):
    """The frequencies of the opponents' past actions in each state (Tian et al. 2019, Section 2.2).

    They are `f(b | s) = (count + smoothing) / (total + smoothing |B|)`, and `P(b | s) ∝ f(b | s)^exponent`. Before the
    first observation in a state `f` is the initial distribution, which the paper leaves arbitrary. Discrete states and
    actions.

    The exponent encodes how the opponents' habits are expected to change. For an integer exponent, `P` is the policy of
    opponents that draw `exponent` of their past actions in `s` until all drawn are the same, and then play that action.
    With 1, the paper's value, habits persist; above 1 they harden. In self-play this decides whether agents settle on
    one of several equal optima. Let a game have two optima, and let two agents (of small temperature) have played the
    first in fractions `f1` and `f2` of their `n` actions. Each responds to the other's observed actions::

        E[f1' - f1] = (F(f2) - f1) / (n + 1)        F(f) = f^exponent / (f^exponent + (1 - f)^exponent)

    and likewise for `f2`, with `F'(1/2) = exponent`. So around (1/2, 1/2), where there is no convention yet, the
    convention `u = f1 + f2 - 1` drifts by `(exponent - 1) u / (n + 1)` and the disagreement `v = f1 - f2` by
    `-(exponent + 1) v / (n + 1)`. At 1 the convention is a martingale, Polya's urn: it converges to a random limit, and
    agents keep miscoordinating. Above 1 the middle is a saddle, only the two pure conventions are stable, and since the
    other action then has a probability of order `n^-exponent`, whose sum is finite, it is played finitely often (for
    such urns see Hill, Lane and Sudderth 1980; for saddles Pemantle 1990). Large exponents are slow to unlearn what was
    played during exploration. They make play more predictable, which helps in coordination and hurts in conflict, as in
    matching pennies.

    With `kl_weight = 1 / exponent` a closed-form guide has `rho ∝ (f exp(S))^exponent` with `S` the value of the
    opponents' actions: the paper's opponent model (Eq. 11), sharpened; evidence and optimism keep their balance.

    Args:
        window: as in `TabularCounts`; `None` in the paper's Algorithm 1, 50 in the authors' code.
        smoothing: added to every count, not negative. 0 as in the paper; an action not seen within the window then has
            probability 0, which only closed-form guides can represent.
        initial: `dirichlet` draws the initial distribution from Dirichlet(1, ..., 1), `uniform` takes its mean.
        exponent: power of the frequencies, positive; 1 as in the paper.
    """

    def __init__(
        self,
        window: Window = None,
        smoothing: NotNegative = 0.0,
        initial: Literal["dirichlet", "uniform"] = "dirichlet",
        exponent: Positive = 1.0,
    ) -> None:
        super().__init__(window)
        self.smoothing, self.exponent = smoothing, exponent
        self.initial = initial

    def setup(self) -> None:
        """Draw the initial distribution, `replicates x states x opponent_actions`."""
        super().setup()
        start = torch.ones_like(self.counts)
        if self.initial == "dirichlet":
            start = start.exponential_()
        self.register_buffer("start", start / start.sum(-1, keepdim=True))

    @property
    def full_support(self) -> bool:
        """Whether smoothing keeps every probability positive."""
        return self.smoothing > 0

    def forward(self, obs: Tensor, *others: Tensor) -> dist.TorchDistribution:
        """`P` at `obs`; logits are `-inf` for unseen actions without smoothing."""
        counts = self.counts_at(obs)
        unseen = counts.sum(-1, keepdim=True) == 0
        frequencies = torch.where(unseen, self.start[self.seat.rows, obs], counts + self.smoothing)
        return dist.Categorical(logits=self.exponent * frequencies.log())


class DirichletMultinomial(TabularCounts):
    """The posterior predictive under a Dirichlet prior on each state's action probabilities::

        theta_s ~ Dirichlet(concentration, ..., concentration)
        b ~ Categorical(theta_s)

    so `P(b | s, data) = (count + concentration) / (total + concentration |B|)`. Discrete states and actions.

    Args:
        concentration: of the symmetric Dirichlet, positive: 1 is uniform, 1/2 Jeffreys'.
        window: as in `TabularCounts`.
    """

    def __init__(self, concentration: Positive = 1.0, window: Window = None) -> None:
        super().__init__(window)
        self.concentration = concentration

    def posterior(self, obs: Tensor) -> dist.Dirichlet:
        """The posterior over `theta` at `obs`, batch shape `replicates x batch`."""
        return dist.Dirichlet(self.counts_at(obs) + self.concentration)

    def interval(self, obs: Tensor, level: float) -> Tensor:
        """Equal-tailed posterior intervals of every action's probability, from its beta marginals.

        Args:
            obs: `replicates x batch`.
            level: posterior probability of each interval, in (0, 1); `ValueError` otherwise.

        Returns:
            Lower and upper bounds, `replicates x batch x opponent_actions x 2`.
        """
        from scipy import stats  # type: ignore[import-untyped, unused-ignore]

        expect("a number in (0, 1)", level=level)
        own = self.posterior(obs).concentration
        rest = own.sum(-1, keepdim=True) - own
        ends = stats.beta.interval(level, own.double().cpu().numpy(), rest.double().cpu().numpy())
        return torch.stack([torch.from_numpy(end) for end in ends], dim=-1).to(own)

    def forward(self, obs: Tensor, *others: Tensor) -> dist.TorchDistribution:
        """The posterior predictive at `obs`."""
        return dist.Categorical(logits=(self.counts_at(obs) + self.concentration).log())
