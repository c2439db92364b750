// Every renewal in a range of time, for an auditor: when the certificate began, host, lineage, how many names, and which. Names of
// certificates that began in the same second on the same host cannot be told apart: each then has the names of all.
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// The range.
since = -400d

renewals = (all) =>
    from(bucket: bucket)
        |> range(start: since)
        |> filter(fn: (r) => r._measurement == measurement and r._field == "renewed_count")
        |> filter(fn: all)
certificates =
    renewals(all: (r) => r.domain == "all")
        |> group()
        |> filter(fn: (r) => exists r.lineage)
        |> group(columns: ["_time", "host"])
        |> unique(column: "lineage")
        |> group()
        |> keep(columns: ["_time", "host", "lineage", "_value"])
names =
    renewals(all: (r) => r.domain != "all")
        |> group(columns: ["_time", "host"])
        |> unique(column: "domain")
        |> sort(columns: ["domain"])
        |> reduce(
            identity: {names: ""},
            fn: (r, accumulator) =>
                ({
                    names:
                        accumulator.names + (if accumulator.names == "" then "" else " ")
                            +
                            r.domain,
                }),
        )
        |> group()

join(tables: {c: certificates, n: names}, on: ["_time", "host"])
    |> map(
        fn: (r) =>
            ({
                time: r._time,
                host: r.host,
                lineage: r.lineage,
                count: int(v: r._value),
                names: r.names,
            }),
    )
    |> sort(columns: ["time", "host", "lineage"])
