// Shows every name of every certificate, sorted by its last renewal, the oldest first. It also shows
// data of the published hook.
//
// renewed:  when the name was last renewed. If two certificates have the name, the newer one
//     counts.
// age_days: days since then.
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// How far back the query looks. A name that was not renewed in this time is not shown.
since = -400d

from(bucket: bucket)
    |> range(start: since)
    |> filter(fn: (r) => r._measurement == measurement and r._field == "renewed_count")
    |> filter(fn: (r) => r.domain != "all")
    |> last()
    |> group()
    |> sort(columns: ["_time"], desc: true)
    |> map(fn: (r) => ({r with name: r.domain + "/" + r.host}))
    |> unique(column: "name")
    |> map(
        fn: (r) =>
            ({
                domain: r.domain,
                host: r.host,
                renewed: r._time,
                age_days: float(v: int(v: now()) - int(v: r._time)) / 86400000000000.0,
            }),
    )
    |> sort(columns: ["age_days"], desc: true)
