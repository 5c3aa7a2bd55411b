/** NFS: a volume's folder, for one host at a time or for several. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { StorageError } from "@libstorage/model";
import type { OpContext, VolumeRecord } from "../../core/driver.js";
import { defineExporter, exporterOf, holdsOf } from "../../core/exporter.js";
import type {
  Door,
  Exporter,
  ExporterContext,
  Hold,
  NotRestored,
  Wanted,
} from "../../core/exporter.js";
import { NfsConfig } from "./config.js";
import { GaneshaServer } from "./ganesha.js";
import { KernelServer } from "./kernel.js";
import { reachOf } from "./reachability.js";
import type { NfsServer } from "./server.js";
import { FIELDS, pathOf, shareOf } from "./share.js";
import type { Share } from "./share.js";
import { familyOf, within } from "./subnets.js";

const NAME = "nfs";

/** Tools take only these beside an NFS server in /etc. */
const EXPORTS_FOLDER = "/etc/exports.d";

export class NfsExporter implements Exporter {
  readonly name = NAME;
  readonly sources = ["directory"] as const;
  readonly #config: NfsConfig;
  readonly #service: string;
  readonly #folder: string;
  readonly #server: NfsServer;

  constructor(config: NfsConfig, service: string, folder: string, server: NfsServer) {
    this.#config = config;
    this.#service = service;
    this.#folder = folder;
    this.#server = server;
  }

  async plan(volume: VolumeRecord, wanted: Wanted, context: OpContext): Promise<Door> {
    const { source, id } = volume;
    if (source.kind !== "directory")
      throw new StorageError("failed-precondition", `volume ${id} is no folder`, { volumeID: id });
    await this.#server.check({ source: source.path, volumeID: id }, context);
    const { server, clients } = reachOf(this.#config, wanted);
    const path = pathOf(this.#folder, id, wanted.epoch);
    const { version, readOnly } = this.#config;
    const number = this.#server.numberFor?.(path);
    const isReadOnly = within(readOnly, clients).length > 0;
    return {
      deviceName: `${familyOf(server) === "ipv6" ? `[${server}]` : server}:${path}`,
      fields: {
        [FIELDS.version]: version,
        [FIELDS.options]: this.#options(isReadOnly),
        [FIELDS.clients]: clients.join(","),
        [FIELDS.access]: isReadOnly ? "ro" : "rw",
        [FIELDS.served]: this.#server.kind,
        ...(number !== undefined && { [FIELDS.number]: String(number) }),
      },
    };
  }

  #options(isReadOnly: boolean): string {
    const { options, security } = this.#config;
    const { port } = this.#server;
    const all = [
      isReadOnly ? "ro" : "rw",
      `sec=${security}`,
      ...(port === 2049 ? [] : [`port=${port}`]),
      options,
    ];
    return all.join(",");
  }

  async export(hold: Hold, context: OpContext): Promise<void> {
    await this.#server.add(this.#shareOf(hold), context);
  }

  async unexport(hold: Hold, context: OpContext): Promise<void> {
    await this.#server.remove(this.#shareOf(hold), context);
  }

  async restore(holds: readonly Hold[], context: OpContext) {
    const { shares, failed } = this.#readAll(holds);
    for (const [share, error] of await this.#server.restore([...shares.keys()], context)) {
      const hold = shares.get(share);
      if (hold !== undefined) failed.push({ hold, error });
    }
    return failed;
  }

  watch(onLost: () => void): () => void {
    return this.#server.watch(onLost);
  }

  async sessions(volumes: readonly VolumeRecord[]) {
    const holds = holdsOf(volumes).filter(({ attachment }) => exporterOf(attachment) === NAME);
    // What a damaged record is about cannot be told; the others' sessions can.
    return this.#server.sessions([...this.#readAll(holds).shares.keys()]);
  }

  abilities(context: OpContext) {
    return this.#server.abilities(context);
  }

  close(): Promise<void> {
    return this.#server.close();
  }

  /** The shares of those that can be read, and the others with why not. */
  #readAll(holds: readonly Hold[]) {
    const shares = new Map<Share, Hold>();
    const failed: NotRestored[] = [];
    for (const hold of holds) {
      try {
        shares.set(this.#shareOf(hold), hold);
      } catch (error) {
        failed.push({ hold, error });
      }
    }
    return { shares, failed };
  }

  /** @throws {StorageError} when another kind of server holds it: only that can cut it off */
  #shareOf(hold: Hold): Share {
    const served = hold.attachment.fields?.[FIELDS.served];
    const { kind } = this.#server;
    if (served === undefined || served === kind) return shareOf(hold, this.#service);
    const { id } = hold.volume;
    throw new StorageError(
      "failed-precondition",
      `volume ${id} was exported with "nfs.mode: ${served}"; set that again, so that its holder can be cut off`,
      { volumeID: id },
    );
  }
}

/**
 * By what is installed, not by what runs: this server has to start before the NFS server, and must choose the same
 * at every start.
 */
export function isKernelChosen(path = process.env["PATH"] ?? ""): boolean {
  const folders = [...path.split(":"), "/usr/sbin", "/sbin"];
  return folders.some((folder) => folder !== "" && existsSync(join(folder, "exportfs")));
}

export const nfs = defineExporter({
  name: NAME,
  config: NfsConfig,
  async open(config, { service, libFolder }: ExporterContext): Promise<Exporter> {
    const folder = join(config.folder, service);
    const isKernel = config.mode === "kernel" || (config.mode === "auto" && isKernelChosen());
    if (!isKernel && config.version === "3")
      throw new StorageError(
        "invalid-argument",
        'nfs-ganesha serves NFS 4 only here; set "nfs.version" to 4.2, or "nfs.mode" to kernel',
      );
    const exportsFile = join(EXPORTS_FOLDER, `libstorage-${service}.exports`);
    const server = isKernel
      ? new KernelServer(config, { folder, exportsFile })
      : new GaneshaServer(config, { folder, state: join(libFolder, "nfs-ganesha", service) });
    return new NfsExporter(config, service, folder, server);
  },
});
