"""The alert rules for Grafana with InfluxDB."""

from __future__ import annotations

from typing import NamedTuple

from tools import ROOT
from tools.generate.alerts import ALERTS, MOST_HOSTS, Alert
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

    `numbers` are Flux for a number of a row, by letter, and `texts` for a text, by name. Without a
    Threshold, a rule fires when its condition is true. `summary` is a Go template, in which
    .Values.C says whether the alert fires, and SEVERITY stands for the severity in capitals.
    """

    numbers: dict[str, str]
    texts: dict[str, str]
    rules: list[Rule]
    summary: str


# Parts of summaries.
LEVEL = "{{ if .Values.C.Value }}SEVERITY{{ else }}OK{{ end }}: "
ON_HOST = LEVEL + "{{ .Labels.lineage }} on {{ .Labels.host }}: "
DAYS_LEFT = '{{ printf "%.1f" .Values.B.Value }} days'
DAYS_AGO = 'expired {{ slice (printf "%.1f" .Values.B.Value) 1 }} days ago'
EXPIRED = "{{ if lt .Values.B.Value 0.0 }}" + DAYS_AGO + "{{ else }}"
LEFT = EXPIRED + DAYS_LEFT + " left{{ end }}"
EXPIRES = EXPIRED + "expires in " + DAYS_LEFT + "{{ end }}"
AGO = '{{ printf "%.1f" .Values.A.Value }} days ago'


def shown_text(name: str, prefix: str) -> str:
    """Return a part of a summary: a text of the row after a prefix; nothing if it is "none".

    The texts are labels of the query R, which no condition uses. As labels of the alert they would
    make another alert whenever certbot's words change. Grafana finds the row of R by the labels of
    the alert.
    """
    text = f'{prefix}{{{{ printf "%.400s" . }}}}'
    if_any = f'{{{{ if ne . "none" }}}}{text}{{{{ end }}}}'
    return f"{{{{ with .Values.R.Labels.{name} }}}}{if_any}{{{{ end }}}}"


FAILED = shown_text("failed", "; not renewed: ")
UNREADABLE = shown_text("unreadable", "; unreadable: ")
FAILED_DRY_RUNS = shown_text("failed", ": ")
REASON = shown_text("reason", "; reason: ")

# A: days since the renewal, below 0 if nothing is wrong. B: days until the old certificate expires,
# 0 if there is none. The thresholds are grace = 1 and urgent = 7 of the other alert systems.
OLD_CERTIFICATE_RULES = [
    Rule("", "warning", Math("$A >= 1")),
    Rule("_urgent", "critical", Math("$A >= 0 && $B != 0 && ($B < 0 || ($A >= 1 && $B < 7))")),
]

WORDINGS = {
    "renewal_overdue": Wording(
        numbers={"A": "r.days_overdue", "B": "r.days_left", "D": "r.grace_days"},
        texts={"reason": "r.failure"},
        rules=[Rule("", "critical", Math("$A >= 1 || $A >= $D"))],
        summary=ON_HOST
        + "{{ if .Values.C.Value }}renewal overdue, "
        + 'due for {{ printf "%.1f" .Values.A.Value }} days, '
        + LEFT
        + REASON
        + "{{ else if .Values.B.Value }}renewed, "
        + EXPIRES
        + "{{ else }}no longer on this host{{ end }}",
    ),
    "renewal_failing": Wording(
        numbers={"A": "if r.failing then 1.0 else 0.0", "B": "r.exit_status"},
        texts={
            "failed": "r.failed",
            "unreadable": "r.unreadable",
            "reason": 'if r.failure != "none" then r.failure else r.failures',
        },
        rules=[Rule("", "warning", Math("$A > 0"))],
        summary=LEVEL
        + "{{ .Labels.host }}: {{ if .Values.C.Value }}certbot failed"
        + FAILED
        + UNREADABLE
        + "{{ if gt .Values.B.Value 0.0 }}"
        + '; exit status {{ printf "%.0f" .Values.B.Value }}{{ end }}'
        + REASON
        + "{{ else }}certbot succeeded{{ end }}",
    ),
    "dry_run_failed": Wording(
        numbers={"A": "r.failed_count"},
        texts={"failed": "r.failed", "reason": "r.errors"},
        rules=[Rule("", "warning", Math("$A > 0"))],
        summary=LEVEL
        + "{{ .Labels.host }}: {{ if .Values.C.Value }}dry run failed"
        + FAILED_DRY_RUNS
        + REASON
        + "{{ else }}no failed dry run{{ end }}",
    ),
    "host_silent": Wording(
        # While most hosts are silent or late, a silent host is not judged: 0.5 is between both
        # limits, so that an alert neither fires nor resolves.
        numbers={
            "A": "if r.days_silent < silence then 0.0 else if r.most_hosts_away then 0.5 else 1.0",
            "B": "r.days_silent",
        },
        texts={},
        rules=[Rule("", "critical", Threshold(fires_above=0.75, resolves_below=0.25))],
        summary=LEVEL + "{{ .Labels.host }}: {{ if .Values.C.Value }}"
        'no run report for {{ printf "%.1f" .Values.B.Value }} days'
        '{{ else if eq .Labels.host "(most hosts)" }}report again'
        "{{ else if lt .Values.B.Value 0.0 }}retired, no run reports expected"
        "{{ else }}reports again{{ end }}",
    ),
    "certificate_not_delivered": Wording(
        numbers={"A": "r.days_missing", "B": "r.days_left"},
        texts={},
        rules=OLD_CERTIFICATE_RULES,
        summary=ON_HOST
        + "{{ if .Values.C.Value }}not delivered to {{ .Labels.target }}, renewed "
        + f"{AGO}, "
        + "{{ if .Values.B.Value }}the old certificate there "
        + EXPIRES
        + "{{ else }}the target never received a certificate{{ end }}"
        + "{{ else }}delivered to {{ .Labels.target }}, or no longer delivered there{{ end }}",
    ),
    "certificate_not_served": Wording(
        numbers={"A": "r.days_unserved", "B": "r.days_left"},
        texts={},
        rules=OLD_CERTIFICATE_RULES,
        summary=ON_HOST
        + "{{ if .Values.C.Value }}not served, renewed "
        + f"{AGO}, the served certificate {EXPIRES}"
        + "{{ else }}the renewed certificate is served, or no longer checked{{ end }}",
    ),
}

# Grafana's templates for the labels of an alert.
LABELS = {
    "HOST": "{{ .Labels.host }}",
    "LINEAGE": "{{ .Labels.lineage }}",
    "TARGET": "{{ .Labels.target }}",
}


def description(alert: Alert) -> str:
    """Return the template of an alert's instructions."""
    text = alert.instructions.text(LABELS)
    if alert.name != "host_silent":
        return text
    most_hosts = MOST_HOSTS.text(LABELS)
    is_most_hosts = '{{ if eq .Labels.host "(most hosts)" }}'
    return f"{is_most_hosts}{most_hosts}{{{{ else }}}}{text}{{{{ end }}}}"


def number_query(alert: Alert, letter: str, value: str) -> Json:
    """Return the query of one number, with the keys of the alert as its labels."""
    return labelled_query(alert, letter, {}, f"float(v: {value})")


def text_query(alert: Alert, texts: dict[str, str]) -> Json:
    """Return the query R: the texts, as more labels of a number that means nothing."""
    return labelled_query(alert, "R", texts, "0.0")


def labelled_query(alert: Alert, letter: str, more_labels: dict[str, str], value: str) -> Json:
    """Return a query of an alert's rows: its keys and more labels, and a number, in Flux.

    It returns one table without a time, ungrouped, with text and exactly one number. From such a
    table Grafana makes an instance of each row, with the text as its labels. Grafana would drop a
    table for each certificate, and no alert would fire.
    """
    labels = {**{key: f"r.{key}" for key in alert.keys}, **more_labels}
    columns = "".join(f"{name}: {flux}, " for name, flux in labels.items())
    row = f"{{{columns}value: {value}}}"
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
    that says so. So nothing resolves while InfluxDB is down, for up to a month.
    """
    queries = [number_query(alert, letter, value) for letter, value in wording.numbers.items()]
    if wording.texts:
        queries.append(text_query(alert, wording.texts))
    return {
        "uid": f"{alert.name}{rule.suffix}",
        "title": f"{alert.name}{rule.suffix}",
        "condition": "C",
        "data": [*queries, condition_query(rule.condition)],
        "noDataState": "KeepLast",
        "execErrState": "Error",
        "missing_series_evals_to_resolve": EVALUATIONS_PER_MONTH,
        "for": "0s",
        "annotations": {
            "summary": wording.summary.replace("SEVERITY", rule.severity.upper()),
            "description": description(alert),
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
