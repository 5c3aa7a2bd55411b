/** NodePublishVolume and NodeUnpublishVolume: a workload gets the staged volume at its own path. */
import { lstat } from "node:fs/promises";
import { canonical, mountFolder, unmountFolder } from "../../executor/folder-mount.js";
import { mountsAt, readMountTable } from "../../executor/mount-table.js";
import { allowedBy, isKnownMode } from "./access-modes.js";
import type { AccessMode } from "./access-modes.js";
import { checkCapability, requireSupport } from "./capabilities.js";
import type { CheckedCapability } from "./capabilities.js";
import type { UnaryHandler } from "./messages.js";
import { checkID } from "./names.js";
import type { NodeContext } from "./node-context.js";
import { checkPath, makeTargetFolder, removeTarget } from "./node-paths.js";
import type { Publication, StageRecord } from "./node-records.js";
import { digestOfCapability, recordSource } from "./node-stage.js";
import { CsiError } from "./status.js";

/** How long a busy target is tried again. */
const BUSY_MS = 5_000;

export function publishVolume(context: NodeContext): UnaryHandler<"NodePublishVolume"> {
  const { backend, pending, records } = context;
  return async (request, signal) => {
    const { volumeId, targetPath, stagingTargetPath, readonly } = request;
    checkID("volume_id", volumeId);
    checkPath("target_path", targetPath);
    const capability = checkCapability(request.volumeCapability);
    if (stagingTargetPath === "")
      throw new CsiError(
        "FAILED_PRECONDITION",
        "staging_target_path is missing: call NodeStageVolume first and name its path",
      );
    checkPath("staging_target_path", stagingTargetPath);
    return pending.alone("NodePublishVolume", [`volume ${volumeId}`], async () => {
      const record = await records.read(volumeId);
      if (record === undefined) {
        await backend.volume(volumeId, signal);
        throw notStaged(volumeId, stagingTargetPath);
      }
      requireSupport(await backend.info(signal), [capability], "FAILED_PRECONDITION");
      await checkStaged(context, record, stagingTargetPath);
      const wanted: Publication = {
        target: targetPath,
        readonly,
        mode: capability.mode,
        capability: digestOfCapability(capability),
      };
      if (await isPublishedSo(record, wanted)) return {};
      checkOthers(record, wanted, capability);
      await publishNew(context, record, wanted, signal);
      return {};
    });
  };
}

function notStaged(volumeID: string, path: string): CsiError {
  return new CsiError(
    "FAILED_PRECONDITION",
    `volume ${volumeID} is not staged at ${path}: call NodeStageVolume first`,
  );
}

async function checkStaged(
  { storage }: NodeContext,
  record: StageRecord,
  path: string,
): Promise<void> {
  const { volumeID, stagingPath, phase, access } = record;
  if (phase !== "staged" || stagingPath !== path) throw notStaged(volumeID, path);
  if (access === "mount" && !(await storage.isStaged(recordSource(record), path)))
    throw new CsiError(
      "FAILED_PRECONDITION",
      `volume ${volumeID} no longer stands at ${path}, where it was staged: call NodeStageVolume again`,
    );
}

/** @throws {CsiError} ALREADY_EXISTS for one that is published there otherwise */
async function isPublishedSo(record: StageRecord, wanted: Publication): Promise<boolean> {
  const there = record.publications.find(({ target }) => target === wanted.target);
  if (there === undefined || !(await isStanding(record, wanted.target))) return false;
  if (there.capability === wanted.capability && there.readonly === wanted.readonly) return true;
  throw new CsiError(
    "ALREADY_EXISTS",
    `volume ${record.volumeID} is published at ${wanted.target} already, ${there.readonly === wanted.readonly ? "with another volume_capability" : there.readonly ? "read-only" : "not read-only"}; unpublish it there first`,
  );
}

/** Whether a mount is there, and shows what is staged. */
async function isStanding({ stagingPath }: StageRecord, target: string): Promise<boolean> {
  const table = await readMountTable();
  if (mountsAt(table, await canonical(target)).length === 0) return false;
  const [at, staged] = await Promise.all([
    lstat(target).catch(() => undefined),
    lstat(stagingPath).catch(() => undefined),
  ]);
  return at !== undefined && at.dev === staged?.dev && at.ino === staged.ino;
}

/** How often a volume may be published on one node; the specification's table. */
function checkOthers(
  { volumeID, publications }: StageRecord,
  wanted: Publication,
  { mode }: CheckedCapability,
): void {
  const other = publications.find(({ target }) => target !== wanted.target);
  if (other === undefined) return;
  const before = other.mode as AccessMode;
  const allowed =
    allowedBy(mode).manyTargets && isKnownMode(before) && allowedBy(before).manyTargets;
  if (allowed) return;
  const single = allowedBy(mode).manyTargets ? other.mode : mode;
  throw new CsiError(
    "FAILED_PRECONDITION",
    `volume ${volumeID} is published at ${other.target} already, and ${single} allows one place on a node`,
  );
}

async function publishNew(
  { records, storage }: NodeContext,
  record: StageRecord,
  wanted: Publication,
  signal: AbortSignal,
): Promise<void> {
  const others = record.publications.filter(({ target }) => target !== wanted.target);
  await records.write({ ...record, publications: [...others, wanted] });
  const isReadonly = wanted.readonly || record.readonly;
  try {
    await makeTargetFolder(wanted.target);
    const host = { exec: storage.exec, isRoot: storage.isRoot, busyMs: BUSY_MS };
    await mountFolder(host, {
      device: record.stagingPath,
      mountPoint: wanted.target,
      ...(isReadonly && { options: "ro" }),
      signal,
    });
  } catch (error) {
    await takeBack(record, wanted, others, records).catch(() => {});
    throw error;
  }
}

/** Nothing is left of a publication that failed, unless it stands after all. */
async function takeBack(
  record: StageRecord,
  wanted: Publication,
  others: readonly Publication[],
  records: NodeContext["records"],
): Promise<void> {
  if (await isStanding(record, wanted.target)) return;
  await removeTarget(wanted.target);
  await records.write({ ...record, publications: [...others] });
}

export function unpublishVolume({
  records,
  storage,
  pending,
}: NodeContext): UnaryHandler<"NodeUnpublishVolume"> {
  return async ({ volumeId, targetPath }, signal) => {
    checkID("volume_id", volumeId);
    checkPath("target_path", targetPath);
    return pending.alone("NodeUnpublishVolume", [`volume ${volumeId}`], async () => {
      const record = await records.read(volumeId);
      const there = record?.publications.find(({ target }) => target === targetPath);
      const host = { exec: storage.exec, isRoot: storage.isRoot, busyMs: BUSY_MS };
      if (record === undefined || there === undefined) {
        await refuseForeign(volumeId, targetPath);
        return {};
      }
      const device = record.stagingPath;
      await unmountFolder(host, { mountPoint: targetPath, device, removeFolder: false, signal });
      await removeTarget(targetPath);
      const publications = record.publications.filter(({ target }) => target !== targetPath);
      await records.write({ ...record, publications });
      return {};
    });
  };
}

/** What stands at a target of which there is no record is somebody else's. */
async function refuseForeign(volumeID: string, target: string): Promise<void> {
  const top = mountsAt(await readMountTable(), await canonical(target)).at(-1);
  if (top === undefined) return;
  throw new CsiError(
    "FAILED_PRECONDITION",
    `${target} is left as it is: there is a mount of ${top.source}${top.root}, and this node has not published volume ${volumeID} there`,
  );
}
