#!/bin/sh
# The certbot container of haproxy/ and vault/ runs this script. It gets the first certificate, and
# then renews twice a day. After each certbot run it repeats failed deliveries, and sends the run
# report. The report runs in the background, because it may wait for InfluxDB.
#
# DOMAINS: names, separated by commas. The first one is also the name of the lineage.
# EMAIL:   address for the ACME account.
etc=/etc/letsencrypt
trap 'exit 0' TERM
while :; do
    # Another container with the same Vault may have renewed certificates: fetch them.
    [ "$1" != restore ] || "$etc/renewal-hooks/deploy/certbot_renewal_deliver.py" restore
    if [ -e "$etc/renewal/${DOMAINS%%,*}.conf" ]; then
        certbot -q renew
        status=$? pause=43200
    else
        certbot certonly -n --standalone --http-01-port 80 --agree-tos -m "$EMAIL" -d "$DOMAINS"
        status=$? pause=1200 # try again soon: Let's Encrypt allows five failures an hour
    fi
    # Before the report, which contains the result of the delivery.
    "$etc/renewal-hooks/deploy/certbot_renewal_deliver.py" --all
    EXIT_STATUS=$status "$etc/renewal-hooks/post/certbot_renewal_run.py" --all --patience 24 &
    touch /tmp/ran # for the health check
    sleep $pause &
    wait $!
done
