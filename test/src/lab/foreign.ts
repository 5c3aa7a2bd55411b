/**
 * What somebody else has next to ours: on `a` a target, and a volume group with a mounted volume; on `b` the session
 * with that target, its disk mounted, and a mount in the very folder where ours go.
 */
import assert from "node:assert/strict";
import type { Hosts } from "./network.js";

const TARGET = "iqn.2026-01.local.foreign:disk";
const PORTAL = "10.99.0.1:3299";
const LOGIN = `iscsiadm -m node -T ${TARGET} -p ${PORTAL}`;
const MOUNT = "/var/lib/libstorage/volumes/foreign";
const SLOW = { limitMs: 300_000 };

export class Foreign {
  readonly #hosts: Hosts;
  #remembered: readonly string[] = [];

  constructor(hosts: Hosts) {
    this.#hosts = hosts;
  }

  /** Once: the disks' content. */
  async make(): Promise<void> {
    await this.#hosts.a.run(
      `truncate -s 16M /srv/foreign.img && mkfs.ext4 -q /srv/foreign.img
       pvcreate -q /dev/vdd && vgcreate -q other /dev/vdd
       lvcreate -qq -y -L 64M -n theirs other && mkfs.ext4 -q /dev/other/theirs && mkdir -p /mnt/theirs`,
      SLOW,
    );
  }

  /** As their administrator does at a boot. */
  async comesUpA(): Promise<void> {
    const target = `/sys/kernel/config/target/iscsi/${TARGET}/tpgt_1`;
    const store = "/sys/kernel/config/target/core/fileio_9/foreign";
    await this.#hosts.a.run(
      `vgchange -qq -ay other && mount /dev/other/theirs /mnt/theirs && echo theirs > /mnt/theirs/file && sync
       mkdir -p ${store} && echo fd_dev_name=/srv/foreign.img,fd_dev_size=16777216 > ${store}/control
       echo 1 > ${store}/enable
       mkdir -p ${target}/np/${PORTAL} ${target}/lun/lun_1 && ln -s ${store} ${target}/lun/lun_1/disk
       echo 0 > ${target}/attrib/authentication; echo 1 > ${target}/attrib/generate_node_acls
       echo 0 > ${target}/attrib/demo_mode_write_protect; echo 1 > ${target}/enable`,
      SLOW,
    );
  }

  /** With its records on the disk: one that a loss of power leaves empty stops open-iscsi for every target. */
  async comesUpB(): Promise<void> {
    await this.#hosts.b.run(
      `${LOGIN} -o new && sync --file-system /etc/iscsi && ${LOGIN} --login && udevadm settle && mkdir -p ${MOUNT} /mnt/foreign
       mount -t tmpfs none ${MOUNT}
       mount /dev/disk/by-path/ip-${PORTAL}-iscsi-${TARGET}-lun-1 /mnt/foreign && echo foreign > /mnt/foreign/file`,
      SLOW,
    );
  }

  async #look(): Promise<readonly string[]> {
    const { a, b } = this.#hosts;
    const target = `/sys/kernel/config/target/iscsi/${TARGET}`;
    return [
      await a.run(
        `find ${target} /sys/kernel/config/target/core/fileio_9 | sort
         cat ${target}/tpgt_1/enable
         vgs --noheadings -o vg_uuid,vg_seqno other; lvs --noheadings -o lv_uuid,lv_attr,lv_size,lv_tags other
         grep /mnt/theirs /proc/mounts; cat /mnt/theirs/file`,
        SLOW,
      ),
      await b.run(
        `iscsiadm -m session | grep foreign | sed 's/\\[[0-9]*\\]//'
         iscsiadm -m node | grep foreign; grep foreign /proc/mounts; cat /mnt/foreign/file`,
        SLOW,
      ),
    ];
  }

  async remember(): Promise<void> {
    this.#remembered = await this.#look();
    for (const text of this.#remembered) assert.match(text, /foreign/);
  }

  /** All of it is as it was, and still works. */
  async isUntouched(): Promise<void> {
    assert.deepEqual(await this.#look(), this.#remembered);
    await this.#hosts.b.run("echo foreign > /mnt/foreign/file && sync /mnt/foreign/file", SLOW);
  }
}
