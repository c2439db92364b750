#!/bin/sh
# What certbot's container runs, in haproxy/ and in vault/: the first certificate, then a renewal twice a day. After each, what certbot's
# hooks could not deliver, and the run report, in the background since it waits for InfluxDB if it has to.
# DOMAINS are names separated by commas; the first one names the lineage. EMAIL is for the account.
etc=/etc/letsencrypt
trap 'exit 0' TERM
while :; do
    # What another such container has renewed in the meantime.
    [ "$1" != restore ] || "$etc/renewal-hooks/deploy/certbot_renewal_deliver.py" restore
    if [ -e "$etc/renewal/${DOMAINS%%,*}.conf" ]; then
        certbot -q renew
        status=$? pause=43200
    else
        certbot certonly -n --standalone --http-01-port 80 --agree-tos -m "$EMAIL" -d "$DOMAINS"
        status=$? pause=1200 # again soon: Let's Encrypt allows five failures an hour
    fi
    "$etc/renewal-hooks/deploy/certbot_renewal_deliver.py" --all # before the report, which tells how it went
    EXIT_STATUS=$status "$etc/renewal-hooks/post/certbot_renewal_run.py" --all --patience 24 &
    touch /tmp/ran # for the health check
    sleep $pause &
    wait $!
done
