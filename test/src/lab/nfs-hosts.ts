/**
 * Volumes of a btrfs on host `a`, exported by its kernel's NFS server to host `b`, with mutual TLS between server
 * and client.
 */
import assert from "node:assert/strict";
import type { InstanceID, VolumeAttachment } from "@libstorage/model";
import type { HeldTools } from "./command-hold.js";
import { CLIENT, clientConfig, CONFIG, giveCertificates, SERVER } from "./mutual-tls.js";
import { startTwoHosts } from "./network.js";
import type { Hosts } from "./network.js";
import { RemoteClient } from "./remote-client.js";
import { COUNT_MOUNTS_AND_RECORDS, MOUNTS, ServedHosts, SLOW } from "./served-hosts.js";

/** Of the service, on `a`. */
export const ROOT = "/srv/btrfs/fast";
export const SERVICE = { service: "fast" };
/** Where its volumes are mounted to be exported. */
const SHARES = "/srv/libstorage/fast";
const OWN_FILE = "/etc/exports.d/libstorage-fast.exports";

/** What the server changes by commands. */
export const NFS_TOOLS: HeldTools = {
  tools: ["btrfs", "exportfs", "mount", "umount"],
  reports: "^(exportfs -s|btrfs (subvolume (list|show)|qgroup show|filesystem))",
};

export interface NfsOptions {
  /** Of NFS, that `b` is told to use. Default: 4.2. */
  readonly version?: string;
  /** Whether sizes are enforced. Default: no. */
  readonly isLimited?: boolean;
  /** Whether the server can be held at each change: it does all of them by commands. Default: no. */
  readonly isHeld?: boolean;
}

const onA = ({ version = "4.2", isLimited = false }: NfsOptions): string => `${SERVER}      fast:
        driver: btrfs
        btrfs:
          root: ${ROOT}
          quota: ${isLimited ? "qgroup" : "auto"}
        exporter: nfs
        nfs:
          version: "${version}"
`;

/** As its unit does: first what exports(5) names. The least times that the kernel takes; else a first open waits 90 s. */
const START_NFS_SERVER = `modprobe nfsd && mount -t nfsd nfsd /proc/fs/nfsd
  mkdir -p /run/rpcbind && rpcbind -w
  echo 10 > /proc/fs/nfsd/nfsv4leasetime && echo 10 > /proc/fs/nfsd/nfsv4gracetime
  exportfs -r; rpc.nfsd 4 && rpc.mountd`;

/** How many of each of ours there are: on `b`, on `a`, in the server's records. */
interface Census {
  readonly mounts: number;
  /** Files of the client's about volumes that it has. */
  readonly records: number;
  /** Mounts of volumes for a host. */
  readonly shares: number;
  /** Lines of the kernel's table, and of our file that outlives it. */
  readonly exports: number;
  readonly named: number;
  readonly attachments: number;
}

const AWAY: Census = { mounts: 0, records: 0, shares: 0, exports: 0, named: 0, attachments: 0 };
const ATTACHED: Census = { ...AWAY, shares: 1, exports: 1, named: 1, attachments: 1 };

export class NfsHosts extends ServedHosts<Census> {
  readonly a: Hosts["a"];
  readonly b: Hosts["b"];
  override readonly states = {
    away: AWAY,
    attached: ATTACHED,
    mounted: { ...ATTACHED, mounts: 1, records: 1 },
  };
  #client: RemoteClient | undefined;
  #onB: InstanceID | undefined;

  private constructor(hosts: Hosts) {
    super(hosts, SERVICE.service);
    this.a = hosts.a;
    this.b = hosts.b;
  }

  static async start(options: NfsOptions = {}): Promise<NfsHosts> {
    const hosts = new NfsHosts(await startTwoHosts({ a: { diskMiB: [1024] }, b: {} }));
    try {
      await hosts.#configure(options);
      return hosts;
    } catch (error) {
      await hosts.remove();
      throw error;
    }
  }

  /** Connects when it is first asked for. */
  get client(): RemoteClient {
    this.#client ??= new RemoteClient(this.b, {
      ...CLIENT,
      repeatMs: 180_000,
      responseTimeoutMs: 180_000,
    });
    return this.#client;
  }

  async #configure(options: NfsOptions): Promise<void> {
    const { a, b } = this;
    await a.run("mkfs.btrfs -q /dev/vdc && mkdir -p /srv/foreign /etc/exports.d");
    await a.write("/etc/exports", "/srv/foreign *(ro,no_subtree_check,fsid=77)\n");
    await a.write(CONFIG, onA(options));
    await b.write(CONFIG, clientConfig(this.service));
    await giveCertificates(this.hosts);
    await this.#mountDisk();
    await a.run(START_NFS_SERVER);
    await this.exportForeign();
    await b.run("modprobe nfs");
    const bootID = await b.run("cat /proc/sys/kernel/random/boot_id");
    const facts = { hostName: "b", bootID, addresses: ["10.99.0.2"] };
    this.#onB = { id: "b", driver: "btrfs", service: "fast", metadata: facts };
    // What it asks the kernel for itself, where it finds a library for that, no command can hold.
    if (options.isHeld === true) await a.run("mount -t tmpfs none /project/node_modules/ffi-rs");
    await this.startServer();
  }

  async #mountDisk(): Promise<void> {
    await this.a.run("modprobe btrfs && mkdir -p /srv/btrfs && mount /dev/vdc /srv/btrfs");
  }

  /** One that stands in no file, so that a reload or a reboot loses it. */
  async exportForeign(): Promise<void> {
    await this.a.run("exportfs -i -o ro,no_subtree_check,fsid=78 10.99.0.77:/usr/share");
  }

  /** The storage host loses its power, and comes up again. */
  async reboot(): Promise<void> {
    await this.a.restart();
    await this.#mountDisk();
    await this.startServer();
    await this.a.run(START_NFS_SERVER);
  }

  async create(name: string): Promise<string> {
    return (await this.client.call("volumeCreate", SERVICE, { name, size: 1 })).id;
  }

  /** To `b`. */
  async attach(volumeID: string): Promise<VolumeAttachment> {
    const params = { ...SERVICE, volumeID };
    const { volume } = await this.client.call("volumeAttach", params, {}, this.#instances());
    return volume.attachments?.[0] ?? assert.fail("no attachment");
  }

  /** From `b`. */
  async detach(volumeID: string): Promise<void> {
    const params = { ...SERVICE, volumeID };
    await this.client.call("volumeDetach", params, {}, this.#instances());
  }

  #instances(): { readonly instanceIDs: readonly InstanceID[] } {
    return { instanceIDs: [this.#onB ?? assert.fail("b is not known")] };
  }

  /** Mounts on `b` what an attachment names, as the attachment says. */
  async mount({ deviceName, fields = {} }: VolumeAttachment, at: string): Promise<void> {
    const { version, options } = fields;
    await this.b.run(
      `mkdir -p ${at} && mount -t nfs -o vers=${version},${options} ${deviceName} ${at}`,
    );
  }

  /** Everything in a volume: names, sizes, content, times. */
  stateOf(volumeID: string): Promise<string> {
    return this.a.run(
      `cd ${ROOT}/vol/${volumeID} && stat -c '%n %s %Y %y %Z %z' * && md5sum * && sync`,
    );
  }

  async foreignExports(): Promise<string[]> {
    const lines = (await this.a.run("exportfs -s")).split("\n");
    return lines.filter((line) => !line.startsWith(`${SHARES}/`)).toSorted();
  }

  override async stored(): Promise<number> {
    const count = `find ${ROOT}/vol ${ROOT}/snap -mindepth 1 -maxdepth 1 -type d | wc -l`;
    return Number(await this.a.run(count, SLOW));
  }

  /** Its subvolume's limit; where none is enforced there is nothing to see. */
  override async hasSize(volumeID: string, sizeGiB: number): Promise<void> {
    const { stdout } = await this.a.attempt(
      `btrfs qgroup show -r --raw -f ${ROOT}/vol/${volumeID} | tail -1`,
      SLOW,
    );
    assert.equal(stdout.trim().split(/\s+/)[3], String(sizeGiB * 1024 ** 3), stdout);
  }

  override async census(): Promise<Census> {
    const numbers = async (host: Hosts["a"], command: string): Promise<number[]> =>
      (await host.run(command, SLOW)).split("\n").map(Number);
    const [mounts = -1, records = -1] = await numbers(this.b, COUNT_MOUNTS_AND_RECORDS);
    const [shares = -1, exports = -1, named = -1] = await numbers(
      this.a,
      `echo $(grep -c ' ${SHARES}/' /proc/mounts)
       echo $(exportfs -s | grep -c '^${SHARES}/')
       echo $(cat ${OWN_FILE} 2>/dev/null | grep -c '^${SHARES}/')`,
    );
    return { mounts, records, shares, exports, named, attachments: await this.attachments() };
  }

  override async nothingLeft(): Promise<void> {
    const { a, b } = this;
    await this.counts("away", "at the end");
    assert.equal(await this.stored(), 0, "volumes and snapshots");
    assert.equal((await this.foreignExports()).length, 2, "the foreign ones are there");
    assert.doesNotMatch(await a.run("exportfs -s; cat /proc/fs/nfsd/exports"), /libstorage/);
    assert.equal(await a.run(`find ${SHARES} -mindepth 1`), "");
    assert.equal((await a.attempt(`ls ${OWN_FILE}`)).code, 2, "its file of exports");
    assert.equal(await b.run(`ls -A ${MOUNTS} 2>/dev/null; true`), "");
  }

  /** @returns the server's exit code */
  async stop(): Promise<number | null> {
    this.#client?.close();
    return this.server.stop();
  }

  async remove(): Promise<void> {
    await this.hosts.remove();
  }
}
