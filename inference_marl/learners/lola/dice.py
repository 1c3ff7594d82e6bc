"""LOLA by policy gradients: values are estimated from imagined rollouts and differentiated by DiCE."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from inference_marl.described import Count, IncompatibleError, NotNegative, Probability, Whole, hyperparameters
from inference_marl.inference.objectives import discounted
from inference_marl.inference.schedules import ByReplicate, current, over_events
from inference_marl.inference.tables import draw
from inference_marl.learners.lola.derivatives import PolicyMap
from inference_marl.learners.lola.gradient import GradientLearner, Pair
from inference_marl.play import Collector, GameSimulator
from inference_marl.types import Actor, Decision, Memory, Seat, Transition, own_stream


@hyperparameters
class LolaDice(GradientLearner):
    """LOLA-DiCE: LOLA with gradients estimated from imagined rollouts::

        theta' <- theta' + eta grad_theta' L^j(theta, theta')      # `look_ahead` times, as a function of theta
        theta  <- theta + delta grad_theta L^i(theta, theta'(theta))

    The agent ascends its own objective after learning steps of the opponent (Foerster et al. 2018b). The loaded
    objective of Farquhar et al. (2019, algorithm 1) has derivatives of any order that estimate those of agent k's
    unnormalised value. With the log-probability l_t of both agents' actions, generalised advantages A^k (Schulman et
    al. 2016) and E for the mean over rollouts::

        L^k = E sum_t gamma^t (box(l_0 + ... + l_t) - box(l_0 + ... + l_(t-1))) A^k_t        box(x) = exp(x - stop(x))
        A^k_t = sum_n (gamma lambda)^n (r^k_(t+n) + gamma V^k(s_(t+n+1)) - V^k(s_(t+n)))     V^k is 0 after termination

    Every objective uses new rollouts of the game at the current parameters. The game is simulated, so it need not
    provide its rules as tables. The agents' value tables V^k are fitted to the same rollouts (`fitted_values`), whereas
    public code updates them with a learning rate. The bootstrapped value at the end of a rollout is a constant: the
    dependence of later rewards, with weight gamma^length, on the policies is ignored, so that steps are a little too
    short (by 13 % with a discount of 0.96 and the default `length`).

    Without noise, a step with `look_ahead=1` is that of `Lola(look_ahead=True)` to first order in eta.

    Args:
        opponent_step_size: eta, the opponent's assumed learning rate.
        look_ahead: number of the opponent's steps; with 0, the learner is a naive policy gradient.
        rollouts: number of rollouts per replicate and objective.
        length: steps of a rollout, after which values are bootstrapped. A rollout ends earlier if its episode does.
        trace_decay: lambda in [0, 1] of the advantages; at 1 they are the sum of rewards minus the value.
        estimator: `loaded`; or `dice`, the original objective (Foerster et al. 2018b), see `baseline`; or `products`,
            LOLA-PG (Foerster et al. 2018), whose step is that of `Lola` with derivatives estimated by products of
            scores, with `look_ahead` 0 or 1; or `no_magic_box`, the surrogate with x in place of box(x), whose second
            derivatives are wrong: the opponent's step does not depend on theta.
        baseline: baseline of `dice`: `values`, which reduce the variance of first derivatives only; or `mean`, the mean
            reward over rollouts at every step, without bootstrapping, as in public code. Since the mean includes each
            rollout itself, derivatives are too small by a factor of `1 - 1 / rollouts`.
        step_size, init_scale, update_every, forget, opponent_model: see `GradientLearner`.
    """

    by_replicate = GradientLearner.by_replicate | {"opponent_step_size"}

    opponent_step_size: NotNegative | ByReplicate = 1.0
    look_ahead: Whole = 1
    rollouts: Count = 64
    length: Count = 50
    trace_decay: Probability = 0.95
    estimator: Literal["loaded", "dice", "products", "no_magic_box"] = "loaded"
    baseline: Literal["values", "mean"] = "values"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.estimator == "products" and self.look_ahead > 1:
            raise ValueError(f"look_ahead: got {self.look_ahead} with estimator: products, expected 0 or 1")
        if self.baseline == "mean" and self.estimator != "dice":
            raise ValueError(
                f"baseline: got mean with estimator: {self.estimator}, expected values, or estimator: dice"
            )
        if self.rollouts < 2 and (self.baseline == "mean" or self.estimator == "products"):
            raise ValueError(
                f"rollouts: got {self.rollouts} with a mean over rollouts as the baseline, expected at least 2"
            )

    def setup(self) -> None:
        """Check the seat and draw the logits.

        Raises:
            IncompatibleError: if there are not two agents with finitely many actions, the game cannot be simulated, the
                agents' observations differ, or the game has no discount.
        """
        super().setup()
        game, name = self.seat.game, type(self).__name__
        if game is None or not game.shared_observation:
            what = "no game" if game is None else f"{type(game).__name__}, whose agents may observe different things"
            raise IncompatibleError(
                f"{name} got {what}, expected a pure game in which all agents observe the same, such as MatrixGame or "
                "StochasticGame: it simulates both of them"
            )
        if game.discount is None and game.horizon != 1:
            raise IncompatibleError(
                "got None for a game of more than one step, expected a number in [0, 1); give the game a discount",
                key="discount",
            )
        self.game, self.discount = game, game.discount or 0.0
        self.steps = self.length if game.horizon is None else min(self.length, game.horizon)

    def ascent(self, parameters: Pair, policies: tuple[PolicyMap, PolicyMap]) -> Tensor:
        """Estimate the gradient of the agent's own value after the opponent's steps."""
        i, j = self.seat.index, 1 - self.seat.index
        own, other = (parameters[k].detach().requires_grad_() for k in (i, j))

        def tables(other: Tensor) -> Pair:
            both = (own, other) if i == 0 else (other, own)
            return policies[0](both[0]), policies[1](both[1])

        with own_stream(self.seat.device), torch.enable_grad():
            if self.estimator == "products":
                return self._by_products(own, other, tables(other))
            for _ in range(self.look_ahead):
                (step,) = torch.autograd.grad(self.objective(j, tables(other)).sum(), other, create_graph=True)
                other = other + self._ahead(step)
            (found,) = torch.autograd.grad(self.objective(i, tables(other)).sum(), own)
        return found

    def objective(self, of: int, tables: Pair) -> Tensor:
        """The surrogate whose derivatives estimate those of an agent's value, `replicates`, from new rollouts.

        Args:
            of: index of the agent.
            tables: both agents' policies, `replicates x states x actions_i`, through which gradients flow.
        """
        seen = self._rollouts(of, tables)
        through = seen.log_prob.sum(0).cumsum(1)
        before = torch.nn.functional.pad(through, (0, 0, 1, 0))[:, :-1]
        if self.estimator == "dice" and self.baseline == "mean":
            return self._sum(magic_box(through) * seen.less_mean())
        values = fitted_values(seen.obs, seen.next_obs, seen.reward, seen.onward, seen.counted, self.states)
        now, after = (values.gather(1, each.flatten(1)).view_as(each) for each in (seen.obs, seen.next_obs))
        if self.estimator == "dice":
            last = seen.counted - torch.nn.functional.pad(seen.counted, (0, 0, 0, 1))[:, 1:]
            ending = seen.reward + last * seen.onward * after
            terms = magic_box(through) * ending + (1 - magic_box(through - before)) * now
            return self._sum(seen.counted * terms)
        box = torch.positive if self.estimator == "no_magic_box" else magic_box
        error = seen.counted * (seen.reward + seen.onward * after - now)
        gain = advantages(error, self.discount * self.trace_decay)
        return self._sum((box(through) - box(before)) * gain)

    def crossed(self, of: int, tables: Pair) -> Tensor:
        """The surrogate whose mixed second derivative estimates that of an agent's value, `replicates`::

            E sum_t gamma^t (r_t - mean r_t) (sum_(n <= t) l^1_n) (sum_(n <= t) l^2_n)

        It is differentiated once in each agent's parameters, by products of scores (Foerster et al. 2018, there without
        a baseline). The mean is over all rollouts, which reduces the expectation by the fraction `1 / rollouts`.
        Arguments as for `objective`.
        """
        seen = self._rollouts(of, tables)
        return self._sum(seen.less_mean() * seen.log_prob.cumsum(2).prod(0))

    def _by_products(self, own: Tensor, other: Tensor, tables: Pair) -> Tensor:
        """LOLA-PG's direction: the gradient of the own value plus the shaping of the opponent's step."""
        i, j = self.seat.index, 1 - self.seat.index
        of_own, of_other = torch.autograd.grad(self.objective(i, tables).sum(), (own, other), retain_graph=True)
        if not self.look_ahead:
            return of_own
        (step,) = torch.autograd.grad(self.crossed(j, tables).sum(), other, create_graph=True)
        (shaping,) = torch.autograd.grad((step * of_other).sum(), own)
        return of_own + self._ahead(shaping)

    def _ahead(self, step: Tensor) -> Tensor:
        """Scale the opponent's step by its assumed learning rate."""
        return over_events(current(self.opponent_step_size, self.updates), step.dim() - 2) * step

    def _sum(self, terms: Tensor) -> Tensor:
        """The discounted sum of terms over a rollout, averaged over rollouts, `replicates`."""
        weight = self.discount ** torch.arange(terms.shape[1], device=terms.device).double().unsqueeze(-1)
        total: Tensor = (weight * terms).sum(1).mean(1)
        return total

    def _rollouts(self, of: int, tables: Pair) -> Rollouts:
        """Play new rollouts, for the value of agent `of`."""
        played = self._imagine(tables)
        shape = (self.seat.replicates, -1, self.rollouts)
        flat = (played.obs[of], played.next_obs[of], played.rewards[..., of].double(), played.terminated, played.ended)
        obs, next_obs, reward, terminated, ended = (each.view(shape) for each in flat)
        log_prob = torch.stack([_log_prob(*each) for each in zip(tables, played.obs, played.actions, strict=True)])
        counted = (ended.cumsum(1) - ended.long() == 0).double()  # later steps belong to another episode
        onward = self.discount * (~terminated).double()
        return Rollouts(obs, next_obs, reward, onward, counted, counted * log_prob.view(2, *reward.shape))

    def _imagine(self, tables: Pair) -> Transition:
        """Simulate rollouts from the start of the game, `replicates x (time rollouts)`."""
        seat = self.seat
        simulator = GameSimulator(self.game, seat.replicates, self.rollouts, seat.device, seat.dtype)
        players = [_Table(table, replace(seat, index=agent)) for agent, table in enumerate(tables)]
        with torch.no_grad():
            return Collector(simulator, players).collect(self.steps).flat


class Rollouts(NamedTuple):
    """Imagined rollouts of both agents, `replicates x time x rollouts`.

    Attributes:
        obs: states.
        next_obs: the states that followed.
        reward: rewards of the agent whose value is estimated.
        onward: the discount, or 0 where the game has terminated.
        counted: 1, or 0 after the end of an episode.
        log_prob: log-probabilities of both agents' actions, 0 after the end, `2 x replicates x time x rollouts`.
    """

    obs: Tensor
    next_obs: Tensor
    reward: Tensor
    onward: Tensor
    counted: Tensor
    log_prob: Tensor

    def less_mean(self) -> Tensor:
        """Rewards, 0 after the end, minus their mean over rollouts at the same step."""
        reward = self.counted * self.reward
        return reward - reward.mean(2, keepdim=True)


class _Table(Actor):
    """Plays a policy given as a table, `replicates x states x actions`."""

    probabilities: Tensor

    def __init__(self, probabilities: Tensor, seat: Seat) -> None:
        self.seat = seat
        self.__dict__["probabilities"] = probabilities

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """Draw an action; log-probabilities are computed later, for all steps at once."""
        return Decision(draw(self.probabilities[self.seat.rows, obs]), memory)


def magic_box(x: Tensor) -> Tensor:
    """DiCE's `exp(x - stop(x))`: 1, with the derivatives of a product of probabilities (Foerster et al. 2018b)."""
    return (x - x.detach()).exp()


def fitted_values(
    obs: Tensor, next_obs: Tensor, reward: Tensor, onward: Tensor, counted: Tensor, states: int
) -> Tensor:
    """Values of one agent in every state by least-squares temporal differences (Bradtke and Barto 1996)::

        sum_(t: s_t = s) V(s) - onward_t V(s_(t+1)) = sum_(t: s_t = s) r_t

    These are the exact values of the empirical Markov chain. A state without observed steps gets the mean value of the
    others, weighted by their visits.

    Args:
        obs: states, int64, `replicates x time x rollouts`, as are the next four.
        next_obs: the states that followed.
        reward: the agent's rewards.
        onward: the discount, or 0 where the game has terminated.
        counted: 1, or 0 for steps to omit.
        states: number of states.

    Returns:
        `replicates x states`.
    """
    here, there, counted = obs.flatten(1), next_obs.flatten(1), counted.flatten(1)
    nothing = counted.new_zeros(len(here), states)
    visits = nothing.scatter_add(1, here, counted)
    total = nothing.scatter_add(1, here, counted * reward.flatten(1))
    follow = counted.new_zeros(len(here), states * states)
    follow = follow.scatter_add(1, here * states + there, counted * onward.flatten(1)).view(-1, states, states)
    share = (visits / visits.sum(1, keepdim=True)).unsqueeze(1)
    unseen = visits.unsqueeze(-1) == 0
    matrix = torch.diag_embed(torch.where(unseen.squeeze(-1), 1.0, visits)) - torch.where(unseen, share, follow)
    found: Tensor = torch.linalg.solve(matrix, total)
    return found


def advantages(error: Tensor, decay: float) -> Tensor:
    """Generalised advantages (Schulman et al. 2016, Eq. 16), `A_t = sum_n decay^n error_(t+n)`.

    Args:
        error: TD errors, 0 after the end of a rollout, `replicates x time x rollouts`.
        decay: gamma lambda.
    """
    return discounted(error.transpose(0, 1), error.new_tensor(decay).expand_as(error.transpose(0, 1))).transpose(0, 1)


def _log_prob(table: Tensor, obs: Tensor, action: Tensor) -> Tensor:
    """Log-probabilities of actions, `replicates x batch`, under a policy `replicates x states x actions`."""
    return table.flatten(1).gather(1, obs * table.shape[-1] + action).log()
