/** A storage host `a`, and a host `b` that uses its volumes; next to ours on `b` a session and a mount of somebody else. */
import assert from "node:assert/strict";
import type { Finding } from "@libstorage/client/host";
import type { VolumeMap } from "@libstorage/model";
import { LabServer } from "./lab-server.js";
import { startTwoHosts } from "./network.js";
import type { Hosts } from "./network.js";

export const CONFIG = "/etc/libstorage/config.yml";
export const MOUNTS = "/var/lib/libstorage/volumes";
const NAME = "iqn.2026-01.local.test:b";
const FOREIGN = "iqn.2026-01.local.foreign:disk";
export const SLOW = { limitMs: 300_000 };

/** A private link between two machines that nobody else is on. */
const ON_A = `libstorage:
  server:
    insecure: true
    endpoints:
      local:
        address: unix:///run/libstorage/libstorage.sock
      all:
        address: tcp://:7979
    services:
      disks:
        driver: lvm-iscsi
        lvm-iscsi:
          volumeGroup: vg0
        exporter: iscsi-lio
        iscsi-lio:
          portals: [10.99.0.1, 10.99.0.11]
          chap:
            mode: mutual
            secretsFile: /etc/libstorage/iscsi.yml
      folders:
        driver: btrfs
        btrfs:
          root: /srv/btrfs/volumes
        exporter: nfs
`;

export const onB = (secretFile: string): string => `libstorage:
  host: tcp://a:7979
  device:
    attachTimeout: 120s
iscsi:
  replacementTimeout: 20
  chap:
    userName: host-b
    secretFile: ${secretFile}
    mutual:
      userName: storage
      secretFile: /etc/libstorage/target-secret
`;

const SECRETS = [
  {
    initiator: "*",
    user: "host-b",
    secret: "own-secret-12",
    targetUser: "storage",
    targetSecret: "target-secret-1",
  },
];

async function startStorage({ a }: Hosts): Promise<LabServer> {
  await a.run(
    `modprobe -a dm-mod target_core_mod target_core_iblock target_core_file iscsi_target_mod btrfs nfsd
     mkdir -p /etc/target /etc/rtslib-fb-target && mount -t configfs none /sys/kernel/config
     ip addr add 10.99.0.11/24 dev eth0
     pvcreate -q /dev/vdc && vgcreate -q vg0 /dev/vdc
     mkfs.btrfs -q /dev/vdd && mkdir -p /srv/btrfs && mount /dev/vdd /srv/btrfs
     mount -t nfsd nfsd /proc/fs/nfsd && mkdir -p /run/rpcbind && rpcbind -w
     echo 10 > /proc/fs/nfsd/nfsv4leasetime && echo 10 > /proc/fs/nfsd/nfsv4gracetime
     rpc.nfsd 4 && rpc.mountd`,
    SLOW,
  );
  await a.write(CONFIG, ON_A);
  await a.write("/etc/libstorage/iscsi.yml", JSON.stringify(SECRETS), "600");
  // A target that is none of ours, in the way in which an administrator makes one.
  const target = `/sys/kernel/config/target/iscsi/${FOREIGN}/tpgt_1`;
  const store = "/sys/kernel/config/target/core/fileio_9/foreign";
  await a.run(
    `truncate -s 16M /srv/foreign.img && mkdir -p ${store}
     echo fd_dev_name=/srv/foreign.img,fd_dev_size=16777216 > ${store}/control && echo 1 > ${store}/enable
     mkdir -p ${target}/np/10.99.0.1:3299 ${target}/lun/lun_1 && ln -s ${store} ${target}/lun/lun_1/disk
     echo 0 > ${target}/attrib/authentication; echo 1 > ${target}/attrib/generate_node_acls
     echo 0 > ${target}/attrib/demo_mode_write_protect; echo 1 > ${target}/enable`,
  );
  return LabServer.start(a, CONFIG);
}

async function startClient({ b }: Hosts): Promise<void> {
  await b.write(CONFIG, onB("/etc/libstorage/own-secret"));
  await b.write("/etc/libstorage/own-secret", "own-secret-12\n", "600");
  await b.write("/etc/libstorage/target-secret", "target-secret-1\n", "600");
  await b.write("/etc/libstorage/wrong-secret", "not-the-secret\n", "600");
  await b.run(
    `echo InitiatorName=${NAME} > /etc/iscsi/initiatorname.iscsi
     modprobe -a iscsi_tcp sd_mod nfs dm-multipath && iscsid
     iscsiadm -m node -o new -T ${FOREIGN} -p 10.99.0.1:3299 && iscsiadm -m node -T ${FOREIGN} -p 10.99.0.1:3299 --login
     mkdir -p ${MOUNTS}/foreign && mount -t tmpfs none ${MOUNTS}/foreign`,
  );
}

/** Without what is not ours: `KIND STATE`. */
export const ours = (findings: readonly Finding[]): string[] =>
  findings
    .filter(({ what }) => !what.includes("foreign"))
    .map(({ kind, state }) => `${kind} ${state}`);

export class BlockHosts {
  readonly hosts: Hosts;
  readonly server: LabServer;

  private constructor(hosts: Hosts, server: LabServer) {
    this.hosts = hosts;
    this.server = server;
  }

  static async start(): Promise<BlockHosts> {
    const hosts = await startTwoHosts({ a: { diskMiB: [6144, 1024] }, b: {} });
    try {
      const server = await startStorage(hosts);
      await startClient(hosts);
      return new BlockHosts(hosts, server);
    } catch (error) {
      await hosts.remove();
      throw error;
    }
  }

  /** What of ours is on `b`: mounts, sessions, disks, records with their secrets. */
  async #left(): Promise<string> {
    return this.hosts.b.run(
      `grep ${MOUNTS} /proc/mounts | grep -v foreign
       iscsiadm -m session 2>/dev/null | grep -v foreign
       ls /etc/iscsi/nodes | grep -v foreign
       ls -A ${MOUNTS} | grep -v foreign
       find /var/lib/libstorage/mounts /var/lib/libstorage/connections -type f -not -name '*.lock'
       ls -A /etc/iscsi | grep libstorage
       dmsetup ls | grep -v 'No devices'; true`,
    );
  }

  async foreignIsThere(): Promise<void> {
    const found = await this.hosts.b.run(
      `iscsiadm -m session; cat /proc/mounts; lsblk -n -o TYPE,SIZE`,
    );
    assert.match(found, /foreign:disk/);
    assert.match(found, new RegExp(`${MOUNTS}/foreign tmpfs`));
    assert.match(found, /disk +16M/);
  }

  async #volumes(): Promise<VolumeMap> {
    const text = await this.hosts.a.run("libstorage volume ls --json", SLOW);
    const all = JSON.parse(text) as Record<string, VolumeMap>;
    return Object.assign({}, ...Object.values(all)) as VolumeMap;
  }

  /** Nobody has the volume, and nothing of it is on `b`. */
  async isClean(name: string): Promise<void> {
    assert.equal(await this.#left(), "");
    const [volume] = Object.values(await this.#volumes()).filter((one) => one.name === name);
    assert.deepEqual(volume?.attachments ?? [], []);
  }

  async check(...args: string[]): Promise<readonly Finding[]> {
    const { stdout } = await this.hosts.b.attempt(
      `libstorage host check --json ${args.join(" ")}`,
      SLOW,
    );
    return (JSON.parse(stdout) as { findings: Finding[] }).findings;
  }

  async refused(command: string): Promise<string> {
    const { code, stderr } = await this.hosts.b.attempt(command, SLOW);
    assert.equal(code, 1, stderr);
    return stderr;
  }
}
