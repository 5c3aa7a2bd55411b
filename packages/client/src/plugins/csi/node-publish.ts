/** NodePublishVolume and NodeUnpublishVolume: a workload gets the staged volume at its own path. */
import { lstat } from "node:fs/promises";
import { mountFolder, unmountFolder } from "../../executor/folder-mount.js";
import { canonical, mountInWords, unmountBusy } from "../../executor/mount-point.js";
import type { MountHost } from "../../executor/mount-point.js";
import { mountsAt, readMountTable } from "../../executor/mount-table.js";
import { allowedBy, isKnownMode } from "./access-modes.js";
import type { AccessMode, KnownMode } from "./access-modes.js";
import { checkCapability, requireSupport, writes } from "./capabilities.js";
import type { CheckedCapability } from "./capabilities.js";
import type { UnaryHandler } from "./messages.js";
import { bindFlags, fileSystemFlags, flagsOf, isTold } from "./mount-flags.js";
import { giveToGroup, isOfGroup } from "./mount-group.js";
import { checkID } from "./names.js";
import type { NodeContext } from "./node-context.js";
import { checkParent, checkPath, makeFile, makeTargetFolder, removeTarget } from "./node-paths.js";
import type { Publication, StageRecord } from "./node-records.js";
import { digestOfCapability, digestOfFlags, isStanding, recordSource } from "./node-stage.js";
import { isSameDevice } from "./node-storage.js";
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
    const flags = flagsOf(capability.mountFlags);
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
      const one = { record, wanted, capability, flags, signal };
      if (await isPublishedSo(context, one)) return {};
      checkLikeStage(record, capability, flags);
      checkOthers(record, wanted, capability);
      await checkParent(targetPath);
      await publishNew(context, one);
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
  if (access === "mount" && !(await isStanding(storage, record)))
    throw new CsiError(
      "FAILED_PRECONDITION",
      `volume ${volumeID} no longer stands at ${path}, where it was staged: call NodeStageVolume again`,
    );
}

/** What was chosen with NodeStageVolume cannot be another for one place. @throws {CsiError} FAILED_PRECONDITION */
function checkLikeStage(
  { volumeID, stagingPath, access, fsFlags }: StageRecord,
  { access: asked }: CheckedCapability,
  flags: readonly string[],
): void {
  const refused = (what: string): CsiError =>
    new CsiError(
      "FAILED_PRECONDITION",
      `volume ${volumeID} is staged at ${stagingPath} ${what}: publish it so, or call NodeUnstageVolume and stage it as it shall be`,
    );
  if (access !== asked)
    throw refused(`with access type ${access}, and cannot be published with access type ${asked}`);
  const own = fileSystemFlags(flags);
  if (own.length > 0 && fsFlags !== undefined && fsFlags !== digestOfFlags(own))
    throw refused("with other mount_flags for its file system");
}

/** Whether nobody writes there. */
function isReadOnly({ readonly, mode }: Publication): boolean {
  return readonly || (isKnownMode(mode as AccessMode) && !writes(mode as KnownMode, false));
}

/** @throws {CsiError} ALREADY_EXISTS for one that is published there otherwise */
async function isPublishedSo(context: NodeContext, one: New): Promise<boolean> {
  const { record, wanted, signal } = one;
  const there = record.publications.find(({ target }) => target === wanted.target);
  if (there === undefined || !(await isPublished(context, record, wanted.target, signal)))
    return false;
  if (there.capability === wanted.capability && there.readonly === wanted.readonly)
    return record.access === "block" || (await hasOptions(one));
  throw new CsiError(
    "ALREADY_EXISTS",
    `volume ${record.volumeID} is published at ${wanted.target} already, ${there.readonly === wanted.readonly ? "with another volume_capability" : there.readonly ? "read-only" : "not read-only"}; unpublish it there first`,
  );
}

/** Whether a mount is there, and shows what is staged. */
async function isPublished(
  { storage }: NodeContext,
  record: StageRecord,
  target: string,
  signal: AbortSignal,
): Promise<boolean> {
  const table = await readMountTable();
  if (mountsAt(table, await canonical(target)).length === 0) return false;
  if (record.access === "block")
    return isSameDevice(target, await storage.deviceOf(recordSource(record), signal));
  const [at, staged] = await Promise.all([
    lstat(target).catch(() => undefined),
    lstat(record.stagingPath).catch(() => undefined),
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

/** A publication as it shall be. */
interface New {
  readonly record: StageRecord;
  readonly wanted: Publication;
  readonly capability: CheckedCapability;
  /** Of its mount, one by one. */
  readonly flags: readonly string[];
  readonly signal: AbortSignal;
}

function othersOf({ record, wanted }: New): readonly Publication[] {
  return record.publications.filter(({ target }) => target !== wanted.target);
}

async function publishNew(context: NodeContext, one: New): Promise<void> {
  const { record, wanted } = one;
  await context.records.write({ ...record, publications: [...othersOf(one), wanted] });
  try {
    if (record.access === "block") await publishDevice(context, one);
    else await publishFolder(context, one);
  } catch (error) {
    await takeBack(context, one).catch(() => {});
    throw error;
  }
}

async function mountOptionsAt(path: string): Promise<string> {
  return mountsAt(await readMountTable(), await canonical(path)).at(-1)?.opts ?? "";
}

async function bindOptions({ record, wanted, flags }: New): Promise<readonly string[]> {
  const staged = await mountOptionsAt(record.stagingPath);
  return bindFlags(staged, flags, isReadOnly(wanted) || record.readonly);
}

/** mount(8) binds first and gives the options after that: a mount may be there without them. */
async function hasOptions(one: New): Promise<boolean> {
  const there = (await mountOptionsAt(one.wanted.target)).split(",");
  return (await bindOptions(one)).every((flag) => !isTold(flag) || there.includes(flag));
}

async function publishFolder({ storage }: NodeContext, one: New): Promise<void> {
  const { record, wanted, signal } = one;
  await checkGroup(storage, one);
  const options = (await bindOptions(one)).join(",");
  await makeTargetFolder(wanted.target);
  const { kind, wasThere } = await mountFolder(hostOf(storage), {
    device: record.stagingPath,
    mountPoint: wanted.target,
    ...(options !== "" && { options }),
    signal,
  });
  if (kind !== "mount" || !wasThere || (await hasOptions(one))) return;
  const again = ["-o", `remount,bind,${options}`, "--", await canonical(wanted.target)];
  await storage.exec("mount", again, { signal });
}

/** Files have one group, wherever they are seen. */
async function checkGroup({ exec }: NodeContext["storage"], one: New): Promise<void> {
  const { record, capability, signal } = one;
  const { group } = capability;
  if (group === undefined || record.readonly || (await isOfGroup(record.stagingPath, group)))
    return;
  const [other] = othersOf(one);
  if (other !== undefined)
    throw new CsiError(
      "FAILED_PRECONDITION",
      `volume ${record.volumeID} is published at ${other.target} already, and its files have one volume_mount_group for all places: unpublish it there first`,
    );
  await giveToGroup(exec, record.stagingPath, group, signal);
}

/**
 * A device is made visible at a file. What the mount says of writing does not hold for devices, so one that
 * is published read-only is read-only for all.
 */
async function publishDevice({ storage }: NodeContext, one: New): Promise<void> {
  const { record, wanted, signal } = one;
  const source = recordSource(record);
  const readonly = isReadOnly(wanted);
  const other = othersOf(one).find((each) => isReadOnly(each) !== readonly);
  if (other !== undefined && !record.readonly)
    throw new CsiError(
      "FAILED_PRECONDITION",
      `volume ${record.volumeID} is published at ${other.target} ${isReadOnly(other) ? "read-only" : "for writing"}, and a device is either for all`,
    );
  const node = await storage.deviceOf(source, signal);
  const there = mountsAt(await readMountTable(), await canonical(wanted.target)).at(-1);
  if (there !== undefined)
    throw new CsiError(
      "FAILED_PRECONDITION",
      `target_path ${wanted.target} is not free: there is ${mountInWords(there)}; unmount that, or publish the volume elsewhere`,
    );
  await makeFile(wanted.target);
  if (!record.readonly) await storage.setReadonly(source, readonly, signal);
  await storage.exec("mount", ["-o", "bind", "--", node, wanted.target], { signal });
  if (await isSameDevice(wanted.target, node)) return;
  throw new CsiError("INTERNAL", `mount succeeded, but ${node} does not stand at ${wanted.target}`);
}

function hostOf({ exec, isRoot }: NodeContext["storage"]): MountHost {
  return { exec, isRoot, busyMs: BUSY_MS };
}

/** Nothing is left of a publication that failed, unless it stands after all. */
async function takeBack(context: NodeContext, one: New): Promise<void> {
  const { record, wanted } = one;
  if (await isPublished(context, record, wanted.target, AbortSignal.timeout(BUSY_MS))) return;
  await removeTarget(wanted.target);
  await context.records.write({ ...record, publications: [...othersOf(one)] });
}

export function unpublishVolume(context: NodeContext): UnaryHandler<"NodeUnpublishVolume"> {
  const { records, pending } = context;
  return async ({ volumeId, targetPath }, signal) => {
    checkID("volume_id", volumeId);
    checkPath("target_path", targetPath);
    return pending.alone("NodeUnpublishVolume", [`volume ${volumeId}`], async () => {
      const record = await records.read(volumeId);
      const there = record?.publications.find(({ target }) => target === targetPath);
      if (record === undefined || there === undefined) {
        await refuseForeign(volumeId, targetPath);
        // Of an earlier start of this host: the mount went with it, and what it stood on stayed.
        await removeTarget(targetPath);
        return {};
      }
      await unmountTarget(context, record, targetPath, signal);
      await removeTarget(targetPath);
      const publications = record.publications.filter(({ target }) => target !== targetPath);
      await records.write({ ...record, publications });
      return {};
    });
  };
}

async function unmountTarget(
  { storage }: NodeContext,
  { access, stagingPath }: StageRecord,
  target: string,
  signal: AbortSignal,
): Promise<void> {
  const host = hostOf(storage);
  if (access === "mount") {
    await unmountFolder(host, {
      mountPoint: target,
      device: stagingPath,
      removeFolder: false,
      signal,
    });
    return;
  }
  const mountPoint = await canonical(target);
  const top = mountsAt(await readMountTable(), mountPoint).at(-1);
  if (top === undefined) return;
  // The device may be gone; what is bound there is a node of /dev, as a publication leaves it.
  const isNode = top.fsType === "devtmpfs" || top.fsType === "tmpfs";
  if (!isNode || !(await lstat(target)).isBlockDevice())
    throw new CsiError(
      "FAILED_PRECONDITION",
      `${target} is left as it is: there is ${mountInWords(top)}`,
    );
  await unmountBusy(host, mountPoint, signal);
}

/** What stands at a target of which there is no record is somebody else's. */
async function refuseForeign(volumeID: string, target: string): Promise<void> {
  // A path that goes through a file has no mount.
  const at = await canonical(target).catch(() => undefined);
  const top = at === undefined ? undefined : mountsAt(await readMountTable(), at).at(-1);
  if (top === undefined) return;
  throw new CsiError(
    "FAILED_PRECONDITION",
    `${target} is left as it is: there is ${mountInWords(top)}, and this node has not published volume ${volumeID} there`,
  );
}
