// Shows the last dry run of every certificate for which a dry run was reported. dry_runs.flux, which
// the alert dry_run_failed runs, shows the hosts.
//
// time:          when the dry run was reported.
// failed:        1 if certbot could not renew the certificate, else 0.
// dry_run_error: the reason in certbot's words; "none" if the dry run succeeded.
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// How far back the query looks for the last dry run of a certificate.
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
