"""Questions about opponent models that recorded beliefs answer, with a table each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import xarray as xr

from inference_marl.analysis.tables import NO_INTERVAL, Section, cell
from inference_marl.statistics.beliefs import PROBABILITY_FLOOR, modelling
from inference_marl.statistics.metrics import estimate
from inference_marl.statistics.quantities import (
    SETTLED,
    Measured,
    agreed,
    ahead,
    calibrated,
    changed,
    declaration,
    distances,
    sureness,
)

MAX_AGENT_ROWS = 12
"""Maximum number of rows of single agents; with more, they are averaged."""


@dataclass(frozen=True)
class Question:
    """A question about opponent models and the quantities that answer it.

    Attributes:
        title: the question.
        discrete: explanation of the numbers if beliefs are probabilities.
        continuous: the same if beliefs are draws.
        measure: computes the quantities of a learner, one per column.
        by_agent: whether agents get their own rows if there are not too many.
        figures: names of the figures of this section.
    """

    title: str
    discrete: str
    continuous: str
    measure: Callable[[xr.Dataset, str], Measured]
    by_agent: bool = False
    figures: tuple[str, ...] = ()

    def answer(self, posterior: xr.Dataset) -> Section | None:
        """The table with 95 % intervals; `None` if there are no values."""
        found = {who: self.measure(here, learner) for who, learner, here in self._rows(posterior)}
        texts = {who: _texts(posterior, measured) for who, measured in found.items() if measured}
        table = pd.DataFrame.from_dict(texts, orient="index")
        explanation = self.discrete if posterior.attrs["kind"] == "discrete" else self.continuous
        return None if table.empty else Section(self.title, explanation, table, figures=self.figures)

    def _rows(self, posterior: xr.Dataset) -> list[tuple[str, str, xr.Dataset]]:
        """The name of each row, its learner, and the beliefs of its agents."""
        learners, agents = modelling(posterior), posterior.sizes["agent"]
        if not self.by_agent or len(learners) * agents > MAX_AGENT_ROWS:
            return [(learner, learner, posterior) for learner in learners]
        single = [posterior.isel(agent=[agent]) for agent in range(agents)]
        return [
            (f"{learner}, agent {agent}", learner, here)
            for learner in learners
            for agent, here in enumerate(single)
            if learner in modelling(here)
        ]


def _texts(posterior: xr.Dataset, measured: Measured) -> dict[str, str]:
    """Formatted estimates with intervals, by label."""
    last, declared = int(posterior["step"][-1]), [declaration(name, posterior) for name in measured]
    pairs = zip(declared, measured.values(), strict=True)
    return {metric.label: cell(metric, estimate(metric, values), last) for metric, values in pairs}


QUESTIONS = (
    Question(
        "How sure are they?",
        "Entropy in nats over each opponent's actions: 0 is certainty, log(number of actions) is none. " + NO_INTERVAL,
        "Entropy in nats of the normal fitted to the draws, lower is surer; standard deviation in units of actions. "
        + NO_INTERVAL,
        sureness,
        by_agent=True,
    ),
    Question(
        "How far is rho from the prior P and from the truth?",
        f"In nats (probabilities below {PROBABILITY_FLOOR:g} count as that). KL(rho || P): how far optimism moves rho "
        "from what was observed. KL(truth || rho): how wrong rho is, 0 if it is right. Log score: what the opponents' "
        "actions earn rho as a forecast, higher is better; best: what the truth itself would earn.",
        "In nats, from normals fitted to the draws. KL(rho || P): how far optimism moves rho from what was observed. "
        "KL(truth || rho): how wrong rho is. Log score: what the opponents' actions earn rho as a forecast, higher is "
        "better; best: what the truth itself would earn.",
        distances,
        by_agent=True,
    ),
    Question(
        "Are the beliefs calibrated?",
        "If rho gives an action probability 0.7, do the opponents play it 7 times in 10? Calibration error: the mean "
        "gap between both, 0 is perfect. Overconfidence: rho's probability of its favourite action minus how often the "
        "opponents play it, above 0 too sure; of several favourites the mean. Over the whole run, and at its end.",
        "Do rho's central intervals contain the opponents' actions as often as they should? Calibration error: the "
        "mean gap between nominal and actual coverage, 0 is perfect. Overconfidence: nominal minus actual coverage, "
        "above 0 too narrow. Over the whole run, and at its end.",
        calibrated,
        figures=("calibration",),
    ),
    Question(
        "Do the seeds agree?",
        "Share of the seeds whose favourite action of the opponents is the most common one (1: all agree; a seed with "
        "several favourites is divided among them), what that would be if favourites were drawn at random, and the "
        "total variation distance of a seed's belief from the mean of all (0: all the same).",
        "Distance of a seed's mean action from the mean of all seeds, in units of actions.",
        agreed,
    ),
    Question(
        "When did the belief change?",
        "Step of the largest change of rho between successive records (median over seeds), its size (total variation, "
        f"from 0 to 1), and the first step from which rho stays within {SETTLED:g} of its last (median). Where rho "
        "never moved, its step is beyond the last.",
        "Step of the largest change of rho between successive records (median over seeds), its size (1-Wasserstein "
        "distance in units of actions; draws vary, so it is never 0), and the first step from which rho stays within "
        f"{SETTLED:.0%} of the action range of its last (median).",
        changed,
        figures=("belief_change",),
    ),
    Question(
        "Does the opponent model think ahead?",
        "Lead: environment steps by which rho's probability of the optimum passes 1/2 for good before the opponents' "
        "policy does; seeds where either never does have none, so see the gap as well: rho's probability minus the "
        "policy's, averaged over the whole run and all seeds.",
        "Lead: environment steps by which the mean of rho comes to the optimum for good before the mean of the "
        "opponents' policy does; seeds where either never does have none, so see the gap as well: rho's share of "
        "records at the optimum minus the policy's, over all seeds.",
        ahead,
    ),
)
