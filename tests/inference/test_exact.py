"""Exact solutions against brute force over all trajectories, and the laws that bound them."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inference_marl.games import MatrixGame, RiskyBridge
from inference_marl.inference import exact
from inference_marl.inference.exact import Factors, evaluate, log_evidence, seen_by, smooth, soft_q_iteration
from inference_marl.inference.objectives import optimal_value

F64: dict[str, Any] = {"dtype": torch.float64}


def random_tables(
    seed: int, states: int = 3, a: int = 2, b: int = 3, ends: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    reward = torch.randn(states, a, b, generator=generator, **F64)
    transition = torch.rand(states, a, b, states, generator=generator, **F64) ** 3
    transition = (1 - ends) * transition / transition.sum(-1, keepdim=True)
    log_prior = torch.randn(states, b, generator=generator, **F64).log_softmax(-1)
    return reward, transition, log_prior


def deterministic(transition: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(transition.argmax(-1), transition.shape[-1]).double()


def paths(reward: Tensor, transition: Tensor, log_prior: Tensor, horizon: int, state: int) -> float:
    """P(o_{1:T} = 1 | s) as a sum over every trajectory, the ones that end early included."""
    total = 0.0
    for a, b in itertools.product(range(reward.shape[1]), range(reward.shape[2])):
        weight = math.exp(float(log_prior[state, b] + reward[state, a, b])) / reward.shape[1]
        if horizon > 1:
            rows = transition[state, a, b]
            after = sum(float(rows[k]) * paths(reward, transition, log_prior, horizon - 1, k) for k in range(len(rows)))
            weight *= after + 1 - float(rows.sum())
        total += weight
    return total


@pytest.mark.parametrize("ends", [0.0, 0.3])
def test_evidence_is_the_sum_over_trajectories(ends: float) -> None:
    tables = random_tables(0, ends=ends)
    expected = [math.log(paths(*tables, 3, state)) for state in range(3)]
    torch.testing.assert_close(log_evidence(*tables, 3), torch.tensor(expected, **F64))


def test_posterior_is_the_share_of_trajectories() -> None:
    """P(b_1 | s, o = 1), P(a_1 | s, b_1, o) and P(s_2 | s, a_1, b_1, o) by Bayes' rule on enumerated trajectories."""
    reward, transition, log_prior = random_tables(1)
    found = smooth(reward, transition, log_prior, 3)
    joint = torch.zeros(3, 2, 3, 3, **F64)
    for s, a, b, k in itertools.product(range(3), range(2), range(3), range(3)):
        joint[s, a, b, k] = (log_prior[s, b] + reward[s, a, b]).exp() / 2 * transition[s, a, b, k]
        joint[s, a, b, k] *= paths(reward, transition, log_prior, 2, k)
    torch.testing.assert_close(found.opponent_model[0], joint.sum((1, 3)) / joint.sum((1, 2, 3)).view(-1, 1))
    torch.testing.assert_close(found.policy[0], joint.sum(3) / joint.sum((1, 3)).unsqueeze(1))
    torch.testing.assert_close(found.transition[0], joint / joint.sum(3, keepdim=True))


@pytest.mark.parametrize("dynamics", ["kept", "inferred"])
@pytest.mark.parametrize(("temperature", "kl_weight"), [(1.0, 1.0), (0.3, 2.0), (4.0, 0.5)])
@pytest.mark.parametrize("ends", [0.0, 0.4])
def test_the_best_guides_elbo_is_its_value(dynamics: Any, temperature: float, kl_weight: float, ends: float) -> None:
    tables = random_tables(2, ends=ends)
    weights = {"temperature": temperature, "kl_weight": kl_weight}
    found = smooth(*tables, 4, dynamics=dynamics, **weights)
    parts = evaluate(*tables, found, **weights)
    torch.testing.assert_close(parts.elbo, found.v[0])
    assert (parts.entropy <= 0).all()
    assert (parts.kl >= 0).all()


def perturbed(guide: Factors, seed: int, size: float, bend: bool) -> Factors:
    generator = torch.Generator().manual_seed(seed)

    def tilt(table: Tensor, dim: int) -> Tensor:
        noise = torch.randn(table.shape, generator=generator, **F64)
        return (table.log() + size * noise).softmax(dim)

    moves = tilt(guide.transition, -1) if bend else guide.transition
    return Factors(tilt(guide.policy, -2), tilt(guide.opponent_model, -1), moves)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.floats(0.05, 2.0), temperature=st.floats(0.2, 3.0))
def test_no_guide_is_better(seed: int, size: float, temperature: float) -> None:
    tables = random_tables(seed)
    kept = smooth(*tables, 3, dynamics="kept", temperature=temperature)
    free = smooth(*tables, 3, dynamics="inferred", temperature=temperature)
    for best, bend in [(kept, False), (free, True)]:
        other = evaluate(*tables, perturbed(best, seed, size, bend), temperature=temperature)
        assert (other.elbo <= best.v[0] + 1e-9).all()
    assert (kept.v <= free.v + 1e-9).all()


@pytest.mark.parametrize("seed", range(5))
def test_deterministic_dynamics_leave_no_gap_and_random_ones_do(seed: int) -> None:
    reward, transition, log_prior = random_tables(seed)
    for moves, gap in [(deterministic(transition), False), (transition, True)]:
        kept, free = (smooth(reward, moves, log_prior, 4, dynamics=way).v[0] for way in ("kept", "inferred"))
        assert torch.allclose(kept, free, atol=1e-12) != gap


def test_soft_q_iteration_is_a_fixed_point_of_its_operator() -> None:
    reward, transition, log_prior = random_tables(3)
    for temperature, kl_weight in [(1.0, 1.0), (0.2, 3.0)]:
        found = soft_q_iteration(
            reward, transition, log_prior, temperature=temperature, kl_weight=kl_weight, discount=0.9
        )
        v = optimal_value(found.q, log_prior, temperature, kl_weight)
        torch.testing.assert_close(v, found.v)
        again = reward + 0.9 * torch.einsum("sabk,k->sab", transition, v)
        torch.testing.assert_close(again, found.q, rtol=0, atol=1e-8)


def test_soft_q_iteration_by_hand() -> None:
    """One state, one-shot: V = log sum_b P(b) (sum_a exp(Q / alpha))^alpha with numbers worked out on paper."""
    reward = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0]]], **F64)
    log_prior = torch.tensor([[0.25, 0.75]], **F64).log()
    found = soft_q_iteration(reward, torch.zeros(1, 2, 2, 1, **F64), log_prior)
    assert float(found.v) == pytest.approx(math.log(0.25 * 2 + 0.75 * 4))
    torch.testing.assert_close(found.opponent_model, torch.tensor([[0.5 / 3.5, 3 / 3.5]], **F64))
    torch.testing.assert_close(found.policy, torch.tensor([[[0.5, 0.75], [0.5, 0.25]]], **F64))


def test_a_long_horizon_approaches_the_fixed_point() -> None:
    tables = random_tables(4)
    fixed = soft_q_iteration(*tables, discount=0.8)
    long = soft_q_iteration(*tables, discount=0.8, horizon=120)
    torch.testing.assert_close(long.v[0], fixed.v, rtol=0, atol=1e-8)
    assert long.v.shape == (120, 3)


def test_replicates_batch() -> None:
    """Tables that lead with replicates give what each gives alone; parts without replicates broadcast."""
    many = [random_tables(seed) for seed in range(3)]
    priors = torch.stack([prior for _, _, prior in many])
    reward, transition, _ = many[0]
    together = smooth(reward, transition, priors, 3)
    parts = evaluate(reward, transition, priors, together)
    for replicate in range(3):
        alone = smooth(reward, transition, priors[replicate], 3)
        torch.testing.assert_close(together.v[replicate], alone.v)
        torch.testing.assert_close(together.opponent_model[replicate], alone.opponent_model)
        torch.testing.assert_close(parts.elbo[replicate], alone.v[0])


def test_the_tolerance_is_relative_to_the_values() -> None:
    """V_k = 2000 (1 - 2^-k) moves by 2000 2^-k, which is at most a hundredth of V_k from k = 7 on."""
    reward, transition = torch.full((1, 1, 1), 1000.0, **F64), torch.ones(1, 1, 1, 1, **F64)
    found = soft_q_iteration(reward, transition, torch.zeros(1, 1, **F64), discount=0.5, tolerance=0.01)
    assert float(found.v) == 2000 * (1 - 2**-7)


def test_rounding_is_no_end() -> None:
    """A reward more everywhere is that much more evidence per step, however bad the values: nobody can escape."""
    reward, transition, log_prior = random_tables(6)
    assert ((transition.sum(-1) - 1).abs() > 0).any()
    worse = log_evidence(reward - 300.0, transition, log_prior, 4)
    torch.testing.assert_close(worse, log_evidence(reward, transition, log_prior, 4) - 1200.0)
    bent = smooth(reward - 300.0, transition, log_prior, 4)
    torch.testing.assert_close(evaluate(reward - 300.0, transition, log_prior, bent).elbo, worse)


def test_what_follows_the_last_step_counts_for_nothing() -> None:
    reward, transition, log_prior = random_tables(7)
    found = smooth(reward, transition, log_prior, 3)
    moves = found.transition.clone()
    moves[-1] = moves[-1].flip(-1)
    other = Factors(found.policy, found.opponent_model, moves)
    torch.testing.assert_close(evaluate(reward, transition, log_prior, other).elbo, found.v[0])


@pytest.mark.parametrize("agent", [0, 1, 2])
def test_seats_of_three_agents(agent: int) -> None:
    """The joint index of the opponents runs as in `joint_action`: the last opponent's action fastest."""
    payoff = torch.arange(24.0, **F64).view(2, 3, 4)
    dynamics = MatrixGame(payoff.tolist(), common=True, memory=1, horizon=3).dynamics()
    reward, transition = seen_by(dynamics, agent)
    others = [k for k in range(3) if k != agent]
    for joint in itertools.product(range(2), range(3), range(4)):
        sizes = payoff.shape
        opponents = joint[others[0]] * sizes[others[1]] + joint[others[1]]
        assert float(reward[0, joint[agent], opponents]) == float(payoff[joint])
        following = 1 + (joint[0] * 3 + joint[1]) * 4 + joint[2]
        assert float(transition[0, joint[agent], opponents, following]) == 1.0


def test_luck_looks_better_than_it_is() -> None:
    """The over-optimism of inferred dynamics: more evidence, and a policy that earns less."""
    game = RiskyBridge()
    dynamics = game.dynamics()
    reward, transition = seen_by(dynamics, 0)
    log_prior = torch.full((reward.shape[0], reward.shape[2]), 1 / reward.shape[2], **F64).log()
    earned = {}
    for way in ("kept", "inferred"):
        found = smooth(reward, transition, log_prior, 3, dynamics=way, temperature=0.1)  # type: ignore[arg-type]
        really = Factors(found.policy, found.opponent_model, transition.expand_as(found.transition))
        start = dynamics.initial
        earned[way] = (float(found.v[0] @ start), float(evaluate(reward, transition, log_prior, really).reward @ start))
    assert earned["inferred"][0] > earned["kept"][0] + 1
    assert earned["inferred"][1] < earned["kept"][1] - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discount": 1.0}, r"discount: got 1\.0, with which values do not settle within 100 iterations"),
        ({"discount": 1.5}, r"discount: got 1\.5, expected a number in \[0, 1\]"),
        ({"temperature": 0.0, "discount": 0.9}, "temperature: got 0.0, expected a positive number"),
        ({"horizon": 0}, "horizon: got 0, expected a positive integer"),
    ],
)
def test_refuses(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "MAX_ITERATIONS", 100)
    with pytest.raises(ValueError, match=message):
        soft_q_iteration(*random_tables(0), **change)


def test_refuses_tables_that_do_not_fit() -> None:
    reward, transition, log_prior = random_tables(0)
    with pytest.raises(ValueError, match="transition: got shape"):
        smooth(reward[:2], transition, log_prior, 2)
    with pytest.raises(ValueError, match="transition: got shape"):
        smooth(reward, transition[..., :2], log_prior, 2)
    with pytest.raises(ValueError, match="log_prior: got shape"):
        smooth(reward, transition, log_prior[:, :2], 2)
    with pytest.raises(ValueError, match="dynamics: got 'bent'"):
        smooth(reward, transition, log_prior, 2, dynamics="bent")  # type: ignore[arg-type]


@pytest.mark.parametrize("ends", [0.0, 0.2])
def test_large_values_in_float32(ends: float) -> None:
    """Values of several hundred: the ELBO of the exact guide stays finite and near its float64 value."""
    reward, transition, log_prior = random_tables(5, ends=ends)
    elbos = {}
    for dtype in (torch.float32, torch.float64):
        tables = [(100 * reward).to(dtype), transition.to(dtype), log_prior.to(dtype)]
        for dynamics in ("kept", "inferred"):
            guide = smooth(*tables, 8, dynamics=dynamics)  # type: ignore[arg-type]
            parts = evaluate(*tables, guide)
            assert all(part.isfinite().all() for part in vars(parts).values())
            elbos[dtype, dynamics] = parts.elbo.double()
    for dynamics in ("kept", "inferred"):
        torch.testing.assert_close(elbos[torch.float32, dynamics], elbos[torch.float64, dynamics], rtol=1e-4, atol=1e-2)
