"""The verdict: one sentence or a few, the numbers behind it at a glance, and the findings in words."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hashrobust.reports import labels
from hashrobust.reports.findings import MASKING
from hashrobust.reports.page.depth import Audited
from hashrobust.reports.page.epsilon import gap, gap_spread, nearest_epsilon
from hashrobust.reports.page.groups import Group, percent, twins
from hashrobust.reports.page.sources import Sources
from hashrobust.reports.page.steps import MAX_STEPS
from hashrobust.reports.page.tables import PageTable, exact_cell, own_spread, table
from hashrobust.reports.page.worst import Key


@dataclass(frozen=True)
class Glance:
    """One model in one setting at one epsilon, under the attack that tells most."""

    exact: Group | None
    rule: Group | None

    @property
    def group(self) -> Group:
        """That by the rule's gradient, where there is one."""
        group = self.rule or self.exact
        assert group is not None
        return group

    @property
    def is_comparison(self) -> bool:
        """Whether a rule other than backpropagation was attacked by its own gradient and by the exact one."""
        own = self.rule is not None and self.rule.kind == "rule" and self.rule.row["rule"] != "bp"
        return own and self.exact is not None and not math.isnan(self.gap)

    @property
    def gap(self) -> float:
        """Masking gap, as a fraction."""
        return math.nan if self.rule is None or self.exact is None else gap(self.rule, self.exact)

    @property
    def masks(self) -> bool:
        """Whether the gap is called masking: above the threshold, its interval off 0."""
        low = math.nan if self.rule is None else gap_spread(self.rule)[0]
        return self.gap > MASKING and (math.isnan(low) or low > 0)


def glances(found: Sequence[Group]) -> list[Glance]:
    """For every setting at the epsilon that is quoted, each model and control under one attack, so that they
    compare: the non-targeted one with the most pairs of gradients, then models, then the lowest exact score.
    A model without it is shown under the attack that it has.
    """
    twin = {id(found[place]): other for place, other in twins(found).items()}
    settings: dict[str, list[Group]] = {}
    for group in _longest_trained(found):
        if group.row["goal"] == "non-targeted" and group.kind != "other":
            settings.setdefault(group.setting, []).append(group)
    shown: list[Glance] = []
    for members in settings.values():
        epsilon = nearest_epsilon(members)
        attacks: dict[str, dict[str, Glance]] = {}
        for group in (group for group in members if math.isclose(group.epsilon, epsilon)):
            glances_of = attacks.setdefault(group.attack, {})
            if group.kind != "exact":
                glances_of[group.line] = Glance(twin.get(id(group)), group)
            else:
                glances_of.setdefault(group.line, Glance(group, None))
        chosen: dict[str, Glance] = {}
        for attack in sorted(attacks, key=lambda name: _telling(attacks[name].values())):
            chosen = {**attacks[attack], **chosen}
        shown += sorted(chosen.values(), key=lambda glance: labels.rule_rank(glance.group.line))
    return shown


def _longest_trained(found: Sequence[Group]) -> list[Group]:
    """The groups but for those of models that were trained for longer as well: they have a figure of their own."""

    def steps(group: Group) -> float:
        given = group.row.get(MAX_STEPS)
        return math.inf if given is None or labels.is_missing(given) else float(given)

    def model(group: Group) -> tuple[str, ...]:
        return (*(str(group.row[name]) for name in ("dataset", "backbone", "objective")), group.model)

    longest: dict[tuple[str, ...], float] = {}
    for group in found:
        longest[model(group)] = max(steps(group), longest.get(model(group), 0.0))
    return [group for group in found if steps(group) == longest[model(group)]]


def _telling(shown: Collection[Glance]) -> tuple[int, int, float]:
    exact = [glance.exact.mean(glance.exact.metric) for glance in shown if glance.exact is not None]
    pairs = sum(glance.is_comparison for glance in shown)
    return (-pairs, -len(shown), math.fsum(exact) / len(exact) if exact else math.inf)


def verdict(shown: Sequence[Glance], audits: Sequence[Audited]) -> list[str]:
    """The verdict in a sentence for each kind of score, and one on the audits, where there are any."""
    sentences = [
        _on_gradients([glance for glance in shown if glance.group.metric == metric], labels.name(metric))
        for metric in dict.fromkeys(glance.group.metric for glance in shown)
    ]
    return [sentence for sentence in [*sentences, _on_controls(shown), _on_audits(audits)] if sentence]


def _on_gradients(shown: Sequence[Glance], score: str) -> str:
    compared = [glance for glance in shown if glance.is_comparison]
    exact = [glance.exact for glance in shown if glance.exact is not None]
    if not exact:
        return ""
    where = _epsilons([glance.group for glance in compared or shown])
    if not compared:
        return (
            f"The exact gradient leaves {score} {_range(exact)} at {where}, of {_range(exact, 'clean_')} unattacked; "
            "no learning rule was attacked by its own gradient as well."
        )
    by_rule = [glance.rule for glance in compared if glance.rule is not None]
    plain = [g.exact for g in shown if g.exact is not None and g.group.line == "bp"]
    beside = f" ({_range(plain)} with plain backpropagation)" if plain else ""
    masking = sum(glance.masks for glance in compared)
    numbers = (
        f"at {where}, attackers who follow the rule gradient leave {score} {_range(by_rule)}, those who follow the "
        f"exact gradient {_range([g.exact for g in compared if g.exact is not None])}{beside}"
    )
    if masking == len(compared):
        return f"What looks like robustness of {_rules(compared)} is a hidden gradient: {numbers}."
    if masking == 0:
        return f"The learning rules hide no gradient to speak of: {numbers}."
    hiding = [glance for glance in compared if glance.masks]
    return f"{_rules(hiding)} hide their gradient ({masking} of {len(compared)} comparisons): {numbers}."


def _on_controls(shown: Sequence[Glance]) -> str:
    """What looks as robust without any training by a rule."""
    hiding = [glance for glance in shown if glance.group.kind == "control" and glance.masks]
    by_rule = [glance.rule for glance in hiding if glance.rule is not None]
    if not hiding:
        return ""
    exact = [glance.exact for glance in hiding if glance.exact is not None]
    return (
        f"Zero-step control: weights that the rule never trained look robust too, {labels.name(by_rule[0].metric)} "
        f"{_range(by_rule)} by the rule gradient, {_range(exact)} by the exact gradient ({_lines(hiding)})."
    )


def _lines(shown: Sequence[Glance]) -> str:
    return ", ".join(dict.fromkeys(glance.group.line for glance in shown))


def _rules(compared: Sequence[Glance]) -> str:
    names = list(dict.fromkeys(glance.group.model for glance in compared))
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _epsilons(shown: Sequence[Group]) -> str:
    names = dict.fromkeys(labels.epsilon(group.epsilon) for group in sorted(shown, key=lambda g: g.epsilon))
    return f"epsilon {' and '.join(names)}"


def _range(members: Sequence[Group], before: str = "") -> str:
    values = [group.mean(f"{before}{group.metric}") for group in members]
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return labels.MISSING
    low, high = percent(min(known)), percent(max(known))
    return f"{low}%" if low == high else f"{low} to {high}%"


def _on_audits(audits: Sequence[Audited]) -> str:
    verdicts: dict[str, dict[str, None]] = {}
    for audit in audits:
        verdicts.setdefault(str(audit.found["verdict"]), {})[audit.model] = None
    order = ("PASS", "FAIL", "INCOMPLETE")
    said = [
        f"{word} for {', '.join(sorted(verdicts[word], key=labels.rule_rank))}"
        for word in sorted(verdicts, key=lambda w: order.index(w) if w in order else len(order))
    ]
    return f"Audits: {'; '.join(said)}." if said else ""


def glance_table(
    shown: Sequence[Glance], worst: Mapping[Key, str], audits: Sequence[Audited], sources: Sources
) -> PageTable | None:
    """The numbers behind the verdict, a row a model."""
    judged: dict[tuple[str, str], dict[str, None]] = {}
    for audit in audits:
        judged.setdefault((audit.setting, audit.model), {})[str(audit.found["verdict"])] = None
    entries = []
    for glance in shown:
        group, metric = glance.group, glance.group.metric
        own = group.kind != "control"
        lowest = worst.get((group.setting, group.model, group.epsilon), labels.MISSING)
        cells = {
            "setting": group.setting,
            "rule": group.line,
            "attack": group.attack,
            "epsilon": labels.epsilon(group.epsilon),
            "score": labels.name(metric),
            "queries": labels.setting("queries", group.row.get("queries")),
            "clean": percent(group.mean(f"clean_{metric}")),
            "exact gradient": exact_cell(group, glance.exact),
            "(rule gradient)": f"(rule: {own_spread(glance.rule)})" if glance.rule else labels.MISSING,
            "worst case": lowest if own else labels.MISSING,
            "chance": percent(group.mean(f"chance_{metric}")),
            "audit": ", ".join(judged.get((group.setting, group.model), {})) if own else "",
        }
        folders = [f for g in (glance.exact, glance.rule) if g is not None for f in g.folders]
        entries.append((cells, folders))
    return table("glance", "At a glance", entries, sources)
