# For a service that uses certificates: it reads them, with their keys, and nothing else, not certbot's account. For one certificate only
# write its name instead of *.
path "secret/data/certbot/certificates/*" {
  capabilities = ["read"]
}
