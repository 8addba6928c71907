"""The numbers of an audit: the worst case over all attacks, alone and over the control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hashrobust.experiments.audit.evidence import Evidence, lowest
from hashrobust.experiments.audit.plan import CONTROL, MAIN, RULE, ZERO_STEP
from hashrobust.metrics import bootstrap_interval, paired_bootstrap_interval

ALL = ("white box", "rule", "transfer", "gradient-free", "noise")


def headline(evidence: Evidence) -> dict[str, Any]:
    """The numbers above the table: worst case over all attacks, beside clean, theory and chance."""
    if MAIN not in evidence.tables:
        return {}
    mean = evidence.measure.mean
    scores = {"clean": evidence.of(MAIN, "clean_"), **evidence.scores(*ALL)}
    worst = lowest(scores)
    low, high = bootstrap_interval(worst)
    found: dict[str, Any] = {
        "queries": len(worst),
        f"clean_{mean}": float(scores["clean"].mean()),
        f"worst_{mean}": float(worst.mean()),
        f"worst_{mean}_low": low,
        f"worst_{mean}_high": high,
        f"theory_{mean}": float(evidence.theory(MAIN).mean()),
        f"chance_{mean}": float(evidence.of(MAIN, "chance_").mean()),
        f"exact_{mean}": float(evidence.of(MAIN).mean()),
        f"validation_{mean}": evidence.validation_score,
    }
    if RULE in evidence.tables:
        low, high = paired_bootstrap_interval(evidence.of(RULE), evidence.of(MAIN))
        rule = float(evidence.of(RULE).mean())
        found |= {
            f"rule_{mean}": rule,
            "masking_gap": rule - found[f"exact_{mean}"],
            "masking_gap_low": low,
            "masking_gap_high": high,
            "gradient_cosine": evidence.metrics[RULE].get("gradient_cosine"),
            "gradient_sign_agreement": evidence.metrics[RULE].get("gradient_sign_agreement"),
        }
    return found | _comparison(evidence, found)


def _comparison(evidence: Evidence, own: Mapping[str, Any]) -> dict[str, Any]:
    """The audited run against its control on the same queries, by the attacks that both went through."""
    mean = evidence.measure.mean
    on_control = evidence.scores("white box", "gradient-free", "noise", on_control=True)
    shared = [part for part in on_control if part.removeprefix(CONTROL) in evidence.tables]
    if f"{CONTROL}{MAIN}" not in shared:
        return {}
    twin = lowest({"clean": evidence.of(f"{CONTROL}{MAIN}", "clean_")} | {p: on_control[p] for p in shared})
    mine = lowest(
        {"clean": evidence.of(MAIN, "clean_")}
        | {part: evidence.of(part.removeprefix(CONTROL)) for part in shared}
    )
    low, high = paired_bootstrap_interval(mine, twin)
    found = {
        f"control_clean_{mean}": float(evidence.of(f"{CONTROL}{MAIN}", "clean_").mean()),
        f"control_exact_{mean}": float(evidence.of(f"{CONTROL}{MAIN}").mean()),
        f"control_worst_{mean}": float(twin.mean()),
        f"control_validation_{mean}": evidence.control_validation_score,
        f"shared_worst_{mean}": float(mine.mean()),
        "advantage": float(mine.mean() - twin.mean()),
        "advantage_low": low,
        "advantage_high": high,
        "shared_attacks": len(shared),
    }
    if ZERO_STEP in evidence.tables:
        found[f"zero_step_{mean}"] = float(evidence.of(ZERO_STEP).mean())
    if f"rule_{mean}" in own:
        claimed = own[f"rule_{mean}"] - found[f"control_exact_{mean}"]
        found |= {"claimed_advantage": claimed}
        if claimed > 0:
            found |= {
                name.replace("advantage", "surviving_share"): found[name] / claimed
                for name in ("advantage", "advantage_low", "advantage_high")
            }
    return found
