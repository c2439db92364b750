# For certbot, day by day: it restores, and writes new versions of what is there. It makes nothing new and removes nothing.
path "secret/data/certbot/certificates/*" {
  capabilities = ["read", "update"]
}

path "secret/data/certbot/accounts" {
  capabilities = ["read", "update"]
}

# To restore, it must know which there are.
path "secret/metadata/certbot/certificates/" {
  capabilities = ["list"]
}
