# For certbot, in addition to renewing.hcl: creates new secrets. Needed until the first certificate is
# in Vault, and while you add a certificate.
path "secret/data/certbot/certificates/*" {
  capabilities = ["create"]
}

path "secret/data/certbot/accounts" {
  capabilities = ["create"]
}
