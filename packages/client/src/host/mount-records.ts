/**
 * Which volumes this host has mounted, where, and how many use each: a file per volume that survives the
 * process. A record says what is meant; what is so says the kernel's mount table.
 */
import { join } from "node:path";
import * as v from "valibot";
import { Fields } from "@libstorage/model";
import { pathPart } from "./path-part.js";
import { RecordFolder, saysPhase, thisBoot } from "./record-folder.js";

export { pathPart };

const MountRecord = v.object({
  version: v.literal(1),
  volumeID: v.string(),
  name: v.string(),
  /** Whose executor mounted it. */
  driver: v.string(),
  /** Empty until the server has said. */
  device: v.string(),
  /** Those of the attachment, so that it can be taken down without the server. */
  fields: v.optional(Fields, {}),
  mountPoint: v.string(),
  /** What the kernel's table had there; of the start of the host in `boot`. */
  source: v.optional(v.object({ source: v.string(), major: v.number(), minor: v.number() })),
  /** Whether the folder there is the client's own, which goes with the mount. */
  ownsFolder: v.boolean(),
  kind: v.picklist(["mount", "link", "folder"]),
  /** How many uses are to be given back before the volume is unmounted. */
  users: v.pipe(v.number(), v.integer(), v.minValue(0)),
  /** Uses with a name, each counted once however often it is asked for: containers. */
  namedUsers: v.optional(v.array(v.string()), []),
  /**
   * What was under way when it was written. `formatting`: what is on the device is a part of a file system that
   * nobody has used.
   */
  phase: v.picklist(["mounting", "formatting", "mounted", "unmounting"]),
  /** Which start of this host the uses belong to. */
  boot: v.string(),
});
export type MountRecordFile = v.InferOutput<typeof MountRecord>;

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

/** Where the records of one service of one server are. */
export function mountFolderOf(libFolder: string, server: string, service: string): string {
  return join(libFolder, "mounts", pathPart(server), pathPart(service));
}

export class MountRecords {
  readonly #folder: RecordFolder<typeof MountRecord>;

  /** @param folder of one service of one server */
  constructor(folder: string) {
    this.#folder = new RecordFolder(
      folder,
      MountRecord,
      "it says where a volume is mounted on this host. Look with findmnt, unmount by hand what is there, then remove the file",
    );
  }

  get folder(): string {
    return this.#folder.path;
  }

  fileOf(volumeID: string): string {
    return this.#folder.fileOf(volumeID);
  }

  lockOf(volumeID: string): string {
    return join(this.#folder.path, `${pathPart(volumeID)}.lock`);
  }

  async files(): Promise<readonly string[]> {
    return this.#folder.files();
  }

  async readFile(file: string): Promise<MountRecordFile | undefined> {
    return ofThisBoot(await this.#folder.readFile(file));
  }

  async read(volumeID: string): Promise<MountRecordFile | undefined> {
    return ofThisBoot(await this.#folder.read(volumeID));
  }

  async all(): Promise<readonly MountRecordFile[]> {
    const found: MountRecordFile[] = [];
    for (const record of await this.#folder.all()) {
      const current = await ofThisBoot(record);
      if (current !== undefined) found.push(current);
    }
    return found;
  }

  /**
   * What is mounted ends with the host, so that a record need only outlive its process. But what says that a
   * device has nothing worth keeping must be on the disk before that is so, and be gone from it before anybody
   * has written there.
   */
  async write(record: Omit<MountRecordFile, "version" | "boot">): Promise<MountRecordFile> {
    const whole: MountRecordFile = { version: 1, ...record, boot: await thisBoot() };
    const isOfRemains = whole.phase === "formatting" || this.#saysFormatting(whole.volumeID);
    await (isOfRemains ? this.#folder.write(whole) : this.#folder.writeForBoot(whole));
    return whole;
  }

  async remove(volumeID: string): Promise<void> {
    if (this.#saysFormatting(volumeID)) await this.#folder.remove(volumeID);
    else await this.#folder.removeForBoot(volumeID);
  }

  #saysFormatting(volumeID: string): boolean {
    return saysPhase(this.#folder.fileOf(volumeID), "formatting");
  }
}

/** Uses of an earlier start of the host count no more, and its numbers of devices mean others now. */
async function ofThisBoot(
  record: MountRecordFile | undefined,
): Promise<MountRecordFile | undefined> {
  if (record === undefined || record.boot === (await thisBoot())) return record;
  const { source: _, ...rest } = record;
  return { ...rest, users: 0, namedUsers: [] };
}
