# nomad volume create volume.hcl
id        = "web1"
name      = "web1"
type      = "csi"
plugin_id = "libstorage"

capacity_min = "10GiB"
capacity_max = "10GiB"

capability {
  access_mode     = "single-node-writer"
  attachment_mode = "file-system"
}

mount_options {
  fs_type = "ext4"
}
