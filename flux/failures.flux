// Shows every certbot run that failed to renew or to read a certificate, the newest first.
//
// time: when the run was reported.
// failed, unreadable: the certificates that were not renewed, or could not be read, separated by
//     spaces; "none".
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// How far back the query looks.
since = -400d

from(bucket: bucket)
    |> range(start: since)
    |> filter(fn: (r) => r._measurement == measurement)
    |> filter(fn: (r) => r._field == "failed" or r._field == "unreadable")
    |> filter(fn: (r) => exists r.host)
    |> group()
    |> map(
        fn: (r) =>
            ({
                time: r._time,
                host: r.host,
                failed: if r._field == "failed" then r._value else "none",
                unreadable: if r._field == "unreadable" then r._value else "none",
            }),
    )
    |> sort(columns: ["time", "host"], desc: true)
