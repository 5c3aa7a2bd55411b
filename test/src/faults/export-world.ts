/** Volumes that are exported on this host: what stands there, by the tables of processes, mounts and files. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, lstatSync, readFileSync, readdirSync, readlinkSync, statSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { ExportType } from "@libstorage/model";
import { SILENT, doorOf } from "@libstorage/server";
import type { AttachmentRecord, CountedFaults, VolumeRecord } from "@libstorage/server";
import { DoorHost, SERVICE } from "../exporters/door-host.js";
import { freePort } from "../exporters/iscsi-client.js";
import { NbdTalk } from "../exporters/nbd-talk.js";
import { run } from "../exporters/nbd-client.js";
import { checkJournal } from "./invariants.js";
import { askMonitor, inServer } from "./qmp-door.js";
import { WithoutCheck } from "./world.js";

export type Layout = "volume" | "service";

/** What a daemon that ended takes with it is made again a moment later. */
const SETTLED_MS = 20_000;
const LOOK_EVERY_MS = 20;

function short(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

function entries(folder: string): readonly string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}

/** A door as its volume's record tells it. */
export interface RecordedDoor {
  readonly id: string;
  readonly volumeID: string;
  readonly type: ExportType;
  readonly state: string;
  readonly isWritable: boolean;
  /** Under which it is known to clients, and, shortened, to its daemon. */
  readonly name: string;
  readonly attachment: AttachmentRecord;
}

export function pathOf({ attachment: { fields = {} } }: RecordedDoor): string | undefined {
  return fields["socket"] ?? fields["file"];
}

function doorsOf({ id: volumeID, attachments }: VolumeRecord): readonly RecordedDoor[] {
  return attachments.map((attachment) => {
    const door = doorOf(attachment);
    assert.ok(door !== undefined, `${attachment.instanceID.id} is no door`);
    const { exporter, export: name = "" } = attachment.fields ?? {};
    const { id, state, isWritable } = door;
    return { id, volumeID, type: exporter as ExportType, state, isWritable, name, attachment };
  });
}

/** Storage daemons that were started for a folder, by their command lines. @see proc(5) */
export function daemonsFor(folder: string): readonly number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, "utf8");
        return line.startsWith("qemu-storage-daemon") && line.includes(`${folder}/`);
      } catch {
        return false;
      }
    })
    .map(Number);
}

function hasOpen(pid: number, path: string): boolean {
  const folder = `/proc/${pid}/fd`;
  return entries(folder).some((fd) => {
    try {
      return readlinkSync(join(folder, fd)) === path;
    } catch {
      return false;
    }
  });
}

/** Below a folder, once for each layer. */
export function mountsBelow(folder: string): readonly string[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "")
    .filter((path) => path.startsWith(`${folder}/`));
}

export class ExportWorld {
  readonly folder: string;
  readonly #layout: Layout;
  /** Clients come again to where they were told to. */
  readonly #port: number;

  private constructor(folder: string, layout: Layout, port: number) {
    this.folder = folder;
    this.#layout = layout;
    this.#port = port;
  }

  /** Two volumes, in a server that has stopped. */
  static async prepare(template: string): Promise<void> {
    const host = await DoorHost.open(template);
    for (const name of ["one", "two"]) await host.volume("qcow2", { name });
    await host.close();
  }

  static async make(template: string, folder: string, layout: Layout): Promise<ExportWorld> {
    await run("cp", "-a", template, folder);
    return new ExportWorld(folder, layout, await freePort());
  }

  open(plan: CountedFaults): Promise<DoorHost> {
    const options = {
      daemon: { daemonFor: this.#layout },
      nbd: { listen: `127.0.0.1:${this.#port}` },
      faults: new WithoutCheck(plan),
    };
    return inServer(plan, () => DoorHost.open(this.folder, options));
  }

  /** As a crash of theirs, while no server is there. */
  async loseDaemons(): Promise<void> {
    for (const pid of daemonsFor(this.folder)) process.kill(pid, "SIGKILL");
    while (daemonsFor(this.folder).length > 0) await sleep(LOOK_EVERY_MS);
  }

  /** What only a stop in order leaves. */
  forgetStop(): Promise<void> {
    return rm(join(this.folder, "j", "closed"), { force: true });
  }

  doors(host: DoorHost): readonly RecordedDoor[] {
    return host.storage.service(SERVICE).inventory.volumes.all().flatMap(doorsOf);
  }

  /**
   * All is as the records say, and the records contradict neither each other nor the journal.
   * @param hasFailed whether a removal may just have failed: then a folder without a daemon waits for the next one
   */
  async check(host: DoorHost, hasFailed = false): Promise<void> {
    const { storage } = host;
    checkJournal(storage);
    assert.deepEqual(storage.warnings, []);
    const { inventory, driver } = storage.service(SERVICE);
    const context = storage.operations.context(SILENT, AbortSignal.timeout(10_000));
    const { volumes } = await driver.list(context);
    assert.deepEqual(inventory.volumes.all(), volumes, "the inventory");
    for (const volume of volumes) {
      const doors = doorsOf(volume);
      const writers = doors.filter(({ isWritable }) => isWritable);
      assert.ok(writers.length === 0 || doors.length === 1, `a writer of ${volume.id} has company`);
    }
    await this.#settled(() => this.#checkHost(volumes, this.doors(host), hasFailed));
  }

  async #settled(check: () => Promise<void>): Promise<void> {
    const end = performance.now() + SETTLED_MS;
    for (;;) {
      try {
        await check();
        return;
      } catch (error) {
        if (performance.now() > end) throw error;
      }
      await sleep(LOOK_EVERY_MS);
    }
  }

  /** Where the daemons of the service have their folders. */
  get #daemons(): string {
    const parent = join(this.folder, "l/qsd");
    const [own] = entries(parent);
    return own === undefined ? parent : join(parent, own);
  }

  #daemonOf(volumeID: string): string {
    return this.#layout === "service" ? "service" : short(volumeID);
  }

  async #checkHost(
    volumes: readonly VolumeRecord[],
    doors: readonly RecordedDoor[],
    hasFailed: boolean,
  ): Promise<void> {
    this.#checkPlaces(doors);
    const pids = this.#checkDaemons(doors, hasFailed);
    this.#checkImages(volumes, doors, pids);
    await this.#checkExports(doors, [...pids.keys()]);
    for (const door of doors) await this.#checkDoor(door);
  }

  /** Sockets, files and mounts: those of doors that are open, and no others. */
  #checkPlaces(doors: readonly RecordedDoor[]): void {
    const open = doors.filter(({ state }) => state === "open");
    const wanted = open.flatMap((door) => pathOf(door) ?? []).toSorted();
    const found = ["nbd", "fuse", "vhost"].flatMap((kind) => {
      const parent = join(this.folder, "l", kind);
      return entries(parent).flatMap((own) =>
        entries(join(parent, own)).map((name) => join(parent, own, name)),
      );
    });
    assert.deepEqual(found.toSorted(), wanted, "sockets and files");
    const files = open.filter(({ type }) => type === "fuse").flatMap((one) => pathOf(one) ?? []);
    assert.deepEqual(mountsBelow(this.folder).toSorted(), files.toSorted(), "mounts");
    for (const door of open.filter(({ type }) => type === "vhost-user-blk")) {
      const own = `${short(door.name)}`;
      const name = this.#layout === "service" ? own : own.slice(0, 8);
      const socket = join(this.#daemons, this.#daemonOf(door.volumeID), `${name}.sock`);
      assert.equal(statSync(pathOf(door) ?? "").ino, statSync(socket).ino, "the daemon's socket");
    }
  }

  /** One process for each folder of a daemon, and one folder for what is exported. @returns by their folders */
  #checkDaemons(doors: readonly RecordedDoor[], hasFailed: boolean): ReadonlyMap<string, number> {
    // What is hidden needs no daemon when nobody is there, as after it died.
    const needed = doors.filter(({ state }) => state === "open");
    const foldersOf = ({ volumeID, type, name }: RecordedDoor): readonly string[] => [
      this.#daemonOf(volumeID),
      ...(type === "fuse" ? [`f-${short(name)}`] : []),
    ];
    const allowed = new Set(doors.flatMap(foldersOf));
    const running = daemonsFor(this.folder);
    const pids = new Map(entries(this.#daemons).map((name) => [name, this.#pidOf(name)]));
    const found = [...pids.keys()].filter(
      (name) => !hasFailed || running.includes(pids.get(name) ?? 0),
    );
    for (const name of found) assert.ok(allowed.has(name), `the folder ${name} is left`);
    for (const name of needed.flatMap(foldersOf))
      assert.ok(found.includes(name), `no daemon in ${name}`);
    const mine = new Map(found.map((name) => [name, pids.get(name) ?? 0]));
    assert.deepEqual(new Set(running), new Set(mine.values()), "daemons");
    return mine;
  }

  #pidOf(name: string): number {
    const path = join(this.#daemons, name, "pid");
    return existsSync(path) ? Number(readFileSync(path, "utf8")) : 0;
  }

  /** Nobody but its daemon has an image open, and that only while it is exported. */
  #checkImages(
    volumes: readonly VolumeRecord[],
    doors: readonly RecordedDoor[],
    pids: ReadonlyMap<string, number>,
  ): void {
    for (const { id, source } of volumes) {
      assert.ok(source.kind === "file");
      const isNeeded = doors.some(({ volumeID, state }) => volumeID === id && state === "open");
      const isAllowed = doors.some(({ volumeID }) => volumeID === id);
      const holders = [...pids].filter(([, pid]) => hasOpen(pid, source.path));
      const names = holders.map(([name]) => name);
      if (isNeeded) assert.deepEqual(names, [this.#daemonOf(id)], `who has ${id} open`);
      else if (isAllowed) assert.ok(names.length <= 1, `${names.join(" and ")} have ${id} open`);
      else assert.deepEqual(names, [], `${id} is exported to nobody`);
    }
  }

  /** Daemons serve what a record names, and all of that while it is open. */
  async #checkExports(doors: readonly RecordedDoor[], daemons: readonly string[]): Promise<void> {
    for (const name of daemons) {
      const isOfFile = name.startsWith("f-");
      const mine = doors.filter((door) =>
        isOfFile ? name === `f-${short(door.name)}` : this.#daemonOf(door.volumeID) === name,
      );
      // Whoever has a hidden file open is left alone by a new server, which may not drive its daemon.
      if (isOfFile && mine.every(({ state }) => state !== "open")) continue;
      const monitor = join(this.#daemons, name, "qmp.sock");
      const told = (await askMonitor(monitor, "query-block-exports")) as readonly { id: string }[];
      const found = told.map(({ id }) => id);
      const idOf = (door: RecordedDoor): string => `e-${short(door.name)}`;
      for (const id of found) assert.ok(mine.map(idOf).includes(id), `${id} is in no record`);
      for (const door of mine)
        if (door.state === "open")
          assert.ok(found.includes(idOf(door)), `${door.id} is not served`);
    }
  }

  /** Whoever may gets in, and nobody through what is hidden. */
  async #checkDoor(door: RecordedDoor): Promise<void> {
    const path = pathOf(door);
    if (door.type === "fuse" && path !== undefined && door.state === "open")
      assert.ok(lstatSync(path).size > 0, `${path} shows nothing`);
    if (door.type !== "nbd" || (path !== undefined && door.state !== "open")) return;
    const [host = "", port = ""] = (door.attachment.fields?.["address"] ?? "").split(":");
    const talk = await (path === undefined ? NbdTalk.open(host, Number(port)) : NbdTalk.at(path));
    try {
      const isIn = (await talk.info(door.name)) === "ack";
      assert.equal(isIn, door.state === "open", `a client of ${door.id}, which is ${door.state}`);
    } finally {
      talk.end();
    }
  }

  /** Takes everything away; then nothing is there. */
  async end(host: DoorHost): Promise<void> {
    for (const { id } of this.doors(host))
      await host.remove(id, "hard").catch((error: unknown) => {
        // What was hidden may just have gone by itself.
        if (!(error instanceof StorageError && error.code === "not-found")) throw error;
      });
    await host.removeVolumes();
    await this.check(host);
    await host.close();
    await rm(this.folder, { recursive: true });
  }
}
