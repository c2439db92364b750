#!/bin/sh
# Begins with what Vault has. Ends where Vault cannot be asked: without its account and certificates certbot would ask for new ones at each
# start, more than Let's Encrypt gives.
set -e
cp -R /usr/local/share/letsencrypt/. /etc/letsencrypt/
/etc/letsencrypt/renewal-hooks/deploy/certbot_renewal_deliver.py restore
exec certbot.sh restore
