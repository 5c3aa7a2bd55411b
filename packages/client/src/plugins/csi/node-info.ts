/** Who this node is, what it can do, and how its volumes are. */
import { statfs } from "node:fs/promises";
import type { StatsFs } from "node:fs";
import { canonical } from "../../executor/mount-point.js";
import { mountsAt, readMountTable } from "../../executor/mount-table.js";
import { can, checkCapability, isBlock, nodeCapabilities, requireSupport } from "./capabilities.js";
import type { CapacityRange, UnaryHandler, UnaryCalls, VolumeCondition } from "./messages.js";
import { checkID } from "./names.js";
import type { NodeContext } from "./node-context.js";
import { formatNodeID } from "./node-id.js";
import type { StageRecord } from "./node-records.js";
import { recordSource } from "./node-stage.js";
import { bytesOf, checkRange, isInRange } from "./sizes.js";
import { CsiError, invalid, textOf } from "./status.js";

/** Looking at a file system whose device or server is gone can take for ever. */
const LOOK_MS = 10_000;

export function nodeInfo({ backend, settings }: NodeContext): UnaryHandler<"NodeGetInfo"> {
  return async (_request, signal) => {
    const { instanceID } = await backend.identity(signal);
    return {
      nodeId: formatNodeID(instanceID),
      maxVolumesPerNode: settings.maxVolumesPerNode,
      ...(Object.keys(settings.topology).length > 0 && {
        accessibleTopology: { segments: settings.topology },
      }),
    };
  };
}

export function nodeGetCapabilities({
  backend,
  settings,
}: NodeContext): UnaryHandler<"NodeGetCapabilities"> {
  return async (_request, signal) => ({
    capabilities: nodeCapabilities(await backend.info(signal), settings),
  });
}

/** @throws {CsiError} NOT_FOUND when the volume is not at that path of this node */
async function recordAt(
  { records, backend }: NodeContext,
  volumeID: string,
  path: string,
  signal: AbortSignal,
): Promise<StageRecord> {
  const record = await records.read(volumeID);
  if (record === undefined) {
    await backend.volume(volumeID, signal);
    throw notAt(volumeID, path);
  }
  const isKnown =
    record.stagingPath === path || record.publications.some(({ target }) => target === path);
  if (!isKnown) throw notAt(volumeID, path);
  return record;
}

function notAt(volumeID: string, path: string): CsiError {
  return new CsiError(
    "NOT_FOUND",
    `volume ${volumeID} is neither staged nor published at ${JSON.stringify(path)} on this node`,
  );
}

type Stats = UnaryCalls["NodeGetVolumeStats"][1];

export function volumeStats(context: NodeContext): UnaryHandler<"NodeGetVolumeStats"> {
  return async ({ volumeId, volumePath }, signal) => {
    checkID("volume_id", volumeId);
    if (volumePath === "") throw invalid("volume_path is missing");
    const record = await recordAt(context, volumeId, volumePath, signal);
    const top = mountsAt(await readMountTable(), await canonical(volumePath)).at(-1);
    if (record.access === "block" && (top !== undefined || volumePath === record.stagingPath))
      return deviceStats(context, record, signal);
    if (top === undefined) throw notAt(volumeId, volumePath);
    const isReadOnly = `${top.opts},${top.vfsOpts}`.split(",").includes("ro");
    const shallWrite = !record.readonly && !isPublishedReadonly(record, volumePath);
    const look: Promise<StatsFs> = statfs(volumePath);
    const usage = await limited(look).catch((error: unknown) => error as Error);
    if (usage instanceof Error)
      return { usage: [], volumeCondition: abnormal(`${volumePath}: ${usage.message}`) };
    return {
      usage: usageOf(usage),
      volumeCondition:
        isReadOnly && shallWrite
          ? abnormal(`${volumePath} has become read-only: look at the kernel's log (dmesg)`)
          : { abnormal: false, message: "the volume is mounted and answers" },
    };
  };
}

async function deviceStats(
  { storage }: NodeContext,
  record: StageRecord,
  signal: AbortSignal,
): Promise<Stats> {
  try {
    const node = await storage.deviceOf(recordSource(record), signal);
    const total = await storage.sizeOf(node, signal);
    const volumeCondition = { abnormal: false, message: "the volume's device is there" };
    return { usage: [{ unit: "BYTES", total }], volumeCondition };
  } catch (error) {
    return { usage: [], volumeCondition: abnormal(textOf(error)) };
  }
}

function isPublishedReadonly({ publications }: StageRecord, path: string): boolean {
  return publications.find(({ target }) => target === path)?.readonly === true;
}

function abnormal(message: string): VolumeCondition {
  return { abnormal: true, message };
}

function usageOf(stats: StatsFs): Stats["usage"] {
  const { blocks, bfree, bavail, bsize, files, ffree } = stats;
  const bytes = {
    unit: "BYTES",
    total: blocks * bsize,
    used: (blocks - bfree) * bsize,
    available: bavail * bsize,
  } as const;
  // Some file systems, such as btrfs, do not count files.
  if (files === 0) return [bytes];
  return [bytes, { unit: "INODES", total: files, used: files - ffree, available: ffree }];
}

async function limited<T>(look: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const tooLate = new Promise<never>((_resolve, reject) => {
    const error = new Error(`did not answer within ${LOOK_MS / 1000} s`);
    timer = setTimeout(() => reject(error), LOOK_MS);
  });
  return Promise.race([look, tooLate]).finally(() => clearTimeout(timer));
}

export function expandOnNode(context: NodeContext): UnaryHandler<"NodeExpandVolume"> {
  return async ({ volumeId, volumePath, capacityRange, volumeCapability }, signal) => {
    checkID("volume_id", volumeId);
    if (volumePath === "") throw invalid("volume_path is missing");
    if (capacityRange !== null) checkRange(capacityRange);
    const capability = volumeCapability === null ? undefined : checkCapability(volumeCapability);
    return context.pending.alone("NodeExpandVolume", [`volume ${volumeId}`], async () => {
      const record = await recordAt(context, volumeId, volumePath, signal);
      const info = await context.backend.info(signal);
      if (!can(info, "expand"))
        throw new CsiError("UNIMPLEMENTED", `service ${info.name} cannot expand volumes`);
      if (capability !== undefined) {
        requireSupport(info, [capability], "INVALID_ARGUMENT");
        if (capability.access !== record.access)
          throw invalid(
            `volume_capability: volume ${volumeId} is in use on this node with access type ${record.access}, not ${capability.access}`,
          );
      }
      const volume = await context.backend.volume(volumeId, signal);
      const capacityBytes = bytesOf(volume.size);
      requireReached(volumeId, capacityBytes, capacityRange);
      if (!isBlock(info)) return { capacityBytes };
      const path = record.access === "mount" ? record.stagingPath : undefined;
      await context.storage.grow(recordSource(record), path, signal);
      return { capacityBytes };
    });
  };
}

/**
 * A node makes no volume larger: it lets its own side see what the controller did.
 * @param now 0: without limit
 * @throws {CsiError} OUT_OF_RANGE
 */
function requireReached(volumeID: string, now: number, range: CapacityRange | null): void {
  if (isInRange(range, now)) return;
  const { requiredBytes = 0, limitBytes = 0 } = range ?? {};
  throw new CsiError(
    "OUT_OF_RANGE",
    now < requiredBytes
      ? `volume ${volumeID} has ${now} bytes, fewer than required_bytes ${requiredBytes}: call ControllerExpandVolume first`
      : `volume ${volumeID} has ${now} bytes, more than limit_bytes ${limitBytes}, and volumes do not shrink`,
  );
}
