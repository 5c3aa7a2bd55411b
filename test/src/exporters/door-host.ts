/** A server in this process that serves image volumes as NBD, files and vhost-user-blk, and clients of it. */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Attached } from "@libstorage/client/host";
import { DRIVERS, EXPORTERS, SILENT, Storage, openVolumeService } from "@libstorage/server";
import type {
  Caller,
  DriverModule,
  ExporterModule,
  FaultPlan,
  JournalEntry,
  StorageOptions,
} from "@libstorage/server";
import type {
  Export,
  ExportAddRequest,
  ExportUpdateRequest,
  VolumeService,
} from "@libstorage/model";
import * as v from "valibot";

import { ended, run } from "./nbd-client.js";

export const SERVICE = "disks";
const MIB = 1024 ** 2;

/** Every suite over this host runs with the other layout of daemons too: `DAEMON_FOR=service`. */
const DAEMON_FOR = process.env["DAEMON_FOR"];

const CALLER: Caller = { who: "tester", via: "test", tx: "00000000-0000-1000-8000-000000000000" };
/** A host other than the one that serves, which is reached over loopback. */
export const OTHER_HOST = {
  id: "host-b",
  driver: "image",
  service: "",
  metadata: {
    hostName: "b",
    bootID: "00000000-0000-4000-8000-000000000000",
    addresses: ["127.0.0.1"],
  },
};

export interface DoorHostOptions {
  readonly nbd?: object;
  readonly daemon?: object;
  readonly exports?: readonly (keyof typeof EXPORTERS)[];
  readonly shareable?: boolean;
  /** Keys of the image driver. */
  readonly image?: object;
  /** Another driver than that for images, with its checked block. */
  readonly driver?: { readonly module: DriverModule; readonly config: object };
  /** Whether other hosts get volumes by NBD. */
  readonly hasHosts?: boolean;
  readonly faults?: FaultPlan;
}

export class DoorHost {
  readonly folder: string;
  readonly storage: Storage;
  readonly service: VolumeService;

  private constructor(folder: string, storage: Storage) {
    this.folder = folder;
    this.storage = storage;
    this.service = openVolumeService(storage);
  }

  static async open(folder: string, options: DoorHostOptions = {}): Promise<DoorHost> {
    const { exports = ["nbd", "fuse", "vhost-user-blk"] } = options;
    const daemon = {
      ...(DAEMON_FOR !== undefined && { daemonFor: DAEMON_FOR }),
      ...options.daemon,
    };
    const [journalFolder, libFolder] = [join(folder, "j"), join(folder, "l")];
    for (const path of [journalFolder, libFolder]) mkdirSync(path, { recursive: true });
    const encryptionKeyFile = join(folder, "key");
    writeFileSync(encryptionKeyFile, "a passphrase, for tests only", { mode: 0o600 });
    const image = {
      root: join(folder, "root"),
      format: "qcow2",
      preallocation: "off",
      copies: "files",
      snapshots: "overlays",
      maxImportSize: "1TiB",
      encryptionKeyFile,
      ...options.image,
    };
    const blockOf = (name: string): object => ({
      ...daemon,
      encryptionKeyFile,
      ...(name === "nbd" && { listen: "127.0.0.1:0", ...options.nbd }),
    });
    const spec = (name: keyof typeof EXPORTERS) => {
      const module: ExporterModule = EXPORTERS[name];
      return { module, config: v.parse(module.config, blockOf(name)) };
    };
    const storageOptions: StorageOptions = {
      services: [
        {
          name: SERVICE,
          driver: options.driver?.module ?? DRIVERS.image,
          config: options.driver?.config ?? image,
          exporters: exports.map(spec),
          ...(options.hasHosts === true && { exporter: spec("nbd") }),
          settings: { shareable: options.shareable ?? false, uniqueNames: false },
        },
      ],
      journalFolder,
      libFolder,
      log: SILENT,
      ...(options.faults !== undefined && { faults: options.faults }),
    };
    const storage = await Storage.open(storageOptions);
    await storage.recovered();
    return new DoorHost(folder, storage);
  }

  async volume(format: "raw" | "qcow2" = "qcow2", more: object = {}): Promise<string> {
    const body = { name: "v", size: 1, opts: { format }, ...more };
    const { id } = await this.service.volumeCreate({ service: SERVICE }, body, {});
    return id;
  }

  /** Attaches a volume to another host, `host-b`: what that host's executor is told of it. */
  async attachToHost(volumeID: string, more: object = {}): Promise<Attached> {
    const request = { to: { ...OTHER_HOST, ...more }, deviceName: "", force: false };
    const service = this.storage.service(SERVICE);
    const { attachment } = await service.volumeAttach(volumeID, request, CALLER);
    return { volumeID, device: attachment.deviceName, fields: attachment.fields ?? {} };
  }

  async detachFromHost(volumeID: string, more: object = {}): Promise<void> {
    const from = { ...OTHER_HOST, ...more };
    await this.storage.service(SERVICE).volumeDetach(volumeID, from, false, CALLER);
  }

  /** Removes all exports, snapshots and volumes. */
  async clear(): Promise<void> {
    for (const { id = "" } of await this.exports()) await this.remove(id, "hard");
    const service = this.storage.service(SERVICE);
    for (const { id } of service.inventory.snapshots.all())
      await service.snapshotRemove(id, CALLER);
    await this.removeVolumes();
  }

  /** With whatever holds them; daemons outlive the server, as they should. */
  async removeVolumes(): Promise<void> {
    const service = this.storage.service(SERVICE);
    for (const { id } of service.inventory.volumes.all())
      await service.volumeRemove(id, true, CALLER);
  }

  add(request: ExportAddRequest): Promise<Export> {
    return this.service.exportAdd({ service: SERVICE }, request, {});
  }

  update(exportID: string, request: ExportUpdateRequest): Promise<Export> {
    return this.service.exportUpdate({ service: SERVICE, exportID }, request, {});
  }

  remove(exportID: string, mode = "safe"): Promise<Export | null> {
    return this.service.exportRemove({ service: SERVICE, exportID, mode }, undefined, {});
  }

  exports(): Promise<readonly Export[]> {
    return this.service.exportsByService({ service: SERVICE }, undefined, {});
  }

  /** What followers of the event stream are told, from now on. */
  entries(): JournalEntry[] {
    const seen: JournalEntry[] = [];
    this.storage.operations.events.subscribe((entry) => seen.push(entry));
    return seen;
  }

  close(): Promise<void> {
    return this.storage.close();
  }
}

/** What a client opens: a URI for NBD, the path of a file. */
export function targetOf({ deviceName }: Export): string {
  return deviceName;
}

/** Runs qemu-io commands through an export; all must succeed. */
export async function through(door: Export, ...commands: readonly string[]): Promise<void> {
  const readOnly = door.writable === true ? [] : ["-r"];
  const args = ["-f", "raw", ...readOnly, ...commands.flatMap((one) => ["-c", one])];
  const text = await run("qemu-io", ...args, targetOf(door));
  assert.ok(!/Pattern verification failed|failed:/.test(text), `${door.exporter}: ${text}`);
}

/** Whether a client is let in. */
export async function opens(target: string): Promise<boolean> {
  const { status } = await ended("qemu-io", "-r", "-f", "raw", "-c", "read 0 4k", target);
  return status === 0;
}

export { MIB };
export const GIB = 1024 ** 3;
