/**
 * ControllerPublishVolume: a node becomes a holder of the volume, as if its own client had attached it. Who
 * may have it is the service's decision; what it cannot know, such as that only one node may write, is
 * decided here, by what is noted with each holder.
 */
import { isSameInstance } from "@libstorage/model";
import type { InstanceID, Volume, VolumeAttachment } from "@libstorage/model";
import { KeyLocks } from "../key-locks.js";
import type { Service } from "./backend.js";
import { changing, usableVolume } from "./backend.js";
import { allowedBy } from "./access-modes.js";
import { checkCapability, requireSupport, writes } from "./capabilities.js";
import { attachmentOf, holdOf, holdOptions, nodeIDOf } from "./holders.js";
import type { Hold } from "./holders.js";
import type { Handlers, TextMap, UnaryHandler } from "./messages.js";
import { checkID } from "./names.js";
import { parseNodeID } from "./node-id.js";
import type { PluginContext } from "./plugin-context.js";
import { CsiError, hasCode, invalid } from "./status.js";
import { foreignContext } from "./volume-context.js";

/** @see csi.proto, NodeGetInfoResponse.node_id */
const MAX_NODE_ID = 256;
const ALL_ATTACHMENTS = 1;
/** How many volumes an error lists. */
const NAMED = 10;

export function controllerPublish(context: PluginContext): Handlers {
  return {
    ControllerPublishVolume: publish(context),
    ControllerUnpublishVolume: unpublish(context),
  };
}

function publish({
  backend,
  pending,
  settings,
}: PluginContext): UnaryHandler<"ControllerPublishVolume"> {
  const most = settings.maxVolumesPerNode;
  const nodes = new KeyLocks();
  return async ({ volumeId, nodeId, volumeCapability, readonly, volumeContext }, signal) => {
    checkID("volume_id", volumeId);
    if (nodeId === "") throw invalid("node_id is missing");
    if (Buffer.byteLength(nodeId) > MAX_NODE_ID)
      throw invalid(`node_id has more than ${MAX_NODE_ID} bytes`);
    const { mode, access, ...capability } = checkCapability(volumeCapability);
    const foreign = foreignContext(volumeContext, settings.driverName);
    if (foreign !== undefined) throw invalid(foreign);
    return pending.alone("ControllerPublishVolume", [`volume ${volumeId}`], async () => {
      const volume = usableVolume(await backend.volume(volumeId, signal));
      const info = await backend.info(signal);
      requireSupport(info, [{ mode, access, ...capability }], "INVALID_ARGUMENT");
      const node = parseNodeID(nodeId, info.driver.name);
      if (node === undefined)
        throw new CsiError(
          "NOT_FOUND",
          `there is no node ${nodeId} of the driver ${info.driver.name}`,
        );
      const hold: Hold = { nodeID: nodeId, mode, access, readonly };
      const own = attachmentOf(volume, node);
      if (own !== undefined)
        return { publishContext: publishContextOf(compatible(volume, own, hold)) };
      checkOthers(volume, node, hold);
      const service = await backend.service(signal);
      const grant = async (): Promise<VolumeAttachment> => {
        await checkRoom(service, node, hold, most, signal);
        return attach(service, volume, node, hold, signal);
      };
      // Two at once would both find room for one.
      const attached = most === 0 ? await grant() : await nodes.run(nodeId, grant);
      await checkAgain(service, volume.id, node, hold, signal);
      return { publishContext: publishContextOf(attached) };
    });
  };
}

/** @throws {CsiError} ALREADY_EXISTS */
function compatible(volume: Volume, own: VolumeAttachment, hold: Hold): VolumeAttachment {
  const there = holdOf(own);
  // Attached by hand: the service knows no mode, so any is fine.
  if (there === undefined) return own;
  const isSame =
    there.mode === hold.mode && there.access === hold.access && there.readonly === hold.readonly;
  if (isSame) return own;
  throw new CsiError(
    "ALREADY_EXISTS",
    `volume ${volume.id} is published to ${hold.nodeID} already, ${describe(there)}; unpublish it first to publish it ${describe(hold)}`,
  );
}

function describe({ mode, access, readonly }: Hold): string {
  return `as ${access} with ${mode}${readonly ? ", read-only" : ""}`;
}

/** What other nodes allow. @throws {CsiError} FAILED_PRECONDITION, naming the node */
function checkOthers(volume: Volume, node: InstanceID, hold: Hold): void {
  const others = (volume.attachments ?? []).filter(
    ({ instanceID }) => instanceID === null || !isSameInstance(instanceID, node),
  );
  const refused = (other: VolumeAttachment, why: string): CsiError =>
    new CsiError(
      "FAILED_PRECONDITION",
      `volume ${volume.id} is published to ${nodeIDOf(other)} already${why}; unpublish it there first`,
    );
  for (const other of others) {
    const there = holdOf(other);
    if (!allowedBy(hold.mode).manyNodes) throw refused(other, `, and ${hold.mode} allows one node`);
    if (there === undefined) continue;
    if (!allowedBy(there.mode).manyNodes)
      throw refused(other, ` with ${there.mode}, which allows one node`);
    const isSingle =
      allowedBy(there.mode).writers === "one" || allowedBy(hold.mode).writers === "one";
    if (isSingle && writes(there.mode, there.readonly) && writes(hold.mode, hold.readonly))
      throw refused(other, ", which writes, and only one node may");
  }
}

/**
 * Whatever a node has counts, however it came to it.
 * @param most 0: any number
 * @throws {CsiError} RESOURCE_EXHAUSTED
 */
async function checkRoom(
  { calls, name }: Service,
  node: InstanceID,
  { nodeID }: Hold,
  most: number,
  signal: AbortSignal,
): Promise<void> {
  if (most === 0) return;
  const params = { service: name, attachments: ALL_ATTACHMENTS };
  const volumes = Object.values(await calls.volumesByService(params, undefined, { signal }));
  const held = volumes.filter((one) => attachmentOf(one, node) !== undefined).map(({ id }) => id);
  if (held.length < most) return;
  throw new CsiError(
    "RESOURCE_EXHAUSTED",
    `${nodeID} has ${held.length} volumes (${held.slice(0, NAMED).join(", ")}${held.length > NAMED ? ", …" : ""}), and csi.maxVolumesPerNode allows ${most}: unpublish one there, or raise the key`,
  );
}

async function attach(
  { calls, name }: Service,
  { id }: Volume,
  node: InstanceID,
  hold: Hold,
  signal: AbortSignal,
): Promise<VolumeAttachment> {
  const context = changing(signal, { instanceIDs: [node] });
  const params = { service: name, volumeID: id };
  const { volume } = await calls.volumeAttach(params, { opts: holdOptions(hold) }, context);
  const own = attachmentOf(volume, node);
  if (own !== undefined) return own;
  throw new CsiError(
    "INTERNAL",
    `the service attached volume ${id} without saying where to find it`,
  );
}

/** Another plugin may have let another node in at the same time: then both step back, and one comes first. */
async function checkAgain(
  { calls, name }: Service,
  volumeID: string,
  node: InstanceID,
  hold: Hold,
  signal: AbortSignal,
): Promise<void> {
  if (!allowedBy(hold.mode).manyNodes) return;
  const params = { service: name, volumeID };
  try {
    const now = await calls.volumeInspect({ ...params, attachments: 1 }, undefined, { signal });
    checkOthers(now, node, hold);
  } catch (error) {
    const context = changing(signal, { instanceIDs: [node] });
    await calls.volumeDetach(params, {}, context).catch(() => {});
    throw error;
  }
}

/** For the node: where the volume is. It is looked up again there, so this is for people. */
function publishContextOf({ deviceName }: VolumeAttachment): TextMap {
  return deviceName === "" || Buffer.byteLength(deviceName) > 1024 ? {} : { device: deviceName };
}

function unpublish({ backend, pending }: PluginContext): UnaryHandler<"ControllerUnpublishVolume"> {
  return async ({ volumeId, nodeId }, signal) => {
    checkID("volume_id", volumeId);
    return pending.alone("ControllerUnpublishVolume", [`volume ${volumeId}`], async () => {
      const volume = await backend.findVolume(volumeId, signal);
      // A volume that is gone is published nowhere, and a node that is none holds nothing.
      if (volume === undefined) return {};
      const { driver } = await backend.info(signal);
      const held = holdersOf(volume, nodeId, driver.name);
      const { calls, name } = await backend.service(signal);
      for (const instance of held)
        await calls
          .volumeDetach(
            { service: name, volumeID: volumeId },
            {},
            changing(signal, { instanceIDs: [{ ...instance, driver: driver.name, service: "" }] }),
          )
          .catch((error: unknown) => {
            if (!hasCode(error, "not-found")) throw error;
          });
      return {};
    });
  };
}

/** Without a node: all of them. */
function holdersOf(volume: Volume, nodeID: string, driver: string): readonly InstanceID[] {
  const all = (volume.attachments ?? [])
    .map(({ instanceID }) => instanceID)
    .filter((id) => id !== null);
  if (nodeID === "") return all;
  const node = parseNodeID(nodeID, driver);
  return node === undefined ? [] : all.filter((one) => isSameInstance(one, node));
}
