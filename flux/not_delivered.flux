// Every certificate and every target of certbot_renewal_deliver.py that it goes to, and for how many days the target has lacked the
// renewed one: one row each, at the time of the query.
// The alert certificate_not_delivered runs exactly this.
//
// days_missing: since the renewal, at the evidence: on a host that sends run reports the last of them, elsewhere now. -1: the target has it.
// days_left:    until the one that the target has expires; negative: it has expired. 0 where it never got one, or there is nothing to judge.
// never:        the target never got any.
// deploy_error: why the last try failed; "none": it did not fail, or there was none since the renewal.
// ended:        the certificate no longer goes to this target, or is no longer on this host.
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// How far back to look for the last report of a certificate. At least as far as the longest lifetime among your certificates.
since = -400d

second = 1000000000
last_of = (fields) =>
    from(bucket: bucket)
        |> range(start: since)
        |> filter(fn: (r) => r._measurement == measurement)
        |> filter(fn: fields)
        |> last()
        |> filter(fn: (r) => exists r.host and exists r.lineage)
        |> group()

// When each certificate is due, or 0: it ended. It stands before the certificate's targets and is summed up: a join takes minutes.
ends =
    last_of(fields: (r) => r.domain == "all" and r._field == "renewal_due")
        |> sort(columns: ["_time"], desc: true)
        |> map(
            fn: (r) =>
                ({
                    key: r.host + "/" + r.lineage,
                    host: r.host,
                    lineage: r.lineage,
                    target: "none",
                    number: 0,
                    due: r._value,
                    deployed: 0,
                    expiry: 0,
                    renewed: 0,
                    run_at: 0,
                    deploy_error: "none",
                }),
        )
        |> unique(column: "key")
moments =
    last_of(
        fields: (r) =>
            r.target != "" and (r._field == "deployed" or r._field == "deployed_expiry" or r._field
                    ==
                    "renewed" or r._field == "run_at"),
    )
errors = last_of(fields: (r) => r.target != "" and r._field == "deploy_error")
deliveries =
    union(tables: [moments |> toString(), errors])
        |> filter(fn: (r) => exists r.target)
        |> pivot(
            rowKey: ["_time", "host", "lineage", "target"],
            columnKey: ["_field"],
            valueColumn: "_value",
        )
        |> filter(fn: (r) => exists r.deployed and exists r.renewed and exists r.deploy_error)
        |> sort(columns: ["_time"], desc: true)
        |> map(
            fn: (r) =>
                ({
                    key: r.host + "/" + r.lineage + "/" + r.target,
                    host: r.host,
                    lineage: r.lineage,
                    target: r.target,
                    number: 1,
                    due: 0,
                    deployed: int(v: r.deployed),
                    expiry: int(v: r.deployed_expiry),
                    renewed: int(v: r.renewed),
                    run_at: int(v: r.run_at),
                    deploy_error: r.deploy_error,
                }),
        )
        |> unique(column: "key")

union(tables: [ends, deliveries])
    |> group(columns: ["host", "lineage"])
    |> sort(columns: ["number"])
    |> cumulativeSum(columns: ["due"])
    |> filter(fn: (r) => r.number == 1)
    |> group()
    |> map(
        fn: (r) =>
            ({r with seen: if r.run_at > 0 then r.run_at else int(v: now()) / second,
                missing: r.renewed > 0 and r.due > 0 and r.deployed < r.renewed,
            }),
    )
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                lineage: r.lineage,
                target: r.target,
                _time: now(),
                days_missing: if r.missing then float(v: r.seen - r.renewed) / 86400.0 else -1.0,
                days_left:
                    if r.missing and r.expiry > 0 then
                        float(v: r.expiry - int(v: now()) / second) / 86400.0
                    else
                        0.0,
                renewed: time(v: r.renewed * second),
                expiry: time(v: r.expiry * second),
                never: r.deployed == 0,
                deploy_error: r.deploy_error,
                ended: r.renewed == 0 or r.due == 0,
            }),
    )
    |> group(columns: ["host", "lineage", "target"])
