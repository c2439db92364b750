// Every host that sends run reports, and how its last run of certbot went: one row each, at the time of the query.
// The alert renewal_failing runs exactly this.
//
// failing:     certbot ended with an error, or a certificate that was due was not renewed, or one could not be read.
// exit_status: of certbot; -1 where it is not known, as where only the post hook reports.
// run:         the last report. One that comes from no run of certbot, as by hand, does not say how certbot went: what the last one
//     that did says stays.
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// How far back to look for the last run of a host.
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
            at: 0,
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
                at: if int(v: r._time) > accumulator.at then int(v: r._time) else accumulator.at,
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
                run: time(v: r.at),
                failing: r.exit_status > 0 or r.failed_count > 0 or r.unreadable_count > 0,
                exit_status: r.exit_status,
                failed_count: r.failed_count,
                unreadable_count: r.unreadable_count,
                failed: if r.failed_count > 0 then r.failed else "none",
                unreadable: if r.unreadable_count > 0 then r.unreadable else "none",
            }),
    )
