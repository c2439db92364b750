# For certbot: restores, and writes new versions of existing secrets. It cannot create or delete
# secrets.
path "secret/data/certbot/certificates/*" {
  capabilities = ["read", "update"]
}

path "secret/data/certbot/accounts" {
  capabilities = ["read", "update"]
}

# A restore lists the certificates.
path "secret/metadata/certbot/certificates/" {
  capabilities = ["list"]
}
