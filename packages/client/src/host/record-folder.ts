/** Records of this host's state: a checked JSON file per volume, durable when written, in one folder. */
import * as fs from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import { readSmallFile, readSmallFolder } from "../executor/small-file.js";
import { removeDurably, writeDurably, writeWhole } from "./durable-file.js";
import { pathPart } from "./path-part.js";

let bootID: string | undefined;

/** Changes with every start of the host. */
export async function thisBoot(): Promise<string> {
  bootID ??= (
    await fs.readFile("/proc/sys/kernel/random/boot_id", "utf8").catch(() => "unknown")
  ).trim();
  return bootID;
}

/** Whether a record that may be broken says that this was under way. */
export function saysPhase(file: string, phase: string): boolean {
  try {
    const record: unknown = JSON.parse(readSmallFile(file) ?? "");
    return (
      typeof record === "object" && record !== null && "phase" in record && record.phase === phase
    );
  } catch {
    return false;
  }
}

export class RecordFolder<S extends v.GenericSchema<unknown, { readonly volumeID: string }>> {
  readonly path: string;
  readonly #schema: S;
  readonly #about: string;

  /** @param about what a broken record was about and what to do, for its error */
  constructor(path: string, schema: S, about: string) {
    this.path = path;
    this.#schema = schema;
    this.#about = about;
  }

  fileOf(volumeID: string): string {
    return join(this.path, `${pathPart(volumeID)}.json`);
  }

  /** @throws {StorageError} `data-loss` for a file that is no record, or another volume's */
  async read(volumeID: string): Promise<v.InferOutput<S> | undefined> {
    const file = this.fileOf(volumeID);
    const record = await this.readFile(file);
    if (record !== undefined && record.volumeID !== volumeID) throw this.#broken(file);
    return record;
  }

  /** @throws {StorageError} `data-loss` for a file that is no record */
  async readFile(file: string): Promise<v.InferOutput<S> | undefined> {
    const text = readSmallFile(file);
    // Empty is what a loss of power leaves of one that was not on the disk yet.
    if (text === undefined || text === "") return undefined;
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      value = undefined;
    }
    const result = v.safeParse(this.#schema, value);
    if (!result.success) throw this.#broken(file);
    return result.output;
  }

  #broken(file: string): StorageError {
    return new StorageError("data-loss", `${file} is broken: ${this.#about}`, { file });
  }

  /** The files of the records, sorted. */
  async files(): Promise<readonly string[]> {
    const names = readSmallFolder(this.path);
    return names
      .filter((one) => one.endsWith(".json"))
      .toSorted()
      .map((name) => join(this.path, name));
  }

  async all(): Promise<readonly v.InferOutput<S>[]> {
    const records: v.InferOutput<S>[] = [];
    for (const file of await this.files()) {
      const record = await this.readFile(file);
      if (record !== undefined) records.push(record);
    }
    return records;
  }

  /** Durable when it answers. Nobody else writes this record: its writer has its lock. */
  async write(record: v.InferOutput<S>): Promise<void> {
    await writeDurably(this.fileOf(record.volumeID), JSON.stringify(record));
  }

  async remove(volumeID: string): Promise<void> {
    await removeDurably(this.fileOf(volumeID));
  }

  /** Outlives this process, and perhaps not a loss of power, after which it may be there as it was before. */
  async writeForBoot(record: v.InferOutput<S>): Promise<void> {
    await writeWhole(this.fileOf(record.volumeID), JSON.stringify(record));
  }

  async removeForBoot(volumeID: string): Promise<void> {
    await fs.rm(this.fileOf(volumeID), { force: true });
  }
}
