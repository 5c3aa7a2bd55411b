/**
 * Volumes of a btrfs on host `a`, exported by its kernel's NFS server to host `b`, with mutual TLS between server
 * and client.
 */
import assert from "node:assert/strict";
import type { InstanceID, VolumeAttachment } from "@libstorage/model";
import { certificates } from "./certificates.js";
import { LabServer } from "./lab-server.js";
import { startTwoHosts } from "./network.js";
import type { Hosts } from "./network.js";
import { RemoteClient } from "./remote-client.js";

const TLS = "/etc/libstorage/tls";
const CONFIG = "/etc/libstorage/config.yml";
/** Of the service, on `a`. */
export const ROOT = "/srv/btrfs/fast";
export const SERVICE = { service: "fast" };

const onA = (version: string): string => `libstorage:
  tls:
    certFile: ${TLS}/server.crt
    keyFile: ${TLS}/server.key
    trustedCertsFile: ${TLS}/cacerts
    clientCertRequired: true
  server:
    endpoints:
      local:
        address: unix:///run/libstorage/libstorage.sock
      all:
        address: tcp://:7979
    services:
      fast:
        driver: btrfs
        btrfs:
          root: ${ROOT}
        exporter: nfs
        nfs:
          version: "${version}"
`;

/** As its unit does: first what exports(5) names. The least times that the kernel takes; else a first open waits 90 s. */
const START_NFS_SERVER = `modprobe nfsd && mount -t nfsd nfsd /proc/fs/nfsd
  mkdir -p /run/rpcbind && rpcbind -w
  echo 10 > /proc/fs/nfsd/nfsv4leasetime && echo 10 > /proc/fs/nfsd/nfsv4gracetime
  exportfs -r; rpc.nfsd 4 && rpc.mountd`;

export class NfsHosts {
  readonly a: Hosts["a"];
  readonly b: Hosts["b"];
  readonly #hosts: Hosts;
  #server: LabServer | undefined;
  #client: RemoteClient | undefined;
  #onB: InstanceID | undefined;

  /** Made by `start`. */
  constructor(hosts: Hosts) {
    this.#hosts = hosts;
    this.a = hosts.a;
    this.b = hosts.b;
  }

  /** @param version of NFS that `b` is told to use */
  static async start(version = "4.2"): Promise<NfsHosts> {
    const hosts = new NfsHosts(await startTwoHosts({ a: { diskMiB: [1024] }, b: {} }));
    try {
      await hosts.#configure(version);
      return hosts;
    } catch (error) {
      await hosts.remove();
      throw error;
    }
  }

  get client(): RemoteClient {
    return this.#client ?? assert.fail("the client is closed");
  }

  async #configure(version: string): Promise<void> {
    const { a, b } = this;
    await a.run("mkfs.btrfs -q /dev/vdc && mkdir -p /srv/foreign /etc/exports.d");
    await a.write("/etc/exports", "/srv/foreign *(ro,no_subtree_check,fsid=77)\n");
    await a.write(CONFIG, onA(version));
    const files = certificates();
    for (const name of ["server.crt", "server.key", "cacerts"])
      await a.write(`${TLS}/${name}`, files(name), "600");
    for (const name of ["b.crt", "b.key", "cacerts"])
      await b.write(`${TLS}/${name}`, files(name), "600");
    await this.#mountDisk();
    await a.run(START_NFS_SERVER);
    await this.exportForeign();
    await b.run("modprobe nfs");
    const bootID = await b.run("cat /proc/sys/kernel/random/boot_id");
    const facts = { hostName: "b", bootID, addresses: ["10.99.0.2"] };
    this.#onB = { id: "b", driver: "btrfs", service: "fast", metadata: facts };
    this.#server = await LabServer.start(a, CONFIG);
    this.#client = this.#openClient();
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
    this.#server = await LabServer.start(this.a, CONFIG);
    await this.a.run(START_NFS_SERVER);
  }

  #openClient(): RemoteClient {
    return new RemoteClient(this.b, {
      host: "tcp://a:7979",
      tls: {
        certFile: `${TLS}/b.crt`,
        keyFile: `${TLS}/b.key`,
        trustedCertsFile: `${TLS}/cacerts`,
        clientCertRequired: false,
        verifyChain: true,
        verifyKnownHosts: false,
        knownHostsFiles: [],
      },
      repeatMs: 180_000,
      responseTimeoutMs: 180_000,
    });
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

  /** @returns the server's exit code */
  async stop(): Promise<number | null> {
    this.#client?.close();
    return this.#server?.stop() ?? null;
  }

  async remove(): Promise<void> {
    await this.#hosts.remove();
  }
}
