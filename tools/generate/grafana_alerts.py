"""The alert rules for Grafana with InfluxDB."""

from __future__ import annotations

from typing import NamedTuple

from tools import ROOT
from tools.generate.alerts import ALERTS, Alert
from tools.generate.formats import Json, to_yaml
from tools.generate.queries import read_query

HEAD = ROOT / "tools" / "generate" / "heads" / "grafana-alerts.yaml"

EXPRESSION_SOURCE = {"type": "__expr__", "uid": "__expr__"}

# Rules are evaluated every quarter of an hour, 4 * 24 = 96 times a day.
EVALUATIONS_PER_MONTH = 31 * 96


class Math(NamedTuple):
    """A condition on the numbers of an alert, such as $A >= 1."""

    expression: str


class Threshold(NamedTuple):
    """A condition on the number A: an alert fires above one limit, and resolves below another."""

    fires_above: float
    resolves_below: float


class Rule(NamedTuple):
    """A rule of an alert, under the alert's name with a suffix, with a severity and a condition."""

    suffix: str
    severity: str
    condition: Math | Threshold


class Wording(NamedTuple):
    """What an alert needs in Grafana.

    `numbers` are Flux for a number of a row, by letter. Without a Threshold, a rule fires when its
    condition is true. `summary` is a Go template, in which .Values.C says whether the alert fires,
    and URGENT stands for "urgent, " in a rule that has a suffix.
    """

    numbers: dict[str, str]
    rules: list[Rule]
    summary: str


# Parts of summaries.
ON_HOST = "{{ .Labels.lineage }} on {{ .Labels.host }}: "
LEFT = (
    "{{ if lt .Values.B.Value 0.0 }}expired"
    '{{ else }}expires in {{ printf "%.1f" .Values.B.Value }} days{{ end }}'
)
AGO = '{{ printf "%.1f" .Values.A.Value }} days ago'

# A: days since the renewal, below 0 if nothing is wrong. B: days until the old certificate expires,
# 0 if there is none. The thresholds are grace = 1 and urgent = 7 of the other alert systems.
OLD_CERTIFICATE_RULES = [
    Rule("", "warning", Math("$A >= 1")),
    Rule("_urgent", "critical", Math("$A >= 0 && $B != 0 && ($B < 0 || ($A >= 1 && $B < 7))")),
]

WORDINGS = {
    "renewal_overdue": Wording(
        numbers={"A": "r.days_overdue", "B": "r.days_left"},
        rules=[Rule("", "critical", Math("$A >= 1"))],
        summary=ON_HOST
        + "{{ if .Values.C.Value }}not renewed, due "
        + f"{AGO}, {LEFT}"
        + "{{ else if .Values.B.Value }}renewed, "
        + LEFT
        + "{{ else }}no longer on this host{{ end }}",
    ),
    "renewal_failing": Wording(
        numbers={"A": "r.failed_count", "B": "r.unreadable_count", "D": "r.exit_status"},
        rules=[Rule("", "warning", Math("$A > 0 || $B > 0 || $D > 0"))],
        summary="{{ .Labels.host }}: {{ if .Values.C.Value }}certbot fails"
        "{{ if gt .Values.A.Value 0.0 }}"
        ', {{ printf "%.0f" .Values.A.Value }} not renewed{{ end }}'
        "{{ if gt .Values.B.Value 0.0 }}"
        ', {{ printf "%.0f" .Values.B.Value }} unreadable{{ end }}'
        "{{ if gt .Values.D.Value 0.0 }}"
        ', exit status {{ printf "%.0f" .Values.D.Value }}{{ end }}'
        "{{ else }}certbot runs well again{{ end }}",
    ),
    "host_silent": Wording(
        # While InfluxDB receives no reports, a silent host is not judged: 0.5 is between both
        # limits, so that an alert neither fires nor resolves.
        numbers={
            "A": "if r.days_silent < silence then 0.0 else if r.deaf then 0.5 else 1.0",
            "B": "r.days_silent",
        },
        rules=[Rule("", "critical", Threshold(fires_above=0.75, resolves_below=0.25))],
        summary="{{ .Labels.host }}: {{ if .Values.C.Value }}"
        'no report of certbot for {{ printf "%.1f" .Values.B.Value }} days'
        "{{ else if lt .Values.B.Value 0.0 }}no longer expected to report"
        "{{ else }}reports again{{ end }}",
    ),
    "certificate_not_delivered": Wording(
        numbers={"A": "r.days_missing", "B": "r.days_left"},
        rules=OLD_CERTIFICATE_RULES,
        summary=ON_HOST
        + "{{ if .Values.C.Value }}URGENTnot delivered to {{ .Labels.target }}, renewed "
        + f"{AGO}, "
        + "{{ if .Values.B.Value }}what it has "
        + LEFT
        + "{{ else }}it never got one{{ end }}"
        + "{{ else }}delivered to {{ .Labels.target }}, or no longer for it{{ end }}",
    ),
    "certificate_not_served": Wording(
        numbers={"A": "r.days_unserved", "B": "r.days_left"},
        rules=OLD_CERTIFICATE_RULES,
        summary=ON_HOST
        + "{{ if .Values.C.Value }}URGENTrenewed "
        + f"{AGO}, but another one is served, which {LEFT}"
        + "{{ else }}the renewed certificate is served, or no longer looked at{{ end }}",
    ),
}


def number_query(alert: Alert, letter: str, value: str) -> Json:
    """Return the query of one number.

    It returns one table without a time, ungrouped, with text and exactly one number. From such a
    table Grafana makes an instance of each row, with the text as its labels. Grafana would drop a
    table for each certificate, and no alert would fire.
    """
    labels = "".join(f"{key}: r.{key}, " for key in alert.keys)
    row = f"{{{labels}value: float(v: {value})}}"
    query = f"{read_query(alert.query)}\n    |> map(fn: (r) => ({row}))\n    |> group()"
    return {
        "refId": letter,
        "relativeTimeRange": {"from": 600, "to": 0},
        "datasourceUid": "DATASOURCE",
        "model": {
            "refId": letter,
            "query": query,
            "intervalMs": 1000,
            "maxDataPoints": 43200,
        },
    }


def condition_query(condition: Math | Threshold) -> Json:
    """Return the query C: whether the alert fires."""
    model: Json = {"refId": "C", "datasource": EXPRESSION_SOURCE}
    if isinstance(condition, Math):
        model["type"] = "math"
        model["expression"] = condition.expression
    else:
        limits = {
            "evaluator": {"type": "gt", "params": [condition.fires_above]},
            "unloadEvaluator": {"type": "lt", "params": [condition.resolves_below]},
        }
        model["type"] = "threshold"
        model["expression"] = "A"
        model["conditions"] = [limits]
    return {"refId": "C", "datasourceUid": "__expr__", "model": model}


def grafana_rule(alert: Alert, wording: Wording, rule: Rule) -> Json:
    """Return a rule.

    An alert does not resolve because its row is missing: a certificate that is retired has a row
    that says so. So nothing resolves while InfluxDB is away, for a month.
    """
    numbers = [number_query(alert, letter, value) for letter, value in wording.numbers.items()]
    urgent = "urgent, " if rule.suffix else ""
    return {
        "uid": f"{alert.name}{rule.suffix}",
        "title": f"{alert.name}{rule.suffix}",
        "condition": "C",
        "data": [*numbers, condition_query(rule.condition)],
        "noDataState": "KeepLast",
        "execErrState": "Error",
        "missing_series_evals_to_resolve": EVALUATIONS_PER_MONTH,
        "for": "0s",
        "annotations": {
            "summary": wording.summary.replace("URGENT", urgent),
            "description": alert.description,
        },
        "labels": {"severity": rule.severity},
    }


def rules_file() -> str:
    """Return the file of alert rules; it has the uid of the data source once, in the head."""
    rules = []
    for alert in ALERTS:
        wording = WORDINGS[alert.name]
        rules += [grafana_rule(alert, wording, rule) for rule in wording.rules]
    group = {
        "orgId": 1,
        "name": "certbot_renewal",
        "folder": "certbot renewals",
        "interval": "15m",
        "rules": rules,
    }
    text = to_yaml({"apiVersion": 1, "groups": [group]})
    return HEAD.read_text() + text.replace(
        "datasourceUid: DATASOURCE", "datasourceUid: *datasource"
    )
