"""Transition models, initial states and known rewards against the rules of the games they are about."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.games import (
    MatchingPenniesContinuous,
    MatrixGame,
    MeetingGrid,
    Rendezvous,
    RiskyBridge,
    StochasticGame,
)
from inference_marl.models import (
    DeterministicTransition,
    DirichletTransition,
    GaussianEnsemble,
    InitialState,
    KnownReward,
    KnownTransition,
    TransitionModel,
)
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Experience, Game, Seat

R = 3
MEMORY = MatrixGame("stag_hunt", memory=1, horizon=5)


def a_seat(game: Game, index: int = 0) -> Seat:
    return Seat(index, game.observations, game.action_spaces, R, dtype=torch.float64, game=game)


def bound(transition: TransitionModel, game: Game, index: int = 0) -> Any:
    seat = a_seat(game, index)
    return transition.bind(seat, seat.observation, seat.spaces)


def experience(
    obs: Tensor, action: Tensor, opponent_action: Tensor, next_obs: Tensor, ends: bool = False
) -> Experience:
    shape = obs.shape[:2]
    ended = torch.full(shape, ends)
    two = Seat(0, (Discrete(1),) * 2, (Discrete(1),) * 2, shape[0])
    return Experience(two, obs, action, (opponent_action,), torch.zeros(shape), next_obs, ended, ended)


@pytest.mark.parametrize("agent", [0, 1])
def test_known_transition_is_the_games(agent: int) -> None:
    game = RiskyBridge()
    table, _ = game.dynamics().seen_by(agent)
    states, actions, opponent_actions = table.shape[:3]
    obs = torch.randint(states, (R, 7))
    action, opponent_action = torch.randint(actions, (4, R, 7)), torch.randint(opponent_actions, (4, R, 7))
    probs = bound(KnownTransition(), game, agent)(obs, action, opponent_action).probs
    torch.testing.assert_close(probs, table[obs.expand(4, R, 7), action, opponent_action])


def test_deterministic_transition_reads_the_game_or_a_list() -> None:
    game = MEMORY
    table, _ = game.dynamics().seen_by(0)
    successors = table.argmax(-1)
    for transition in (DeterministicTransition(), DeterministicTransition(successors.tolist())):
        torch.testing.assert_close(bound(transition, game).logits.exp(), table)
    with pytest.raises(IncompatibleError, match="random transitions"):
        bound(DeterministicTransition(), RiskyBridge())
    with pytest.raises(IncompatibleError, match=r"successors: got shape \(1, 2, 2\)"):
        bound(DeterministicTransition([[[0, 0], [0, 0]]]), game)
    for beyond in (-1, 5):
        successors[-1, -1, -1] = beyond
        with pytest.raises(IncompatibleError, match=f"^successors: got .*{beyond}.* with states 0 to 4"):
            bound(DeterministicTransition(successors.tolist()), game)
    with pytest.raises(ValueError, match="successors: got shape"):
        DeterministicTransition([[0.5]])
    with pytest.raises(ValueError, match="successors: got"):
        DeterministicTransition([[[0, 1], [0]]])


def test_a_game_that_may_end_is_refused_and_a_one_shot_game_is_not() -> None:
    nowhere = torch.zeros(R, 1, dtype=torch.int64)
    one_shot = bound(KnownTransition(), MatrixGame("climbing"))(nowhere, nowhere, nowhere)
    torch.testing.assert_close(one_shot.probs.sum(-1), torch.ones(R, 1, dtype=torch.float64))

    class Ending(MatrixGame):
        def dynamics(self) -> Any:
            rules = super().dynamics()
            return type(rules)(rules.initial, 0.9 * rules.transition, rules.reward)

    with pytest.raises(IncompatibleError, match="may end at any step, expected one that goes on"):
        bound(KnownTransition(), Ending("stag_hunt", memory=1, horizon=5))
    # One joint action ends it and the other does not.
    sometimes = StochasticGame([1.0], [[[[1.0], [0.0]]]], [[[0.0, 1.0]]])
    for transition in (KnownTransition(), DirichletTransition()):
        name = type(transition).__name__
        with pytest.raises(IncompatibleError, match=f"^{name} got a game that may end at any step"):
            bound(transition, sometimes)


def test_dirichlet_counts_by_hand() -> None:
    transition = bound(DirichletTransition(0.5), MEMORY)
    zeros = torch.zeros(R, 3, dtype=torch.int64)
    following = torch.tensor([[1, 1, 2], [3, 3, 3], [0, 1, 2]])
    transition.store(experience(zeros, zeros, zeros, following))
    transition.store(experience(zeros, zeros, zeros, following, ends=True))  # nothing follows the end
    probs = transition(zeros[:, :1], zeros[:, :1], zeros[:, :1]).probs[:, 0]
    expected = torch.tensor([[0.5, 2.5, 1.5, 0.5, 0.5], [0.5, 0.5, 0.5, 3.5, 0.5], [1.5, 1.5, 1.5, 0.5, 0.5]]) / 5.5
    torch.testing.assert_close(probs, expected.double())
    elsewhere = transition(zeros[:, :1] + 1, zeros[:, :1], zeros[:, :1]).probs
    torch.testing.assert_close(elsewhere, torch.full_like(elsewhere, 0.2))


@pytest.mark.parametrize("agent", [0, 1])
def test_dirichlet_counts_are_where_the_actions_say(agent: int) -> None:
    """Every cell of a game with 2 and 3 actions is visited once: it predicts the state it led to, and no other does."""
    game = StochasticGame([0.25] * 4, torch.full((4, 2, 3, 4), 0.25), torch.zeros(4, 2, 3))
    transition = bound(DirichletTransition(0.5), game, agent)
    own, others = (2, 3) if agent == 0 else (3, 2)
    grid = torch.meshgrid(*(torch.arange(n) for n in (4, own, others)), indexing="ij")
    cells = [index.flatten().expand(R, -1) for index in grid]
    following = torch.randint(4, (R, 24))
    transition.store(experience(*cells, following))
    expected = (torch.nn.functional.one_hot(following, 4) + 0.5) / 3
    torch.testing.assert_close(transition(*cells).probs, expected.double())


def test_dirichlet_learns_the_game() -> None:
    """20,000 uniform steps: the predictive is within .05 of the truth (a cell's standard error is below .01)."""
    game = RiskyBridge()
    transition = bound(DirichletTransition(0.1), game)
    table, _ = game.dynamics().seen_by(0)
    states, a, b, _ = table.shape
    obs, action, opponent_action = (torch.randint(n, (R, 60_000)) for n in (states, a, b))
    following = torch.multinomial(table[obs, action, opponent_action].view(-1, states), 1).view(R, -1)
    transition.store(experience(obs, action, opponent_action, following))
    grid = torch.meshgrid(*(torch.arange(n) for n in (states, a, b)), indexing="ij")
    probs = transition(*(index.reshape(-1, 1, 1) for index in grid)).probs.view(states, a, b, -1, states)
    torch.testing.assert_close(probs, table.unsqueeze(3).expand_as(probs), rtol=0, atol=0.05)


def test_initial_state() -> None:
    game = MeetingGrid()
    seat = a_seat(game)
    initial = InitialState().bind(seat, seat.observation, [])
    torch.testing.assert_close(initial().probs, game.dynamics().initial)


@pytest.mark.parametrize("agent", [0, 1, 2])
def test_known_reward_of_tables(agent: int) -> None:
    payoff = torch.randn(3, 2, 2, 3, dtype=torch.float64)
    game = MatrixGame(payoff.tolist(), common=False)
    reward = KnownReward().bind(a_seat(game, agent))
    expected = payoff[agent].movedim(agent, 0).flatten(1)
    table = reward.table(torch.zeros(R, 1, dtype=torch.int64))
    torch.testing.assert_close(table, expected.expand(R, 1, *expected.shape))


@pytest.mark.parametrize("agent", [0, 1])
def test_known_reward_of_functions(agent: int) -> None:
    """Opponents' and own actions are put back in seat order, and gradients pass."""
    game = MatchingPenniesContinuous()
    reward = KnownReward().bind(a_seat(game, agent))
    own, other = (torch.rand(5, R, 4, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    value = reward(torch.zeros(R, 4, dtype=torch.int64), own, other)
    first, second = (own, other) if agent == 0 else (other, own)
    match = ((first - 0.5) * (second - 0.5)).squeeze(-1)
    torch.testing.assert_close(value, match if agent == 0 else -match)
    gradient = torch.autograd.grad(value.sum(), own)[0]
    torch.testing.assert_close(gradient, (other - 0.5) * (1 if agent == 0 else -1))


@pytest.mark.parametrize("agent", [0, 1, 2])
def test_known_reward_tells_three_agents_apart(agent: int) -> None:
    class Weighted(MatchingPenniesContinuous):
        def __init__(self) -> None:
            super().__init__()
            self.action_spaces = self.action_spaces[:1] * 3
            self.observations = self.observations[:1] * 3

        def expected_reward(self, obs: Tensor, actions: Any) -> Tensor:
            total = actions[0] + 10 * actions[1] + 100 * actions[2]
            return torch.cat([total, 2 * total, 3 * total], -1)

    own, *others = torch.rand(3, R, 4, 1, dtype=torch.float64)
    value = KnownReward().bind(a_seat(Weighted(), agent))(torch.zeros(R, 4, dtype=torch.int64), own, *others)
    columns = [other.squeeze(-1) for other in others]
    columns.insert(agent, own.squeeze(-1))
    torch.testing.assert_close(value, (agent + 1) * (columns[0] + 10 * columns[1] + 100 * columns[2]))


def test_rules_that_are_not_known_are_refused() -> None:
    class Secret(MatrixGame):
        def dynamics(self) -> Any:
            return None

    seat = a_seat(Secret("climbing"))
    with pytest.raises(IncompatibleError, match=r"KnownReward got Secret, which .* or a critic that learns"):
        KnownReward().bind(seat)
    with pytest.raises(IncompatibleError, match="KnownTransition got Secret, which does not give its rules as tables"):
        KnownTransition().bind(seat, seat.observation, seat.spaces)
    with pytest.raises(IncompatibleError, match="InitialState got no game"):
        InitialState().bind(
            Seat(0, (seat.observation,) * len(seat.action_spaces), seat.action_spaces, R), seat.observation, []
        )


class TestGaussianEnsemble:
    def data(self, size: int = 400) -> Experience:
        game = Rendezvous(noise=0.05)
        obs = 1.2 * torch.rand(R, size, 2, dtype=torch.float64) - 0.6
        actions = [2 * torch.rand(R, size, 1, dtype=torch.float64) - 1 for _ in range(2)]
        following, _, _, _ = game.step({"obs": obs}, actions)
        return experience(obs, *actions, following["obs"])

    def test_learns_where_the_game_goes_and_how_sure_to_be(self) -> None:
        game = Rendezvous(noise=0.05)
        ensemble = bound(GaussianEnsemble(3, (32,), steps=400, learning_rate=1e-2), game)
        data = self.data()
        ensemble.store(data)
        ensemble.fit()
        fresh = self.data(50)
        mixture = ensemble(fresh.obs, fresh.action, fresh.opponent_action)
        mean = mixture.mean
        exact = fresh.obs + game.speed * torch.cat([fresh.action, fresh.opponent_action], -1)
        assert (mean - exact).abs().mean() < 0.03
        components = mixture.component_distribution.base_dist
        assert float(components.scale.detach().mean()) == pytest.approx(0.05, rel=0.4)
        # Far from the data the members disagree more.
        far = ensemble(fresh.obs + 3, fresh.action, fresh.opponent_action)
        assert far.component_distribution.mean.std(-2).mean() > 3 * components.loc.std(-2).mean()

    def test_shapes_and_gradients(self) -> None:
        ensemble = bound(GaussianEnsemble(2, (4,)), Rendezvous())
        obs = torch.rand(R, 5, 2, dtype=torch.float64)
        actions = [torch.rand(7, R, 5, 1, dtype=torch.float64, requires_grad=True) for _ in range(2)]
        mixture = ensemble(obs, *actions)
        assert mixture.batch_shape == (7, R, 5)
        drawn = mixture.rsample()
        assert drawn.shape == (7, R, 5, 2)
        assert torch.autograd.grad(drawn.sum(), actions[0])[0].abs().sum() > 0

    def test_members_and_replicates_are_fitted_to_draws_of_their_own(self) -> None:
        ensemble = bound(GaussianEnsemble(2, (4,), steps=3, batch_size=8), Rendezvous())
        before = [parameter.clone() for parameter in ensemble.parameters()]
        ensemble.store(self.data(50))
        ensemble.fit()
        for old, new in zip(before, ensemble.parameters(), strict=True):
            moved = (new - old).flatten(1)
            assert (moved.abs().sum(1) > 0).all()
            assert not torch.allclose(moved[0], moved[1])

    def test_the_mixture_by_hand(self) -> None:
        """Linear members of known biases: in units of half the range, 4, and in replicate-major order.

        The soft bounds are `exp(log_std) = e^low + 1 / (e^-high + e^-x)`, of the unbounded x.
        """
        space, low, high, members = Box(-2.0, 6.0, 2), -3.0, -1.0, 2
        seat = Seat(0, (space,) * 2, (Box(-1, 1),) * 2, R, dtype=torch.float64)
        description = GaussianEnsemble(members, (), (low, high))
        ensemble: Any = description.bind(seat, space, [space, seat.action, seat.opponent_action])
        change = torch.randn(R, members, 2, dtype=torch.float64)
        unbounded = torch.tensor([-50.0, -2.0, 0.0, 50.0, -1.0, -3.0] * 2, dtype=torch.float64).view(R, members, 2)
        with torch.no_grad():
            last = ensemble.network.layers[-1]
            last.weight.zero_()
            last.bias.copy_(torch.cat([change, unbounded], -1).view(R * members, 1, 4))
        obs, action = torch.rand(R, 5, 2, dtype=torch.float64), torch.zeros(R, 5, 1, dtype=torch.float64)
        components = ensemble(obs, action, action).component_distribution.base_dist
        torch.testing.assert_close(components.loc, obs.unsqueeze(2) + 4 * change.unsqueeze(1))
        scale = math.exp(low) + 1 / (math.exp(-high) + (-unbounded).exp())
        torch.testing.assert_close(components.scale, 4 * scale.unsqueeze(1).expand(R, 5, members, 2))

    def test_what_a_member_is_fitted_to(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Draws of its own from the last `window` transitions of its replicate; obs say which, next_obs are 0.5 on.

        Two members draw the same 20 of 10 with probability 10^-20.
        """
        ensemble = bound(GaussianEnsemble(2, (4,), window=10, batch_size=20, steps=3), Rendezvous())
        seen: list[tuple[Tensor, ...]] = []
        losses: list[Tensor] = []
        likelihood = ensemble.likelihood

        def watched(*given: Tensor) -> None:
            seen.append(given)
            likelihood(*given)

        monkeypatch.setattr(ensemble, "likelihood", watched)
        monkeypatch.setattr(ensemble.optimiser, "step", losses.append)
        obs = (torch.arange(30.0) + 100 * torch.arange(R).view(-1, 1)).double().unsqueeze(-1).expand(-1, -1, 2)
        action = torch.zeros(R, 30, 1, dtype=torch.float64)
        ensemble.store(experience(obs, action, action, obs + 0.5))
        ensemble.fit()
        assert len(seen) == len(losses) == 3
        for loss, (features, drawn, following) in zip(losses, seen, strict=True):
            # The mean over a member's 20 draws, so that its step does not depend on how many there are.
            normal = torch.distributions.Normal(*ensemble._predict(features, drawn))
            torch.testing.assert_close(loss, -normal.log_prob(following).sum((0, 2)).mean())
            assert drawn.shape == (R * 2, 20, 2)
            assert len(features) == R * 2
            torch.testing.assert_close(following, drawn + 0.5)
            crowd = drawn[..., 0].view(R, 2, 20)
            last = 100 * torch.arange(R).view(-1, 1, 1) + 20
            assert ((crowd >= last) & (crowd < last + 10)).all()
            assert (crowd[:, 0] != crowd[:, 1]).any(-1).all()
        assert not torch.equal(seen[0][1], seen[1][1])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"members": 0}, "members: got 0, expected a positive integer"),
            ({"log_std": (1.0, 0.0)}, "log_std: got"),
            ({"learning_rate": 0.0}, "learning_rate: got 0.0"),
        ],
    )
    def test_refuses(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            GaussianEnsemble(**change)

    def test_needs_continuous_states(self) -> None:
        with pytest.raises(IncompatibleError, match="expected Box"):
            bound(GaussianEnsemble(), MEMORY)
