"""Grafana's alert rules: that Grafana can read them, and what they fire for, on every InfluxDB."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from support.dashboards import (
    GRAFANA_ALERTS,
    GRAFANA_RULES,
    LABELS,
    SHOWN_BY_PANEL,
    Json,
    for_bucket,
    row_name,
    write_fleet,
)
from support.queries import Rows
from tools.servers.influxdb import InfluxDB

RULE_KEYS = {
    "uid",
    "title",
    "condition",
    "data",
    "noDataState",
    "execErrState",
    "for",
    "annotations",
    "labels",
    "missing_series_evals_to_resolve",  # Grafana 12.2; older ones ignore it
}

# What each rule fires for in the fleet of support/dashboards.py.
FIRING = {
    "renewal_overdue": SHOWN_BY_PANEL["Overdue"],
    "renewal_failing": {"web3/1", "web3/2"},
    "dry_run_failed": {"web1"},
    "host_silent": {"web2"},
    "certificate_not_delivered": SHOWN_BY_PANEL["Not delivered"],
    "certificate_not_delivered_urgent": {"web1/delivered/vault"},
    "certificate_not_served": {"web1/elsewhere"},
    "certificate_not_served_urgent": set[str](),
}

Query = Callable[[str], Rows]
Numbers = dict[str, dict[str, float]]  # the numbers of each instance, by letter

# The query with the texts of an alert's summary. No condition uses it.
TEXTS = "R"


def number_queries(rule: Json) -> list[Json]:
    """Return the queries of a rule whose numbers its condition may use."""
    return [query for query in rule["data"][:-1] if query["refId"] != TEXTS]


# ---- The file ----------------------------------------------------------------------------------
def test_the_data_source_stands_in_one_place() -> None:
    assert GRAFANA_ALERTS.count("influxdb\n") == 1
    for rule in GRAFANA_RULES:
        for query in rule["data"][:-1]:
            assert query["datasourceUid"] == "influxdb"


def test_grafana_can_read_its_rules() -> None:
    """See pkg/services/provisioning/alerting/rules_types.go and pkg/services/ngalert."""
    assert len(GRAFANA_RULES) == 8
    assert len({rule["uid"] for rule in GRAFANA_RULES}) == 8
    assert len({rule["title"] for rule in GRAFANA_RULES}) == 8
    for rule in GRAFANA_RULES:
        assert set(rule) == RULE_KEYS
        assert len(rule["uid"]) <= 40
        assert re.fullmatch(r"\w+", rule["uid"])
        assert rule["for"] == "0s"
        assert rule["noDataState"] == "KeepLast"
        assert rule["execErrState"] == "Error"
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_each_condition_uses_the_numbers_of_its_rule() -> None:
    for rule in GRAFANA_RULES:
        queries, condition = number_queries(rule), rule["data"][-1]
        assert condition["refId"] == rule["condition"]
        assert condition["datasourceUid"] == "__expr__"
        expression = condition["model"]["expression"]
        letters = {query["refId"] for query in queries}
        assert "A" in expression
        assert letters >= set(re.findall(r"\b[A-Z]\b", expression))
        for query in queries:
            assert query["model"]["refId"] == query["refId"]
            time_range = query["relativeTimeRange"]
            assert time_range["from"] > time_range["to"] == 0


def test_each_summary_uses_the_numbers_and_labels_of_its_rule() -> None:
    for rule in GRAFANA_RULES:
        text = rule["annotations"]["summary"] + rule["annotations"]["description"]
        assert "$" not in text  # Grafana takes it for a variable of the environment
        assert text.count("{{ if") + text.count("{{ with") == text.count("{{ end }}")
        letters = {query["refId"] for query in rule["data"]}  # also C, the condition
        assert set(re.findall(r"\.Values\.(\w)", text)) <= letters
        map_line = rule["data"][0]["model"]["query"].splitlines()[-2]
        labels = set(re.findall(r"(\w+): r\.\1, ", map_line))
        # A text has the labels of the instance, but not the step of an incident.
        assert set(re.findall(r"(?<!Values\.R)\.Labels\.(\w+)", text)) == labels - {"step"}


# ---- Conditions --------------------------------------------------------------------------------
def fires(rule: Json, numbers: dict[str, float]) -> bool:
    """Return whether the condition of a rule is true of the numbers of an instance."""
    condition = rule["data"][-1]["model"]
    if condition["type"] == "threshold":
        (limits,) = condition["conditions"]
        assert limits["evaluator"]["type"] == "gt"
        assert limits["unloadEvaluator"]["type"] == "lt"
        return numbers[condition["expression"]] > float(limits["evaluator"]["params"][0])

    expression = re.sub(r"\$(\w)", lambda match: str(numbers[match[1]]), condition["expression"])
    assert re.fullmatch(r"[-\d.e ><=!&|()]+", expression)
    return bool(eval(expression.replace("&&", " and ").replace("||", " or ")))


def assert_makes_instances(row: dict[str, str], *more_labels: str) -> None:
    """Assert that Grafana makes one instance of a row, the same each time.

    The row is of the only table, and has labels and exactly one number, and no time.
    """
    labels = {label for label in LABELS if label in row} | set(more_labels)
    assert set(row) - {"", "result"} == {"table", "value", *labels}
    assert row["table"] == "0"


def numbers_of_instances(query: Query, bucket: str, rule: Json) -> Numbers:
    """Return the numbers of each instance of a rule, by its name."""
    numbers: Numbers = {}
    for number in number_queries(rule):
        for row in query(for_bucket(bucket, number["model"]["query"])):
            assert_makes_instances(row)
            instance = numbers.setdefault(row_name(row), {})
            instance[number["refId"]] = float(row["value"])
    return numbers


def test_each_rule_fires_for_what_is_wrong_and_knows_what_is_not(influxdb: InfluxDB) -> None:
    bucket = write_fleet(influxdb)
    query = functools.cache(influxdb.query)  # the two rules of an alert have the same queries
    firing = {}
    for rule in GRAFANA_RULES:
        instances = numbers_of_instances(query, bucket, rule)
        title = rule["title"]
        firing[title] = {name for name, numbers in instances.items() if fires(rule, numbers)}
        # The instances that do not fire have rows too: otherwise no alert would resolve.
        assert set(instances) > firing[title]
    assert firing == FIRING


def rows_of_texts(influxdb: InfluxDB, bucket: str) -> dict[str, Rows]:
    """Return the rows of the query with texts of each rule that has one, by its title."""
    rows = {}
    for rule in GRAFANA_RULES:
        for query in rule["data"]:
            if query["refId"] == TEXTS:
                flux = for_bucket(bucket, query["model"]["query"])
                rows[rule["title"]] = influxdb.query(flux)
    return rows


def test_each_instance_has_its_texts_for_the_summary(influxdb: InfluxDB) -> None:
    """Grafana gives a summary the rows of a query that have all labels of the instance.

    See pkg/services/ngalert/eval/eval.go.
    """
    bucket = write_fleet(influxdb)
    rows = rows_of_texts(influxdb, bucket)
    assert set(rows) == {"renewal_overdue", "renewal_failing", "dry_run_failed"}
    rules = {rule["title"]: rule for rule in GRAFANA_RULES}
    for title, rows_of_rule in rows.items():
        instances = numbers_of_instances(influxdb.query, bucket, rules[title])
        assert sorted(row_name(row) for row in rows_of_rule) == sorted(instances)
        summary = rules[title]["annotations"]["summary"]
        texts = set(re.findall(r"\.Values\.R\.Labels\.(\w+)", summary))
        assert texts
        for row in rows_of_rule:
            assert_makes_instances(row, *texts)


def test_the_texts_of_a_summary_are_the_names_and_reasons(influxdb: InfluxDB) -> None:
    rows = rows_of_texts(influxdb, write_fleet(influxdb))
    texts = {title: {row_name(row): row for row in rows[title]} for title in rows}

    assert texts["renewal_overdue"]["web1/late"]["reason"] == "no TXT record"
    assert texts["renewal_overdue"]["web1/fine"]["reason"] == "none"

    failing = texts["renewal_failing"]["web3/2"]
    assert (failing["failed"], failing["unreadable"]) == ("b c", "none")
    assert failing["reason"] == "b: refused | c: refused"
    assert texts["renewal_failing"]["web4/1"]["reason"] == "none"

    dry_run = texts["dry_run_failed"]["web1"]
    assert (dry_run["failed"], dry_run["reason"]) == ("late", "late: no")
