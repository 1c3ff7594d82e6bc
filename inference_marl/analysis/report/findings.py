"""What a run's beliefs tell, question by question; `inspect` prints it and `report` typesets it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr

from inference_marl.analysis.arviz import SEEDS_AGREE, summary
from inference_marl.analysis.recorded import Recorded
from inference_marl.analysis.solution import distances
from inference_marl.analysis.tables import NO_INTERVAL, Section, cell, number
from inference_marl.statistics.beliefs import PROBABILITY_FLOOR, Numbers, divergences, modelling, opponent_types
from inference_marl.statistics.bounds import PROBABILITY, bounds_of
from inference_marl.statistics.calibration import calibration
from inference_marl.statistics.certainty import agreement, certainty
from inference_marl.statistics.changes import SETTLED, belief_change
from inference_marl.statistics.intervals import mean_interval, median_interval
from inference_marl.statistics.metrics import per_replicate
from inference_marl.statistics.time_to_threshold import learner_lead

MAX_ROWS = 40
"""Largest number of rows of the table of beliefs."""

MAX_AGENT_ROWS = 12
"""Largest number of rows for agents one by one in the other tables; beyond it they are averaged."""


def findings(recorded: Recorded) -> list[Section]:
    """Every question that the run's beliefs can answer, at its last record unless the section says otherwise.

    Intervals are 95 % confidence intervals over replicates.
    """
    posterior = recorded.posterior
    if posterior is None or not modelling(posterior):
        why = "No learner of this run has an opponent model, so there are no beliefs to show."
        why = "This run did not record beliefs." if posterior is None else why
        found = [Section("Beliefs", why), evidence(recorded)]
    else:
        of_beliefs = (certain, accuracy, calibrated, agreed, changed, ahead, types)
        answers = [answer(posterior) for answer in of_beliefs]
        found = [believed(recorded), *answers, evidence(recorded), solved(recorded)]
    return [section for section in found if section is not None]


def believed(recorded: Recorded) -> Section:
    """What each agent believes of each opponent, and in which state."""
    table = summary(recorded)
    shown, discrete = _shortened(table), SEEDS_AGREE not in table
    names = [str(name) for name in table.index.names[1:]]
    rows: list[list[str]] = []
    for key, row in shown.iterrows():
        learner, *labels = key if isinstance(key, tuple) else (key,)
        rows += [] if [str(learner)] in rows else [[str(learner)]]
        rows.append([f"  {labels[0]}", *map(str, labels[1:]), *(number(value) for value in row)])
    what = (
        "Each row is rho's probability of one action of an opponent, summarised by ArviZ: mean, sd and highest-density "
        "interval over replicates (their spread, not the error of the mean)."
        if discrete
        else "Each row is one dimension of an opponent's action in rho's draws, all replicates together, summarised "
        "by ArviZ; r_hat near 1 says that the seeds agree."
    )
    cut = f" States with the {'surest' if discrete else 'narrowest'} beliefs come first." if "state" in names else ""
    left_out = len(table) - len(shown)
    more = f"... and {left_out} more rows: inference_marl.analysis.arviz.summary('{recorded.folder}')"
    return Section(
        "What do the agents believe their opponents will do?",
        f"{what} prior and truth are the means of P and of the opponents' actual policy.{cut}",
        [*names, *table.columns],
        rows,
        more if left_out else "",
        ("opponent_actions", "beliefs_by_state", "beliefs", "beliefs_replicate_0", "surface"),
    )


def _shortened(table: pd.DataFrame) -> pd.DataFrame:
    """At most `MAX_ROWS` rows: of every learner the states with the surest beliefs, then the likeliest actions."""
    if len(table) <= MAX_ROWS:
        return table
    discrete = SEEDS_AGREE not in table
    learners = len(table.index.unique("learner"))
    if "state" in table.index.names:
        groups = [name for name in table.index.names if name not in ("opponent_action", "opponent_dim")]
        sureness = table["mean"].groupby(groups).max() if discrete else -table["sd"].groupby(groups).mean()
        ranked = sureness.groupby(["learner", "state"]).mean()
        count = max(1, int(MAX_ROWS / learners / (len(table) / len(ranked))))
        kept = ranked.groupby("learner", group_keys=False).nlargest(count)
        states = pd.MultiIndex.from_frame(table.index.to_frame()[["learner", "state"]])
        table = table[states.isin(kept.index)]
    if discrete and len(table) > MAX_ROWS:
        groups = [name for name in table.index.names if name != "opponent_action"]
        count = max(1, MAX_ROWS // len(table.groupby(groups)))
        table = table[table.groupby(groups)["mean"].rank(ascending=False, method="first") <= count]
    # Every learner has its share, so that the others' rows leave none out.
    return table.groupby("learner", sort=False).head(max(1, MAX_ROWS // learners))


def certain(posterior: xr.Dataset) -> Section:
    """Entropy and largest probability (or spread) of rho, with those of the truth."""
    discrete = posterior.attrs["kind"] == "discrete"

    def cells(learner: str, here: xr.Dataset) -> list[str]:
        found, truth = (certainty(here, learner, name) for name in ("opponent_model", "opponent_policy"))
        names = ("entropy", "favourite" if discrete else "spread")
        row = [] if found is None else [_cell(name, getattr(found, name), discrete) for name in names]
        return row + ([] if truth is None else [number(getattr(truth, name).mean()) for name in names])

    second = "largest probability" if discrete else "standard deviation"
    return Section(
        "How sure are they?",
        "Entropy in nats over the opponents' joint actions: 0 is certainty, log(number of actions) is none. "
        + NO_INTERVAL
        if discrete
        else "Entropy in nats of the normal fitted to the draws, lower is surer; standard deviation in units of "
        f"actions. {NO_INTERVAL}",
        ["", "entropy of rho", second, "entropy of truth", f"its {second}"],
        _rows(posterior, cells),
    )


def accuracy(posterior: xr.Dataset) -> Section:
    """Divergences from the prior and from the truth, and the log score."""
    discrete = posterior.attrs["kind"] == "discrete"

    def cells(learner: str, here: xr.Dataset) -> list[str]:
        found = divergences(here, learner)
        if found is None:
            return []
        names = ("from_prior", "from_truth", "log_score")
        return [*(_cell(name, getattr(found, name), discrete) for name in names), number(found.best_log_score.mean())]

    how = f"probabilities below {PROBABILITY_FLOOR:g} count as that" if discrete else "from normals fitted to the draws"
    return Section(
        "How far is rho from the prior P and from the truth?",
        f"In nats ({how}). KL(rho || P): how far optimism moves rho from what was observed. KL(truth || rho): how "
        "wrong rho is, 0 if it is right. Log score: what the opponents' actions earn rho as a forecast, higher is "
        "better; best: what the truth itself would earn.",
        ["", "KL(rho || P)", "KL(truth || rho)", "log score", "best"],
        _rows(posterior, cells),
    )


def calibrated(posterior: xr.Dataset) -> Section | None:
    """Calibration error and overconfidence, over the run and at its end."""
    rows: list[list[str]] = []
    for learner in modelling(posterior):
        for when, record in {"whole run": None, "last record": -1}.items():
            found = calibration(posterior, learner, record)
            if found is not None:
                rows += [[learner]] if [learner] not in rows else []
                rows.append([f"  {when}", cell(found.error), _cell("overconfidence", found.overconfidence)])
    if not rows:
        return None
    what = (
        "If rho gives an action probability 0.7, do the opponents play it 7 times in 10? Calibration error: the mean "
        "gap between both, 0 is perfect. Overconfidence: rho's probability of its favourite action minus how often the "
        "opponents play it, above 0 too sure; of several favourites the mean."
        if posterior.attrs["kind"] == "discrete"
        else "Do rho's central intervals contain the opponents' actions as often as they should? Calibration error: "
        "the mean gap between nominal and actual coverage, 0 is perfect. Overconfidence: nominal minus actual "
        "coverage, above 0 too narrow."
    )
    columns = ["calibration error", "overconfidence"]
    return Section("Are the beliefs calibrated?", what, ["", *columns], rows, figures=("calibration",))


def agreed(posterior: xr.Dataset) -> Section:
    """Whether the seeds agree on a belief."""
    discrete = posterior.attrs["kind"] == "discrete"
    rows = []
    for learner in modelling(posterior):
        found = agreement(posterior, learner)
        if found is None:
            continue
        shares = [number(found.share), number(found.chance)] if discrete else []
        rows.append([learner, *shares, _cell("distance", found.spread)])
    what = (
        "Share of the seeds whose favourite action of the opponents is the most common one (1: all agree; a seed with "
        "several favourites is divided among them), what that would be if favourites were drawn at random, and the "
        "total variation distance of a seed's belief from the mean of all (0: all the same)."
        if discrete
        else "Distance of a seed's mean action from the mean of all seeds, in units of actions; R-hat is in the first "
        "table."
    )
    columns = ["same favourite", "by chance", "distance from the mean belief"]
    return Section(
        "Do the seeds agree?", what, ["", *(columns if discrete else ["distance from the mean of all"])], rows
    )


def changed(posterior: xr.Dataset) -> Section | None:
    """The record of the largest change, its size, and since when the belief has settled."""
    discrete, last = posterior.attrs["kind"] == "discrete", int(posterior["step"][-1])
    rows = []
    for learner in modelling(posterior):
        found = belief_change(posterior, learner)
        if found is not None and np.isfinite(found.size).all():
            steps = [cell(median_interval(values), 1, last) for values in (found.at, found.settled)]
            rows.append([learner, steps[0], _cell("size", found.size), steps[1]])
    if not rows:
        return None
    measure = "total variation between successive records, from 0 to 1"
    if not discrete:
        measure = "1-Wasserstein distance of successive records, in units of actions; draws vary, so it is never 0"
    within = f"{SETTLED:g}" if discrete else f"{SETTLED:.0%} of the action range"
    return Section(
        "When did the belief change?",
        f"Step of the largest change of rho (median over seeds), its size ({measure}), and the first step from which "
        f"rho stays within {within} of its last (median). Where rho never moved there is no step: > {last}.",
        ["", "largest change at step", "size", "settled from step"],
        rows,
        figures=("belief_change",),
    )


def ahead(posterior: xr.Dataset) -> Section:
    """Leads of all learners with an opponent model."""
    rows = []
    for learner in modelling(posterior):
        found = learner_lead(posterior, learner)
        if found is not None:
            excluded = f"{found.excluded} of {len(found.steps)}"
            rows.append([learner, cell(found.interval), excluded, cell(found.mean_gap)])
    title = "Does the opponent model think ahead?"
    if not rows:
        return Section(title, "That needs a game with a known optimum.")
    what = (
        "Lead: environment steps by which rho's probability of the optimum passes 1/2 for good before the opponents' "
        "policy does; replicates where either never does are excluded, so see the gap as well: rho's probability "
        "minus the policy's, averaged over the whole run and all replicates."
        if posterior.attrs["kind"] == "discrete"
        else "Lead: environment steps by which the mean of rho comes to the optimum for good before the mean of the "
        "opponents' policy does; replicates where either never does are excluded, so see the gap as well: rho's share "
        "of records at the optimum minus the policy's, over all replicates."
    )
    return Section(title, what, ["", "lead", "excluded", "gap"], rows)


def types(posterior: xr.Dataset) -> Section | None:
    """Probabilities of the opponents' types, for priors that have them."""
    if "opponent_type" not in posterior:
        return None
    names, rows = opponent_types(posterior), []
    for learner in posterior["learner"].to_numpy().tolist():
        here = posterior["opponent_type"].sel(learner=learner).isel(step=-1)
        for agent in range(here.sizes["agent"]):
            values = here.isel(agent=agent).mean("state").transpose("replicate", "type").to_numpy()
            for name, column in zip(names, values.T, strict=True):
                if not np.isnan(column).all():
                    label = f"{learner}, agent {agent}"
                    rows.append([label, name, cell(mean_interval(column, bounds=PROBABILITY))])
    what = "Probability of each type of opponent, averaged over states."
    note = f"... and {len(rows) - MAX_ROWS} more rows, in posterior.nc: opponent_type" if len(rows) > MAX_ROWS else ""
    header = ["", "type", "probability"]
    return Section("Which type are the opponents?", what, header, rows[:MAX_ROWS], note, ("opponent_types",))


def evidence(recorded: Recorded) -> Section | None:
    """How close the guide's ELBO comes to the evidence that it bounds."""
    rows = []
    for learner in recorded.learners:
        gap, elbo = (per_replicate(recorded.metrics, name, learner) for name in ("elbo_gap", "elbo"))
        if gap is not None and elbo is not None:
            known = [cell(mean_interval(values[:, -1])) for values in (elbo + gap, elbo)]
            rows.append([learner, *known, _cell("elbo_gap", gap[:, -1])])
    if not rows:
        return None
    return Section(
        "How good is the guide?",
        "The ELBO can at most be the evidence, under the same model; the gap is the guide's distance from the exact "
        "posterior, 0 for a perfect guide. In units of reward. Where models or critics differ, so does the evidence: a "
        "higher ELBO is then not better inference, so compare the gap.",
        ["", "evidence", "ELBO", "gap"],
        rows,
        figures=("elbo_parts",),
    )


def solved(recorded: Recorded) -> Section | None:
    """How close learning has come to the exact solution that it aims at, where the game's rules are tables."""
    found, rows = distances(recorded), []
    for learner in dict.fromkeys(each.learner for each in found):
        agents = [each for each in found if each.learner == learner]
        numbers = [np.mean([getattr(each, name) for each in agents], axis=0) for name in ("opponent_model", "policy")]
        rows.append([learner, *(cell(mean_interval(values, bounds=(0, 1))) for values in numbers)])
    if not rows:
        return None
    used, count = len(found[0].policy), recorded.metrics.sizes["replicate"]
    return Section(
        "How far from the exact solution?",
        "Total variation from soft Q-iteration (or backward recursion, for planners) with the game's true rules and "
        "the agent's own prior, temperature and KL weight at the end: 0 is the same, 1 is disjoint. Mean over all "
        "states, visited or not.",
        ["", "opponent model", "policy"],
        rows,
        f"over the first {used} of {count} replicates" if used < count else "",
    )


def _cell(name: str, values: Numbers, discrete: bool = True) -> str:
    """The mean of a quantity over replicates and its interval, clipped to the quantity's bounds."""
    return cell(mean_interval(values, bounds=bounds_of(name, discrete)))


def _rows(posterior: xr.Dataset, cells: Callable[[str, xr.Dataset], list[str]]) -> list[list[str]]:
    """A row for every learner with an opponent model, agent by agent where that is not too long."""
    learners, agents = modelling(posterior), posterior.sizes["agent"]
    if len(learners) * agents > MAX_AGENT_ROWS:
        return [[learner, *cells(learner, posterior)] for learner in learners]
    rows = []
    for learner in learners:
        rows.append([learner])
        for agent in range(agents):
            here = posterior.isel(agent=[agent])
            if learner in modelling(here):
                rows.append([f"  agent {agent}", *cells(learner, here)])
    return rows
