// Shows every host that reports runs of certbot, and how the last run went: a row for each step of
// the incident, at the time of the query. The alert renewal_failing runs this query.
//
// step: an incident begins with step 1. Each report in which a further certificate fails, one that
//     did not fail in the incident before, is a further step. A host has a row for every step that it
//     reached in the last 30 days, at most 5, and always for step 1. So the alert fires again when
//     more certificates fail, and not when fewer do. A higher step counts as 5.
// last_report: when the host last reported, about a certbot run or not.
// failing: true if the incident has reached this step. False in all rows if the last run succeeded.
//     A report that is not about a certbot run, for example a report by hand, does not change it.
// exit_status: certbot's exit status; -1 if it is not known, for example from the post hook alone.
// failed, unreadable: the certificates that were not renewed, or could not be read, separated by
//     spaces; "none".
// failures: why, in certbot's words: `name: reason`, separated by " | "; "none".
// failure: why the run as a whole failed; "none".
//
// If a tag is added or removed, for example by Telegraf, the points form another series. The newest
// report of a host counts.
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// How far back the query looks for the last run of a host.
since = -30d

// The newest value of each field of a host, the newest first. What is older than the last run is of
// another run: a point has no text where there is nothing to say.
hosts =
    from(bucket: bucket)
        |> range(start: since)
        |> filter(fn: (r) => r._measurement == measurement and not exists r.domain and r.host != "")
        |> filter(
            fn: (r) =>
                r._field == "failing" or r._field == "steps" or r._field == "retired" or r._field
                    ==
                    "exit_status" or r._field == "failed_count" or r._field == "unreadable_count"
                    or
                    r._field == "failed" or r._field == "unreadable" or r._field == "failures"
                    or
                    r._field == "failure",
        )
        |> last()
        |> toString()
        |> group()
        |> sort(columns: ["_time"], desc: true)
        |> map(
            fn: (r) =>
                ({
                    host: r.host,
                    _time: r._time,
                    _field: r._field,
                    _value: r._value,
                    host_and_field: r.host + "/" + r._field,
                }),
        )
        |> unique(column: "host_and_field")
        |> group(columns: ["host"])
        |> sort(columns: ["_time"], desc: true)
        |> reduce(
            identity: {
                reported_at: 0,
                run_at: 0,
                failing: 0,
                steps: 1,
                exit_status: -1,
                failed_count: 0,
                unreadable_count: 0,
                failed: "none",
                unreadable: "none",
                failures: "none",
                failure: "none",
            },
            fn: (r, accumulator) =>
                ({
                    reported_at:
                        if accumulator.reported_at == 0 then
                            int(v: r._time)
                        else
                            accumulator.reported_at,
                    run_at: if r._field == "failing" then int(v: r._time) else accumulator.run_at,
                    failing:
                        if r._field == "failing" then int(v: r._value) else accumulator.failing,
                    steps:
                        if r._field == "steps" and int(v: r._value) > accumulator.steps then
                            int(v: r._value)
                        else if r._field == "retired" and r._value == "1" then
                            5
                        else
                            accumulator.steps,
                    exit_status:
                        if r._field == "exit_status" then
                            int(v: r._value)
                        else
                            accumulator.exit_status,
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
                    failed:
                        if r._field == "failed" and int(v: r._time) >= accumulator.run_at then
                            r._value
                        else
                            accumulator.failed,
                    unreadable:
                        if r._field == "unreadable" and int(v: r._time) >= accumulator.run_at then
                            r._value
                        else
                            accumulator.unreadable,
                    failures:
                        if r._field == "failures" and int(v: r._time) >= accumulator.run_at then
                            r._value
                        else
                            accumulator.failures,
                    failure:
                        if r._field == "failure" and int(v: r._time) >= accumulator.run_at then
                            r._value
                        else
                            accumulator.failure,
                }),
        )
        |> group()
        |> filter(fn: (r) => r.run_at > 0)

rows_of = (step) =>
    hosts
        |> filter(fn: (r) => r.steps >= step)
        |> map(
            fn: (r) =>
                ({
                    host: r.host,
                    step: string(v: step),
                    _time: now(),
                    last_report: time(v: r.reported_at),
                    failing: r.failing >= step,
                    exit_status: r.exit_status,
                    failed_count: r.failed_count,
                    unreadable_count: r.unreadable_count,
                    failed: if r.failed_count > 0 then r.failed else "none",
                    unreadable: if r.unreadable_count > 0 then r.unreadable else "none",
                    failures: if r.failing > 0 then r.failures else "none",
                    failure: if r.failing > 0 then r.failure else "none",
                }),
        )

union(
    tables: [
        rows_of(step: 1),
        rows_of(step: 2),
        rows_of(step: 3),
        rows_of(step: 4),
        rows_of(step: 5),
    ],
)
    |> group(columns: ["host", "step"])
