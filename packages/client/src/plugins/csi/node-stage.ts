/** NodeStageVolume and NodeUnstageVolume: the volume comes to this node, and goes. */
import { createHash } from "node:crypto";
import type { ServiceInfo, Volume, VolumeAttachment } from "@libstorage/model";
import type { MountSource } from "../../executor/executor.js";
import { canonical, mountInWords } from "../../executor/mount-point.js";
import { mountsAt, readMountTable } from "../../executor/mount-table.js";
import { usableVolume } from "./backend.js";
import { allowedBy } from "./access-modes.js";
import { checkCapability, isBlock, requireSupport } from "./capabilities.js";
import type { CheckedCapability } from "./capabilities.js";
import { attachmentOf, holdOf, publishedNodes, tokenOf } from "./holders.js";
import type { NodeStageRequest, UnaryHandler } from "./messages.js";
import { fileSystemFlags, flagsOf, folderFlags } from "./mount-flags.js";
import { giveToGroup } from "./mount-group.js";
import { checkID } from "./names.js";
import type { NodeContext } from "./node-context.js";
import { checkFolder, checkPath } from "./node-paths.js";
import type { NewStageRecord, StageRecord } from "./node-records.js";
import { sourceOf } from "./node-storage.js";
import type { Source } from "./node-storage.js";
import { CsiError } from "./status.js";

export function digestOfCapability({
  access,
  mode,
  fsType,
  mountFlags,
  group,
}: CheckedCapability): string {
  const text = JSON.stringify([access, mode, fsType, mountFlags, group ?? -1]);
  return createHash("sha256").update(text).digest("hex").slice(0, 32);
}

export function digestOfFlags(flags: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(flags.toSorted())).digest("hex").slice(0, 32);
}

/** A stage as it shall be. */
interface Wanted {
  readonly request: NodeStageRequest;
  readonly capability: CheckedCapability;
  readonly attachment: VolumeAttachment;
  readonly source: Source;
  readonly readonly: boolean;
  readonly info: ServiceInfo;
  readonly signal: AbortSignal;
}

export function stageVolume(context: NodeContext): UnaryHandler<"NodeStageVolume"> {
  const { backend, pending } = context;
  return async (request, signal) => {
    const { volumeId, stagingTargetPath: path } = request;
    checkID("volume_id", volumeId);
    checkPath("staging_target_path", path);
    const capability = checkCapability(request.volumeCapability);
    const flags = flagsOf(capability.mountFlags);
    return pending.alone("NodeStageVolume", [`volume ${volumeId}`], async () => {
      const volume = usableVolume(await backend.volume(volumeId, signal));
      const info = await backend.info(signal);
      requireSupport(info, [capability], "FAILED_PRECONDITION");
      if (!isBlock(info)) folderFlags(flags);
      const wanted = {
        request,
        capability,
        info,
        signal,
        ...(await ownSource(context, volume, signal)),
      };
      if (await isStagedSo(context, wanted)) return {};
      await checkFolder("staging_target_path", path);
      await stageNew(context, wanted);
      return {};
    });
  };
}

/** Nothing is mounted that the service has not given to this node. @throws {CsiError} FAILED_PRECONDITION */
async function ownSource(
  { backend }: NodeContext,
  volume: Volume,
  signal: AbortSignal,
): Promise<Pick<Wanted, "attachment" | "source" | "readonly">> {
  const { instanceID, executor } = await backend.identity(signal);
  const own = attachmentOf(volume, instanceID);
  if (own === undefined) {
    const nodes = publishedNodes(volume);
    throw new CsiError(
      "FAILED_PRECONDITION",
      `volume ${volume.id} is not published to this node${nodes.length === 0 ? "" : ` but to ${nodes.join(", ")}`}: call ControllerPublishVolume for it first`,
    );
  }
  const hold = holdOf(own);
  const readonly = hold !== undefined && (hold.readonly || allowedBy(hold.mode).writers === "none");
  return { attachment: own, source: sourceOf(volume.id, executor.driver, own), readonly };
}

/** @throws {CsiError} ALREADY_EXISTS for one that is staged otherwise */
async function isStagedSo(
  { records, storage }: NodeContext,
  { request, capability, source }: Wanted,
): Promise<boolean> {
  const record = await records.read(request.volumeId);
  if (record === undefined) return false;
  const { stagingPath, phase } = record;
  const stands = await isStanding(storage, record);
  if (phase === "staged" && stands && stagingPath !== request.stagingTargetPath)
    throw new CsiError(
      "FAILED_PRECONDITION",
      `volume ${record.volumeID} is staged at ${stagingPath} already: unstage it there first`,
    );
  if (phase !== "staged" || !stands) return false;
  if (record.capability !== digestOfCapability(capability))
    throw new CsiError(
      "ALREADY_EXISTS",
      `volume ${record.volumeID} is staged at ${stagingPath} already, with another volume_capability`,
    );
  // The way to it may be another one now.
  return record.device === source.device;
}

export function recordSource({ volumeID, driver, device, fields }: StageRecord): Source {
  return { volumeID, driver, device, fields };
}

/** Whether the volume is where its record says. */
export async function isStanding(
  storage: NodeContext["storage"],
  record: StageRecord,
): Promise<boolean> {
  if (record.access === "block") return true;
  return storage.isStaged(recordSource(record), record.stagingPath, record.mount);
}

async function stageNew(context: NodeContext, wanted: Wanted): Promise<void> {
  const { records, storage } = context;
  const { request, capability, attachment, source, readonly, signal } = wanted;
  const isWritable = !readonly && allowedBy(capability.mode).writers !== "none";
  const before = await records.read(request.volumeId);
  const token = tokenOf(attachment);
  const record: NewStageRecord = {
    volumeID: request.volumeId,
    stagingPath: request.stagingTargetPath,
    access: capability.access,
    mode: capability.mode,
    capability: digestOfCapability(capability),
    fsFlags: digestOfFlags(fileSystemFlags(flagsOf(capability.mountFlags))),
    readonly: !isWritable,
    driver: source.driver,
    device: source.device,
    fields: source.fields,
    token,
    publications: before?.publications ?? [],
    phase: "staging",
  };
  // Nobody else has had the device since, so what is on it is what this node began to make.
  const hasRemains = before?.phase === "formatting" && token !== "" && before.token === token;
  if (!hasRemains) await records.write(record);
  await storage.connect(source, attachment, signal);
  if (hasRemains) {
    await clearRemains(storage, source, before.stagingPath, signal);
    await records.write(record);
  }
  if (capability.access === "block") await storage.setReadonly(source, !isWritable, signal);
  const mount =
    capability.access === "mount" ? await mountStage(context, wanted, record) : undefined;
  await records.write({ ...record, phase: "staged", ...(mount !== undefined && { mount }) });
}

/** It may have been mounted before that was written down; nobody has used it, since it was not staged. */
async function clearRemains(
  storage: NodeContext["storage"],
  source: Source,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  if (await storage.isStaged(source, path)) await storage.unstage(source, path, undefined, signal);
  await storage.clearRemains(source, signal);
}

async function mountStage(
  { records, storage }: NodeContext,
  { request, capability, source, info, signal }: Wanted,
  record: NewStageRecord,
): Promise<MountSource | undefined> {
  const flags = flagsOf(capability.mountFlags);
  const path = request.stagingTargetPath;
  // On the disk before anybody writes to the volume, and so while it is being mounted.
  let noted: Promise<unknown> = Promise.resolve();
  const formatting = async (isBegun: boolean): Promise<void> => {
    const writing = records.write({ ...record, phase: isBegun ? "formatting" : "staging" });
    if (isBegun) await writing;
    else noted = writing;
    writing.catch(() => {});
  };
  let mount: MountSource | undefined;
  try {
    mount = await storage.stage(source, {
      path,
      options: [
        ...(isBlock(info) ? flags : folderFlags(flags)),
        ...(record.readonly ? ["ro"] : []),
      ],
      fsType: isBlock(info) ? capability.fsType : "",
      formatting,
      signal,
    });
  } finally {
    await noted;
  }
  if (!record.readonly && capability.group !== undefined)
    await giveToGroup(storage.exec, path, capability.group, signal);
  return mount;
}

/** @throws {CsiError} `FAILED_PRECONDITION` for what somebody else has mounted, or the record of which was lost */
async function checkNothingAt(volumeID: string, path: string): Promise<void> {
  const there = mountsAt(await readMountTable(), await canonical(path)).at(-1);
  if (there === undefined) return;
  throw new CsiError(
    "FAILED_PRECONDITION",
    `volume ${volumeID} is not staged at ${path}, where there is ${mountInWords(there)}; if that is what is meant, unmount it by hand`,
  );
}

export function unstageVolume({
  records,
  storage,
  pending,
}: NodeContext): UnaryHandler<"NodeUnstageVolume"> {
  return async ({ volumeId, stagingTargetPath: path }, signal) => {
    checkID("volume_id", volumeId);
    checkPath("staging_target_path", path);
    return pending.alone("NodeUnstageVolume", [`volume ${volumeId}`], async () => {
      const record = await records.read(volumeId);
      // What is not staged there is fine; the server is not asked, since it may be away.
      if (record === undefined || record.stagingPath !== path) {
        await checkNothingAt(volumeId, path);
        return {};
      }
      const [used] = record.publications;
      if (used !== undefined)
        throw new CsiError(
          "FAILED_PRECONDITION",
          `volume ${volumeId} is published at ${used.target} still: call NodeUnpublishVolume for that first`,
        );
      const source = recordSource(record);
      // Frozen, it would stay so unseen: an unmount does not thaw it.
      if (record.isFrozen) await storage.thaw(path, signal);
      // Whoever gets the device next must find it blank.
      if (record.phase === "formatting") await clearRemains(storage, source, path, signal);
      await records.write({ ...record, phase: "unstaging", isFrozen: false });
      if (record.access === "mount") await storage.unstage(source, path, record.mount, signal);
      else if (record.readonly) await storage.setReadonly(source, false, signal).catch(() => {});
      await storage.disconnect(source, signal);
      await records.remove(volumeId);
      return {};
    });
  };
}
