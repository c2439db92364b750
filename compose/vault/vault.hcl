# One Vault, for compose.yaml. What it keeps is encrypted; copy the volume while it is stopped for a backup. For more than one take raft.
storage "file" {
  path = "/vault/file"
}

# Plain HTTP, since the network is this machine's own and no port is published. For readers on other machines it must be TLS.
listener "tcp" {
  address     = "0.0.0.0:8200"
  tls_disable = true
}

api_addr = "http://vault:8200"
