#!/bin/sh
# Once, in Vault's container, by whoever may: the engine, the policies, and certbot's role. See compose.yaml.
set -e
vault secrets enable -path=secret -version=2 kv
for policy in reading renewing first_start; do
    vault policy write "certbot-$policy" "/policies/$policy.hcl"
done
vault auth enable approle
vault write auth/approle/role/certbot token_policies=certbot-renewing,certbot-first_start token_ttl=10m
