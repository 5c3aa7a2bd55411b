/** One device over several paths, where multipathd runs. */
import { basename, join } from "node:path";
import type { Exec } from "../../executor/exec.js";
import { sysEntries, sysText } from "../kernel.js";

interface Limit {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
}

/** Whether maps can be made: the tools are there and the daemon answers. */
export async function multipathRuns(exec: Exec, signal: AbortSignal): Promise<boolean> {
  const limit = { signal, timeoutMs: 5_000 };
  return exec("multipathd", ["show", "daemon"], limit).then(
    ({ stdout }) => /^pid \d+/.test(stdout),
    () => false,
  );
}

export interface MultipathMap {
  /** `dm-3`. */
  readonly disk: string;
  /** As multipath(8) calls it. */
  readonly name: string;
  readonly wwid: string;
  /** `sdb`, `sdc`. */
  readonly paths: readonly string[];
}

const UUID = /^mpath-(?<wwid>.+)$/;

/** What a device of device-mapper is, if it is a map of multipath. */
export async function mapAt(sys: string, disk: string): Promise<MultipathMap | undefined> {
  const at = join(sys, "class/block", disk);
  const wwid = UUID.exec(await sysText(join(at, "dm/uuid")))?.groups?.["wwid"];
  if (wwid === undefined) return undefined;
  return {
    disk,
    wwid: wwid.toLowerCase(),
    name: await sysText(join(at, "dm/name")),
    paths: await sysEntries(join(at, "slaves")),
  };
}

/** The map over a disk, whatever it claims to be. */
export async function mapOver(sys: string, disk: string): Promise<MultipathMap | undefined> {
  for (const holder of await sysEntries(join(sys, "class/block", disk, "holders"))) {
    const map = await mapAt(sys, holder);
    if (map !== undefined) return map;
  }
  return undefined;
}

/** Every map of multipath that this host has. */
export async function allMaps(sys: string): Promise<readonly MultipathMap[]> {
  const disks = (await sysEntries(join(sys, "class/block"))).filter((one) => /^dm-\d+$/.test(one));
  const maps = await Promise.all(disks.map((disk) => mapAt(sys, disk)));
  return maps.filter((map) => map !== undefined);
}

/** Lets multipathd take a disk, whatever `find_multipaths` of its configuration says. */
export async function takePath(exec: Exec, node: string, limit: Limit): Promise<void> {
  await exec("multipath", ["-a", node], limit);
  await exec("multipathd", ["add", "path", basename(node)], limit);
}

/** @throws {CommandError} while the map is in use */
export async function removeMap(exec: Exec, { name }: MultipathMap, limit: Limit): Promise<void> {
  await exec("multipath", ["-f", name], limit);
}

/** Forgets a disk that has been one of several, so that its next appearance is not held back. */
export async function forgetPath(exec: Exec, node: string, limit: Limit): Promise<void> {
  await exec("multipath", ["-w", node], limit);
}
