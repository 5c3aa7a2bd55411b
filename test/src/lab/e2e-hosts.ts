/**
 * A storage host `a` with a thin pool, whose volumes the host `b` uses: mutual TLS between server and client, mutual
 * CHAP between target and initiator. Next to ours stand a target, a volume group and mounts of somebody else.
 */
import assert from "node:assert/strict";
import { Foreign } from "./foreign.js";
import type { MachineOptions } from "./machine.js";
import { clientConfig, CONFIG, giveCertificates, SERVER } from "./mutual-tls.js";
import { startTwoHosts } from "./network.js";
import type { Hosts } from "./network.js";
import { COUNT_MOUNTS_AND_RECORDS, MOUNTS, ServedHosts, SLOW } from "./served-hosts.js";

export const SERVICE = "thin";

const onA = (more: string): string => `${SERVER}      ${SERVICE}:
        driver: lvm-iscsi
        lvm-iscsi:
          volumeGroup: vg0
          thinPool: pool
        exporter: iscsi-lio
        iscsi-lio:
          portals: [10.99.0.1]
${more}          chap:
            mode: mutual
            secretsFile: /etc/libstorage/iscsi.yml
`;

/** A writer waits for longer than a machine takes to come up again. */
const ON_B = `${clientConfig(SERVICE)}  device:
    attachTimeout: 90s
iscsi:
  replacementTimeout: 300
  chap:
    userName: host-b
    secretFile: /etc/libstorage/own-secret
    mutual:
      userName: storage
      secretFile: /etc/libstorage/target-secret
`;

export const CHAP = {
  initiator: "*",
  user: "host-b",
  secret: "own-secret-12",
  targetUser: "storage",
  targetSecret: "target-secret-1",
};

export interface E2eOptions {
  readonly a?: Omit<MachineOptions, "name" | "card" | "diskMiB">;
  readonly b?: Omit<MachineOptions, "name" | "card">;
  /** Further lines of the exporter's section, indented by ten. */
  readonly exporter?: string;
}

/** How many of each of ours there are: on `b`, on the kernel's target of `a`, in the server's records. */
export interface Census {
  readonly sessions: number;
  readonly disks: number;
  readonly mounts: number;
  /** Files of the client's about volumes that it has. */
  readonly records: number;
  readonly targets: number;
  readonly attachments: number;
}

const AWAY: Census = {
  sessions: 0,
  disks: 0,
  mounts: 0,
  records: 0,
  targets: 0,
  attachments: 0,
};
const ATTACHED: Census = {
  sessions: 1,
  disks: 1,
  mounts: 0,
  records: 1,
  targets: 1,
  attachments: 1,
};

export class E2eHosts extends ServedHosts<Census> {
  readonly foreign: Foreign;
  override readonly states = {
    away: AWAY,
    attached: ATTACHED,
    mounted: { ...ATTACHED, mounts: 1, records: 2 },
  };

  private constructor(hosts: Hosts) {
    super(hosts, SERVICE);
    this.foreign = new Foreign(hosts);
  }

  static async start(options: E2eOptions = {}): Promise<E2eHosts> {
    const { a, b, exporter = "" } = options;
    const hosts = await startTwoHosts({ a: { ...a, diskMiB: [20_000, 256] }, b: b ?? {} });
    const e2e = new E2eHosts(hosts);
    try {
      await hosts.a.run(
        `modprobe -a dm-mod dm-thin-pool
         pvcreate -q --metadatasize 16M /dev/vdc && vgcreate -q vg0 /dev/vdc
         lvcreate -qq -y -L 12G --poolmetadatasize 64M --thinpool pool vg0`,
        SLOW,
      );
      await e2e.#configure(exporter);
      await e2e.foreign.make();
      await Promise.all([e2e.comesUpA(), e2e.comesUpB()]);
      await e2e.foreign.remember();
      return e2e;
    } catch (error) {
      await hosts.remove();
      throw error;
    }
  }

  async #configure(exporter: string): Promise<void> {
    const { a, b } = this.hosts;
    await giveCertificates(this.hosts);
    await a.write(CONFIG, onA(exporter));
    await a.write("/etc/libstorage/iscsi.yml", JSON.stringify([CHAP]), "600");
    await b.write(CONFIG, ON_B);
    await b.write("/etc/libstorage/own-secret", `${CHAP.secret}\n`, "600");
    await b.write("/etc/libstorage/target-secret", `${CHAP.targetSecret}\n`, "600");
    await b.run("echo InitiatorName=iqn.2026-01.local.test:b > /etc/iscsi/initiatorname.iscsi");
  }

  /** What its services do when the storage host starts, at first and after a reboot. */
  async comesUpA(): Promise<void> {
    const { a } = this.hosts;
    await a.run(
      `modprobe -a dm-mod dm-thin-pool target_core_mod target_core_iblock target_core_file iscsi_target_mod
       mkdir -p /etc/target /etc/rtslib-fb-target
       mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config`,
      SLOW,
    );
    await this.foreign.comesUpA();
    await this.startServer();
  }

  async comesUpB(): Promise<void> {
    const { b } = this.hosts;
    await b.run("modprobe -a iscsi_tcp sd_mod && iscsid", SLOW);
    await this.foreign.comesUpB();
  }

  override async stored(): Promise<number> {
    const count = "lvs --noheadings -o lv_name vg0 | grep -c lvm-; true";
    return Number(await this.hosts.a.run(count, SLOW));
  }

  /** A file system of that size, which is a little less. */
  override async hasSize(_volumeID: string, sizeGiB: number): Promise<void> {
    const size = await this.hosts.b.run(`df -h --output=size ${MOUNTS}/data | tail -1 | tr -d ' '`);
    assert.ok([`${sizeGiB}.0G`, `${sizeGiB - 0.1}G`].includes(size), size);
  }

  override async census(): Promise<Census> {
    const { a, b } = this.hosts;
    const onB = await b.run(
      `echo $(iscsiadm -m session 2>/dev/null | grep -vc foreign)
       echo $(lsblk -dnro NAME,SIZE | grep '^sd' | grep -vc 16M)
       ${COUNT_MOUNTS_AND_RECORDS}`,
      SLOW,
    );
    const [sessions = -1, disks = -1, mounts = -1, records = -1] = onB.split("\n").map(Number);
    const targets = Number(
      await a.run("ls /sys/kernel/config/target/iscsi | grep '^iqn' | grep -vc foreign; true"),
    );
    return { sessions, disks, mounts, records, targets, attachments: await this.attachments() };
  }

  /** Nothing of ours is on either host, but an empty pool. */
  override async nothingLeft(): Promise<void> {
    const { a, b } = this.hosts;
    await this.counts("away", "at the end");
    assert.equal(await a.run("lvs --noheadings -o lv_name vg0 | tr -d ' '", SLOW), "pool");
    assert.equal(await a.run("dmsetup ls | grep -v -e '^other' -e '^vg0-pool'; true"), "");
    const stores = "find /sys/kernel/config/target/core -mindepth 2 -maxdepth 2 -type d";
    assert.equal(await a.run(`${stores} | grep -v -e foreign -e /alua; true`), "");
    assert.equal(
      await b.run(
        `ls -A ${MOUNTS} | grep -v foreign; ls /etc/iscsi/nodes | grep -v foreign
         ls -A /etc/iscsi | grep libstorage; true`,
      ),
      "",
    );
  }
}
