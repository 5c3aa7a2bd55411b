/** Places for the image driver, and what tests read and write in its images. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DRIVERS } from "@libstorage/server";
import type { SnapshotRecord, VolumeRecord } from "@libstorage/server";
import { contextOf } from "../conformance/fixture.js";
import type { Fixture, Harness, Place } from "../conformance/fixture.js";
import { scratchParent } from "../faults/folders.js";

export interface Way {
  readonly format: "raw" | "qcow2";
  readonly copies?: "files" | "overlays";
  readonly snapshots?: "files" | "overlays" | "inner";
  readonly preallocation?: "metadata" | "falloc" | "full";
}

/** Why the tools cannot be used here, or false. */
export function toolsMissing(...tools: readonly string[]): string | false {
  for (const tool of tools)
    if (spawnSync(tool, ["--version"]).error !== undefined) return `${tool} is not installed`;
  return false;
}

export async function imagePlace(way: Way, parent: string = scratchParent()): Promise<Place> {
  const folder = await mkdtemp(join(parent, "image-"));
  const root = join(folder, "root");
  const encryptionKeyFile = join(folder, "key");
  await writeFile(encryptionKeyFile, "a passphrase, for tests only", { mode: 0o600 });
  const config = {
    preallocation: "off",
    copies: "files",
    snapshots: "files",
    maxImportSize: "1TiB",
    encryptionKeyFile,
    ...way,
    root,
  };
  return {
    open: (context) => DRIVERS.image.open(config, context),
    leftovers: async () => [
      ...(await readdir(join(root, "vol"))),
      ...(await readdir(join(root, "snap"))),
    ],
    close: () => rm(folder, { recursive: true }),
  };
}

const TOO_LARGE = "an image of 8 PiB is larger than the file system takes, and is refused as such";

export function imageHarness(way: Way, hasDoors: true | string): Harness {
  return {
    skip: toolsMissing("qemu-img", "qemu-io"),
    isDurable: true,
    hasFolders: "volumes are files: see the cases of the image driver",
    hasDoors,
    differs: { "the largest size is kept to the byte": TOO_LARGE },
    place: () => imagePlace(way),
  };
}

export function diskOf({ source }: VolumeRecord | SnapshotRecord) {
  assert.equal(source.kind, "file");
  return source.kind === "file" ? source : { path: "", format: "" };
}

/** Runs qemu-io commands on a disk. @returns whether all of them succeeded */
export function qemuIO(record: VolumeRecord | SnapshotRecord, ...commands: readonly string[]) {
  const { path, format } = diskOf(record);
  const args = ["-f", format === "qcow2" ? "qcow2" : "raw", ...commands.flatMap((c) => ["-c", c])];
  const { status, stdout, stderr } = spawnSync("qemu-io", [...args, path], { encoding: "utf8" });
  return { ok: status === 0 && !/Pattern verification failed/.test(stdout), text: stdout + stderr };
}

/** What a disk of a qcow2 has, in bytes. */
export function imageSize(path: string): number {
  const args = ["info", "-U", "--output=json", "-f", "qcow2", path];
  const { stdout } = spawnSync("qemu-img", args, { encoding: "utf8" });
  return (JSON.parse(stdout) as { "virtual-size": number })["virtual-size"];
}

/** Fills 1 MiB at `mib` with a byte. */
export function writePattern(record: VolumeRecord, pattern: number, mib = 0): void {
  const { ok, text } = qemuIO(record, `write -P ${pattern} ${mib}M 1M`, "flush");
  assert.ok(ok, text);
}

/** Checks 1 MiB at `mib`. */
export function checkPattern(
  record: VolumeRecord | SnapshotRecord,
  pattern: number,
  mib = 0,
): void {
  const { ok, text } = qemuIO(record, `read -P ${pattern} ${mib}M 1M`);
  assert.ok(ok, text);
}

export async function snapshotVolume(fixture: Fixture, volume: VolumeRecord, number: number) {
  const snapshot = await fixture.snapshot(number, volume);
  return { snapshot, make: (to: number) => fromSnapshot(fixture, snapshot.id, to) };
}

export async function fromSnapshot(fixture: Fixture, id: string, number: number) {
  const snapshot = await fixture.driver.snapshotInspect(id, contextOf());
  assert.ok(snapshot !== undefined);
  return fixture.snapshots.volumeCreateFromSnapshot(snapshot, fixture.volume(number), contextOf());
}
