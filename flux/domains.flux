// All names at a glance: name, host, when its certificate was last renewed, and the days since; the oldest first. A name in two
// certificates shows the newer one. Works on what the published hook wrote, too.
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// How far back to look. A name that was not renewed in this time is not shown.
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
