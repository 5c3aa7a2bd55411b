/**
 * Between an export and its volume: a node whose limits change while the export is in use, and under which
 * the volume can be exchanged for one that answers every request with ESHUTDOWN.
 */
import type { Throttle } from "@libstorage/model";
import { doorOf } from "../../core/exporter.js";
import type { Hold } from "../../core/exporter.js";
import type { NodeNames } from "./node-names.js";
import { QmpError } from "./qmp.js";
import type { Qmp } from "./qmp.js";

/** An export, in the daemon that has its volume. */
export interface Place {
  readonly qmp: Qmp;
  readonly names: NodeNames;
  readonly id: string;
}

export interface Filter {
  readonly throttle?: Partial<Throttle> | undefined;
  /** Whether every request fails from now on. */
  readonly isShutDown?: boolean;
  readonly sizeBytes: number;
}

const ESHUTDOWN = 108;

/** What a hold's requests pass. */
export function filterFor({ volume, attachment }: Hold): Filter {
  return { throttle: doorOf(attachment)?.options.throttle, sizeBytes: volume.sizeBytes };
}

/** All members, always: those that are left out would keep their old values. */
export function limitsOf(throttle: Partial<Throttle> = {}): Readonly<Record<string, number>> {
  const limits: Record<string, number> = {};
  for (const unit of ["bps", "iops"] as const)
    for (const of of ["Total", "Read", "Write"] as const) {
      const name = `${unit}-${of.toLowerCase()}`;
      limits[name] = throttle[`${unit}${of}`] ?? 0;
      limits[`${name}-max`] = throttle[`${unit}${of}Max`] ?? 0;
    }
  return limits;
}

/** @param node what is to be filtered */
export async function makeFilter(
  { qmp, names, id }: Place,
  node: string,
  { throttle }: Filter,
): Promise<void> {
  const group = { "qom-type": "throttle-group", id: names.groupOf(id), limits: limitsOf(throttle) };
  await qmp.execute("object-add", group);
  await qmp.execute("blockdev-add", {
    driver: "throttle",
    "node-name": names.filterOf(id),
    "throttle-group": names.groupOf(id),
    file: node,
  });
}

/** Brings a filter that is in use to new limits, or to its dead end, from which none comes back. */
export async function openFilter(
  { qmp, names, id }: Place,
  { throttle, isShutDown = false, sizeBytes }: Filter,
): Promise<void> {
  await qmp.execute("qom-set", {
    path: `/objects/${names.groupOf(id)}`,
    property: "limits",
    value: limitsOf(throttle),
  });
  if (!isShutDown) return;
  await ignoring(
    /Duplicate nodes/,
    qmp.execute("blockdev-add", deadEnd(names.deadEndOf(id), sizeBytes)),
  );
  // What was answered before is flushed by this. @see QEMU, bdrv_reopen_prepare
  await qmp.execute("blockdev-reopen", {
    options: [
      {
        driver: "throttle",
        "node-name": names.filterOf(id),
        "throttle-group": names.groupOf(id),
        file: names.deadEndOf(id),
      },
    ],
  });
}

/** Also the status of blocks fails: a reader that is told of holes would not be refused. */
function deadEnd(name: string, sizeBytes: number): object {
  const rule = { event: "none", errno: ESHUTDOWN };
  return {
    driver: "blkdebug",
    "node-name": name,
    discard: "unmap",
    "inject-error": [rule, { ...rule, iotype: "block-status" }],
    image: { driver: "null-co", size: sizeBytes, discard: "unmap" },
  };
}

/** Removes what an export had of its own. What is not there is fine. */
export async function clearFilter({ qmp, names, id }: Place): Promise<void> {
  await ignoring(ABSENT, qmp.execute("blockdev-del", { "node-name": names.filterOf(id) }));
  await ignoring(ABSENT, qmp.execute("object-del", { id: names.groupOf(id) }));
  await ignoring(ABSENT, qmp.execute("blockdev-del", { "node-name": names.deadEndOf(id) }));
}

/** What the daemon says of a node or an object that is not there. */
export const ABSENT = /Failed to find node|Cannot find device|not found/;

/** @returns undefined when it fails as was to be expected */
export async function ignoring(known: RegExp, call: Promise<unknown>): Promise<unknown> {
  try {
    return await call;
  } catch (error) {
    if (!(error instanceof QmpError) || !known.test(error.desc)) throw error;
    return undefined;
  }
}
