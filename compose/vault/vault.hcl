# A single Vault for compose.yaml. Its storage is encrypted. For a backup, stop Vault and copy the
# volume. For several Vaults, use the storage "raft".
storage "file" {
  path = "/vault/file"
}

# Plain HTTP: the network belongs to this machine, and no port is published. For readers on other
# machines, configure TLS.
listener "tcp" {
  address     = "0.0.0.0:8200"
  tls_disable = true
}

api_addr = "http://vault:8200"
