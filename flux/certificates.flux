// Shows every certificate, the oldest first.
//
// age_days:     days since the certificate began (its notBefore).
// next_renewal: when the next renewal is due.
// expiry:       when the certificate expires.
// staging:      true if a staging CA issued the certificate. Browsers do not trust it.
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

states =
    from(bucket: bucket)
        |> range(start: since)
        |> filter(fn: (r) => r._measurement == measurement and r.domain == "all")
        |> filter(
            fn: (r) =>
                r._field == "not_before" or r._field == "renewal_due" or r._field == "not_after"
                    or
                    r._field == "staging",
        )
        |> last()
        |> filter(fn: (r) => exists r.host and exists r.lineage)
        |> group()

// InfluxDB 1.8 refuses a query with a column that no point has. Reports of older programs have no
// field staging. This row has it; it is about no certificate, and a filter drops it.
with_staging =
    states
        |> limit(n: 1)
        |> map(
            fn: (r) =>
                ({r with
                    _time: time(v: 0),
                    host: "",
                    lineage: "",
                    _field: "staging",
                    _value: 0,
                }),
        )

union(tables: [states, with_staging])
    |> pivot(rowKey: ["_time", "host", "lineage"], columnKey: ["_field"], valueColumn: "_value")
    |> filter(fn: (r) => exists r.not_before and exists r.renewal_due and exists r.not_after)
    |> sort(columns: ["_time"], desc: true)
    |> map(fn: (r) => ({r with certificate: r.host + "/" + r.lineage}))
    |> unique(column: "certificate")
    |> filter(fn: (r) => r.not_after > 0)
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                lineage: r.lineage,
                age_days: float(v: int(v: now()) / second - r.not_before) / 86400.0,
                next_renewal: time(v: r.renewal_due * second),
                expiry: time(v: r.not_after * second),
                staging: exists r.staging and r.staging > 0,
            }),
    )
    |> sort(columns: ["age_days"], desc: true)
