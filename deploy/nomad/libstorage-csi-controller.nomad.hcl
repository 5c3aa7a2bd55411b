# The half that makes volumes and lets nodes in. nomad job run libstorage-csi-controller.nomad.hcl
job "libstorage-csi-controller" {
  type = "service"

  group "controller" {
    count = 1

    task "plugin" {
      driver = "docker"

      config {
        image = "registry.example.org/libstorage-csi:0.1.0"
        args  = ["plugin", "csi", "--mode=controller"]

        volumes = ["/etc/libstorage:/etc/libstorage:ro"]
      }

      csi_plugin {
        id        = "libstorage"
        type      = "controller"
        mount_dir = "/csi"

        # It is not healthy before it has reached the server once, and to start it again would not help.
        health_timeout = "1h"
      }

      env {
        CSI_ENDPOINT = "unix:///csi/csi.sock"
      }

      resources {
        cpu    = 100
        memory = 256
      }
    }
  }
}
