"""Studies: a matrix of experiments as one file, planned, priced, run and resumed."""

from __future__ import annotations

from hashrobust.experiments.study.measure import Estimate, estimate
from hashrobust.experiments.study.planned import Planned, plan_study
from hashrobust.experiments.study.runs import StudyResult, run_study

__all__ = ["Estimate", "Planned", "StudyResult", "estimate", "plan_study", "run_study"]
