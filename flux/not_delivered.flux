// Shows every certificate and every target to which it is delivered, and for how many days the
// target has lacked the renewed certificate: one row each, at the time of the query. The alert
// certificate_not_delivered runs this query.
//
// days_missing:    days from the renewal until the last run report of the host arrived. On a host
//     without run reports: to the time of the query. -1 if the target has the renewed certificate.
// days_left:       days until the old certificate on the target expires; negative: it has expired.
//     0 if the target never received a certificate, or if nothing is missing.
// renewed, expiry: when the certificate was renewed, and when the old one on the target expires.
// never_delivered: true if the target never received a certificate.
// deploy_error:    why the last delivery failed; "none" if it did not fail, or if no delivery was
//     tried since the renewal.
// retired:         true if the certificate is no longer delivered to this target, or is no longer
//     on this host.
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// How far back the query looks for the last report of a certificate. Set it to the longest lifetime
// of your certificates, or longer.
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

// The due date of each certificate, or 0 if it is retired. This row is sorted before the rows of
// the certificate's targets, and cumulativeSum carries the date to them: a join would take minutes.
due_dates =
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
                    judged_at: 0,
                    deploy_error: "none",
                }),
        )
        |> unique(column: "key")
times =
    last_of(
        fields: (r) =>
            r.target != "" and (r._field == "deployed" or r._field == "deployed_expiry" or r._field
                    ==
                    "renewed" or r._field == "run_at"),
    )
errors = last_of(fields: (r) => r.target != "" and r._field == "deploy_error")
deliveries =
    union(tables: [times |> toString(), errors])
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
                    judged_at: if int(v: r.run_at) > 0 then int(v: r._time) else int(v: now()),
                    deploy_error: r.deploy_error,
                }),
        )
        |> unique(column: "key")

union(tables: [due_dates, deliveries])
    |> group(columns: ["host", "lineage"])
    |> sort(columns: ["number"])
    |> cumulativeSum(columns: ["due"])
    |> filter(fn: (r) => r.number == 1)
    |> group()
    |> map(fn: (r) => ({r with missing: r.renewed > 0 and r.due > 0 and r.deployed < r.renewed}))
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                lineage: r.lineage,
                target: r.target,
                _time: now(),
                days_missing:
                    if r.missing then
                        float(v: r.judged_at / second - r.renewed) / 86400.0
                    else
                        -1.0,
                days_left:
                    if r.missing and r.expiry > 0 then
                        float(v: r.expiry - int(v: now()) / second) / 86400.0
                    else
                        0.0,
                renewed: time(v: r.renewed * second),
                expiry: time(v: r.expiry * second),
                never_delivered: r.deployed == 0,
                deploy_error: r.deploy_error,
                retired: r.renewed == 0 or r.due == 0,
            }),
    )
    |> group(columns: ["host", "lineage", "target"])
