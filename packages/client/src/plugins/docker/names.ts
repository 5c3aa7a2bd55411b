/**
 * What Docker calls by a name of its own: volumes that were adopted under it, and snapshots. A file each,
 * on this host. Beside them stand the calls that were begun, so that one that is repeated after a crash
 * is known again.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { Volume as VolumeSchema } from "@libstorage/model";
import type { Volume } from "@libstorage/model";
import { removeDurably, writeDurably } from "../../host/durable-file.js";
import { pathPart } from "../../host/mount-records.js";

const Alias = v.object({
  version: v.literal(1),
  name: v.string(),
  kind: v.picklist(["volume", "snapshot"]),
  /** The volume's or snapshot's. */
  id: v.string(),
  /** Of a snapshot. */
  volumeID: v.optional(v.string()),
});
export type Alias = v.InferOutput<typeof Alias>;

const Begun = v.object({
  version: v.literal(1),
  /** With which the server knows a repeated request again. */
  key: v.string(),
  /** What was asked for. */
  request: v.string(),
  /** Milliseconds since 1970. */
  time: v.number(),
});
export type Begun = v.InferOutput<typeof Begun>;

/** A volume as it was seen last. */
const Seen = v.object({ version: v.literal(1), volume: VolumeSchema });

async function readJson<S extends v.GenericSchema>(
  file: string,
  schema: S,
): Promise<v.InferOutput<S> | undefined> {
  const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
  try {
    const result = v.safeParse(schema, JSON.parse(text));
    return result.success ? result.output : undefined;
  } catch {
    // What a crash of the host left: it says nothing.
    return undefined;
  }
}

export class Names {
  readonly #folder: string;
  readonly #seen = new Map<string, Volume>();
  #aliases: Promise<Map<string, Alias>> | undefined;

  constructor(folder: string) {
    this.#folder = folder;
  }

  #alias(name: string): string {
    return join(this.#folder, "names", `${pathPart(name)}.json`);
  }

  #begun(operation: string, name: string): string {
    return join(this.#folder, operation, `${pathPart(name)}.json`);
  }

  async find(name: string): Promise<Alias | undefined> {
    return (await this.#known()).get(name);
  }

  async all(): Promise<readonly Alias[]> {
    return [...(await this.#known()).values()];
  }

  /** Only this process changes them, so that they are read once. */
  #known(): Promise<Map<string, Alias>> {
    this.#aliases ??= this.#read();
    return this.#aliases;
  }

  async #read(): Promise<Map<string, Alias>> {
    const folder = join(this.#folder, "names");
    const files = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    const found = new Map<string, Alias>();
    for (const file of files.filter((one) => one.endsWith(".json")).toSorted()) {
      const alias = await readJson(join(folder, file), Alias);
      if (alias !== undefined) found.set(alias.name, alias);
    }
    return found;
  }

  async set(alias: Omit<Alias, "version">): Promise<void> {
    const whole: Alias = { version: 1, ...alias };
    await writeDurably(this.#alias(alias.name), JSON.stringify(whole));
    (await this.#known()).set(alias.name, whole);
  }

  async forget(name: string): Promise<void> {
    await removeDurably(this.#alias(name));
    (await this.#known()).delete(name);
  }

  /** A call of this name that began and is not known to have ended. */
  begun(operation: "create" | "remove", name: string): Promise<Begun | undefined> {
    return readJson(this.#begun(operation, name), Begun);
  }

  async begin(
    operation: "create" | "remove",
    name: string,
    begun: Omit<Begun, "version">,
  ): Promise<void> {
    await writeDurably(this.#begun(operation, name), JSON.stringify({ version: 1, ...begun }));
  }

  async end(operation: "create" | "remove", name: string): Promise<void> {
    await removeDurably(this.#begun(operation, name));
  }

  #seenFile(name: string): string {
    return join(this.#folder, "seen", `${pathPart(name)}.json`);
  }

  /** What a name led to when the server was asked last; the daemon takes no answer for "no such volume". */
  async seen(name: string): Promise<Volume | undefined> {
    return this.#seen.get(name) ?? (await readJson(this.#seenFile(name), Seen))?.volume;
  }

  async see(name: string, volume: Volume | undefined): Promise<void> {
    const before = await this.seen(name);
    if (volume === undefined) this.#seen.delete(name);
    else this.#seen.set(name, volume);
    if (before?.id === volume?.id) return;
    const file = this.#seenFile(name);
    if (volume === undefined) await removeDurably(file);
    else await writeDurably(file, JSON.stringify({ version: 1, volume }));
  }

  /** Forgets what nobody will ask about any more. */
  async sweep(olderThanMs: number): Promise<void> {
    const folder = join(this.#folder, "remove");
    for (const file of await readdir(folder).catch(() => [])) {
      const begun = await readJson(join(folder, file), Begun);
      if (begun === undefined || Date.now() - begun.time > olderThanMs)
        await removeDurably(join(folder, file));
    }
  }
}
