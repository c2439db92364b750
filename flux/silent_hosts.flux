// Every host, and for how many days its run reports have been missing: one row each, at the time of the query.
// The alert host_silent runs exactly this.
//
// days_silent: since the last run report of the certificate that was reported least recently; -1 for a host without run reports, or
//     with nothing but certificates that ended.
// lineages:    that certificate, and those that were reported with it: two installations that share a host tag are one host, and it is
//     silent when one of them is.
// deaf:        in one of the last two halves of `silence`, fewer than half of the hosts were heard. Then InfluxDB was away rather than the
//     hosts, and a host that is silent is not judged until it has had the time to report again. Fewer than three hosts are always judged.
//
// The row "(most hosts)" tells when more than half of three or more hosts are silent, and for how long; -1 otherwise.
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// Days without a run report from which on a host is silent.
silence = 2.0

// How far back to look for the last report of a certificate. At least as far as the longest lifetime among your certificates.
// InfluxDB 1.8 reads all of it, newer ones only the last.
since = -400d

second = 1000000000
begin = int(v: now()) - int(v: float(v: silence) * 86400000000000.0)
half = int(v: now()) - int(v: float(v: silence) * 43200000000000.0)
hosts = () =>
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
        |> group()
heard = (start, stop) =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == measurement and r._field == "certificates")
        |> last()
        |> filter(fn: (r) => exists r.host)
        |> group()
        |> unique(column: "host")
fleet =
    union(
        tables: [
            hosts()
                |> map(
                    fn: (r) =>
                        ({
                            host: r.host,
                            last: r.last,
                            known: 1,
                            hosts: if r.last > 0 then 1 else 0,
                            lately: 0,
                            before: 0,
                        }),
                ),
            heard(start: time(v: half), stop: now())
                |> map(
                    fn: (r) =>
                        ({
                            host: r.host,
                            last: 0,
                            known: 0,
                            hosts: 0,
                            lately: 1,
                            before: 0,
                        }),
                ),
            heard(start: time(v: begin), stop: time(v: half))
                |> map(
                    fn: (r) =>
                        ({
                            host: r.host,
                            last: 0,
                            known: 0,
                            hosts: 0,
                            lately: 0,
                            before: 1,
                        }),
                ),
        ],
    )
        |> group()
        |> sort(columns: ["host"])
        |> reduce(
            identity: {
                known: 0,
                hosts: 0,
                lately: 0,
                before: 0,
                silent: 0,
                newest: 0,
                names: "",
            },
            fn: (r, accumulator) =>
                ({
                    known: accumulator.known + r.known,
                    hosts: accumulator.hosts + r.hosts,
                    lately: accumulator.lately + r.lately,
                    before: accumulator.before + r.before,
                    silent:
                        if r.last > 0 and r.last * second <= begin then
                            accumulator.silent + 1
                        else
                            accumulator.silent,
                    newest:
                        if r.last * second <= begin and r.last > accumulator.newest then
                            r.last
                        else
                            accumulator.newest,
                    names:
                        if r.last > 0 and r.last * second <= begin and accumulator.silent < 10 then
                            accumulator.names + r.host + " "
                        else
                            accumulator.names,
                }),
        )
        |> filter(fn: (r) => r.known > 0)
        |> map(fn: (r) => ({r with all: 1}))

union(
    tables: [
        join(
            tables: {host: hosts() |> map(fn: (r) => ({r with all: 1})), fleet: fleet},
            on: ["all"],
        )
            |> map(
                fn: (r) =>
                    ({
                        host: r.host,
                        last: r.last,
                        lineages: r.lineages,
                        deaf: r.hosts > 2 and (r.lately * 2 < r.hosts or r.before * 2 < r.hosts),
                    }),
            ),
        fleet
            |> map(
                fn: (r) =>
                    ({
                        host: "(most hosts)",
                        last: if r.hosts > 2 and r.silent * 2 > r.hosts then r.newest else 0,
                        lineages:
                            if r.hosts > 2 and r.silent * 2 > r.hosts then
                                r.names + "(" + string(v: r.silent) + " of " + string(v: r.hosts)
                                    +
                                    ")"
                            else
                                "none",
                        deaf: false,
                    }),
            ),
    ],
)
    |> group(columns: ["host"])
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
                deaf: r.deaf,
            }),
    )
