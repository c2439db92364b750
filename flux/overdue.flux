// Shows every certificate, and by how many days its renewal is overdue: one row each, at the time
// of the query. The alert renewal_overdue runs this query.
//
// days_overdue: days from the due date to judged_at; negative: the renewal is not yet due. -1 for a
//     retired certificate.
// grace_days:   half of the days between due date and expiry. The alert fires when days_overdue is
//     crit (1.0) or grace_days, whichever is less. So a certificate of a day is reported before it
//     expires. 1 for a retired certificate.
// judged_at:    when the last run report of the host arrived, because a lost report is not a missed
//     renewal. On a host without run reports: the time of the query.
// days_left:    days until the certificate expires; negative: it has expired. 0 if it is retired.
// due, expiry:  when the renewal was or is due, and when the certificate expires.
// failure:      why certbot does not renew the certificate, in certbot's words; "none".
// retired:      true if the certificate is no longer on this host.
//
// If a tag is added or removed, for example by Telegraf, the points form another series. The newest
// report of a certificate counts.
//
// To show only overdue certificates, the worst first and in one table, add these lines at the end:
//     |> filter(fn: (r) => r.days_overdue >= 1.0 or r.days_overdue >= r.grace_days)
//     |> group() |> sort(columns: ["days_overdue"], desc: true)
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// How far back the query looks for the last report of a certificate. Set it to the longest lifetime
// of your certificates, or longer. InfluxDB 1.8 reads all reports of this time, newer versions only
// the last one.
since = -400d

second = 1000000000

// The year 2255, in Unix seconds. Flux has no later time.
latest = 9000000000

time_of = (seconds) => time(v: (if seconds < latest then seconds else latest) * second)
last_of = (fields) =>
    from(bucket: bucket)
        |> range(start: since)
        |> filter(
            fn: (r) =>
                r._measurement == measurement and r.domain == "all" and r.host != "" and r.lineage
                    !=
                    "",
        )
        |> filter(fn: fields)
        |> last()
        |> group()

// The newest state of each certificate. Its numbers and its text become columns of one table.
certificates =
    union(
        tables: [
            last_of(
                fields: (r) =>
                    r._field == "renewal_due" or r._field == "not_after" or r._field == "run_at",
            )
                |> toString(),
            last_of(fields: (r) => r._field == "failure"),
        ],
    )
        |> pivot(rowKey: ["_time", "host", "lineage"], columnKey: ["_field"], valueColumn: "_value")
        |> filter(
            fn: (r) =>
                exists r.renewal_due and exists r.not_after and exists r.run_at
                    and
                    exists r.failure,
        )
        |> sort(columns: ["_time"], desc: true)
        |> map(
            fn: (r) =>
                ({
                    certificate: r.host + "/" + r.lineage,
                    host: r.host,
                    lineage: r.lineage,
                    _time: r._time,
                    renewal_due: int(v: r.renewal_due),
                    not_after: int(v: r.not_after),
                    run_at: int(v: r.run_at),
                    failure: r.failure,
                }),
        )
        |> unique(column: "certificate")
        |> map(
            fn: (r) =>
                ({
                    host: r.host,
                    lineage: r.lineage,
                    _time: now(),
                    days_overdue:
                        if r.renewal_due == 0 then
                            -1.0
                        else if r.run_at > 0 then
                            float(v: int(v: r._time) / second - r.renewal_due) / 86400.0
                        else
                            float(v: int(v: now()) / second - r.renewal_due) / 86400.0,
                    grace_days:
                        if r.renewal_due == 0 then
                            1.0
                        else if r.not_after < r.renewal_due then
                            0.0
                        else
                            float(v: r.not_after - r.renewal_due) / 172800.0,
                    days_left:
                        if r.renewal_due == 0 then
                            0.0
                        else
                            float(v: r.not_after - int(v: now()) / second) / 86400.0,
                    due: time_of(seconds: r.renewal_due),
                    expiry: time_of(seconds: r.not_after),
                    judged_at: if r.run_at > 0 then r._time else now(),
                    failure: r.failure,
                    retired: r.renewal_due == 0,
                }),
        )

// Only certificates whose renewal is due have a table of their own, with two rows: at the due date
// and at the evidence. A due date before 1970 is no time for stateDuration.
is_due = (r) => r.days_overdue >= 0.0 and int(v: r.due) > 0
due_certificates = certificates |> filter(fn: is_due)
in_state =
    union(
        tables: [
            due_certificates |> map(fn: (r) => ({r with _time: r.due})),
            due_certificates |> map(fn: (r) => ({r with _time: r.judged_at})),
        ],
    )
        |> group(columns: ["host", "lineage"])
        |> sort(columns: ["_time"])
        |> stateDuration(fn: (r) => r._time >= r.due, unit: 1s)
        |> last(column: "stateDuration")
        |> group()
        |> map(
            fn: (r) =>
                ({
                    host: r.host,
                    lineage: r.lineage,
                    _time: now(),
                    days_overdue: float(v: r.stateDuration) / 86400.0,
                    grace_days: r.grace_days,
                    days_left: r.days_left,
                    due: r.due,
                    expiry: r.expiry,
                    judged_at: r.judged_at,
                    failure: r.failure,
                    retired: r.retired,
                }),
        )

union(tables: [certificates |> filter(fn: (r) => not is_due(r: r)), in_state])
    |> group(columns: ["host", "lineage"])
