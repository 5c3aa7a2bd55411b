/**
 * One of the two folders of a root, `vol` or `snap`: for each ID a record `ID.json` and a folder `ID` with
 * the data. What is planted there is never followed: links are shown as broken.
 */
import { closeSync, constants, lstatSync, openSync, readdirSync, readSync } from "node:fs";
import type { Dirent, Stats } from "node:fs";
import { basename, join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import { TEMPORARY_PREFIX } from "../../core/files.js";
import type { Source } from "../../core/driver.js";
import { isId } from "./ids.js";
import { MAX_RECORD_BYTES } from "./records.js";

/** What a name in the folder stands for. */
type Kind = "folder" | "file" | "link" | "other" | "nothing";

/** A volume or a snapshot with what its record says beyond. */
export interface Parsed {
  readonly record: { readonly id: string; readonly source: Source; readonly broken?: string };
}

/** How volumes and snapshots differ. */
export interface ShelfOf<T extends Parsed> {
  readonly what: "volume" | "snapshot";
  /** @throws {Error} whose message says what is wrong with the text */
  parse(text: string, id: string, source: Source): T;
  needsData(parsed: T): boolean;
  /** Why a data folder cannot be used. */
  flawOf?(path: string, stats: Stats): string | undefined;
  /** The parsed record, or as much as is known, marked as broken. */
  broken(id: string, why: string, parsed: T | undefined): T;
}

/** No id begins so, nor does anything that may be removed at any time. */
const NEXT = ".next-";
const PREVIOUS = ".previous-";
/** Data of an id that are not whole yet, and that are on their way out. */
const COPY_PREFIX = `${TEMPORARY_PREFIX}copy-`;
const GONE_PREFIX = `${TEMPORARY_PREFIX}gone-`;

/** The volume that a revert was about, by what is left of it. */
function revertIn(name: string): string | undefined {
  const prefix = [NEXT, PREVIOUS].find((one) => name.startsWith(one));
  return prefix === undefined ? undefined : name.slice(prefix.length).replace(/\.json$/, "");
}

/** How long a list works before it lets others in. */
const TURN_MS = 5;
/** After how many entries it looks at the clock. */
const LOOKS = 32;

function kindOf(entry: Dirent | Stats): Kind {
  if (entry.isSymbolicLink()) return "link";
  if (entry.isDirectory()) return "folder";
  return entry.isFile() ? "file" : "other";
}

function kindAt(path: string): Kind {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  return stats === undefined ? "nothing" : kindOf(stats);
}

let buffer = Buffer.allocUnsafe(64 * 1024);

/** Reads a whole small file, following no link in its last part. */
function readRecord(path: string): string {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  const file = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    let length = 0;
    for (;;) {
      const got = readSync(file, buffer, length, buffer.length - length, null);
      length += got;
      // Less than there was room for is the end of a plain file.
      if (length < buffer.length) return buffer.toString("utf8", 0, length);
      if (length > MAX_RECORD_BYTES) throw new Error("it is larger than 1 MiB");
      buffer = Buffer.concat([buffer, Buffer.allocUnsafe(buffer.length)]);
    }
  } finally {
    closeSync(file);
  }
}

export class Shelf<T extends Parsed> {
  readonly folder: string;
  readonly of: ShelfOf<T>;

  constructor(folder: string, of: ShelfOf<T>) {
    this.folder = folder;
    this.of = of;
  }

  recordPath(id: string): string {
    // Ids have no separators; join() would cost a tenth of a long listing.
    return `${this.folder}/${id}.json`;
  }

  dataPath(id: string): string {
    return `${this.folder}/${id}`;
  }

  /** Where data is put together before it gets its name; never listed. */
  copyPath(id: string): string {
    return join(this.folder, `${COPY_PREFIX}${id}`);
  }

  /** Where data waits for its removal; never listed. */
  gonePath(id: string): string {
    return join(this.folder, `${GONE_PREFIX}${id}`);
  }

  /** Whose data a temporary path holds, or held; undefined for any other. */
  idOf(path: string): string | undefined {
    const name = basename(path);
    const prefix = [COPY_PREFIX, GONE_PREFIX].find((one) => name.startsWith(one));
    return prefix === undefined ? undefined : name.slice(prefix.length);
  }

  /** Where the data are put together that a volume goes back to. @see reverting.ts */
  nextPath(id: string): string {
    return join(this.folder, `${NEXT}${id}`);
  }

  /** The record of those data, once they are whole. */
  nextRecordPath(id: string): string {
    return join(this.folder, `${NEXT}${id}.json`);
  }

  /** Where the data are kept that a volume had before, until the others have its name. */
  previousPath(id: string): string {
    return join(this.folder, `${PREVIOUS}${id}`);
  }

  get isThere(): boolean {
    return kindAt(this.folder) !== "nothing";
  }

  /** @throws {StorageError} `failed-precondition` when the folder is no folder, such as a planted link */
  check(): void {
    const kind = kindAt(this.folder);
    if (kind === "folder") return;
    const found = kind === "nothing" ? "is missing" : `is a ${kind}, not a folder`;
    throw new StorageError(
      "failed-precondition",
      `${this.folder} ${found}; put the folder back and refresh`,
      { path: this.folder },
    );
  }

  hasRecord(id: string): boolean {
    return kindAt(this.recordPath(id)) !== "nothing";
  }

  hasData(id: string): boolean {
    return kindAt(this.dataPath(id)) !== "nothing";
  }

  /** Whether the data folder is there and empty. */
  isEmpty(id: string): boolean {
    try {
      return kindAt(this.dataPath(id)) === "folder" && readdirSync(this.dataPath(id)).length === 0;
    } catch (error) {
      // Removed meanwhile; what cannot be read may hold anything.
      return (error as NodeJS.ErrnoException).code === "ENOENT";
    }
  }

  /** What the names of an id are at this moment: two equal stamps mean that nothing was changed. */
  stamp(id: string): string {
    const record = lstatSync(this.recordPath(id), { bigint: true, throwIfNoEntry: false });
    const data = kindAt(this.dataPath(id));
    return record === undefined ? data : `${record.ino}:${record.mtimeNs}:${record.size}:${data}`;
  }

  /** What a record says that was just written. */
  asWritten(id: string, text: string): T {
    return this.of.parse(text, id, this.#source(id));
  }

  #source(id: string): Source {
    return { kind: "directory", path: this.dataPath(id) };
  }

  read(id: string): T | undefined {
    if (!isId(id)) return undefined;
    this.check();
    return this.#entry(id, kindAt(this.recordPath(id)), kindAt(this.dataPath(id)));
  }

  /**
   * Reads everything, in order of id. Others get their turn in between.
   * @returns beside the entries, what may be removed, and of which ids a revert has left something
   * @param isOnItsWay tells of ids that are being made or removed: one half of them may be there
   */
  async list(
    isOnItsWay: (id: string, hasRecord: boolean) => boolean,
  ): Promise<{ entries: T[]; temporaries: string[]; reverts: ReadonlySet<string> }> {
    this.check();
    const names = new Map<string, { record: Kind; data: Kind }>();
    const temporaries: string[] = [];
    const reverts = new Set<string>();
    for (const entry of readdirSync(this.folder, { withFileTypes: true })) {
      const reverted = revertIn(entry.name);
      if (reverted !== undefined) reverts.add(reverted);
      else if (entry.name.startsWith(TEMPORARY_PREFIX))
        temporaries.push(join(this.folder, entry.name));
      else note(names, entry);
    }
    const entries: T[] = [];
    let turn = performance.now();
    let count = 0;
    for (const id of [...names.keys()].toSorted()) {
      const { record, data } = names.get(id) ?? { record: "nothing", data: "nothing" };
      if (!isId(id)) continue;
      const isHalf = record === "nothing" || data === "nothing";
      if (isHalf && isOnItsWay(id, record !== "nothing")) continue;
      const entry = this.#entry(id, record, data);
      if (entry !== undefined) entries.push(entry);
      count += 1;
      if (count % LOOKS === 0 && performance.now() - turn > TURN_MS) {
        await setImmediate();
        turn = performance.now();
      }
    }
    return { entries, temporaries, reverts };
  }

  #entry(id: string, record: Kind, data: Kind): T | undefined {
    if (record === "nothing") return this.#withoutRecord(id, data);
    if (record !== "file") {
      const why = record === "link" ? "a symbolic link, which is not followed" : "not a plain file";
      return this.of.broken(id, `its record ${this.recordPath(id)} is ${why}`, undefined);
    }
    let parsed: T;
    try {
      parsed = this.asWritten(id, readRecord(this.recordPath(id)));
    } catch (error) {
      // Removed since the folder was read.
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      const why = (error as Error).message;
      const text = `its record ${this.recordPath(id)} cannot be used: ${why}`;
      return this.of.broken(id, text, undefined);
    }
    if (!this.of.needsData(parsed)) return parsed;
    const why = data === "folder" ? this.#flawIn(id) : this.#whyNoData(id, data);
    return why === undefined ? parsed : this.of.broken(id, why, parsed);
  }

  #flawIn(id: string): string | undefined {
    if (this.of.flawOf === undefined) return undefined;
    const path = this.dataPath(id);
    const stats = lstatSync(path, { throwIfNoEntry: false });
    return stats === undefined ? this.#whyNoData(id, "nothing") : this.of.flawOf(path, stats);
  }

  #whyNoData(id: string, data: Kind): string {
    const path = this.dataPath(id);
    if (data === "nothing" && kindAt(this.nextRecordPath(id)) !== "nothing")
      return `it is going back to a snapshot, and that was cut short: its data are in ${this.nextPath(id)}; a refresh ends it`;
    if (data === "nothing")
      return `its data folder ${path} is missing; restore it, or make it empty with mkdir`;
    if (data === "link") return `its data folder ${path} is a symbolic link, which is not followed`;
    return `${path} is not a folder`;
  }

  /** An empty folder is the beginning of a create that was cut short; more than that is someone's data. */
  #withoutRecord(id: string, data: Kind): T | undefined {
    if (data === "link") return this.of.broken(id, this.#whyNoData(id, data), undefined);
    if (data !== "folder" || this.isEmpty(id)) return undefined;
    const why = `${this.dataPath(id)} holds data but its record ${id}.json is missing; restore it or remove the ${this.of.what}`;
    return this.of.broken(id, why, undefined);
  }
}

function note(names: Map<string, { record: Kind; data: Kind }>, entry: Dirent): void {
  const isRecord = entry.name.endsWith(".json");
  const id = isRecord ? entry.name.slice(0, -".json".length) : entry.name;
  const kinds = names.get(id) ?? { record: "nothing", data: "nothing" };
  names.set(id, isRecord ? { ...kinds, record: kindOf(entry) } : { ...kinds, data: kindOf(entry) });
}
