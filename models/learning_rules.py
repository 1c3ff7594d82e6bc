"""Filters that infer the logits and the learning rule of an opponent from its actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

from inference_marl.described import Count, Positive, Probability, hyperparameters
from inference_marl.inference.plates import Plates
from inference_marl.models.opponent_logits import OpponentLogits
from inference_marl.types import Trajectory, own_stream

Change = Callable[[Tensor], Tensor]
"""Maps logits to their change in one update under each rule, both `replicates x rules x states x (actions - 1)`."""

NEWTON_STEPS = 100
"""Maximum number of Newton steps to a mode. In 8,000 cases at most 10 were needed, 22 if counts contradict a mean of
20."""

PLATES = Plates(("replicate", "state"))


@hyperparameters
class LearningRuleFilter(OpponentLogits):
    """A joint posterior over an opponent's learning rule z and its logits theta, given its actions between updates::

        z_0 ~ Uniform(rules)          z_t ~ (1 - switching) delta(z_(t-1)) + switching Uniform
        theta_0 ~ N(0, init_scale^2)  theta_t ~ N(theta_(t-1) + f_(z_t)(theta_(t-1)), tau^2)
        n_t(s) ~ Multinomial(softmax(theta_t(s), 0))             # actions seen in each state s at theta_t

    There is one Gaussian filter per rule, with independent states::

        predict:  m_k <- m_k + f_k(m_k)    P_k <- P_k + tau^2 I
        observe:  N(m_k, P_k) <- Laplace's approximation of p(theta | n)    w_k <- w_k p(n | k), likewise, normalised

    Predictions of P ignore the derivative of f, which an extended Kalman filter would include. Before a prediction,
    each filter is mixed with the others, as in the interacting multiple model of Blom and Bar-Shalom (1988): filter k
    starts from the mean and covariance of `sum_j P(z_(t-1) = j | z_t = k) N(m_j, P_j)`. So a rule that has been wrong
    so far can become right. With `switching = 0` filters are not mixed.

    Args:
        rules: number of rules.
        init_scale: standard deviation of the opponent's initial logits, whose mean is 0.
        process_noise: tau, standard deviation of the part of a logit's change in an update that rules do not explain.
        switching: probability that the rule is drawn anew at an update.

    Attributes:
        mean: m, `replicates x rules x states x (actions - 1)`; the last action's logit is 0.
        covariance: P, as `mean` with another dimension `actions - 1`.
        log_weights: log w, `replicates x rules`.
    """

    rules: Count
    init_scale: Positive = 1.0
    process_noise: Positive = 0.15
    switching: Probability = 0.01
    mean: Tensor = field(init=False)
    covariance: Tensor = field(init=False)
    log_weights: Tensor = field(init=False)

    def setup(self) -> None:
        """Start from the prior."""
        super().setup()
        seat, (replicates, states, actions) = self.seat, self.shape
        shape = (replicates, self.rules, states, free := actions - 1)
        mean = torch.zeros(shape, dtype=seat.dtype, device=seat.device)
        self.register_buffer("mean", mean)
        covariance = self.init_scale**2 * torch.eye(free, dtype=seat.dtype, device=seat.device)
        self.register_buffer("covariance", covariance.expand(*shape, free).clone())
        self.register_buffer("log_weights", mean.new_zeros(shape[:2]).log_softmax(-1))

    @property
    def weights(self) -> Tensor:
        """The posterior over rules, `replicates x rules`."""
        return self.log_weights.exp()

    @property
    def logits(self) -> Tensor:
        """The posterior mean of the opponent's logits, `replicates x states x (actions - 1)`."""
        return (self.weights[..., None, None] * self.mean).sum(1)

    def parameters_believed(self) -> tuple[Tensor, Tensor]:
        """The posterior mean, as a single draw of weight 1."""
        return self.logits.unsqueeze(0), self.mean.new_ones(1, len(self.mean))

    def policy(self) -> Tensor:
        """The opponent's policy at the posterior mean."""
        return with_last(self.logits).softmax(-1)

    def observe(self, newest: Trajectory) -> None:
        """Condition on the opponent's actions since the last update."""
        self.condition(self.counted(newest))

    def condition(self, counts: Tensor) -> None:
        """Condition on counts of the opponent's actions since the last update.

        Args:
            counts: number of times the opponent played each action in each state, `replicates x states x actions`.
        """
        self.mean, self.covariance, evidence = laplace(self.mean, self.covariance, counts.unsqueeze(1))
        self.log_weights = (self.log_weights + evidence.sum(-1)).log_softmax(-1)

    def predict(self, change: Change) -> None:
        """Predict the logits after one update of the opponent, by the rule of each filter."""
        self._switch()
        self.mean = self.mean + change(self.mean)
        noise = self.process_noise**2 * torch.eye(self.mean.shape[-1], dtype=self.mean.dtype, device=self.mean.device)
        self.covariance = self.covariance + noise

    def transition(self) -> Tensor:
        """P(z_t | z_(t-1)), `rules x rules`."""
        stays = torch.eye(self.rules, dtype=self.mean.dtype, device=self.mean.device)
        return (1 - self.switching) * stays + self.switching / self.rules

    def _switch(self) -> None:
        """Mix the filters and predict the weights of the rules."""
        joint = self.log_weights.unsqueeze(-1) + self.transition().log()
        self.log_weights = joint.logsumexp(1)
        share = (joint - self.log_weights.unsqueeze(1)).exp()  # of j in filter k, `replicates x j x k`
        mean = torch.einsum("rjk,rjsa->rksa", share, self.mean)
        apart = self.mean.unsqueeze(2) - mean.unsqueeze(1)
        self.covariance = torch.einsum("rjk,rjsab->rksab", share, self.covariance) + torch.einsum(
            "rjk,rjksa,rjksb->rksab", share, apart, apart
        )
        self.mean = mean

    def model(self, counts: Tensor, changes: Callable[[int], Change]) -> None:
        """The Pyro model of the class docstring, from the first update on.

        Its sites are `rule_1`, ..., and `logits_0`, `counts_0`, ..., in plates over replicates and states.

        Args:
            counts: as for `condition`, with a leading dimension for updates.
            changes: maps the index of an update, from 1 on, to the `change` that `predict` was given.
        """
        plates, states = PLATES.open(counts.shape[1:3]), torch.arange(counts.shape[2], device=counts.device)
        logits, rule, scale = torch.zeros_like(self.mean[:, 0]), None, self.init_scale
        for time in pyro.markov(range(len(counts))):
            if time:
                with plates.within("replicate"):
                    chances = self.transition().mean(0) if rule is None else self.transition()[rule]
                    belief = dist.Categorical(chances)
                    rule = pyro.sample(f"rule_{time}", belief, infer={"enumerate": "parallel"})
                change = changes(time)(logits.unsqueeze(1).expand_as(self.mean))
                logits, scale = logits + Vindex(change)[self.seat.rows, rule, states], self.process_noise
            with plates.within("replicate", "state"):
                logits = pyro.sample(f"logits_{time}", dist.Normal(logits, scale).to_event(1))
                most = int(counts[time].sum(-1).max())
                played = dist.Multinomial(most, logits=with_last(logits), validate_args=False)
                pyro.sample(f"counts_{time}", played, obs=counts[time])


@hyperparameters
class FilteredOpponent(OpponentLogits):
    """A Gaussian filter over the drifting logits of an opponent: `LearningRuleFilter` without a rule::

        theta_t ~ N(theta_(t-1), drift^2)    theta_0 ~ N(0, init_scale^2)

    Args:
        init_scale: standard deviation of the initial logits.
        drift: standard deviation of the change of logits from one trajectory to the next.
        draws: number of draws from the posterior; 1 takes the posterior mean instead.

    Attributes:
        filter: the posterior.
    """

    init_scale: Positive = 1.5
    drift: Positive = 0.5
    draws: Count = 1
    filter: LearningRuleFilter = field(init=False)

    def setup(self) -> None:
        """Start from the prior."""
        super().setup()
        described = LearningRuleFilter(rules=1, init_scale=self.init_scale, process_noise=self.drift, switching=0.0)
        self.filter = described.bind(self.seat)

    def observe(self, newest: Trajectory) -> None:
        """Let the logits drift, the initial ones too, and condition on the opponent's actions."""
        self.filter.predict(torch.zeros_like)
        self.filter.observe(newest)

    def parameters_believed(self) -> tuple[Tensor, Tensor]:
        """The posterior mean, or draws from the posterior with equal weights."""
        if self.draws == 1:
            return self.filter.parameters_believed()
        mean, covariance = self.filter.mean[:, 0], self.filter.covariance[:, 0]
        with own_stream(mean.device):
            drawn = dist.MultivariateNormal(mean, covariance).sample((self.draws,))
        return drawn, mean.new_full((self.draws, len(mean)), 1 / self.draws)

    def policy(self) -> Tensor:
        """The opponent's policy at the posterior mean."""
        return self.filter.policy()


def with_last(logits: Tensor) -> Tensor:
    """Append the last action's logit, 0."""
    return torch.nn.functional.pad(logits, (0, 1))


def laplace(mean: Tensor, covariance: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Laplace's approximation of a Gaussian's posterior, given multinomial counts under softmax(theta, 0).

    The mode is found by Newton's method, damped for generalised self-concordant functions (Sun and Tran-Dinh 2019,
    "Generalized self-concordant functions: a recipe for Newton-type methods", section 4): it converges globally,
    whereas plain Newton steps diverge from a mean that the counts contradict.

    Args:
        mean: `... x (actions - 1)`.
        covariance: `... x (actions - 1) x (actions - 1)`.
        counts: `... x actions`.

    Returns:
        The posterior's mean and covariance, and the log-evidence of the sequence of actions, `...`.
    """
    precision, total, logits = torch.linalg.inv(covariance), counts.sum(-1, keepdim=True), mean
    moving, enough = torch.ones_like(total, dtype=torch.bool), torch.finfo(mean.dtype).eps ** 0.5
    for _ in range(NEWTON_STEPS):
        step = torch.linalg.solve(_curvature(logits, total, precision), _slope(logits, mean, precision, counts, total))
        length = 2 * step.norm(dim=-1, keepdim=True)
        logits = torch.where(moving, logits + step * torch.where(length > 0, length.log1p() / length, 1.0), logits)
        moving = moving & (length > enough)  # converged cases stay, independently of the others
        if not bool(moving.any()):
            break
    found, away = torch.linalg.inv(_curvature(logits, total, precision)), logits - mean
    fit = (counts * with_last(logits).log_softmax(-1)).sum(-1)
    surprise = (away * (precision @ away.unsqueeze(-1)).squeeze(-1)).sum(-1)
    return logits, found, fit + (torch.logdet(precision @ found) - surprise) / 2


def _slope(logits: Tensor, mean: Tensor, precision: Tensor, counts: Tensor, total: Tensor) -> Tensor:
    """The gradient of the log-posterior, `... x (actions - 1)`."""
    surplus = (counts - total * with_last(logits).softmax(-1))[..., :-1]
    return surplus - (precision @ (logits - mean).unsqueeze(-1)).squeeze(-1)


def _curvature(logits: Tensor, total: Tensor, precision: Tensor) -> Tensor:
    """Minus the Hessian of the log-posterior, `... x (actions - 1) x (actions - 1)`."""
    chance = with_last(logits).softmax(-1)[..., :-1]
    fisher = torch.diag_embed(chance) - chance.unsqueeze(-1) * chance.unsqueeze(-2)
    return total.unsqueeze(-1) * fisher + precision
