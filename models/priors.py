"""Opponent priors `P(b | s)`: what the opponents are expected to do before optimality is taken into account."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

from inference_marl.described import IncompatibleError, within
from inference_marl.inference.plates import replicate_and_batch
from inference_marl.inference.replay import Observed
from inference_marl.inference.svi import Fit, check_step_size, no_guide
from inference_marl.spaces import Discrete
from inference_marl.types import Conditional, OneStepModel


class OpponentPrior(Conditional):
    """`b ~ P(b | s)` for the opponents' joint action `b`.

    A subclass defines `forward(obs)`; one that learns from play also defines `observe(obs, opponent_action)`. Priors
    are conditionals like any other, so a guide may use one that does not learn as its opponent model.
    """

    def attach(self, model: OneStepModel) -> None:
        """See the model that this is the prior of, once it is built; for priors that reason with its values."""

    def types(self, obs: Tensor) -> Tensor | None:
        """Probabilities of the opponents' types, `replicates x batch x types`; `None` for a prior without types."""
        return None


class Uniform(OpponentPrior):
    """`P(b | s)` uniform: no assumption about the opponents. Any action space."""

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """The uniform distribution, batch shape `()`."""
        return self.target.uniform(self.seat.dtype, self.seat.device)


class Fixed(OpponentPrior):
    """`P(b | s)` given once and for all, the same in every state. Discrete actions.

    Args:
        probabilities: of the opponents' joint actions (the last opponent's action runs fastest); they are
            normalised.

    Raises:
        ValueError: if a probability is negative or all are 0.
    """

    targets = (Discrete,)

    def __init__(self, probabilities: Sequence[float]) -> None:
        super().__init__()
        if not probabilities or min(probabilities) < 0 or not sum(probabilities) > 0:
            raise ValueError(
                f"probabilities: got {list(probabilities)}, expected numbers that are not negative and not all 0"
            )
        self.probabilities = tuple(probabilities)

    def setup(self) -> None:
        """Check the length and store the log-probabilities."""
        if len(self.probabilities) != self.target.features:
            raise IncompatibleError(
                f"got {len(self.probabilities)} numbers, expected one per joint action of the opponents: "
                f"{self.target.features}",
                key="probabilities",
            )
        probabilities = torch.tensor(self.probabilities, dtype=self.seat.dtype, device=self.seat.device)
        self.register_buffer("logits", (probabilities / probabilities.sum()).log())

    @property
    def full_support(self) -> bool:
        """Whether no probability is 0."""
        return min(self.probabilities) > 0

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """The given distribution, batch shape `()`."""
        return dist.Categorical(logits=self.logits)


class TabularCounts(OpponentPrior):
    """How often each joint action was seen in each state, over the last `window` observations or all of them.

    Args:
        window: observations remembered per replicate, over all states; `None` for all.

    Raises:
        ValueError: if `window` is not positive.
    """

    targets = (Discrete,)
    conditions = (Discrete,)
    counts: Tensor
    recent: Tensor

    def __init__(self, window: int | None = None) -> None:
        super().__init__()
        if window is not None and window < 1:
            raise ValueError(f"window: got {window}, expected a positive integer, or null to remember everything")
        self.window = window
        self.position = 0

    def setup(self) -> None:
        """Start with no observations; `counts` is `replicates x states x opponent_actions`."""
        seat = self.seat
        states, actions = self.parents[0].features, self.target.features
        counts = torch.zeros(seat.replicates, states, actions, dtype=seat.dtype, device=seat.device)
        self.register_buffer("counts", counts)
        # One cell past the end takes the observations that have not been made yet.
        recent = torch.full((seat.replicates, self.window or 0), states * actions, device=seat.device)
        self.register_buffer("recent", recent)

    def observe(self, obs: Tensor, opponent_action: Tensor) -> None:
        """Count the newest observations and forget those that leave the window."""
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

    def get_extra_state(self) -> dict[str, int]:
        """Where the window stands, for `state_dict`."""
        return {"position": self.position}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Undo `get_extra_state`."""
        self.position = state["position"]


class EmpiricalFrequency(TabularCounts):
    """`P(b | s)` is the frequency of `b` among the opponents' actions seen in `s` (Tian et al. 2019, Section 2.2).

    `f(b | s) = (count + smoothing) / (total + smoothing |B|)`, and `P(b | s) ∝ f(b | s)^exponent`. Before the first
    observation in a state `f` is the initial distribution, which the paper leaves arbitrary. Discrete states and
    actions.

    The exponent says what the opponents' habits are expected to become. Opponents who draw that many memories of what
    they did in `s`, again until all agree, and do what these say, play `P` (for a whole exponent; others lie between).
    With 1, the paper's, habits stay as they are; with more they harden. In self-play that decides whether agents settle
    on one of several equal optima. Let two agents (of small temperature) have two, and have played the first in the
    shares `f1` and `f2` of their `n` actions. Each goes by what it saw of the other::

        E[f1' - f1] = (F(f2) - f1) / (n + 1)        F(f) = f^exponent / (f^exponent + (1 - f)^exponent)

    and likewise for `f2`, with `F'(1/2) = exponent`. So around (1/2, 1/2), where nothing is agreed, the convention
    `u = f1 + f2 - 1` drifts by `(exponent - 1) u / (n + 1)` and the disagreement `v = f1 - f2` by
    `-(exponent + 1) v / (n + 1)`. At 1 the convention is a martingale, Polya's urn: it stops anywhere, and agents go on
    missing each other. Above 1 the middle is a saddle, only the two pure conventions are stable, and since the other
    action then has a probability of order `n^-exponent`, whose sum is finite, it is played finitely often (for such
    urns see Hill, Lane and Sudderth 1980; for saddles Pemantle 1990). Large exponents are slow to unlearn what was
    played while the agents explored. They make play more predictable, which helps where agents want to be understood
    and hurts where they do not, as in matching pennies.

    With `kl_weight = 1 / exponent` a guide in closed form has `rho ∝ (f exp(S))^exponent` with `S` the value of the
    opponents' actions: the paper's opponent model (Eq. 11), sharpened; evidence and optimism keep their balance.

    Args:
        window: observations remembered per replicate; `None` for all, as in the paper's Algorithm 1. The authors'
            code remembers 50.
        smoothing: added to every count. 0 is the paper's; an action that was not seen within the window then has
            probability 0, which only a guide in closed form can follow.
        initial: `dirichlet` draws the initial distribution from Dirichlet(1, ..., 1), `uniform` takes its mean.
        exponent: positive; 1 is the paper's.

    Raises:
        ValueError: if `window` or `exponent` is not positive or `smoothing` is negative.
    """

    def __init__(
        self,
        window: int | None = None,
        smoothing: float = 0.0,
        initial: Literal["dirichlet", "uniform"] = "dirichlet",
        exponent: float = 1.0,
    ) -> None:
        super().__init__(window)
        if smoothing < 0:
            raise ValueError(f"smoothing: got {smoothing}, expected a number that is not negative")
        if not exponent > 0:
            raise ValueError(f"exponent: got {exponent}, expected a positive number")
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
        """`P` at `obs`; `-inf` logits where nothing was seen and nothing is added."""
        counts = self.counts_at(obs)
        unseen = counts.sum(-1, keepdim=True) == 0
        frequencies = torch.where(unseen, self.start[self.seat.rows, obs], counts + self.smoothing)
        return dist.Categorical(logits=self.exponent * frequencies.log())


class DirichletMultinomial(TabularCounts):
    """Bayesian frequencies: the posterior predictive of a Dirichlet prior over each state's action probabilities::

        theta_s ~ Dirichlet(concentration, ..., concentration)
        b ~ Categorical(theta_s)

    so `P(b | s, data) = (count + concentration) / (total + concentration |B|)`, in closed form. Discrete states and
    actions.

    Args:
        concentration: of the symmetric Dirichlet, positive: 1 is uniform, 1/2 Jeffreys'.
        window: observations remembered per replicate; `None` for all.

    Raises:
        ValueError: if `concentration` or `window` is not positive.
    """

    def __init__(self, concentration: float = 1.0, window: int | None = None) -> None:
        super().__init__(window)
        if concentration <= 0:
            raise ValueError(f"concentration: got {concentration}, expected a positive number")
        self.concentration = concentration

    def posterior(self, obs: Tensor) -> dist.Dirichlet:
        """The posterior over `theta` at `obs`, batch shape `replicates x batch`."""
        return dist.Dirichlet(self.counts_at(obs) + self.concentration)

    def interval(self, obs: Tensor, level: float) -> Tensor:
        """Equal-tailed posterior intervals of every action's probability, from its beta marginals.

        Args:
            obs: `replicates x batch`.
            level: posterior probability of each interval, in (0, 1).

        Returns:
            Lower and upper ends, `replicates x batch x opponent_actions x 2`.

        Raises:
            ValueError: if `level` is out of its range.
        """
        from scipy import stats  # type: ignore[import-untyped, unused-ignore]

        if not 0 < level < 1:
            raise ValueError(f"level: got {level}, expected a number between 0 and 1")
        own = self.posterior(obs).concentration
        rest = own.sum(-1, keepdim=True) - own
        ends = stats.beta.interval(level, own.double().cpu().numpy(), rest.double().cpu().numpy())
        return torch.stack([torch.from_numpy(end) for end in ends], dim=-1).to(own)

    def forward(self, obs: Tensor, *others: Tensor) -> dist.TorchDistribution:
        """The posterior predictive at `obs`."""
        return dist.Categorical(logits=(self.counts_at(obs) + self.concentration).log())


class Amortised(OpponentPrior):
    """`P_psi(b | s)`: any conditional, fitted to what the opponents did last by maximum likelihood::

        b ~ P_psi(b | s)                 # site `opponent_action`, observed at the opponents' actions

    This is the prior of ROMMEO-AC (Tian et al. 2019, Algorithm 2).

    Args:
        conditional: the family, e.g. `TanhNormalNetwork` or `CategoricalNetwork`.
        window: observations remembered per replicate. The authors' code fits to the most recent batch; a short
            window lets the prior follow the policy into a local optimum and hold the opponent model there.
        batch_size: drawn from the window per step.
        steps: gradient steps per observation.
        learning_rate: Adam's step size.
        max_gradient_norm: clip each replicate's gradient; `None` for no clipping.

    Raises:
        ValueError: if `window`, `batch_size`, `steps`, `learning_rate` or `max_gradient_norm` is not positive.
    """

    def __init__(
        self,
        conditional: Conditional,
        window: int = 10_000,
        batch_size: int = 256,
        steps: int = 1,
        learning_rate: float = 1e-2,
        max_gradient_norm: float | None = None,
    ) -> None:
        super().__init__()
        for name, number in [("window", window), ("batch_size", batch_size), ("steps", steps)]:
            if number < 1:
                raise ValueError(f"{name}: got {number}, expected a positive integer")
        check_step_size(learning_rate, max_gradient_norm)
        self.conditional = conditional
        self.window, self.batch_size, self.steps = window, batch_size, steps
        self.learning_rate, self.max_gradient_norm = learning_rate, max_gradient_norm

    def setup(self) -> None:
        """Bind the conditional, make its optimiser and the memory.

        Raises:
            IncompatibleError: if the conditional does not fit, or has nothing to fit.
        """
        with within("conditional"):
            self.conditional = self.conditional.bind(self.seat, self.target, self.parents)
        parameters = list(self.conditional.parameters())
        if not parameters:
            raise IncompatibleError(
                f"got {type(self.conditional).__name__}, which has no parameters to fit, expected one that has, such "
                "as TanhNormalNetwork, CategoricalNetwork or Tabular",
                key="conditional",
            )
        self.observed = Observed(self.seat, self.window)
        self.optimisation = Fit(
            "opponent prior",
            Trace_ELBO(),
            self.likelihood,
            no_guide,
            parameters,
            learning_rate=self.learning_rate,
            max_gradient_norm=self.max_gradient_norm,
        )

    @property
    def full_support(self) -> bool:
        """As the conditional's."""
        return self.conditional.full_support

    def likelihood(self, obs: Tensor, opponent_action: Tensor) -> None:
        """The Pyro model of the class docstring."""
        with replicate_and_batch(obs):
            pyro.sample("opponent_action", self.conditional(obs), obs=opponent_action)

    def observe(self, obs: Tensor, opponent_action: Tensor) -> None:
        """Remember the newest observations and fit to what is remembered.

        Raises:
            NonFiniteError: if the loss is not finite.
        """
        self.observed.push(obs=obs, opponent_action=opponent_action)
        for _ in range(self.steps):
            batch = self.observed.sample(self.batch_size)
            self.optimisation.step(self.batch_size, batch["obs"], batch["opponent_action"])

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """The conditional at `obs`."""
        distribution: dist.TorchDistribution = self.conditional(*parents)
        return distribution
