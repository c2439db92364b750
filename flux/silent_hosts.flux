// Every host, and for how many days its run reports have been missing: one row each, at the time of the query.
// The alert host_silent runs exactly this.
//
// days_silent: since the last run report of the certificate that was reported least recently; -1 for a host without run reports, or
//     with nothing but certificates that ended.
// lineages:    that certificate, and those that were reported with it: two installations that share a host tag are one host, and it is
//     silent when one of them is.
// deaf:        most hosts were away, and came back less than half of `silence` ago or not yet: the first report of such a host in that time
//     came more than 0.55 * silence after the one before, or there is none. Then InfluxDB was away rather than the hosts, and a host that
//     is silent is not judged until it has had the time to report again. Fewer than three hosts are always judged.
//
// The row "(most hosts)" tells when more than half of three or more hosts are silent, and for how long; -1 otherwise.
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// Days without a run report from which on a host is silent. At least twice the time between two runs of certbot, or all hosts always
// seem to have been away.
silence = 2.0

// How far back to look for the last report of a certificate. At least as far as the longest lifetime among your certificates.
// InfluxDB 1.8 reads all of it, newer ones only the last.
since = -400d

second = 1000000000
begin = int(v: now()) - int(v: float(v: silence) * 86400000000000.0)
half = int(v: now()) - int(v: float(v: silence) * 43200000000000.0)
away = int(v: float(v: silence) * 47520000000000.0)
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
fleet =
    union(
        tables: [
            hosts() |> map(fn: (r) => ({host: r.host, last: r.last, at: 0})),
            from(bucket: bucket)
                |> range(start: time(v: half - away))
                |> filter(fn: (r) => r._measurement == measurement and r._field == "certificates")
                |> filter(fn: (r) => exists r.host)
                |> group()
                |> map(fn: (r) => ({host: r.host, last: 0, at: int(v: r._time)})),
        ],
    )
        |> group()
        |> sort(columns: ["host", "at"])
        |> reduce(
            identity: {
                known: 0,
                hosts: 0,
                well: 0,
                silent: 0,
                newest: 0,
                names: "",
                of: "",
                at: 0,
            },
            fn: (r, accumulator) =>
                ({
                    known: if r.at == 0 then accumulator.known + 1 else accumulator.known,
                    hosts: if r.last > 0 then accumulator.hosts + 1 else accumulator.hosts,
                    well:
                        if r.host == accumulator.of and r.at >= half and accumulator.at < half
                                and
                                r.at - accumulator.at <= away
                        then
                            accumulator.well + 1
                        else
                            accumulator.well,
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
                    of:
                        if r.at > 0 then
                            accumulator.of
                        else if r.last > 0 then
                            r.host
                        else
                            "",
                    at: r.at,
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
                        deaf: r.hosts > 2 and r.well * 2 < r.hosts,
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
