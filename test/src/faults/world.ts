/** A vfs service in a folder of its own: how it is opened, and what stands on its disk. */
import { createHash } from "node:crypto";
import { existsSync, lstatSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { cp, mkdir, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { GIB } from "@libstorage/model";
import type { InstanceID } from "@libstorage/model";
import { DRIVERS, SILENT, Storage } from "@libstorage/server";
import type { Caller, DriverModule, FaultPlan, FaultPoint, ServiceSpec } from "@libstorage/server";

export const HOST_A: InstanceID = { id: "host-a", driver: "vfs", service: "" };
export const HOST_B: InstanceID = { id: "host-b", driver: "vfs", service: "" };

/** The volumes and snapshots of the prepared folder. */
export const FREE = "vfs-000";
export const HELD = "vfs-001";
export const SNAPSHOT = "vfs-000-000";

export const SERVICE = "svc";

export function caller(idempotencyKey?: string): Caller {
  return {
    who: "tester",
    via: "test",
    tx: "00000000-0000-1000-8000-000000000000",
    ...(idempotencyKey !== undefined && { idempotencyKey }),
  };
}

/**
 * The journals of these cases were closed by this process, so that the check, a process of its own for
 * each open, would only cost time. The tests that kill a real process leave it in.
 */
export class WithoutCheck implements FaultPlan {
  readonly #plan: FaultPlan | undefined;

  constructor(plan: FaultPlan | undefined) {
    this.#plan = plan;
  }

  pass<T>(point: FaultPoint, signal: AbortSignal | undefined, act: () => Promise<T>): Promise<T> {
    if (point.door === "exec" && point.what.includes("journal-check.js")) {
      const stdout = JSON.stringify({ entries: 0, last: 0, altered: [] });
      return Promise.resolve({ stdout, stderr: "" } as T);
    }
    return this.#plan === undefined ? act() : this.#plan.pass(point, signal, act);
  }
}

/** @param folder holds `root` and `journal` */
export function openWorld(
  folder: string,
  faults?: FaultPlan,
  driver: DriverModule = DRIVERS.vfs,
  config: unknown = { root: join(folder, "root"), quota: "off" },
  exporter?: ServiceSpec["exporter"],
  others: readonly ServiceSpec[] = [],
): Promise<Storage> {
  const settings = { shareable: false, uniqueNames: false };
  return Storage.open({
    services: [
      { name: SERVICE, driver, config, settings, ...(exporter !== undefined && { exporter }) },
      ...others,
    ],
    journalFolder: join(folder, "journal"),
    libFolder: join(folder, "lib"),
    log: SILENT,
    faults: new WithoutCheck(faults),
  });
}

async function fill(data: string, text: string): Promise<void> {
  await writeFile(join(data, "hello.txt"), text);
  await mkdir(join(data, "sub"), { mode: 0o750 });
  await writeFile(join(data, "sub", "nested"), Buffer.alloc(10_000, text), { mode: 0o640 });
  await writeFile(join(data, "sub", "hole"), "");
  await truncate(join(data, "sub", "hole"), 64 * 1024);
  await symlink("../hello.txt", join(data, "sub", "link"));
}

/** Two volumes with data, one of them held by host A, and a snapshot of the other. */
export async function prepareWorld(
  folder: string,
  open: () => Promise<Storage> = () => openWorld(folder),
): Promise<void> {
  await mkdir(join(folder, "journal"), { recursive: true });
  const storage = await open();
  const service = storage.service(SERVICE);
  const make = async (name: string): Promise<string> => {
    const wanted = { name, sizeBytes: 8 * GIB, fields: { owner: "test" } };
    const { id } = await service.volumeCreate(wanted, caller());
    await fill(join(folder, "root", "vol", id), `data of ${name}`);
    return id;
  };
  const free = await make("free");
  const held = await make("held");
  await service.volumeAttach(held, { to: HOST_A, deviceName: "", force: false }, caller());
  await service.volumeSnapshot(free, { name: "snapshot", fields: {} }, caller());
  await storage.close();
}

export function copyWorld(from: string, to: string): Promise<void> {
  return cp(from, to, { recursive: true, verbatimSymlinks: true, preserveTimestamps: true });
}

/** What one volume or snapshot is, as its disk tells it. */
export interface ObjectState {
  readonly id: string;
  readonly name: string;
  readonly sizeGiB: number;
  readonly holders: readonly string[];
  readonly epoch: number;
  readonly data: string;
}

/** By `volume NAME` or `snapshot NAME`. */
export type WorldState = ReadonlyMap<string, ObjectState>;

/**
 * Reads the folders without any of the server's code.
 * @param dataOf what stands in a volume's or snapshot's folder
 * @throws {Error} for anything that is left over
 */
export function readWorld(folder: string, dataOf: (path: string) => string = digestOf): WorldState {
  const state = new Map<string, ObjectState>();
  for (const kind of ["volume", "snapshot"] as const) {
    const shelf = join(folder, "root", kind === "volume" ? "vol" : "snap");
    const names = new Set(readdirSync(shelf));
    for (const name of names) {
      const partner = name.endsWith(".json") ? name.slice(0, -".json".length) : `${name}.json`;
      if (!names.has(partner)) throw new Error(`left over: ${kind} ${name} without ${partner}`);
      if (!name.endsWith(".json")) continue;
      const object = readObject(shelf, partner, dataOf);
      const key = `${kind} ${object.name}`;
      if (state.has(key)) throw new Error(`two objects are ${key}`);
      state.set(key, object);
    }
  }
  return state;
}

interface RecordOnDisk {
  readonly id: string;
  readonly name: string;
  readonly size?: number;
  readonly volumeSize?: number;
  readonly attachments?: readonly { readonly instanceID: InstanceID }[];
  readonly "x-libstorage"?: { readonly epoch?: number };
}

function readObject(shelf: string, id: string, dataOf: (path: string) => string): ObjectState {
  const record = JSON.parse(readFileSync(join(shelf, `${id}.json`), "utf8")) as RecordOnDisk;
  if (record.id !== id) throw new Error(`the record of ${id} says ${record.id}`);
  return {
    id,
    name: record.name,
    sizeGiB: record.size ?? record.volumeSize ?? 0,
    holders: (record.attachments ?? []).map(({ instanceID }) => instanceID.id),
    epoch: record["x-libstorage"]?.epoch ?? 0,
    data: dataOf(join(shelf, id)),
  };
}

/** A digest of everything below a folder: names, kinds, modes, contents, targets of links. */
export function digestOf(folder: string): string {
  const hash = createHash("sha256");
  const walk = (path: string, name: string): void => {
    const stats = lstatSync(path);
    hash.update(`${name}\0${stats.mode}\0${stats.isDirectory() ? 0 : stats.size}\0`);
    if (stats.isSymbolicLink()) hash.update(readlinkSync(path));
    else if (stats.isFile()) hash.update(readFileSync(path));
    else
      for (const entry of readdirSync(path).toSorted()) walk(join(path, entry), `${name}/${entry}`);
  };
  if (!existsSync(folder)) return "missing";
  walk(folder, "");
  return hash.digest("hex").slice(0, 16);
}

/** Where one case happens: what outlives the server. */
export interface World {
  /** Holds the journal. */
  readonly folder: string;
  open(faults?: FaultPlan): Promise<Storage>;
  /** What stands there, read without the server's help. @throws {Error} for anything that is left over */
  read(): Promise<WorldState>;
}

/** A copy of a prepared folder. */
export async function vfsWorld(template: string, folder: string): Promise<World> {
  await copyWorld(template, folder);
  return {
    folder,
    open: (faults) => openWorld(folder, faults),
    read: async () => readWorld(folder),
  };
}
