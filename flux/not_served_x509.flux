// Every server that Telegraf's x509_cert looks at, and for how many days it has served a certificate from before the last renewal of its
// name: one row each, at the time of the query. It needs no VERIFY, but Telegraf somewhere, with
//
//     [[inputs.x509_cert]]
//       sources = ["tcp://example.com:443", "smtp://mail.example.com:587"]
//
// days_unserved: since the renewal; -1: what is served is as new.
// days_left:     until what is served expires; negative: it has expired.
//
import "regexp"

// Where the hook and Telegraf write: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// How far back to look for the last renewal of a name. At least as far as the longest lifetime among your certificates.
since = -400d

second = 1000000000
around = /^[a-z0-9]+:\/\/|:[0-9]+$/
renewals =
    from(bucket: bucket)
        |> range(start: since)
        |> filter(fn: (r) => r._measurement == measurement and r._field == "renewed_count")
        |> filter(fn: (r) => r.domain != "all")
        |> last()
        |> group(columns: ["domain"])
        |> sort(columns: ["_time"])
        |> last()
        |> group()
        |> map(fn: (r) => ({name: r.domain, renewed: int(v: r._time) / second}))
served = (field) =>
    from(bucket: bucket)
        |> range(start: -1d)
        |> filter(fn: (r) => r._measurement == "x509_cert" and r._field == field)
        |> filter(fn: (r) => exists r.source and exists r.san)
        |> last()
        |> group(columns: ["source"])
        |> sort(columns: ["_time"])
        |> last()
        |> group()
        |> map(
            fn: (r) =>
                ({
                    source: r.source,
                    name: regexp.replaceAllString(r: around, v: r.source, t: ""),
                    value: int(v: r._value),
                }),
        )
looks =
    join(
        tables: {begin: served(field: "startdate"), end: served(field: "enddate")},
        on: ["source", "name"],
    )

join(tables: {look: looks, last: renewals}, on: ["name"])
    |> map(
        fn: (r) =>
            ({
                source: r.source,
                name: r.name,
                _time: now(),
                days_unserved:
                    if r.value_begin < r.renewed then
                        float(v: int(v: now()) / second - r.renewed) / 86400.0
                    else
                        -1.0,
                days_left: float(v: r.value_end - int(v: now()) / second) / 86400.0,
                renewed: time(v: r.renewed * second),
                expiry: time(v: r.value_end * second),
            }),
    )
