# The half on every client. nomad job run libstorage-csi-node.nomad.hcl
# A system job, so that a drain moves it last (or -ignore-system).
job "libstorage-csi-node" {
  type = "system"

  group "node" {
    task "plugin" {
      driver = "docker"

      config {
        image = "registry.example.org/libstorage-csi:0.1.0"
        args  = ["plugin", "csi", "--mode=node"]

        # It mounts on the host, by the host's own name.
        privileged   = true
        network_mode = "host"

        volumes = [
          "/etc/libstorage:/etc/libstorage:ro",
          "/etc/iscsi:/etc/iscsi",
          "/var/lib/iscsi:/var/lib/iscsi",
          "/run/lock/iscsi:/run/lock/iscsi",
          "/run/udev:/run/udev:ro",
          "/dev:/dev",
        ]

        # Records of what is staged, which outlive the task; and volumes of services on this host.
        mount {
          type   = "bind"
          source = "/var/lib/libstorage"
          target = "/var/lib/libstorage"

          bind_options {
            propagation = "rshared"
          }
        }
      }

      csi_plugin {
        id             = "libstorage"
        type           = "node"
        mount_dir      = "/csi"
        health_timeout = "1m"
      }

      env {
        CSI_ENDPOINT = "unix:///csi/csi.sock"
      }

      # A stop is no reason to lose a mount that is being made.
      kill_timeout = "30s"

      resources {
        cpu    = 100
        memory = 256
      }
    }
  }
}
