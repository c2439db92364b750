#!/bin/sh
# Creates the KV engine, the policies and certbot's role. An administrator of Vault runs this once, in
# Vault's container: see compose.yaml.
set -e
vault secrets enable -path=secret -version=2 kv
for policy in reading renewing first_start; do
    vault policy write "certbot-$policy" "/policies/$policy.hcl"
done
vault auth enable approle
vault write auth/approle/role/certbot token_policies=certbot-renewing,certbot-first_start token_ttl=10m
