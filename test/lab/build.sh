#!/bin/bash
# Builds the image of the lab's machines once: kernel, initramfs, root file system. Prints the folder that holds them.
#   build.sh          build it unless it is there
#   build.sh --find   print the folder; exit code 3 when the image is not there
# A change of this folder's recipe, of Debian's kernel or of Node makes a new image; older ones are removed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/libstorage-lab
packages=(
  # storage
  lvm2 thin-provisioning-tools targetcli-fb python3-rtslib-fb dbus open-iscsi multipath-tools sg3-utils tgt libiscsi-bin
  btrfs-progs xfsprogs e2fsprogs nfs-kernel-server nfs-common nbd-client qemu-utils qemu-system-common quota acl attr
  # the runtime whose volumes we serve
  docker.io
  # the machine itself
  iproute2 iputils-ping iptables kmod udev procps psmisc util-linux mount fdisk jq curl socat openssl busybox-static libstdc++6
)
suite=$(. /etc/os-release; echo "${VERSION_CODENAME:-}")
node=$(readlink -f "$(command -v node)")
debian_kernel() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\).*/\1/p' | head -1; }
kernel=$(debian_kernel)
if [ -z "$kernel" ] && [ "${1:-}" != --find ] && [ "$(id -u)" = 0 ]; then
  apt-get -qq update >&2
  kernel=$(debian_kernel)
fi
if [ -z "$kernel" ]; then
  [ "${1:-}" != --find ] || exit 3
  echo "apt knows no linux-image-cloud-amd64; run apt-get update as root (the lab needs Debian)" >&2
  exit 1
fi
version=${kernel#linux-image-}
key=$( { cat "$here"/{build.sh,init,initramfs-init}; echo "$suite $kernel $("$node" -v)"; } | sha256sum | cut -c1-16)
out=$cache/$key
if [ -f "$out/ok" ]; then echo "$out"; exit 0; fi
if [ "${1:-}" = --find ]; then exit 3; fi
[ "$(id -u)" = 0 ] || { echo "only root can build the lab's image (mmdebstrap, mke2fs -d); run npm run test:lab once as root, or copy $out from a machine where it was" >&2; exit 1; }
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ -f "$out/ok" ]; then echo "$out"; exit 0; fi
tmp=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

# The machine's own sources of Debian; those of other vendors do not name the suite by itself.
mapfile -t sources < <(grep -lsE "^(Suites:|deb ).* ($suite|$suite-security)( |\$)" /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources || true)
[ ${#sources[@]} -gt 0 ] || { echo "no apt source names the suite $suite" >&2; exit 1; }

echo "the lab's image: $kernel" >&2
# The kernel is unpacked; none of its scripts run.
(cd "$tmp" && apt-get -o APT::Sandbox::User=root -qq download "$kernel" >&2 && dpkg-deb -x "$kernel"_*.deb kernel)

echo "the lab's image: ${#packages[@]} packages and what they need" >&2
mmdebstrap --mode=root --variant=minbase --quiet \
  --aptopt='Apt::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
  --include="$(IFS=,; echo "${packages[*]}")" "$suite" "$tmp/root.tar" "${sources[@]}" >&2
root=$tmp/root
mkdir "$root"
tar -C "$root" --xattrs -xf "$tmp/root.tar"
rm "$tmp/root.tar"
mkdir -p "$root/lib/modules"
cp -a "$tmp/kernel/lib/modules/$version" "$root/lib/modules/"
chroot "$root" depmod "$version"
install -m755 "$here/init" "$root/sbin/lab-init"
install -m755 "$node" "$root/usr/local/bin/node"
chroot "$root" node -e 0
mkdir -p "$root/project" "$root/etc/target"
: > "$root/etc/fstab"
rm -f "$root/etc/hostname"
printf '127.0.0.1 localhost\n10.99.0.1 a\n10.99.0.2 b\n' > "$root/etc/hosts"

# A small initramfs: busybox and the modules that find the disk.
ird=$tmp/ird
mkdir -p "$ird"/{bin,m,new,proc,dev}
cp /bin/busybox "$ird/bin/busybox"
for module in virtio_pci virtio_blk; do
  chroot "$root" modprobe -S "$version" --show-depends $module
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
  cp "$root$file" "$ird/m/"
  echo "${file##*/}"
done > "$tmp/order"
mv "$tmp/order" "$ird/m/order"
install -m755 "$here/initramfs-init" "$ird/init"
(cd "$ird" && find . | cpio -o -H newc --quiet) > "$tmp/initrd"

# With a journal: a machine that was killed must come up again from its disk.
truncate -s 8G "$tmp/root.ext4"
mke2fs -q -t ext4 -E lazy_itable_init=1,lazy_journal_init=1,nodiscard -d "$root" "$tmp/root.ext4"
cp "$tmp/kernel/boot/vmlinuz-$version" "$tmp/vmlinuz"
rm -rf "$out"
mkdir "$out"
mv "$tmp"/{root.ext4,initrd,vmlinuz} "$out/"
touch "$out/ok"
for old in "$cache"/*/; do
  # A machine may still run from an image that was current a moment ago; a day later none does.
  [ "$old" = "$out/" ] || [ -z "$(find "$old" -maxdepth 0 -mmin +1440)" ] || rm -rf "$old"
done
echo "$out"
