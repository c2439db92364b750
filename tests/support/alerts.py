"""The alert pack on the real Kapacitor, with a real mail server: who gets a mail, when, and how often."""

from __future__ import annotations

import functools
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tools import ROOT
from tools.servers.influxdb import ORG, InfluxDB
from tools.servers.kapacitor import Inbox, Kapacitor
from tools.servers.processes import wait_for

HOST_TASKS = ("host_silent", "renewal_failing")


def make_load_folder(
    folder: Path,
    influxdb: InfluxDB,
    bucket: str,
    crit: str = "1.0",
    often: Sequence[str] = ("renewal_overdue",),
) -> Path:
    """A copy of kapacitor/ as an administrator adapts it: bucket, org, `crit`, and for the test a short `every` of the tasks that it is
    about; with renewal_overdue_hosts among them, that one instead of renewal_overdue."""
    every = (
        "2s" if influxdb.name == "influxd-1.8" else "500ms"
    )  # a query takes 1.8 up to a second, most of it to read the query
    load = folder / "load"
    shutil.copytree(ROOT / "kapacitor", load, dirs_exist_ok=True)
    if "renewal_overdue_hosts" in often:
        (load / "tasks" / "renewal_overdue_hosts.yaml.example").rename(
            load / "tasks" / "renewal_overdue_hosts.yaml"
        )
        (load / "tasks" / "renewal_overdue.yaml").unlink()
    for task in (load / "tasks").glob("*.yaml"):
        text = task.read_text().replace("value: telegraf", f"value: {bucket}")
        text = text.replace("value: 15m", f"value: {every}") if task.stem in often else text
        text = text.replace('value: ""', f"value: {ORG}") if influxdb.major == 2 else text
        task.write_text(text.replace("value: 1.0", f"value: {crit}"))
    return load


def wait_for_evaluations(
    kapacitor: Kapacitor, times: int = 2, tasks: Sequence[str] = ("renewal_overdue",)
) -> None:
    """Waits until all rows of each task's query were judged so many times more."""
    first = dict[str, int]()

    def judged(task: str) -> bool:
        alert = kapacitor.alert(task)
        if alert["collected"] < first.setdefault(
            task, alert["collected"]
        ):  # its load directory started it anew
            first[task] = alert["collected"]
        return alert["collected"] >= first[task] + (times + 1) * max(
            alert["working_cardinality"], 1
        )

    for task in tasks:
        wait_for(functools.partial(judged, task), f"{times} evaluations of {task}")


def critical(box: Inbox) -> Counter[str]:
    """What mails told of as not renewed: `lineage on host`."""
    return Counter(
        subject.split(":")[0]
        for subject in box.subjects()
        if ": not renewed, due since " in subject
    )


def critical_names(box: Inbox) -> Counter[str]:
    """What mails of the published query's alert told of."""
    return Counter(
        subject.split(":")[0] for subject in box.subjects() if ": not renewed for " in subject
    )


def recovered(box: Inbox) -> Counter[str]:
    """What mails told of as well again."""
    return Counter(
        subject.split(":")[0]
        for subject in box.subjects()
        if ": renewed, next due " in subject or ": no longer on" in subject
    )


def told(box: Inbox, begin: str) -> str:
    """The subject and the text of the mail whose subject begins so."""
    (mail,) = (mail for mail in box.mails if str(mail["Subject"]).startswith(begin))
    return f"{mail['Subject']}\n{mail.get_content()}"
