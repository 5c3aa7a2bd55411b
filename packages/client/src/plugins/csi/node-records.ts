/**
 * What this node has staged and published: a file per volume that survives the plugin. A record says what is
 * meant, and is written before it is done; what is so says the kernel's table of mounts.
 */
import { basename } from "node:path";
import * as v from "valibot";
import { RecordFolder, saysPhase, thisBoot } from "../../host/record-folder.js";

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
  /** Digest of the mount flags that only its file system takes. */
  fsFlags: v.optional(v.string()),
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
  readonly #folder: RecordFolder<typeof StageRecord>;

  /** @param folder of one plugin */
  constructor(folder: string) {
    this.#folder = new RecordFolder(
      folder,
      StageRecord,
      "it says where a volume is staged on this node. Look with findmnt, unmount by hand what is there, then remove the file",
    );
  }

  /** @throws {StorageError} `data-loss` for a file that is no record of this volume */
  async read(volumeID: string): Promise<StageRecord | undefined> {
    const record = await this.#folder.read(volumeID);
    return record === undefined ? undefined : now(record);
  }

  #saysFormatting(volumeID: string): boolean {
    return saysPhase(this.#folder.fileOf(volumeID), "formatting");
  }

  /**
   * What is staged ends with the host, so that a record need only outlive its process. But what says that
   * a device has nothing worth keeping must be on the disk before that is so, and be gone from it before
   * anybody has written.
   */
  async write(record: NewStageRecord): Promise<StageRecord> {
    const whole: StageRecord = { isFrozen: false, ...record, version: 1, boot: await thisBoot() };
    const isOfRemains = record.phase === "formatting" || this.#saysFormatting(record.volumeID);
    await (isOfRemains ? this.#folder.write(whole) : this.#folder.writeForBoot(whole));
    return whole;
  }

  async remove(volumeID: string): Promise<void> {
    if (this.#saysFormatting(volumeID)) await this.#folder.remove(volumeID);
    else await this.#folder.removeForBoot(volumeID);
  }

  /** The volumes that have a record, whatever it says. */
  async volumeIDs(): Promise<readonly string[]> {
    return (await this.#folder.files()).map((file) => decodeURIComponent(basename(file, ".json")));
  }
}

/** Nothing of an earlier start of this host is mounted any more. */
async function now(record: StageRecord): Promise<StageRecord> {
  if (record.boot === (await thisBoot())) return record;
  const { mount: _mount, ...rest } = record;
  const phase = record.phase === "formatting" ? "formatting" : "staging";
  return { ...rest, phase, publications: [], isFrozen: false };
}
