// Shows every server that Telegraf's x509_cert input checks: one row each, at the time of the query.
// It shows for how many days the server has served a certificate from before the last renewal of
// its name. It does not need VERIFY. It needs a Telegraf with this input, on any host:
//
//     [[inputs.x509_cert]]
//       sources = ["tcp://example.com:443", "smtp://mail.example.com:587"]
//
// days_unserved: days since the renewal; -1 if the served certificate is not older than the renewal.
// days_left:     days until the served certificate expires; negative: it has expired.
//
import "regexp"

// The bucket of the reports and of Telegraf, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or
// database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// How far back the query looks for the last renewal of a name. Set it to the longest lifetime of
// your certificates, or longer.
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
