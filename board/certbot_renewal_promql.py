"""VictoriaMetrics or Prometheus for the renewal board: the rows that the queries of flux/ find in InfluxDB.

Each number of a report is a series there, named after the measurement and the field; text is not kept. PromQL does not say when the last
point of a series was written, unless all of them are read: so most moments are those that the reports tell themselves.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

DAY = 86400  # seconds
LONGEST = 400  # days, how far back the last reports are looked for, as in flux/
POINTS = 10_000  # at most in an answer: Prometheus takes 11,000, VictoriaMetrics 30,000
CERTIFICATES = 'domain="all",host!="",lineage!=""'
RUNS = 'host!="",lineage="",target=""'
NOT_RENEWED = "certbot could not renew it"  # of a dry run
MOMENTS = ("time", "last", "run", "due", "expiry")

Labels = dict[str, str]
Samples = list[tuple[float, float]]  # Unix seconds, values
Keys = tuple[str, ...]
Facts = dict[str, Any]


def text_of(key: str, value: Any) -> str:
    """A value as InfluxDB would write it."""
    if key in MOMENTS:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


class Prometheus:
    """`get` reads the `data` of an answer, of a path behind /api/v1/ and with parameters."""

    settings = "INFLUXDB_URL or MEASUREMENT"

    def __init__(self, get: Callable[..., Any], measurement: str, place: str) -> None:
        self.get, self.measurement, self.place, self.now = get, measurement, place, int(time.time())
        self.lacks = "Text is not kept there: not which names failed, nor why, nor for which ones another certificate is served."

    def rows(self, name: str, **parameters: float) -> list[dict[str, str]]:
        """What the query of flux/ by that name finds."""
        found: list[Facts] = getattr(self, name)(**parameters)
        return [{key: text_of(key, value) for key, value in row.items()} for row in found]

    def fields(self) -> list[str]:
        """What the measurement holds."""
        prefix = f"{self.measurement}_"
        wanted = {
            "match[]": f"{{__name__=~{json.dumps(re.escape(prefix) + '.+', ensure_ascii=False)}}}",
            "start": self.now - LONGEST * DAY,
        }
        names: set[str] = self.get(
            "series", lambda data: {one["__name__"] for one in data}, **wanted
        )
        return sorted(name[len(prefix) :] for name in names)

    def ask(self, promql: str, **span: float) -> list[tuple[Labels, Samples]]:
        """The labels and the samples of each series that is found."""

        def read(data: Any) -> list[tuple[Labels, Samples]]:
            each = [
                (one["metric"], one["values"] if "values" in one else [one["value"]])
                for one in data["result"]
            ]
            return [
                (labels, [(float(at), float(value)) for at, value in samples])
                for labels, samples in each
                if samples
            ]

        found: list[tuple[Labels, Samples]] = self.get(
            "query_range" if span else "query", read, query=promql, nocache="1", **span
        )
        return found

    def series(self, field: str, match: str = CERTIFICATES) -> str:
        """The selector of a field."""
        return (
            f"{{__name__={json.dumps(f'{self.measurement}_{field}', ensure_ascii=False)},{match}}}"
        )

    def newest(
        self, keys: Keys, match: str, fields: Keys, more: Keys = ()
    ) -> dict[Keys, dict[str, int]]:
        """The last points that have all `fields`, and perhaps some `more`, of whatever the keys tell apart. Of several series, as where a
        label was added, the one whose first fields are the newest."""
        points: dict[Keys, dict[frozenset[tuple[str, str]], dict[str, int]]] = defaultdict(
            lambda: defaultdict(dict)
        )
        for name in (*fields, *more):
            for labels, samples in self.ask(
                f"last_over_time({self.series(name, match)}[{LONGEST}d])"
            ):
                labels.pop("__name__", None)
                points[tuple(labels.get(key, "") for key in keys)][frozenset(labels.items())][
                    name
                ] = int(samples[-1][1])
        whole = {
            key: [point for point in of.values() if point.keys() >= set(fields)]
            for key, of in sorted(points.items())
            if all(key)
        }
        return {
            key: max(of, key=lambda point: [point[name] for name in fields])
            for key, of in whole.items()
            if of
        }

    def last(self, field: str, match: str, days: int) -> dict[Keys, tuple[float, float]]:
        """Time and value of the last sample, by host and lineage: all are read, so it is for what comes seldom, or from few."""
        found: dict[Keys, tuple[float, float]] = {}
        for labels, samples in self.ask(f"{self.series(field, match)}[{days}d]"):
            key = (labels.get("host", ""), labels.get("lineage", ""))
            found[key] = max(samples[-1], found.get(key, samples[-1]))
        return dict(sorted(found.items()))

    @functools.cached_property
    def states(self) -> dict[Keys, dict[str, int]]:
        """The last state of each certificate, by host and lineage."""
        fields = ("run_at", "not_before", "renewal_due", "not_after")
        return self.newest(
            ("host", "lineage"),
            CERTIFICATES,
            fields,
            ("served", "served_expiry", "seen_at", "looked_at"),
        )

    # ---- The queries ----
    def overdue(self) -> list[Facts]:
        """Judged at the evidence: the last run report, or now."""
        return [
            {
                "host": host,
                "lineage": lineage,
                "days_overdue": ((it["run_at"] or self.now) - it["renewal_due"]) / DAY
                if it["renewal_due"]
                else -1.0,
                "days_left": (it["not_after"] - self.now) / DAY if it["renewal_due"] else 0.0,
                "due": it["renewal_due"],
                "expiry": it["not_after"],
                "ended": not it["renewal_due"],
            }
            for (host, lineage), it in self.states.items()
        ]

    def certificates(self) -> list[Facts]:
        """Those that are there."""
        present = [(key, it["not_before"]) for key, it in self.states.items() if it["not_after"]]
        return [
            {"host": host, "lineage": lineage, "age_days": (self.now - begin) / DAY}
            for (host, lineage), begin in present
        ]

    def silent_hosts(self, silence: float) -> list[Facts]:
        """Every host, by its certificate that was reported least recently, and all of them."""
        half = f"{max(round(silence * DAY / 2), 1)}s"
        first, before = (
            {labels.get("host", ""): samples[-1][1] for labels, samples in self.ask(promql)}
            for promql in (
                f"min by (host) (min_over_time({self.series('run_at')}[{half}]) > 0)",
                f"max by (host) (last_over_time({self.series('run_at')}[{LONGEST}d] offset {half}) > 0)",
            )
        )
        expected: dict[str, list[tuple[int, str]]] = {host: [] for host, _ in self.states}
        for (host, lineage), it in self.states.items():
            if it["renewal_due"] and it["run_at"]:
                expected[host].append((it["run_at"], lineage))
        last = {host: min(of)[0] for host, of in expected.items() if of}
        well = [
            host
            for host in last
            if host in first
            and host in before
            and first[host] - before[host] <= 0.55 * silence * DAY
        ]
        deaf = len(last) > 2 and len(well) * 2 < len(last)
        rows = [
            (host, last.get(host, 0), [name for at, name in of if at == last[host]], deaf)
            for host, of in expected.items()
        ]
        silent = [host for host, at in last.items() if self.now - at >= silence * DAY]
        if len(last) > 2 and len(silent) * 2 > len(last):
            most = (
                max(last[host] for host in silent),
                [*silent[:10], f"({len(silent)} of {len(last)})"],
            )
        else:
            most = 0, list[str]()
        return [
            {
                "host": host,
                "last": at,
                "days_silent": (self.now - at) / DAY if at else -1.0,
                "lineages": " ".join(names) or "none",
                "deaf": is_deaf,
            }
            for host, at, names, is_deaf in [("(most hosts)", *most, False), *rows]
        ]

    def failing(self) -> list[Facts]:
        """How the last run of each host went. Only what is due can have failed, so the names are known where as many are due by the report
        of that run; else they are ""."""
        unreadable, failed, ended = (
            self.last(name, RUNS, 30)
            for name in ("unreadable_count", "failed_count", "exit_status")
        )
        rows = []
        for (host, _), (at, unread) in unreadable.items():
            run, left = failed.get((host, ""), (0.0, 0.0))
            exit_at, status = ended.get((host, ""), (0.0, -1.0))
            status = status if exit_at >= run else -1.0
            row = {
                "host": host,
                "run": max(at, run),
                "failing": bool(status > 0 or left or unread),
                "exit_status": int(status),
            }
            of_host = (
                [(name, it) for (on, name), it in self.states.items() if on == host] if left else []
            )
            late = [
                name
                for name, it in of_host
                if 0 < it["renewal_due"] <= run and it["run_at"] in (0, run)
            ]
            names = " ".join(late) if len(late) == left else ""
            texts = {"failed": names if left else "none", "unreadable": "" if unread else "none"}
            rows.append(
                {**row, "failed_count": int(left), "unreadable_count": int(unread), **texts}
            )
        return rows

    def failures(self, since: float) -> list[Facts]:
        """They are names."""
        return []

    def not_delivered(self) -> list[Facts]:
        """Every target, and what it has."""
        rows, fields = [], ("run_at", "renewed", "deployed", "deployed_expiry")
        for (host, lineage, target), it in self.newest(
            ("host", "lineage", "target"), 'target!=""', fields
        ).items():
            due, end = (
                self.states.get((host, lineage), {}).get("renewal_due"),
                it["deployed_expiry"],
            )
            missing = bool(due) and 0 < it["renewed"] > it["deployed"]
            row: Facts = {
                "host": host,
                "lineage": lineage,
                "target": target,
                "expiry": end,
                "never": not it["deployed"],
            }
            row["days_missing"] = (
                ((it["run_at"] or self.now) - it["renewed"]) / DAY if missing else -1.0
            )
            row["days_left"] = (end - self.now) / DAY if missing and end else 0.0
            rows.append({**row, "deploy_error": "none"})
        return rows

    def not_served(self) -> list[Facts]:
        """Every certificate that is looked for; another one is served where there is an expiry of one."""
        rows = []
        for (host, lineage), it in self.states.items():
            end = (
                it.get("served_expiry", 0)
                if it["renewal_due"] and it.get("looked_at", 0) >= it["run_at"] - 2 * DAY
                else 0
            )
            row: Facts = {
                "host": host,
                "lineage": lineage,
                "expiry": end,
                "not_served": "" if end else "none",
            }
            row["days_unserved"] = (
                max(it.get("seen_at", 0) - it["not_before"], 0) / DAY if end else -1.0
            )
            row["days_left"] = (end - self.now) / DAY if end else 0.0
            rows += [row] if "looked_at" in it else []
        return rows

    def dry_runs(self) -> list[Facts]:
        """How the last one of each certificate went."""
        return [
            {
                "time": at,
                "host": host,
                "lineage": lineage,
                "failed": int(failed),
                "dry_run_error": NOT_RENEWED if failed else "none",
            }
            for (host, lineage), (at, failed) in self.last(
                "dry_run_failed", CERTIFICATES, LONGEST
            ).items()
        ]

    def history(self, since: float) -> list[Facts]:
        """From the points of renewals, where the server keeps points of long ago and can say when they were; else from the states."""
        try:
            rows = self.renewals(since)
        except Exception as error:
            if "unknown function" not in str(error):
                raise
            rows = self.renewals_of_states(since)
            self.lacks += " The history is what the reports of this time tell, without names."
        return sorted(rows, key=lambda row: (row["time"], row["host"], row["lineage"]))

    def over(self, promql: str, since: float, step: int) -> list[tuple[Labels, Samples]]:
        """What a query says at each step."""
        end = (self.now // step + 1) * step
        return self.ask(
            promql,
            start=max(end - (since // step + 1) * step, end - POINTS * step),
            end=end,
            step=step,
        )

    def renewals(self, since: float) -> list[Facts]:
        """Each of them, but for a certificate that was renewed again within a step. VictoriaMetrics keeps a point as often as it was
        reported, so that reading all of them would take minutes. The names are those that were renewed in the same second, if they are as
        many as the certificate has."""
        step = DAY // 4

        def slots(
            promql: str, field: str, match: str = CERTIFICATES
        ) -> dict[tuple[str, str, float], int]:
            name = "lineage" if match == CERTIFICATES else "domain"
            found = self.over(promql.format(f"{self.series(field, match)}[{step}s]"), since, step)
            return {
                (labels["host"], labels[name], at): int(value)
                for labels, samples in found
                for at, value in samples
            }

        began = slots("tlast_over_time({})", "renewed_count")
        lifetime, due_after, count = (
            slots("last_over_time({})", field)
            for field in ("lifetime", "due_after", "renewed_count")
        )
        names: dict[tuple[str, int], set[str]] = defaultdict(set)
        for (host, domain, _), moment in slots(
            "tlast_over_time({})", "renewed_count", 'domain!="all",domain!="",host!="",lineage=""'
        ).items():
            names[host, moment].add(domain)
        at_once = Counter((host, moment) for (host, _, _), moment in began.items())
        rows = []
        for key, moment in began.items():
            host, lineage, _ = key
            known = (
                names[host, moment]
                if at_once[host, moment] == 1 and len(names[host, moment]) == count[key]
                else ()
            )
            if key in lifetime and key in due_after:
                in_order = " ".join(sorted(known, key=lambda name: (name != lineage, name)))
                row: Facts = {"time": moment, "host": host, "lineage": lineage, "names": in_order}
                rows.append(
                    {
                        **row,
                        "lifetime_days": lifetime[key] / DAY,
                        "due_after_days": due_after[key] / DAY,
                    }
                )
        return rows

    def renewals_of_states(self, since: float) -> list[Facts]:
        """When a state began to tell of another certificate than the day before."""
        begin, due, end = (
            f"last_over_time({self.series(field)}[1d])"
            for field in ("not_before", "renewal_due", "not_after")
        )
        new = (
            f"({begin} unless {begin} == last_over_time({self.series('not_before')}[1d] offset 1d))"
        )
        found: dict[tuple[str, str, float], list[float]] = defaultdict(list)
        for promql in (new, f"{end} - {begin} and {new}", f"{due} - {begin} and {new}"):
            for labels, samples in self.over(promql, since, DAY):
                for at, value in samples:
                    found[labels["host"], labels["lineage"], at].append(value)
        known = {
            (host, lineage, each[0], each[1], each[2])
            for (host, lineage, _), each in found.items()
            if len(each) == 3 and each[0]
        }
        return [
            {
                "time": int(began),
                "host": host,
                "lineage": lineage,
                "names": "",
                "lifetime_days": life / DAY,
                "due_after_days": after / DAY,
            }
            for host, lineage, began, life, after in known
        ]
