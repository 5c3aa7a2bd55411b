/**
 * A service over plain volumes with an exporter, as tests of exporters use it: in the test's own process, or by
 * lines of JSON in a process of its own (`storage-host.ts`).
 */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import * as v from "valibot";
import type { InstanceID } from "@libstorage/model";
import { EXPORTERS, SILENT, Storage } from "@libstorage/server";
import type {
  AttachmentRecord,
  ExporterModule,
  FaultPlan,
  Logger,
  Session,
} from "@libstorage/server";
import { plain } from "./plain-driver.js";

export interface SessionOptions {
  /** For records, files and the journal; made when it is missing. */
  readonly folder: string;
  readonly kind: "file" | "lv";
  readonly exporter: string;
  readonly config: unknown;
  readonly isShareable?: boolean;
  readonly service?: string;
}

export interface HostOptions {
  readonly faults?: FaultPlan;
  readonly log?: Logger;
  readonly exporters?: Readonly<Record<string, ExporterModule>>;
}

export interface Holder {
  readonly id: string;
  readonly initiatorName?: string;
  readonly addresses?: readonly string[];
}

/** A host that is not this one. */
export function instanceOf({ id, ...facts }: Holder, service: string): InstanceID {
  const bootID = "0b0e0a1c-5a5b-4c5d-8e8f-000000000001";
  return { id, driver: "plain", service, metadata: { hostName: id, bootID, ...facts } };
}

export class StorageSession {
  readonly storage: Storage;
  readonly #service: string;
  #tx = 0;

  private constructor(storage: Storage, service: string) {
    this.storage = storage;
    this.#service = service;
  }

  static async open(options: SessionOptions, host: HostOptions = {}): Promise<StorageSession> {
    const { folder, kind, exporter, config, isShareable = false, service = "plain" } = options;
    const modules: Readonly<Record<string, ExporterModule>> = host.exporters ?? EXPORTERS;
    const module = modules[exporter];
    if (module === undefined) throw new Error(`no exporter ${exporter}`);
    const root = join(folder, service);
    const [journalFolder, libFolder] = [join(folder, "journal"), join(folder, "lib")];
    for (const path of [root, journalFolder, libFolder]) mkdirSync(path, { recursive: true });
    const storage = await Storage.open({
      services: [
        {
          name: service,
          driver: plain,
          config: { root, kind },
          exporter: { module, config: v.parse(module.config, config) },
          settings: { shareable: isShareable, uniqueNames: false },
        },
      ],
      journalFolder,
      libFolder,
      log: host.log ?? SILENT,
      ...(host.faults !== undefined && { faults: host.faults }),
    });
    await storage.recovered();
    return new StorageSession(storage, service);
  }

  get service() {
    return this.storage.service(this.#service);
  }

  #caller() {
    this.#tx += 1;
    return { who: "test", via: "test", tx: `tx-${this.#tx}` };
  }

  async create(sizeBytes?: number): Promise<string> {
    const request = { name: "v", fields: {}, ...(sizeBytes !== undefined && { sizeBytes }) };
    const { id } = await this.service.volumeCreate(request, this.#caller());
    return id;
  }

  async attach(id: string, holder: Holder, force = false): Promise<AttachmentRecord> {
    const request = { to: instanceOf(holder, this.#service), deviceName: "", force };
    const { attachment } = await this.service.volumeAttach(id, request, this.#caller());
    return attachment;
  }

  async detach(id: string, holder: Holder, force = false): Promise<void> {
    const from = instanceOf(holder, this.#service);
    await this.service.volumeDetach(id, from, force, this.#caller());
  }

  /** Gives the volume to another host by force. @returns how much was written to it by the time of the answer */
  async preempt(id: string, holder: Holder): Promise<string> {
    await this.attach(id, holder, true);
    return this.writes(id);
  }

  /**
   * Something that changes with every write to a volume's device or file: for a device the kernel's counts of
   * writes, ended and under way; for a file its time and contents.
   */
  async writes(id: string): Promise<string> {
    const { source } = this.service.volume(id);
    if (source.kind === "block") {
      const device = basename(realpathSync(source.path));
      const fields = readFileSync(`/sys/class/block/${device}/stat`, "utf8").trim().split(/\s+/);
      return `${fields[4]} writes, ${fields[6]} sectors, ${fields[8]} under way`;
    }
    if (source.kind !== "file") return "";
    const { mtimeNs } = statSync(source.path, { bigint: true });
    const sum = createHash("sha256").update(readFileSync(source.path)).digest("hex");
    return `${mtimeNs} ${sum}`;
  }

  async expand(id: string, sizeBytes: number): Promise<void> {
    await this.service.volumeExpand(id, sizeBytes, this.#caller());
  }

  async remove(id: string): Promise<void> {
    await this.service.volumeRemove(id, true, this.#caller());
  }

  async removeAll(): Promise<void> {
    for (const { id } of this.service.inventory.volumes.all()) await this.remove(id);
  }

  async sessions(): Promise<readonly Session[]> {
    return this.service.exports.sessions();
  }

  async warnings(): Promise<readonly string[]> {
    return this.storage.warnings;
  }

  async close(): Promise<void> {
    await this.storage.close();
  }
}
