/**
 * The fault run over shares of nfs-ganesha, with a real daemon for each case and a client that asks it. Each seventh of
 * its cases is run; `FAULTS_EVERY=1` runs all.
 */
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { promisify } from "node:util";
import type { InstanceID } from "@libstorage/model";
import { DRIVERS, EXPORTERS } from "@libstorage/server";
import type { FaultPlan, Storage } from "@libstorage/server";
import * as v from "valibot";
import { btrfsMissing, makeBtrfs } from "../drivers/btrfs-loop.js";
import { inPrivateHost, missing } from "../exporters/private-host.js";
import type { LoopFileSystem } from "../loop.js";
import { copyBtrfsWorld, linkRoot } from "./btrfs-folders.js";
import { makeScratch } from "./folders.js";
import { operationsOn } from "./operations.js";
import { faultSuite } from "./suite.js";
import { SERVICE, caller, openWorld, prepareWorld, readWorld } from "./world.js";
import type { World, WorldState } from "./world.js";

const execute = promisify(execFile);
const EVERY = Number(process.env["FAULTS_EVERY"] ?? "7");
const LIMIT_MS = EVERY < 7 ? 7_200_000 : 840_000;
const FIRST_PORT = 23_000;
const HELD = "btrfs-001";

/** This host plays the other ones: whoever asks it under one of its addresses comes from that. */
const ADDRESSES = { "host-a": "127.0.5.1", "host-b": "127.0.5.2" } as const;
type Host = keyof typeof ADDRESSES;
const HOSTS: readonly Host[] = ["host-a", "host-b"];

function far(id: Host, last: number): InstanceID {
  const bootID = `0b0e0a1c-5a5b-4c5d-8e8f-00000000000${last}`;
  const metadata = { hostName: id, bootID, addresses: [ADDRESSES[id]] };
  return { id, driver: "btrfs", service: "", metadata };
}

const A = far("host-a", 1);
const B = far("host-b", 2);
/** The rest of the operations has nothing to do with exports. */
const EXPORTING = new Set(["attach", "preempting attach", "detach", "forced remove"]);

interface RecordOnDisk {
  readonly attachments?: readonly {
    readonly deviceName: string;
    readonly instanceID: { readonly id: string };
  }[];
}

/** `HOST PATH` of each hold that a record names. */
function named(folder: string, state: WorldState): string[] {
  return [...state]
    .filter(([key]) => key.startsWith("volume "))
    .flatMap(([, { id }]) => {
      const text = readFileSync(join(folder, "root/vol", `${id}.json`), "utf8");
      return (JSON.parse(text) as RecordOnDisk).attachments ?? [];
    })
    .map(({ deviceName, instanceID }) => `${instanceID.id} ${deviceName.replace(/^.*:(?=\/)/, "")}`)
    .toSorted();
}

const shareOf = (line: string): string => line.split(" ")[1] ?? "";

function mountsBelow(folder: string): string[] {
  return readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[1] ?? "")
    .filter((path) => path.startsWith(`${folder}/`));
}

function daemonsFor(folder: string): number[] {
  return readdirSync("/proc").flatMap((pid) => {
    try {
      const line = readFileSync(`/proc/${Number(pid)}/cmdline`, "utf8");
      return /ganesha/.test(line) && line.includes(`${folder}/`) ? [Number(pid)] : [];
    } catch {
      return [];
    }
  });
}

/** Whether that host sees the share, as an NFS client of its address finds out. */
async function getsIn(host: Host, path: string, port: number): Promise<boolean> {
  const url = `nfs://${ADDRESSES[host]}${path}?version=4&nfsport=${port}`;
  return execute("nfs-ls", [url], { timeout: 20_000, killSignal: "SIGKILL" }).then(
    () => true,
    (error: unknown) => {
      const { killed } = error as { readonly killed?: boolean };
      assert.notEqual(killed, true, `no answer for ${url}`);
      return false;
    },
  );
}

class GaneshaWorld implements World {
  readonly folder: string;
  readonly #port: number;

  constructor(folder: string, port: number) {
    this.folder = folder;
    this.#port = port;
  }

  /** The paths of the world's shares, as any of the places has them where they are noted. */
  #paths(wanted: readonly string[]): string[] {
    const conf = join(this.folder, "lib/nfs-ganesha", SERVICE, "ganesha.conf");
    const text = existsSync(conf) ? readFileSync(conf, "utf8") : "";
    const configured = [...text.matchAll(/Pseudo = "([^"]+)"/g)].map(([, path = ""]) => path);
    return [...new Set([...wanted.map(shareOf), ...configured, ...mountsBelow(this.folder)])];
  }

  /**
   * Nobody gets in whom no record names; when `isWhole`, everybody does whom one names. A cut that failed may have
   * gone some way: the record stays, and the next start, or the next try, decides.
   */
  async #check(isWhole: boolean): Promise<WorldState> {
    const state = readWorld(this.folder);
    const wanted = named(this.folder, state);
    const found: string[] = [];
    for (const path of this.#paths(wanted))
      for (const host of HOSTS)
        if (await getsIn(host, path, this.#port)) found.push(`${host} ${path}`);
    for (const one of found) assert.ok(wanted.includes(one), `${one} gets in, and has no record`);
    const mounts = mountsBelow(this.folder);
    const shares = wanted.map(shareOf);
    for (const path of mounts) assert.ok(shares.includes(path), `${path} is mounted for nobody`);
    if (wanted.length === 0) assert.deepEqual(daemonsFor(this.folder), [], "a daemon for nobody");
    if (isWhole)
      assert.deepEqual([found.toSorted(), mounts.toSorted()], [wanted, shares.toSorted()]);
    return state;
  }

  read(): Promise<WorldState> {
    return this.#check(false);
  }

  async open(faults?: FaultPlan): Promise<Storage> {
    const config = v.parse(EXPORTERS.nfs.config, {
      mode: "ganesha",
      version: "4.0",
      server: "127.0.0.1",
      folder: join(this.folder, "shares"),
      port: this.#port,
    });
    const driver = { root: join(this.folder, "root"), quota: "off" };
    const exporter = { module: EXPORTERS.nfs, config };
    const opened = await openWorld(this.folder, faults, DRIVERS.btrfs, driver, exporter);
    if (faults === undefined) await this.#check(true);
    return opened;
  }
}

const skip = missing("ganesha.nfsd", "nfs-ls") || btrfsMissing();

inPrivateHost(import.meta.url, { name: "faults in nfs-ganesha", skip, limitMs: LIMIT_MS }, () => {
  const scratch = makeScratch("ganesha-faults");
  const template = join(scratch.path, "template");
  let loop: LoopFileSystem | undefined;
  let worlds = 0;

  const make = async (): Promise<World> => {
    worlds += 1;
    const world = new GaneshaWorld(join(scratch.path, `case-${worlds}`), FIRST_PORT + worlds);
    await copyBtrfsWorld(template, world.folder, loop);
    const storage = await world.open();
    const request = { to: A, deviceName: "", force: false };
    await storage.service(SERVICE).volumeAttach(HELD, request, caller());
    await storage.close();
    return world;
  };

  describe("faults in nfs-ganesha", () => {
    before(async () => {
      for (const address of Object.values(ADDRESSES))
        execFileSync("ip", ["address", "add", `${address}/32`, "dev", "lo"]);
      loop = makeBtrfs();
      await linkRoot(template, loop);
      const root = join(template, "root");
      const open = (): Promise<Storage> =>
        openWorld(template, undefined, DRIVERS.btrfs, { root, quota: "off" });
      await prepareWorld(template, open);
      const storage = await open();
      const holder = { id: "host-a", driver: "vfs", service: "" };
      await storage.service(SERVICE).volumeDetach(HELD, holder, false, caller());
      await storage.close();
    });
    after(async () => {
      // What was tried once without any fault is still exported.
      for (const pid of daemonsFor(scratch.path)) process.kill(pid, "SIGKILL");
      for (const point of mountsBelow(scratch.path)) execFileSync("umount", ["-l", point]);
      await scratch.remove();
      loop?.remove();
    });

    faultSuite({
      name: "nfs-ganesha",
      operations: operationsOn(
        { free: "btrfs-000", held: HELD, snapshot: "btrfs-000-000" },
        A,
        B,
      ).filter(({ name }) => EXPORTING.has(name)),
      make,
      depth: { modes: ["fail", "lost-answer", "kill-after"], further: [], every: EVERY },
      leastCases: 25,
    });
  });
});
