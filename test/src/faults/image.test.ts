/** The fault run over images, raw ones and qcow2 with its own snapshots or with layers, by the real qemu-img. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { mkdir, open } from "node:fs/promises";
import { basename, join } from "node:path";
import { after, before, describe } from "node:test";
import { promisify } from "node:util";
import { GIB } from "@libstorage/model";
import type { InstanceID } from "@libstorage/model";
import { DRIVERS } from "@libstorage/server";
import type { FaultPlan, Storage } from "@libstorage/server";
import { toolsMissing } from "../drivers/image-place.js";
import type { Way } from "../drivers/image-place.js";
import { makeScratch } from "./folders.js";
import { operationsOn } from "./operations.js";
import { faultSuite } from "./suite.js";
import { SERVICE, caller, openWorld, readWorld } from "./world.js";
import type { ObjectState, World, WorldState } from "./world.js";

const execute = promisify(execFile);
const scratch = makeScratch("image-faults");
const FREE = "image-000";
const SNAPSHOT = "image-000-000";
const MARK_BYTES = 16;
const bootID = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
/** Two names of this host, which has images without an exporter. */
const HOST_A: InstanceID = {
  id: "host-a",
  driver: "image",
  service: "",
  metadata: { hostName: "host-a", bootID },
};
const HOST_B: InstanceID = { ...HOST_A, id: "host-b" };
let folders = 0;

type SharingWay = Required<Omit<Way, "preallocation">>;

const WAYS: readonly SharingWay[] = [
  { format: "raw", copies: "files", snapshots: "files" },
  { format: "qcow2", copies: "files", snapshots: "inner" },
  { format: "qcow2", copies: "overlays", snapshots: "overlays" },
];
/** Those that are done in another way than with raw images. */
const OF_QCOW2 =
  /^(?:copy|snapshot|create from snapshot|snapshot copy|expand|revert|snapshot remove)$/;

function nameOf({ format, snapshots }: SharingWay): string {
  return format === "raw" ? "raw" : `${format}-${snapshots}`;
}

function openOn(folder: string, way: SharingWay, faults?: FaultPlan): Promise<Storage> {
  const config = {
    preallocation: "off",
    maxImportSize: "1TiB",
    root: join(folder, "root"),
    ...way,
  };
  return openWorld(folder, faults, DRIVERS.image, config);
}

/** What a guest would find at the beginning of a disk. */
async function mark(disk: string, format: string, pattern: number): Promise<void> {
  await execute("qemu-io", ["-f", format, "-c", `write -P ${pattern} 0 4k`, "-c", "flush", disk]);
}

async function markOf(disk: string, format: string): Promise<string> {
  if (format === "raw") {
    const handle = await open(disk, "r");
    try {
      const { buffer } = await handle.read(Buffer.alloc(MARK_BYTES), 0, MARK_BYTES, 0);
      return buffer.toString("hex");
    } finally {
      await handle.close();
    }
  }
  const read = `read -v 0 ${MARK_BYTES}`;
  const { stdout } = await execute("qemu-io", ["-r", "-f", format, "-c", read, disk]);
  return /^0+: +((?:[\da-f]{2} *){16})/m.exec(stdout)?.[1]?.replaceAll(" ", "") ?? stdout;
}

interface ImageInfo {
  readonly filename: string;
  readonly "virtual-size": number;
  readonly snapshots?: readonly { readonly name: string }[];
}

/** What a layer that was being laid leaves when its process is killed; the next one takes it away. */
function isOfNextLayer(folder: string, name: string): boolean {
  const { ino } = statSync(join(folder, "disk.qcow2"));
  return name === "next.qcow2" || statSync(join(folder, name)).ino === ino;
}

/** Content and layers of one disk, which has to be sound and to have no file beside it that it does not need. */
async function dataOf(folder: string, { format }: Way, inner: string | undefined): Promise<string> {
  const disk = join(folder, `disk.${format}`);
  const args = ["info", "--output=json", "--backing-chain", "-f", format, disk];
  const { stdout } = await execute("qemu-img", args);
  const chain = JSON.parse(stdout) as readonly ImageInfo[];
  const needed = new Set(chain.map(({ filename }) => basename(filename)));
  const others = readdirSync(folder).filter((name) => !needed.has(name));
  assert.deepEqual(
    others.filter((name) => !isOfNextLayer(folder, name)),
    [],
    `files that no layer needs in ${folder}`,
  );
  if (format === "qcow2") await execute("qemu-img", ["check", "-q", "-f", format, disk]);
  const names = chain[0]?.snapshots?.map(({ name }) => name) ?? [];
  if (inner === undefined)
    return `${await markOf(disk, format)} of ${(chain[0]?.["virtual-size"] ?? 0) / GIB} GiB`;
  assert.ok(names.includes(inner), `${disk} has no snapshot ${inner}`);
  return "inner";
}

/** The qcow2's own snapshot that a record stands for, if it does. */
function innerOf(record: string): string | undefined {
  const { "x-libstorage": more } = JSON.parse(readFileSync(record, "utf8")) as {
    readonly "x-libstorage"?: { readonly image?: { readonly inner?: string } };
  };
  return more?.image?.inner;
}

async function read(folder: string, way: SharingWay): Promise<WorldState> {
  const state = new Map<string, ObjectState>();
  for (const [key, object] of readWorld(folder, () => "")) {
    const place = join(folder, "root", key.startsWith("snapshot ") ? "snap" : "vol", object.id);
    const data = await dataOf(place, way, innerOf(`${place}.json`));
    state.set(key, { ...object, data });
  }
  return state;
}

/** Two volumes with data, one of them held, and a snapshot of the other, which has been written to since. */
async function prepare(folder: string, way: SharingWay): Promise<void> {
  await mkdir(join(folder, "journal"), { recursive: true });
  const storage = await openOn(folder, way);
  const service = storage.service(SERVICE);
  const disk = (id: string): string => join(folder, "root/vol", id, `disk.${way.format}`);
  const make = async (name: string, pattern: number): Promise<string> => {
    const { id } = await service.volumeCreate({ name, sizeBytes: 8 * GIB, fields: {} }, caller());
    await mark(disk(id), way.format, pattern);
    return id;
  };
  await make("free", 1);
  const held = await make("held", 2);
  await service.volumeAttach(held, { to: HOST_A, deviceName: "", force: false }, caller());
  await service.volumeSnapshot(FREE, { name: "snapshot", fields: {} }, caller());
  await mark(disk(FREE), way.format, 3);
  await storage.close();
}

async function imageWorld(way: SharingWay): Promise<World> {
  folders += 1;
  const folder = join(scratch.path, `case-${folders}`);
  // Layers are hard links to each other, and stay so.
  await mkdir(folder);
  await execute("cp", ["-a", `${join(scratch.path, nameOf(way))}/.`, folder]);
  return {
    folder,
    open: (faults) => openOn(folder, way, faults),
    read: () => read(folder, way),
  };
}

describe("faults in images", { skip: toolsMissing("qemu-img", "qemu-io") }, () => {
  after(() => scratch.remove());
  for (const way of WAYS)
    describe(nameOf(way), () => {
      before(() => prepare(join(scratch.path, nameOf(way)), way));
      faultSuite({
        name: `image, ${nameOf(way)}`,
        operations: operationsOn(
          { free: FREE, held: "image-001", snapshot: SNAPSHOT },
          HOST_A,
          HOST_B,
        ).filter(({ name }) => way.format === "raw" || OF_QCOW2.test(name)),
        make: () => imageWorld(way),
        depth: { modes: ["fail", "lost-answer", "kill-after"], further: [] },
        leastCases: 140,
      });
    });
});
