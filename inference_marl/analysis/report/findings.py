"""Findings from a run's beliefs, question by question, for the commands `inspect` and `report`."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import xarray as xr

from inference_marl.analysis.arviz import summary
from inference_marl.analysis.recorded import Recorded
from inference_marl.analysis.report.adaptation import adaptation
from inference_marl.analysis.report.probes import probes
from inference_marl.analysis.report.questions import QUESTIONS
from inference_marl.analysis.tables import Section, cell, decimals, number
from inference_marl.statistics.beliefs import modelling, opponent_types, places
from inference_marl.statistics.forecasts import FORECAST_SCORE, total_scores
from inference_marl.statistics.metrics import difference, estimate, per_replicate
from inference_marl.statistics.quantities import OF_BELIEFS
from inference_marl.types import PROBABILITY, Metric

MAX_ROWS = 40
"""Maximum number of rows of a table, which says how many it omits."""

PARTS = 5
"""Number of parts of a run, with equally many records, in which forecasts are compared."""

HEADLINE = ("entropy", "from_prior", "from_truth", "log_score", "calibration_error", "lead")
"""The quantities of the overview."""


def findings(recorded: Recorded) -> list[Section]:
    """All questions that the run's beliefs can answer, at its last record unless the section says otherwise.

    Intervals are 95 % confidence intervals over replicates.
    """
    posterior, trials = recorded.posterior, [*adaptation(recorded), *probes(recorded)]
    if posterior is None or not modelling(posterior):
        why = "No learner of this run has an opponent model, so there are no beliefs to show."
        why = "This run did not record beliefs." if posterior is None else why
        found = [*trials, Section("Beliefs", why), played(posterior), evidence(recorded)]
    else:
        answers = [question.answer(posterior) for question in QUESTIONS]
        others = types(posterior), evidence(recorded), solved(recorded)
        found = [believed(recorded), *answers, *predictions(recorded), *others, *trials]
    return [section for section in found if section is not None]


def overview(recorded: Recorded) -> list[Section]:
    """The main quantities on one screen, with a row per learner, without intervals."""
    posterior = recorded.posterior
    if posterior is None or not modelling(posterior):
        return findings(recorded)
    rows, last = {}, int(posterior["step"][-1])
    for learner in modelling(posterior):
        measured = {name: each for question in QUESTIONS for name, each in question.measure(posterior, learner).items()}
        rows[learner] = {
            (metric := OF_BELIEFS[name]).label: number(estimate(metric, measured[name]).mean, decimals(metric), last)
            for name in HEADLINE
            if name in measured
        }
    what = (
        f"rho is the model of the opponents' next action, P its prior; at step {last}, means over agents and seeds. "
        "With --full: what each number means, intervals, single agents, and the beliefs themselves."
    )
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("-")
    found = [Section("What do the agents believe of their opponents?", what, table), predicted(recorded)]
    found += [*adaptation(recorded), *probes(recorded)]
    return [section for section in found if section is not None]


def believed(recorded: Recorded) -> Section:
    """Each agent's beliefs about each opponent, by state or environment."""
    table = summary(recorded)
    shown, discrete = _shortened(table), "opponent_action" in table.index.names
    what = (
        "Each row is rho's probability of one action of an opponent, summarised by ArviZ: mean, sd and highest-density "
        "interval over replicates (their spread, not the error of the mean)."
        if discrete
        else "Each row is one dimension of an opponent's action in rho's draws, all replicates together, summarised "
        "by ArviZ; sd_seeds is the sd of the replicates' means, small beside sd if the seeds agree."
    )
    by_state, where = "state" in table.index.names, places(recorded.beliefs)
    surest = "surest" if discrete else "narrowest"
    cut = f" {where.capitalize()} with the {surest} beliefs come first." if by_state else ""
    left_out = len(table) - len(shown)
    more = f"... and {left_out} more rows: inference_marl.analysis.arviz.summary('{recorded.folder}')"
    return Section(
        "What do the agents believe their opponents will do?",
        f"{what} prior and truth are the means of P and of the opponents' actual policy.{cut}",
        shown.map(number).rename_axis(index={"state": re.sub(r"s\b", "", where)} if by_state else {}),
        more if left_out else "",
        ("opponent_actions", "who_believes_what", "beliefs_by_state", "beliefs", "beliefs_replicate_0", "surface"),
    )


def _shortened(table: pd.DataFrame) -> pd.DataFrame:
    """At most `MAX_ROWS` rows: each learner's states with the most certain beliefs, then the likeliest actions."""
    if len(table) <= MAX_ROWS:
        return table
    *groups, last = table.index.names
    discrete, learners = last == "opponent_action", len(table.index.unique("learner"))
    if "state" in groups:
        sureness = table["mean"].groupby(groups).max() if discrete else -table["sd"].groupby(groups).mean()
        ranked = sureness.groupby(["learner", "state"]).mean()
        count = max(1, MAX_ROWS * len(ranked) // (learners * len(table)))
        surest = ranked.groupby("learner", group_keys=False).nlargest(count).index
        states = pd.MultiIndex.from_frame(table.index.to_frame()[["learner", "state"]])
        table = table[states.isin(surest)]
    if discrete and len(table) > MAX_ROWS:
        count = max(1, MAX_ROWS // len(table.groupby(groups)))
        table = table[table.groupby(groups)["mean"].rank(ascending=False, method="first") <= count]
    # Every learner gets an equal share of the rows.
    return table.groupby("learner", sort=False).head(max(1, MAX_ROWS // learners))


def played(posterior: xr.Dataset | None) -> Section | None:
    """The policy of each agent, for runs without beliefs about opponents."""
    if posterior is None or "policy" not in posterior:
        return None
    last, discrete = posterior["policy"].isel(step=-1), posterior.attrs["kind"] == "discrete"
    own = "action" if discrete else "action_dim"
    columns = [str(name) if discrete else f"action {name}" for name in last[own].to_numpy()]
    metric = Metric("probability", bounds=PROBABILITY) if discrete else Metric("action")
    rows: dict[tuple[str, int], dict[str, str]] = {}
    for learner in last["learner"].to_numpy().tolist():
        for agent in last["agent"].to_numpy().tolist():
            here = last.sel(learner=learner, agent=agent)
            means = here.mean([dim for dim in here.dims if dim not in ("replicate", own)], skipna=False)
            for name, values in zip(columns, means.transpose(own, "replicate").to_numpy(), strict=True):
                if not np.isnan(values).all():
                    rows.setdefault((learner, agent), {})[name] = cell(metric, estimate(metric, values))
    if not rows:
        return None
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("-").rename_axis(["", "agent"])
    what = "The probability of each action" if discrete else "The mean action"
    note = f"... and {len(table) - MAX_ROWS} more rows, in posterior.nc: policy" if len(table) > MAX_ROWS else ""
    return Section(
        "What do they play?",
        f"{what} of every agent's policy at the last record, averaged over {places(posterior)}; "
        "95 % intervals are over replicates.",
        table.head(MAX_ROWS),
        note,
    )


def predicted(recorded: Recorded) -> Section | None:
    """Scores of rho's, the prior's and uniform forecasts of the opponents' next actions."""
    scores, posterior = recorded.forecast_scores, recorded.posterior
    if scores is None or posterior is None:
        return None
    rows, metric = {}, FORECAST_SCORE
    for learner in modelling(posterior):
        sums, count = total_scores(scores, learner)
        means = (sums / count).transpose("forecaster", "replicate")
        of = dict(zip(means["forecaster"].to_numpy().tolist(), means.to_numpy(), strict=True))
        rows[learner] = {symbol: cell(metric, estimate(metric, values)) for symbol, values in of.items()}
        if "P" in of:
            rows[learner]["rho minus P"] = cell(metric, difference(metric, of["P"], of["rho"], paired=True))
    what = (
        "Log-probability (continuous: log-density), in nats, that each belief gave what the opponents played at the "
        "step after it was recorded: mean over records, environments and agents; higher is better. Learners whose "
        "opponents differ forecast different things, so compare within rows."
    )
    return Section("Who predicts better?", what, pd.DataFrame.from_dict(rows, orient="index"))


def predicted_when(recorded: Recorded) -> Section | None:
    """Differences of scores between rho and its prior in the parts of the run."""
    scores, posterior = recorded.forecast_scores, recorded.posterior
    if scores is None or posterior is None or "P" not in scores["forecaster"] or scores.sizes["step"] < PARTS:
        return None
    rows: dict[str, dict[str, str]] = {}
    for part in np.array_split(scores["step"].to_numpy(), PARTS):
        for learner in modelling(posterior):
            sums, count = total_scores(scores.sel(step=part), learner)
            if "P" in sums["forecaster"]:
                means = (sums / count).transpose("forecaster", "replicate")
                prior, model = (means.sel(forecaster=symbol).to_numpy() for symbol in ("P", "rho"))
                gap = difference(FORECAST_SCORE, prior, model, paired=True)
                steps = "-".join(dict.fromkeys(str(part[end]) for end in (0, -1)))
                rows.setdefault(learner, {})[f"steps {steps}"] = cell(FORECAST_SCORE, gap)
    what = "rho minus P in the parts of the run: above 0 where the opponent model forecast better than its prior."
    return Section("Who predicts better when?", what, pd.DataFrame.from_dict(rows, orient="index")) if rows else None


def predictions(recorded: Recorded) -> list[Section]:
    """Scores of forecasts over the whole run and in its parts."""
    return [section for section in (predicted(recorded), predicted_when(recorded)) if section is not None]


def types(posterior: xr.Dataset) -> Section | None:
    """Probabilities of the opponents' types, for priors that have them."""
    if "opponent_type" not in posterior:
        return None
    metric = Metric("probability", bounds=PROBABILITY)
    rows = {}
    for learner in posterior["learner"].to_numpy().tolist():
        here = posterior["opponent_type"].sel(learner=learner).isel(step=-1).mean("state")
        for agent in range(here.sizes["agent"]):
            values = here.isel(agent=agent).transpose("replicate", "type").to_numpy()
            for name, column in zip(opponent_types(posterior), values.T, strict=True):
                if not np.isnan(column).all():
                    rows[f"{learner}, agent {agent}", name] = cell(metric, estimate(metric, column))
    table = pd.DataFrame({"probability": pd.Series(rows)}).rename_axis(["", "type"])
    note = f"... and {len(table) - MAX_ROWS} more rows, in posterior.nc: opponent_type" if len(table) > MAX_ROWS else ""
    what = f"Probability of each type of opponent, averaged over {places(posterior)}."
    return Section("Which type are the opponents?", what, table.head(MAX_ROWS), note, ("opponent_types",))


def evidence(recorded: Recorded) -> Section | None:
    """The gap between the guide's ELBO and the evidence that it bounds."""
    rows = {}
    for learner in recorded.learners:
        gap, elbo = (per_replicate(recorded.metrics, name, learner) for name in ("elbo_gap", "elbo"))
        if gap is not None and elbo is not None:
            of_evidence = Metric("evidence", "evidence")
            known = {of_evidence: elbo + gap, recorded.metric("elbo"): elbo, recorded.metric("elbo_gap"): gap}
            rows[learner] = {each.label: cell(each, estimate(each, values[:, -1])) for each, values in known.items()}
    if not rows:
        return None
    return Section(
        "How good is the guide?",
        "The ELBO can at most be the evidence, under the same model; the gap is the guide's distance from the exact "
        "posterior, 0 for a perfect guide. In units of reward. Where models or critics differ, so does the evidence: a "
        "higher ELBO is then not better inference, so compare the gap.",
        pd.DataFrame.from_dict(rows, orient="index"),
        figures=("elbo_parts",),
    )


def solved(recorded: Recorded) -> Section | None:
    """Distance of policies and beliefs from the exact solution, if the game's rules are tables."""
    found = recorded.solution
    if found is None:
        return None
    metric, rows = Metric("distance", bounds=PROBABILITY), {}
    for learner in found["learner"].to_numpy().tolist():
        here = found.sel(learner=learner)
        known = here["policy"].notnull().any("replicate")
        agents = ", ".join(map(str, here["agent"].to_numpy()[known.to_numpy()]))
        means = here.mean("agent")
        if known.any():
            rows[learner if known.all() else f"{learner}, agent {agents}"] = {
                name.replace("_", " "): cell(metric, estimate(metric, means[name].to_numpy()))
                for name in ("opponent_model", "policy")
            }
    used, count = found.sizes["replicate"], recorded.metrics.sizes["replicate"]
    return Section(
        "How far from the exact solution?",
        "Total variation from soft Q-iteration (or backward recursion, for planners) with the game's true rules and "
        "the agent's own prior, temperature and KL weight at the end: 0 is the same, 1 is disjoint. Mean over all "
        "states, visited or not.",
        pd.DataFrame.from_dict(rows, orient="index"),
        f"over the first {used} of {count} replicates" if used < count else "",
    )
