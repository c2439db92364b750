"""The renewal board: what certbot_renewal_board.py does, step by step.

report_hook   the report hook, from which settings and requests come
reports       the rows that the board asks for, and what a source must answer
server        one request to a server, and the remedies of its errors
influxdb      a source: InfluxDB, asked with the queries of flux/
prometheus    a source: VictoriaMetrics or Prometheus, asked with PromQL
model         what the board shows: certificates as cards, hosts with a problem, renewals
fleet         makes the model out of a source's rows
commands      the commands that the board suggests
exports       the model as CSV and JSON
table         the model as a table in a terminal
chart, page   the model as an HTML page (board.html, board.css, board.js)
texts         times and names in words, and text without control characters
"""

NAME = "certbot_renewal_board"
__version__ = "0.1.0"
