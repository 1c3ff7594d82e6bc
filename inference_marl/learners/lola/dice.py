"""LOLA by policy gradients: values are estimated from imagined play, and differentiated by DiCE."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from inference_marl.described import Count, IncompatibleError, NotNegative, Probability, Whole, hyperparameters
from inference_marl.inference.schedules import ByReplicate, current, over_events
from inference_marl.inference.tables import draw
from inference_marl.learners.lola.derivatives import Policy
from inference_marl.learners.lola.gradient import GradientLearner, Pair
from inference_marl.play import Collector, GameSimulator
from inference_marl.types import Actor, Decision, Memory, Seat, Transition, own_stream


@hyperparameters
class LolaDice(GradientLearner):
    """LOLA from imagined play: the gradient of the agent's own objective after steps of the opponent::

        theta' <- theta' + eta grad_theta' L^j(theta, theta')      # `look_ahead` times, as a function of theta
        theta  <- theta + delta grad_theta L^i(theta, theta'(theta))

    This is LOLA-DiCE (Foerster et al. 2018b), with the loaded objective of Farquhar et al. (2019, algorithm 1), whose
    derivatives of any order estimate those of agent k's value, not normalised. With the log-probability l_t of both
    agents' actions, generalised advantages A^k (Schulman et al. 2016) and E for the mean over rollouts::

        L^k = E sum_t gamma^t (box(l_0 + ... + l_t) - box(l_0 + ... + l_(t-1))) A^k_t        box(x) = exp(x - stop(x))
        A^k_t = sum_n (gamma lambda)^n (r^k_(t+n) + gamma V^k(s_(t+n+1)) - V^k(s_(t+n)))     V^k is 0 after termination

    Every objective is of rollouts of its own, played in the game at the parameters that it is taken at. The game is
    played but its tables are not read, so it need not give any. The agents' value tables V^k are fitted to these very
    rollouts (`fitted_values`), where public code follows them with a learning rate. The value at the end of a rollout
    is a constant: what the policies do to all that comes later, of a weight of gamma^length, has no derivative, so that
    steps are a little too short (by 13 % with a discount of 0.96 and the default `length`).

    Without noise, a step with `look_ahead=1` is that of `Lola(look_ahead=True)` where eta is small. The latter is of
    the first order in eta.

    Args:
        opponent_step_size: eta, the opponent's assumed learning rate.
        look_ahead: steps of the opponent; with 0, the learner is a naive policy gradient.
        rollouts: imagined per replicate and objective.
        length: steps of a rollout, after which values are bootstrapped. Episodes that end sooner end theirs.
        trace_decay: lambda in [0, 1] of the advantages; at 1 they are the sum of rewards minus the value.
        estimator: `loaded`; or `dice`, the original objective (Foerster et al. 2018b) with values as its baseline,
            which serves first derivatives only and leaves second ones noisy; or `no_magic_box`, the surrogate with x in
            place of box(x), whose second derivatives are wrong: the opponent's step does not depend on theta.
        step_size, init_scale, update_every, forget: see `GradientLearner`.
    """

    by_replicate = GradientLearner.by_replicate | {"opponent_step_size"}

    opponent_step_size: NotNegative | ByReplicate = 1.0
    look_ahead: Whole = 1
    rollouts: Count = 64
    length: Count = 50
    trace_decay: Probability = 0.95
    estimator: Literal["loaded", "dice", "no_magic_box"] = "loaded"

    def setup(self) -> None:
        """Check the seat and draw the logits.

        Raises:
            IncompatibleError: if there are not two agents with finitely many actions, or no game that can be played in
                imagination, or the agents do not observe the same, or the game has no discount.
        """
        super().setup()
        game, name = self.seat.game, type(self).__name__
        if game is None or not game.shared_observation:
            what = "no game" if game is None else f"{type(game).__name__}, in which agents may see different things"
            raise IncompatibleError(
                f"{name} got {what}, expected a pure game in which all agents observe the same, such as MatrixGame or "
                "StochasticGame: it imagines how both of them play"
            )
        if game.discount is None and game.horizon != 1:
            raise IncompatibleError(
                "got None for a game of more than one step, expected a number in [0, 1); give the game a discount",
                key="discount",
            )
        self.game, self.discount = game, game.discount or 0.0
        self.steps = self.length if game.horizon is None else min(self.length, game.horizon)

    def ascent(self, parameters: Pair, policies: tuple[Policy, Policy]) -> Tensor:
        """The estimated gradient of the agent's own value after the opponent's steps."""
        i, j = self.seat.index, 1 - self.seat.index
        own, other = (parameters[k].detach().requires_grad_() for k in (i, j))

        def objective(of: int) -> Tensor:
            both = (own, other) if i == 0 else (other, own)
            tables = (policies[0](both[0]), policies[1](both[1]))
            return self.objective(of, tables).sum()

        with own_stream(self.seat.device), torch.enable_grad():
            for _ in range(self.look_ahead):
                (step,) = torch.autograd.grad(objective(j), other, create_graph=True)
                other = other + over_events(current(self.opponent_step_size, self.updates), other.dim() - 2) * step
            (found,) = torch.autograd.grad(objective(i), own)
        return found

    def objective(self, of: int, tables: Pair) -> Tensor:
        """What is differentiated in place of an agent's value, `replicates`; from new rollouts.

        Args:
            of: whose value.
            tables: both agents' policies, `replicates x states x actions_i`, through which gradients flow.
        """
        played = self._imagine(tables)
        shape = (self.seat.replicates, -1, self.rollouts)
        flat = (played.obs[of], played.next_obs[of], played.rewards[..., of].double(), played.terminated, played.ended)
        obs, next_obs, reward, terminated, ended = (each.view(shape) for each in flat)
        log_prob = torch.stack([_log_prob(*each) for each in zip(tables, played.obs, played.actions, strict=True)])
        counted = (ended.cumsum(1) - ended.long() == 0).double()  # later steps are of another episode
        onward = self.discount * (~terminated).double()

        values = fitted_values(obs, next_obs, reward, onward, counted, self.states)
        now, after = (values.gather(1, each.flatten(1)).view_as(each) for each in (obs, next_obs))
        through = log_prob.sum(0).view_as(reward).cumsum(1)
        before = torch.nn.functional.pad(through, (0, 0, 1, 0))[:, :-1]
        if self.estimator == "dice":
            last = counted - torch.nn.functional.pad(counted, (0, 0, 0, 1))[:, 1:]
            terms = magic_box(through) * (reward + last * onward * after) + (1 - magic_box(through - before)) * now
        else:
            box = magic_box if self.estimator == "loaded" else torch.positive
            gain = advantages(counted * (reward + onward * after - now), self.discount * self.trace_decay)
            terms = (box(through) - box(before)) * gain
        weight = self.discount ** torch.arange(reward.shape[1], device=reward.device).double().unsqueeze(-1)
        total: Tensor = (weight * counted * terms).sum(1).mean(1)
        return total

    def _imagine(self, tables: Pair) -> Transition:
        """Rollouts from the start of the game, `replicates x (time rollouts)`."""
        seat = self.seat
        simulator = GameSimulator(self.game, seat.replicates, self.rollouts, seat.device, seat.dtype)
        players = [_Table(table, replace(seat, index=agent)) for agent, table in enumerate(tables)]
        with torch.no_grad():
            return Collector(simulator, players).collect(self.steps).flat


class _Table(Actor):
    """Plays a policy that is given as a table, `replicates x states x actions`."""

    probabilities: Tensor

    def __init__(self, probabilities: Tensor, seat: Seat) -> None:
        self.seat = seat
        self.__dict__["probabilities"] = probabilities

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """A draw; its log-probability is computed of all steps at once."""
        return Decision(draw(self.probabilities[self.seat.rows, obs]), memory)


def magic_box(x: Tensor) -> Tensor:
    """`exp(x - stop(x))`: 1, with the derivatives of a product of probabilities (Foerster et al. 2018b)."""
    return (x - x.detach()).exp()


def fitted_values(
    obs: Tensor, next_obs: Tensor, reward: Tensor, onward: Tensor, counted: Tensor, states: int
) -> Tensor:
    """Values of one agent in every state by least-squares temporal differences (Bradtke and Barto 1996)::

        sum_(t: s_t = s) V(s) - onward_t V(s_(t+1)) = sum_(t: s_t = s) r_t

    exactly the values of the Markov chain that was seen. A state from which no step was seen has the mean value of the
    others, weighed by their visits.

    Args:
        obs: states, int64, `replicates x time x rollouts`, as are the next four.
        next_obs: the states that followed.
        reward: the agent's.
        onward: the discount, or 0 where the game has terminated.
        counted: 1, or 0 for steps to leave out.
        states: their number.

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
        error: of temporal differences, 0 after the end of a rollout, `replicates x time x rollouts`.
        decay: gamma lambda.
    """
    steps = torch.arange(error.shape[1], device=error.device)
    ahead = steps - steps.unsqueeze(-1)
    weight = torch.where(ahead < 0, 0.0, decay ** ahead.clamp_min(0).to(error.dtype))
    return weight @ error


def _log_prob(table: Tensor, obs: Tensor, action: Tensor) -> Tensor:
    """Log-probabilities of actions, `replicates x batch`, under a policy `replicates x states x actions`."""
    return table.flatten(1).gather(1, obs * table.shape[-1] + action).log()
