# For a service that uses certificates: reads certificates and keys, but not certbot's accounts. To
# allow a single certificate, write its name instead of *.
path "secret/data/certbot/certificates/*" {
  capabilities = ["read"]
}
