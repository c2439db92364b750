// Shows every host that reports dry runs, and how the last dry run of its certificates went: one row
// each, at the time of the query. The alert dry_run_failed runs this query. A dry run renews nothing,
// and does not show that certbot is started regularly: the other alerts ignore dry runs.
//
// last_dry_run: when the last dry run of the host was reported.
// certificates: how many certificates were part of a dry run.
// failed_count: for how many of them the last dry run failed. A dry run counts for 30 days.
// failed:       these certificates, separated by spaces; "none".
// errors:       why, in certbot's words: "name: reason", separated by " | "; "none".
//
// dry_run_results.flux shows each certificate.
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// How far back the query looks. It must be longer than 30 days. Otherwise a host has no row when its
// last dry run no longer counts, and its alert does not resolve.
since = -60d

counts_since = int(v: now()) - 30 * 86400000000000

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

union(
    tables: [
        last_of(fields: (r) => r._field == "dry_run_failed") |> toString(),
        last_of(fields: (r) => r._field == "dry_run_error"),
    ],
)
    |> pivot(rowKey: ["_time", "host", "lineage"], columnKey: ["_field"], valueColumn: "_value")
    |> filter(fn: (r) => exists r.dry_run_failed and exists r.dry_run_error)
    |> sort(columns: ["_time"], desc: true)
    |> map(fn: (r) => ({r with certificate: r.host + "/" + r.lineage}))
    |> unique(column: "certificate")
    |> group(columns: ["host"])
    |> sort(columns: ["lineage"])
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                lineage: r.lineage,
                reported_at: int(v: r._time),
                has_failed: int(v: r.dry_run_failed) > 0 and int(v: r._time) >= counts_since,
                error: r.dry_run_error,
            }),
    )
    |> reduce(
        identity: {
            last_dry_run: 0,
            certificates: 0,
            failed_count: 0,
            failed: "none",
            errors: "none",
        },
        fn: (r, accumulator) =>
            ({
                last_dry_run:
                    if r.reported_at > accumulator.last_dry_run then
                        r.reported_at
                    else
                        accumulator.last_dry_run,
                certificates: accumulator.certificates + 1,
                failed_count:
                    if r.has_failed then
                        accumulator.failed_count + 1
                    else
                        accumulator.failed_count,
                failed:
                    if not r.has_failed then
                        accumulator.failed
                    else if accumulator.failed_count == 0 then
                        r.lineage
                    else
                        accumulator.failed + " " + r.lineage,
                errors:
                    if not r.has_failed then
                        accumulator.errors
                    else if accumulator.failed_count == 0 then
                        r.lineage + ": " + r.error
                    else
                        accumulator.errors + " | " + r.lineage + ": " + r.error,
            }),
    )
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                _time: now(),
                last_dry_run: time(v: r.last_dry_run),
                certificates: r.certificates,
                failed_count: r.failed_count,
                failed: r.failed,
                errors: r.errors,
            }),
    )
