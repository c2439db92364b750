// Every certificate that a dry run of certbot was reported of, and how the last one went: one row each. A dry run is no renewal, and says
// nothing of whether certbot is started: no alert looks at it.
//
// failed:        1 where certbot could not renew it, else 0.
// dry_run_error: why, in certbot's words; "none" where it could.
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// How far back to look for the last dry run of a certificate.
since = -400d

last_of = (field) =>
    from(bucket: bucket)
        |> range(start: since)
        |> filter(fn: (r) => r._measurement == measurement and r.domain == "all")
        |> filter(fn: (r) => r._field == field)
        |> last()
        |> filter(fn: (r) => exists r.host and exists r.lineage)
        |> group()

union(tables: [last_of(field: "dry_run_failed") |> toString(), last_of(field: "dry_run_error")])
    |> pivot(rowKey: ["_time", "host", "lineage"], columnKey: ["_field"], valueColumn: "_value")
    |> filter(fn: (r) => exists r.dry_run_failed and exists r.dry_run_error)
    |> sort(columns: ["_time"], desc: true)
    |> map(fn: (r) => ({r with certificate: r.host + "/" + r.lineage}))
    |> unique(column: "certificate")
    |> map(
        fn: (r) =>
            ({
                time: r._time,
                host: r.host,
                lineage: r.lineage,
                failed: int(v: r.dry_run_failed),
                dry_run_error: r.dry_run_error,
            }),
    )
    |> sort(columns: ["host", "lineage"])
