// Shows every host that sends run reports, and how its last certbot run went: one row each, at the
// time of the query. The alert renewal_failing runs this query.
//
// last_report: the time of the last run report.
// failing: true if certbot failed, a due certificate was not renewed, or certbot could not read a
//     certificate. A report that does not come from a certbot run, for example a report by hand, has
//     no result of certbot. Then the result of the last run stays.
// exit_status: certbot's exit status; -1 if it is not known, for example from the post hook alone.
// failed, unreadable: the certificates that were not renewed, or could not be read, separated by
//     spaces; "none".
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// How far back the query looks for the last run of a host.
since = -30d

from(bucket: bucket)
    |> range(start: since)
    |> filter(fn: (r) => r._measurement == measurement)
    |> filter(
        fn: (r) =>
            r._field == "failed_count" or r._field == "unreadable_count" or r._field
                ==
                "exit_status" or r._field == "failed" or r._field == "unreadable",
    )
    |> last()
    |> toString()
    |> filter(fn: (r) => exists r.host)
    |> group(columns: ["host", "_field"])
    |> sort(columns: ["_time"])
    |> last()
    |> group(columns: ["host"])
    |> reduce(
        identity: {
            reported_at: 0,
            run_at: 0,
            exit_at: 0,
            exit_status: -1,
            failed_count: 0,
            unreadable_count: 0,
            failed: "none",
            unreadable: "none",
        },
        fn: (r, accumulator) =>
            ({
                reported_at:
                    if int(v: r._time) > accumulator.reported_at then
                        int(v: r._time)
                    else
                        accumulator.reported_at,
                run_at: if r._field == "failed_count" then int(v: r._time) else accumulator.run_at,
                exit_at: if r._field == "exit_status" then int(v: r._time) else accumulator.exit_at,
                exit_status:
                    if r._field == "exit_status" then int(v: r._value) else accumulator.exit_status,
                failed_count:
                    if r._field == "failed_count" then
                        int(v: r._value)
                    else
                        accumulator.failed_count,
                unreadable_count:
                    if r._field == "unreadable_count" then
                        int(v: r._value)
                    else
                        accumulator.unreadable_count,
                failed: if r._field == "failed" then r._value else accumulator.failed,
                unreadable: if r._field == "unreadable" then r._value else accumulator.unreadable,
            }),
    )
    |> map(fn: (r) => ({r with exit_status: if r.exit_at < r.run_at then -1 else r.exit_status}))
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                _time: now(),
                last_report: time(v: r.reported_at),
                failing: r.exit_status > 0 or r.failed_count > 0 or r.unreadable_count > 0,
                exit_status: r.exit_status,
                failed_count: r.failed_count,
                unreadable_count: r.unreadable_count,
                failed: if r.failed_count > 0 then r.failed else "none",
                unreadable: if r.unreadable_count > 0 then r.unreadable else "none",
            }),
    )
