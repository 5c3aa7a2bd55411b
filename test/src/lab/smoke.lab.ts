/** What the lab's kernel can do, which that of the host may not: the ground under all other suites. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { describe, it } from "node:test";
import { insideOneMachine } from "./inside.js";
import { sh } from "./shell.js";

const STORAGE =
  "dm-mod dm-thin-pool dm-snapshot loop sd_mod nbd btrfs xfs overlay nfsd nfs nfsv4 veth";
const ISCSI = "target_core_mod target_core_iblock target_core_file iscsi_target_mod iscsi_tcp";

const TARGET = "iqn.2026-01.local.lab:smoke";
const INITIATOR = "iqn.2026-01.local.lab:initiator";
const LIO = "/sys/kernel/config/target";

function lvm(): void {
  it("makes a thin pool, a volume and a snapshot on a disk", () => {
    sh("pvcreate -q /dev/vdc && vgcreate -q vg0 /dev/vdc");
    sh("lvcreate -q -y -L 200M --thinpool pool vg0");
    sh("lvcreate -q -y -V 1G -T vg0/pool -n volume");
    sh("lvcreate -q -y -s -kn -n copy vg0/volume");
    const report = sh("lvs --reportformat json -o lv_name,pool_lv,origin vg0");
    const [{ lv }] = (JSON.parse(report) as { report: [{ lv: object[] }] }).report;
    assert.deepEqual(lv, [
      { lv_name: "copy", pool_lv: "pool", origin: "volume" },
      { lv_name: "pool", pool_lv: "", origin: "" },
      { lv_name: "volume", pool_lv: "pool", origin: "" },
    ]);
  });

  it("gives a simulated SCSI disk", () => {
    sh("modprobe scsi_debug dev_size_mb=64 && udevadm settle");
    assert.match(sh("lsblk -ndo MODEL,TYPE -S"), /scsi_debug/);
  });
}

function iscsi(): void {
  it("serves a thin volume through configfs", () => {
    sh("mkdir -p /etc/target && mount -t configfs configfs /sys/kernel/config");
    sh(`
      mkdir -p ${LIO}/core/iblock_0/disk
      echo -n udev_path=/dev/vg0/volume > ${LIO}/core/iblock_0/disk/control
      echo -n lab-smoke-1 > ${LIO}/core/iblock_0/disk/wwn/vpd_unit_serial
      echo 1 > ${LIO}/core/iblock_0/disk/enable
      tpg=${LIO}/iscsi/${TARGET}/tpgt_1
      mkdir -p $tpg/np/127.0.0.1:3260 $tpg/lun/lun_0 $tpg/acls/${INITIATOR}/lun_0
      ln -s ${LIO}/core/iblock_0/disk $tpg/lun/lun_0/disk
      ln -s $tpg/lun/lun_0 $tpg/acls/${INITIATOR}/lun_0/lun_0
      echo 0 > $tpg/attrib/authentication
      echo 1 > $tpg/enable`);
  });

  it("is logged into by open-iscsi, and finds the disk by its serial", () => {
    sh(`echo InitiatorName=${INITIATOR} > /etc/iscsi/initiatorname.iscsi && iscsid`);
    sh("iscsiadm -m discovery -t sendtargets -p 127.0.0.1:3260");
    sh(`iscsiadm -m node -T ${TARGET} -p 127.0.0.1:3260 --login && udevadm settle`);
    const link = `/dev/disk/by-path/ip-127.0.0.1:3260-iscsi-${TARGET}-lun-0`;
    const device = realpathSync(link).replace("/dev/", "");
    assert.match(readFileSync(`/sys/block/${device}/device/vpd_pg80`, "latin1"), /lab-smoke-1/);
    sh(`mkfs.ext4 -q ${link} && mkdir -p /mnt/iscsi && mount ${link} /mnt/iscsi`);
    sh("echo over the wire > /mnt/iscsi/file && umount /mnt/iscsi");
    sh(`mount -o ro ${link} /mnt/iscsi`);
    assert.equal(sh("cat /mnt/iscsi/file && umount /mnt/iscsi"), "over the wire");
    sh(`iscsiadm -m node -T ${TARGET} -p 127.0.0.1:3260 --logout`);
    assert.ok(!existsSync(`/sys/block/${device}`), `${device} is still there`);
  });
}

function nfs(): void {
  it("exports a file system and mounts it", () => {
    sh(`
      truncate -s 400M /suite/xfs && mkfs.xfs -q /suite/xfs
      mkdir -p /srv/x /mnt/nfs && mount -o loop /suite/xfs /srv/x
      mount -t nfsd nfsd /proc/fs/nfsd
      rpcbind -w && rpc.mountd && exportfs -o rw,no_root_squash,fsid=1 127.0.0.1:/srv/x`);
    // The least that the kernel takes; else the first open waits 90 s.
    sh("echo 10 > /proc/fs/nfsd/nfsv4leasetime && echo 10 > /proc/fs/nfsd/nfsv4gracetime");
    sh("rpc.nfsd 2");
    sh("mount -t nfs4 -o vers=4.2,soft,timeo=100 127.0.0.1:/srv/x /mnt/nfs");
    sh("echo by nfs > /mnt/nfs/file", 120_000);
    assert.equal(readFileSync("/srv/x/file", "utf8"), "by nfs\n");
    sh("umount /mnt/nfs && exportfs -u 127.0.0.1:/srv/x && rpc.nfsd 0 && umount /srv/x");
  });
}

function others(): void {
  it("has btrfs with snapshots", () => {
    sh("truncate -s 300M /suite/btrfs && mkfs.btrfs -q /suite/btrfs && mkdir -p /mnt/btrfs");
    sh("mount -o loop /suite/btrfs /mnt/btrfs && btrfs -q subvolume create /mnt/btrfs/one");
    sh(
      "echo x > /mnt/btrfs/one/file && btrfs -q subvolume snapshot -r /mnt/btrfs/one /mnt/btrfs/two",
    );
    assert.equal(sh("cat /mnt/btrfs/two/file && umount /mnt/btrfs"), "x");
  });

  it("connects a network block device", () => {
    sh("qemu-img create -q -f qcow2 /suite/disk.qcow2 64M");
    sh("qemu-nbd --fork -t -f qcow2 -x disk -b 127.0.0.1 -p 10809 /suite/disk.qcow2");
    sh("nbd-client 127.0.0.1 10809 /dev/nbd0 -N disk");
    assert.equal(sh("blockdev --getsize64 /dev/nbd0"), String(64 * 1024 ** 2));
    sh("nbd-client -d /dev/nbd0");
  });
}

insideOneMachine(import.meta.url, { diskMiB: [512] }, () => {
  it("is a stock kernel with every module that storage needs", () => {
    sh(`modinfo -n ${STORAGE} ${ISCSI} scsi_debug`);
    sh(`modprobe -a ${STORAGE} ${ISCSI}`);
  });
  describe("LVM", lvm);
  describe("iSCSI", iscsi);
  describe("NFS", nfs);
  describe("others", others);
});
