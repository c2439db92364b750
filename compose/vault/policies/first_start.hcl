# For certbot besides renewing.hcl, until its first certificate is in Vault, and while a further one is added.
path "secret/data/certbot/certificates/*" {
  capabilities = ["create"]
}

path "secret/data/certbot/accounts" {
  capabilities = ["create"]
}
