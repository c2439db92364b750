// Every host, and for how many days its run reports have been missing: one row each, at the time of the query.
// The alert host_silent runs exactly this.
//
// days_silent: since the last run report of the certificate that was reported least recently; -1 for a host without run reports, or
//     with nothing but certificates that ended.
// lineages:    that certificate, and those that were reported with it: two installations that share a host tag are one host, and it is
//     silent when one of them is.
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// How far back to look for the last report of a certificate. At least as far as the longest lifetime among your certificates.
// InfluxDB 1.8 reads all of it, newer ones only the last.
since = -400d

second = 1000000000

from(bucket: bucket)
    |> range(start: since)
    |> filter(fn: (r) => r._measurement == measurement and r.domain == "all")
    |> filter(
        fn: (r) => r._field == "renewal_due" or r._field == "not_after" or r._field == "run_at",
    )
    |> last()
    |> filter(fn: (r) => exists r.host and exists r.lineage)
    |> group()
    |> pivot(rowKey: ["_time", "host", "lineage"], columnKey: ["_field"], valueColumn: "_value")
    |> filter(fn: (r) => exists r.renewal_due and exists r.not_after and exists r.run_at)
    |> sort(columns: ["_time"], desc: true)
    |> map(fn: (r) => ({r with certificate: r.host + "/" + r.lineage}))
    |> unique(column: "certificate")
    |> group(columns: ["host"])
    |> sort(columns: ["lineage"])
    |> reduce(
        identity: {last: 0, lineages: "none"},
        fn: (r, accumulator) =>
            ({
                last:
                    if r.renewal_due == 0 or r.run_at == 0 or r.run_at > accumulator.last
                                and
                                accumulator.last > 0
                    then
                        accumulator.last
                    else
                        r.run_at,
                lineages:
                    if r.renewal_due == 0 or r.run_at == 0 or r.run_at > accumulator.last
                                and
                                accumulator.last > 0
                    then
                        accumulator.lineages
                    else if r.run_at == accumulator.last then
                        accumulator.lineages + " " + r.lineage
                    else
                        r.lineage,
            }),
    )
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                _time: now(),
                last: time(v: r.last * second),
                days_silent:
                    if r.last == 0 then
                        -1.0
                    else
                        float(v: int(v: now()) / second - r.last) / 86400.0,
                lineages: r.lineages,
            }),
    )
