/**
 * What this node has staged and published: a file per volume that survives the plugin. A record says what is
 * meant, and is written before it is done; what is so says the kernel's table of mounts.
 */
import * as fs from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import { readSmallFile } from "../../executor/small-file.js";
import { removeDurably, writeDurably, writeWhole } from "../../host/durable-file.js";
import { pathPart } from "../../host/mount-records.js";

const Publication = v.object({
  target: v.string(),
  readonly: v.boolean(),
  mode: v.string(),
  /** Digest of the whole capability, so that another one is noticed without keeping its mount flags. */
  capability: v.string(),
});
export type Publication = v.InferOutput<typeof Publication>;

const StageRecord = v.object({
  version: v.literal(1),
  volumeID: v.string(),
  /** Where the orchestrator wants it staged. */
  stagingPath: v.string(),
  access: v.picklist(["block", "mount"]),
  mode: v.string(),
  capability: v.string(),
  readonly: v.boolean(),
  /** Whose executor reaches it. */
  driver: v.string(),
  /** Where the service says that the volume is. */
  device: v.string(),
  fields: v.record(v.string(), v.string()),
  /** The controller's token of this node's turn: another turn, another token. */
  token: v.string(),
  /** Of a volume on a device: what is mounted there. */
  mount: v.optional(v.object({ source: v.string(), major: v.number(), minor: v.number() })),
  /** `formatting`: what is on the device is a part of a file system that nobody has used. */
  phase: v.picklist(["staging", "formatting", "staged", "unstaging"]),
  publications: v.array(Publication),
  /** While snapshots are taken. */
  isFrozen: v.optional(v.boolean(), false),
  /** Which start of this host it belongs to: a mount does not survive one. */
  boot: v.string(),
});
export type StageRecord = v.InferOutput<typeof StageRecord>;

/** What its writer says of it. */
export type NewStageRecord = Omit<StageRecord, "version" | "boot" | "isFrozen"> &
  Partial<Pick<StageRecord, "isFrozen">>;

export class NodeRecords {
  readonly #folder: string;
  #boot: string | undefined;

  /** @param folder of one plugin */
  constructor(folder: string) {
    this.#folder = folder;
  }

  #fileOf(volumeID: string): string {
    return join(this.#folder, `${pathPart(volumeID)}.json`);
  }

  async boot(): Promise<string> {
    this.#boot ??= (
      await fs.readFile("/proc/sys/kernel/random/boot_id", "utf8").catch(() => "unknown")
    ).trim();
    return this.#boot;
  }

  async read(volumeID: string): Promise<StageRecord | undefined> {
    const file = this.#fileOf(volumeID);
    const text = readSmallFile(file);
    // Empty is what a loss of power leaves of one that was not on the disk yet.
    if (text === undefined || text === "") return undefined;
    const result = v.safeParse(StageRecord, parsed(text));
    if (result.success && result.output.volumeID === volumeID) return this.#now(result.output);
    throw new StorageError(
      "data-loss",
      `${file} is broken: it says where volume ${volumeID} is staged on this node. Look with findmnt, unmount by hand what is there, then remove the file`,
      { file },
    );
  }

  #saysFormatting(file: string): boolean {
    const record = parsed(readSmallFile(file) ?? "");
    return typeof record === "object" && record !== null && "phase" in record
      ? record.phase === "formatting"
      : false;
  }

  /** Nothing of an earlier start of this host is mounted any more. */
  async #now(record: StageRecord): Promise<StageRecord> {
    if (record.boot === (await this.boot())) return record;
    const { mount: _mount, ...rest } = record;
    const phase = record.phase === "formatting" ? "formatting" : "staging";
    return { ...rest, phase, publications: [], isFrozen: false };
  }

  /**
   * What is staged ends with the host, so that a record need only outlive its process. But what says that
   * a device has nothing worth keeping must be on the disk before that is so, and be gone from it before
   * anybody has written.
   */
  async write(record: NewStageRecord): Promise<StageRecord> {
    const whole: StageRecord = {
      isFrozen: false,
      ...record,
      version: 1,
      boot: await this.boot(),
    };
    const file = this.#fileOf(record.volumeID);
    const isOfRemains = record.phase === "formatting" || this.#saysFormatting(file);
    await (isOfRemains ? writeDurably : writeWhole)(file, JSON.stringify(whole));
    return whole;
  }

  async remove(volumeID: string): Promise<void> {
    const file = this.#fileOf(volumeID);
    if (this.#saysFormatting(file)) await removeDurably(file);
    else await fs.rm(file, { force: true });
  }

  /** The volumes that have a record, whatever it says. */
  async volumeIDs(): Promise<readonly string[]> {
    const names = await fs.readdir(this.#folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    return names
      .filter((name) => name.endsWith(".json"))
      .map((name) => decodeURIComponent(name.slice(0, -".json".length)));
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
