/**
 * Which volumes this host has mounted, where, and how many use each: a file per volume that survives the
 * process. A record says what is meant; what is so says the kernel's mount table.
 */
import * as fs from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import { removeDurably, writeDurably } from "./durable-file.js";

const Record = v.object({
  version: v.literal(1),
  volumeID: v.string(),
  name: v.string(),
  /** Whose executor mounted it. */
  driver: v.string(),
  /** Empty until the server has said. */
  device: v.string(),
  mountPoint: v.string(),
  /** Whether the folder there is the client's own, which goes with the mount. */
  ownsFolder: v.boolean(),
  kind: v.picklist(["mount", "link", "folder"]),
  /** How many uses are to be given back before the volume is unmounted. */
  users: v.pipe(v.number(), v.integer(), v.minValue(0)),
  /** Uses with a name, each counted once however often it is asked for: containers. */
  namedUsers: v.optional(v.array(v.string()), []),
  /** What was under way when it was written. */
  phase: v.picklist(["mounting", "mounted", "unmounting"]),
  /** Which start of this host the uses belong to. */
  boot: v.string(),
});
export type MountRecordFile = v.InferOutput<typeof Record>;

/** All uses of a volume. */
export function usesOf({ users, namedUsers }: MountRecordFile): number {
  return users + namedUsers.length;
}

type Uses = Pick<MountRecordFile, "users" | "namedUsers">;

/** With one use more; a name counts once. */
export function withUse({ users, namedUsers }: Uses, user: string | undefined): Uses {
  if (user === undefined) return { users: users + 1, namedUsers };
  return { users, namedUsers: [...new Set([...namedUsers, user])] };
}

/** With one use less, if there is one. */
export function withoutUse({ users, namedUsers }: Uses, user: string | undefined): Uses {
  if (user === undefined) return { users: Math.max(0, users - 1), namedUsers };
  return { users, namedUsers: namedUsers.filter((one) => one !== user) };
}

/** A name as one part of a path, whatever is in it. */
export function pathPart(text: string): string {
  const escaped = encodeURIComponent(text).replaceAll("*", "%2A");
  // File names end at 255 bytes; the dots alone would lead elsewhere.
  const plain = /^\.+$/.test(escaped) ? escaped.replaceAll(".", "%2E") : escaped;
  if (plain === "" || plain.length > 240)
    throw new StorageError("invalid-argument", `"${text}" cannot be the name of a file`, { text });
  return plain;
}

export class MountRecords {
  readonly #folder: string;
  #boot: string | undefined;

  /** @param folder of one service of one server */
  constructor(folder: string) {
    this.#folder = folder;
  }

  fileOf(volumeID: string): string {
    return join(this.#folder, `${pathPart(volumeID)}.json`);
  }

  lockOf(volumeID: string): string {
    return join(this.#folder, `${pathPart(volumeID)}.lock`);
  }

  /** Changes with every start of the host. */
  async boot(): Promise<string> {
    this.#boot ??= (
      await fs.readFile("/proc/sys/kernel/random/boot_id", "utf8").catch(() => "unknown")
    ).trim();
    return this.#boot;
  }

  /** Uses of an earlier start of the host count no more. */
  async read(volumeID: string): Promise<MountRecordFile | undefined> {
    return this.#parse(this.fileOf(volumeID));
  }

  async #parse(file: string): Promise<MountRecordFile | undefined> {
    const text = await fs.readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (text === undefined) return undefined;
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      value = undefined;
    }
    const result = v.safeParse(Record, value);
    if (!result.success)
      throw new StorageError(
        "data-loss",
        `${file} is broken: it says where a volume is mounted on this host. Look with findmnt, unmount by hand what is there, then remove the file`,
        { file },
      );
    const record = result.output;
    return record.boot === (await this.boot()) ? record : { ...record, users: 0, namedUsers: [] };
  }

  async all(): Promise<readonly MountRecordFile[]> {
    const names = await fs.readdir(this.#folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    const records: MountRecordFile[] = [];
    for (const name of names.filter((one) => one.endsWith(".json")).toSorted()) {
      const record = await this.#parse(join(this.#folder, name));
      if (record !== undefined) records.push(record);
    }
    return records;
  }

  /** Durable when it answers. */
  async write(record: Omit<MountRecordFile, "version" | "boot">): Promise<MountRecordFile> {
    const whole: MountRecordFile = { version: 1, ...record, boot: await this.boot() };
    // Nobody else writes this record: its writer has its lock.
    await writeDurably(this.fileOf(record.volumeID), JSON.stringify(whole));
    return whole;
  }

  async remove(volumeID: string): Promise<void> {
    await removeDurably(this.fileOf(volumeID));
  }
}
