"""The planner: what it plays, what it reports, what it refuses."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from pyro.infer import Trace_ELBO

from inference_marl.described import IncompatibleError
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics, MeetingGrid, Rendezvous, RiskyBridge
from inference_marl.guides import Empirical, ExactTrajectory, Tabular, TanhNormalNetwork, TrajectoryGuide
from inference_marl.inference.exact import evaluate, log_evidence, smooth
from inference_marl.inference.schedules import Linear
from inference_marl.learners import Planner, Stationary
from inference_marl.models import (
    DirichletMultinomial,
    DirichletTransition,
    EmpiricalFrequency,
    GaussianEnsemble,
    KnownReward,
    KnownTransition,
    TabularCritic,
    Uniform,
)
from inference_marl.play import Collector, GameSimulator, update
from inference_marl.runs.run import run
from inference_marl.types import Actor, Game, Seat, Transition
from tests.steps import teach

R, E = 4, 2


def planner(**change: Any) -> Planner:
    chosen: dict[str, Any] = {
        "opponent_prior": DirichletMultinomial(),
        "reward": KnownReward(),
        "guide": ExactTrajectory(),
        "transition": KnownTransition(),
        "horizon": 3,
        **change,
    }
    return Planner(**chosen)


def seated(learner: Actor, game: Game, replicates: int = R) -> list[Any]:
    return [
        learner.bind(Seat(i, game.observations, game.action_spaces, replicates, E, dtype=torch.float64, game=game))
        for i in range(game.agents)
    ]


def play(players: Sequence[Actor], game: Game, steps: int) -> torch.Tensor:
    """Mean reward per step, `replicates`."""
    seat = players[0].seat
    state = game.reset(seat.replicates, E, torch.device("cpu"), torch.float64)
    total = torch.zeros(seat.replicates, dtype=torch.float64)
    for step in range(steps):
        obs = game.observe(state).obs
        actions = tuple(player.act(seen, {}).action for player, seen in zip(players, obs, strict=True))
        state, rewards, terminated, _ = game.step(state, actions)
        for player in players:
            teach(player, Transition(obs, actions, rewards, game.observe(state).obs, terminated, terminated), [])
        total += rewards.mean((1, 2))
        if game.horizon and (step + 1) % game.horizon == 0:
            state = game.reset(seat.replicates, E, torch.device("cpu"), torch.float64)
    return total / steps


def test_plays_the_marginal_policy_of_the_first_step() -> None:
    """Frequencies of 40,000 draws against `sum_b pi(a | 0, s, b) rho(b | 0, s)`: within 5 standard errors, .0125."""
    game = MatrixGame("climbing")
    (first, _) = seated(planner(horizon=1, transition=None, temperature=5.0), game)
    obs = torch.zeros(R, 40_000, dtype=torch.int64)
    played = torch.nn.functional.one_hot(first.act(obs, {}).action, 3).double().mean(1)
    found = smooth(*first.model.tables(), 1, temperature=5.0)
    marginal = (found.policy * found.opponent_model.unsqueeze(-2)).sum(-1)[:, 0, 0]
    torch.testing.assert_close(played, marginal, rtol=0, atol=0.0125)
    torch.testing.assert_close(first.beliefs(obs[:, :1], {}, 1)["policy"][:, 0], marginal)
    assert torch.equal(first.act(obs[:, :5], {}, explore=False).action[:, 0], marginal.argmax(-1))


@pytest.mark.parametrize("dynamics", ["kept", "inferred"])
def test_reports_the_trajectorys_elbo_and_evidence(dynamics: Any) -> None:
    game = RiskyBridge()
    (first, _) = seated(planner(guide=ExactTrajectory(dynamics)), game)
    obs = torch.arange(game.observations[0].n).expand(R, -1)
    belief = first.beliefs(obs, {}, 1)
    tables = first.model.tables()
    torch.testing.assert_close(belief["elbo"], smooth(*tables, 3, dynamics=dynamics).v[:, 0])
    gap = belief["elbo_gap"]
    torch.testing.assert_close(belief["elbo"] + gap, log_evidence(*tables, 3))
    assert (gap >= -1e-9).all()
    assert (gap[:, 0] > 1).all() == (dynamics == "kept")


def test_inferred_dynamics_cost_reward() -> None:
    """Acting on the posterior that believes in luck earns less than acting on what one controls."""
    game = RiskyBridge()
    earned = {
        dynamics: play(seated(planner(guide=ExactTrajectory(dynamics), temperature=0.3), game, 200), game, 30)
        for dynamics in ("kept", "inferred")
    }
    difference = earned["kept"] - earned["inferred"]
    assert float(difference.mean()) > 1
    assert float(difference.mean()) > 10 * float(difference.std()) / 200**0.5


@pytest.mark.parametrize("enumerate", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_fitted_guide_closes_the_gap(enumerate: bool) -> None:
    """By exact gradients or by the score function: against a known prior the ELBO comes up to the exact guide's."""
    game = RiskyBridge()
    chosen = {
        "opponent_prior": Uniform(),
        "guide": TrajectoryGuide(Tabular(), Tabular(), enumerate=enumerate),
        "guide_learning_rate": 0.3 if enumerate else 0.15,
        "particles": 1 if enumerate else 64,
    }
    (fitted, _), (exact, other) = seated(planner(**chosen), game), seated(planner(opponent_prior=Uniform()), game)
    obs = torch.arange(game.observations[0].n).expand(R, -1)
    gaps = [float((exact.beliefs(obs, {}, 1)["elbo"] - fitted.beliefs(obs, {}, 1)["elbo"]).mean())]
    play([fitted, other], game, 45 if enumerate else 60)
    gaps.append(float((exact.beliefs(obs, {}, 1)["elbo"] - fitted.beliefs(obs, {}, 1)["elbo"]).mean()))
    assert gaps[0] > 0.5
    assert -1e-9 < gaps[1] < (0.05 if enumerate else 0.25)


@pytest.mark.slow
def test_learns_the_rules_it_is_not_told() -> None:
    game = RiskyBridge()
    told, learned = (
        float(play(seated(planner(temperature=0.5, **more), game, 50), game, 75).mean())
        for more in ({}, {"reward": TabularCritic(initial=0.0), "transition": DirichletTransition(0.1)})
    )
    random = float(play(seated(planner(temperature=1e4), game, 50), game, 75).mean())
    assert told > random + 0.5
    assert learned > random + 0.3


@pytest.mark.slow
def test_meets_on_a_grid() -> None:
    """No learning but of the prior: plans of 4 steps meet, where random walks mostly do not."""
    game = MeetingGrid()
    planned = float(play(seated(planner(horizon=4, temperature=0.05), game), game, 40).mean())
    random = float(play(seated(planner(horizon=1, transition=None, temperature=1e4), game), game, 40).mean())
    assert planned > random + 0.2


@pytest.mark.slow
def test_continuous_plans_move_towards_the_other() -> None:
    """Who plays at random: what is known of it is the prior, and the rules of the game are learned."""
    game = Rendezvous()
    net = lambda: TanhNormalNetwork((16,))  # noqa: E731
    (first, _) = seated(
        planner(
            opponent_prior=Uniform(),
            guide=TrajectoryGuide(net(), net()),
            transition=GaussianEnsemble(2, (16,), learning_rate=0.02),
            horizon=2,
            temperature=0.02,
            kl_weight=0.02,
            replay=500,
            batch_size=32,
            guide_learning_rate=0.03,
        ),
        game,
    )
    (_, other) = seated(Stationary(), game)
    play([first, other], game, 100)
    obs = torch.tensor([[-0.6, 0.6]], dtype=torch.float64).expand(R, 1, 2)
    moves = first.beliefs(obs, {}, 64)
    assert moves["policy"].shape == (R, 1, 64, 1)
    assert float(moves["policy"].mean()) > 0.3
    assert first.act(obs, {}, explore=False).action.shape == (R, 1, 1)


def test_the_best_known_action_is_not_the_luckiest() -> None:
    """A safe action earns .3; a risky one -.3 on average, with a spread of .8 that a drawn plan may profit from."""

    class Risk(MaxOfTwoQuadratics):
        def expected_reward(self, obs: torch.Tensor, actions: Any) -> torch.Tensor:
            own, other = actions
            luck = 1.4 * other.squeeze(-1) / 10  # uniform on [-1.4, 1.4], whose standard deviation is .8
            reward = torch.where(own.squeeze(-1) < 0, torch.full_like(luck, 0.3), luck - 0.3)
            return torch.stack([reward, reward], -1)

    game = Risk()
    net = TanhNormalNetwork((4,), log_std=(0.5, 1.0))
    guide = TrajectoryGuide(Empirical(), net)
    (first, _) = seated(planner(opponent_prior=Uniform(), guide=guide, transition=None, horizon=1), game, 50)
    chosen = first.act(torch.zeros(50, 10, dtype=torch.int64), {}, explore=False).action
    assert float((chosen < 0).float().mean()) > 0.9  # by the best single plan the risky one, about 3 times in 4


def test_the_parts_of_one_continuous_step_by_hand() -> None:
    """Reward and KL are means over the reported draws; the prior's draws are the prior's own."""
    game = Rendezvous()
    opponent, own = TanhNormalNetwork((4,)), TanhNormalNetwork((4,))
    learner = planner(
        opponent_prior=Uniform(),
        guide=TrajectoryGuide(opponent, own),
        transition=None,
        horizon=1,
        temperature=0.3,
        kl_weight=2.0,
    )
    (first, _) = seated(learner, game)
    obs = 2 * torch.rand(R, 3, 2, dtype=torch.float64) - 1
    belief, draws = first.beliefs(obs, {}, 400), first.beliefs(obs, {}, 400)
    wide = obs.unsqueeze(2).expand(-1, -1, 400, -1)
    paid = game.expected_reward(wide, [belief["policy"], belief["opponent_model"]])[..., 0]
    torch.testing.assert_close(belief["elbo_reward"], paid.mean(-1))
    flat = obs.repeat_interleave(400, dim=1)
    rho = first.guide.believe(0, flat, first.model).log_prob([belief["opponent_model"].flatten(1, 2)])
    pi = first.guide.choose(0, flat, belief["opponent_model"].flatten(1, 2)).log_prob(belief["policy"].flatten(1, 2))
    size = math.log(2.0)  # of the box [-1, 1], for both
    torch.testing.assert_close(belief["elbo_kl"], 2.0 * (rho + size).unflatten(1, (3, 400)).mean(-1))
    torch.testing.assert_close(belief["elbo_entropy"], -0.3 * (pi + size).unflatten(1, (3, 400)).mean(-1))
    # Uniform on [-1, 1], whose standard deviation is 3^-.5. Means to 6 standard errors and deviations to 7 (.013 each):
    # 24 numbers, so a right learner fails once in 20 million seeds.
    assert (draws["opponent_prior"].mean((2, 3)).abs() < 6 / (3 * 400) ** 0.5).all()
    assert (draws["opponent_prior"].std(2) - 3**-0.5).abs().max() < 0.1


def test_the_elbo_of_drawn_plans_is_pyros() -> None:
    game = Rendezvous()
    networks = TanhNormalNetwork((4,)), TanhNormalNetwork((4,))
    learner = planner(
        opponent_prior=Uniform(),
        guide=TrajectoryGuide(*networks),
        transition=GaussianEnsemble(2, (4,)),
        temperature=0.3,
        kl_weight=2.0,
    )
    (first, _) = seated(learner, game)
    obs = 2 * torch.rand(R, 3, 2, dtype=torch.float64) - 1
    torch.manual_seed(1)
    belief = first.beliefs(obs, {}, 5)
    torch.manual_seed(1)
    loss = Trace_ELBO(max_plate_nesting=2).loss(*first.pair(), obs.repeat_interleave(5, dim=1))
    assert float(belief["elbo"].sum()) == pytest.approx(-loss / 5)


@pytest.mark.parametrize("guide", [ExactTrajectory(), TrajectoryGuide(Tabular(), Tabular())])
def test_the_weights_follow_the_updates_and_survive_a_restart(guide: TrajectoryGuide) -> None:
    """What is reported is of the weights of now: after 4 updates alpha is 3 and beta 1.2."""
    game = RiskyBridge()
    schedules = {"temperature": Linear(5.0, 1.0, 8), "kl_weight": Linear(2.0, 1.0, 5)}
    original, restored = (seated(planner(guide=guide, **schedules), game) for _ in range(2))
    play(original, game, 4)
    obs = torch.arange(game.observations[0].features).expand(R, -1)
    for source, sink in zip(original, restored, strict=True):
        sink.load_state_dict(source.state_dict())
        for player in (source, sink):
            assert player.model.temperature == pytest.approx(3.0)
            assert player.model.kl_weight == pytest.approx(1.2)
            weights = {"temperature": 3.0, "kl_weight": 1.2}
            tables, belief = player.model.tables(), player.beliefs(obs, {}, 1)
            evidence = belief["elbo"] + belief["elbo_gap"]
            torch.testing.assert_close(evidence, smooth(*tables, 3, **weights).v[:, 0])
            factors = player.guide.tables(player.model)
            torch.testing.assert_close(belief["elbo"], evaluate(*tables, factors, **weights).elbo)
            if isinstance(guide, ExactTrajectory):
                torch.testing.assert_close(belief["elbo"], smooth(*tables, 3, dynamics="kept", **weights).v[:, 0])


def test_what_an_update_learns_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transitions and opponents' actions count once; reward and guide are fitted to what is drawn from replay."""
    game = RiskyBridge()
    chosen = {
        "reward": TabularCritic(),
        "transition": DirichletTransition(),
        "guide": TrajectoryGuide(Tabular(), Tabular()),
        "replay": 50,
        "batch_size": 7,
        "guide_steps": 3,
    }
    (first, _), (_, other) = seated(planner(**chosen), game), seated(Stationary(), game)
    starts: list[torch.Tensor] = []
    rewards: list[torch.Tensor] = []
    steps: list[torch.Tensor] = []

    def loss(elbo: Any, model: Any, guide: Any, batch: int, obs: torch.Tensor) -> torch.Tensor:
        assert batch == obs.shape[1]
        starts.append(obs)
        return torch.zeros(R)

    monkeypatch.setattr("inference_marl.learners.variational.elbo_loss", loss)
    monkeypatch.setattr(first.optimiser, "step", steps.append)
    monkeypatch.setattr(first.reward, "fit", lambda obs, action, opponent_action, *, target: rewards.append(target))
    play([first, other], game, 5)
    assert first.transition.counts.sum((1, 2, 3, 4)).tolist() == [5 * E] * R
    assert first.opponent_prior.counts.sum((1, 2)).tolist() == [5 * E] * R
    assert [reward.shape for reward in rewards] == [(R, 7)] * 5
    assert len(starts) == len(steps) == 5 * 3
    assert all(torch.equal(obs, torch.arange(5).expand(R, -1)) for obs in starts)


def test_several_updates_count_a_trajectory_once() -> None:
    """What is stored, is stored once; only what is fitted moves with every update."""
    game = RiskyBridge()
    (first, _), (_, other) = seated(planner(transition=DirichletTransition()), game), seated(Stationary(), game)
    players = [first, other]
    newest = Collector(GameSimulator(game, R, E, dtype=torch.float64), players).collect(3)
    update(players, newest, updates=2)
    assert first.updates == 2
    assert first.opponent_prior.counts.sum((1, 2)).tolist() == [3 * E] * R
    assert first.transition.counts.sum((1, 2, 3, 4)).tolist() == [3 * E] * R


def test_stateless_continuous_game_plans_one_step() -> None:
    game = MaxOfTwoQuadratics()
    net = lambda: TanhNormalNetwork((8,))  # noqa: E731
    (first, _) = seated(
        planner(opponent_prior=Uniform(), guide=TrajectoryGuide(net(), net()), transition=None, horizon=1), game
    )
    assert first.beliefs(torch.zeros(R, 1, dtype=torch.int64), {}, 5)["policy"].shape == (R, 1, 5, 1)


def test_state_dict_restores_the_plan() -> None:
    game = RiskyBridge()
    learning = {"reward": TabularCritic(), "transition": DirichletTransition()}
    original, restored = (seated(planner(**learning), game) for _ in range(2))
    play(original, game, 10)
    for source, sink in zip(original, restored, strict=True):
        sink.load_state_dict(source.state_dict())
    obs = torch.arange(game.observations[0].n).expand(R, -1)
    for one, other in zip(original, restored, strict=True):
        beliefs = [player.beliefs(obs, {}, 1) for player in (one, other)]
        for name in ("policy", "elbo"):
            torch.testing.assert_close(beliefs[0][name], beliefs[1][name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizon": 0}, "horizon: got 0, expected a positive integer"),
        ({"transition": None}, "transition: got none with horizon = 3"),
        ({"temperature": 0.0}, r"temperature: got 0\.0, expected a positive number"),
        ({"batch_size": 0}, "batch_size: got 0"),
    ],
)
def test_refuses_numbers(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planner(**change)


@pytest.mark.parametrize(
    ("change", "game", "message"),
    [
        ({"transition": GaussianEnsemble()}, RiskyBridge(), "transition: GaussianEnsemble got Discrete"),
        ({"guide": ExactTrajectory()}, Rendezvous(), "KnownTransition got Box|DirichletMultinomial got Box"),
        (
            {"guide": TrajectoryGuide(Tabular(), Tabular()), "opponent_prior": EmpiricalFrequency()},
            RiskyBridge(),
            "opponent_prior: got EmpiricalFrequency with actions of probability 0",
        ),
        (
            {"opponent_prior": Uniform(), "transition": GaussianEnsemble()},
            Rendezvous(),
            r"guide: ExactTrajectory got \(Box",
        ),
        (
            {
                "opponent_prior": Uniform(),
                "transition": GaussianEnsemble(),
                "guide": TrajectoryGuide(TanhNormalNetwork(), TanhNormalNetwork(), "inferred"),
            },
            Rendezvous(),
            r"guide\.dynamics: Tabular got Box",
        ),
    ],
)
def test_refuses_parts_that_do_not_fit(change: dict[str, Any], game: Game, message: str) -> None:
    with pytest.raises(IncompatibleError, match=message):
        seated(planner(**change), game)


def test_runs_as_an_experiment(tmp_path: Any) -> None:
    experiment = Experiment(RiskyBridge(), {"planner": planner()}, replicates=3, steps=6, record_every=3)
    folder = run(experiment, tmp_path, progress=False)
    assert "elbo_gap" in (folder / "summary.json").read_text()
