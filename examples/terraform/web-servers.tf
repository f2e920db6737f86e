# Three VPSs through condo-server's API, by LXD's provider (version 2):
#
#   condo-server trust add terraform            # on the host: prints a token
#   terraform init
#   terraform apply -var host=vps1.example.org -var token=TOKEN
#
# The host serves the API with `condo-server --listen ADDRESS:8443`, and has the image `debian-12`.

terraform {
  required_providers {
    lxd = {
      source  = "terraform-lxd/lxd"
      version = "~> 2.0"
    }
  }
}

variable "host" {
  type = string
}

variable "token" {
  type      = string
  sensitive = true
}

provider "lxd" {
  generate_client_certificates = true
  # The token has the host's fingerprint.
  accept_remote_certificate = true

  remote {
    name    = "condo"
    address = "https://${var.host}:8443"
    token   = var.token
    default = true
  }
}

resource "lxd_instance" "web" {
  count = 3
  name  = "web${count.index + 1}"
  image = "debian-12"

  config = {
    "boot.autostart" = "true"
    "user.user-data" = <<-EOT
      #cloud-config
      hostname: web${count.index + 1}
    EOT
  }

  limits = {
    cpu    = "1"
    memory = "512MiB"
  }
}

output "addresses" {
  value = lxd_instance.web[*].ipv4_address
}
