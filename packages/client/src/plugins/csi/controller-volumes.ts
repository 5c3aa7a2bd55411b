/** Volumes of the Controller service: removing, finding, growing, and what there is room for. */
import { GIB, MAX_SIZE_GIB } from "@libstorage/model";
import { changing, usableVolume } from "./backend.js";
import {
  can,
  checkCapabilities,
  checkCapability,
  controllerCapabilities,
  expansionOf,
  isBlock,
  mutableIn,
  requireSupport,
  unsupported,
} from "./capabilities.js";
import { createVolume } from "./create-volume.js";
import { publishedNodes } from "./holders.js";
import type { Handlers, UnaryHandler } from "./messages.js";
import { checkID } from "./names.js";
import { readMutable, readParameters } from "./parameters.js";
import type { PluginContext } from "./plugin-context.js";
import { bytesOf, checkRange, sizeFor } from "./sizes.js";
import { CsiError, hasCode, invalid } from "./status.js";
import { idOfToken, tokenAfter } from "./tokens.js";
import { isWithin } from "./topology.js";
import { foreignContext } from "./volume-context.js";
import { beyondSharing } from "./volume-sharing.js";
import { statusOfVolume, volumeOf } from "./volume-view.js";

const LIST = "volumes";
const ALL_ATTACHMENTS = 1;

export function controllerVolumes(context: PluginContext): Handlers {
  return {
    CreateVolume: createVolume(context),
    DeleteVolume: deleteVolume(context),
    ValidateVolumeCapabilities: validate(context),
    ListVolumes: list(context),
    ControllerGetVolume: get(context),
    ControllerExpandVolume: expand(context),
    ControllerModifyVolume: modify(context),
    GetCapacity: capacity(context),
    ControllerGetCapabilities: async (_request, signal) => ({
      capabilities: controllerCapabilities(await context.backend.info(signal), context.settings),
    }),
  };
}

function deleteVolume({ backend, pending }: PluginContext): UnaryHandler<"DeleteVolume"> {
  return async ({ volumeId }, signal) => {
    checkID("volume_id", volumeId);
    return pending.alone("DeleteVolume", [`volume ${volumeId}`], async () => {
      // What is no id at all, or differs in its case, is not there.
      if ((await backend.findVolume(volumeId, signal)) === undefined) return {};
      const { calls, name } = await backend.service(signal);
      const params = { service: name, volumeID: volumeId };
      await calls
        .volumeRemove(params, undefined, changing(signal))
        .catch((error: unknown) => ignoreMissing(error));
      return {};
    });
  };
}

function ignoreMissing(error: unknown): void {
  if (!hasCode(error, "not-found")) throw error;
}

function validate({
  backend,
  settings,
}: PluginContext): UnaryHandler<"ValidateVolumeCapabilities"> {
  return async (request, signal) => {
    const { volumeId, volumeContext, volumeCapabilities, parameters, mutableParameters } = request;
    checkID("volume_id", volumeId);
    const capabilities = checkCapabilities(volumeCapabilities);
    const volume = await backend.volume(volumeId, signal);
    const info = await backend.info(signal);
    const lacking = [
      ...capabilities.map((one) => unsupported(info, one)),
      beyondSharing(volume, capabilities),
      foreignContext(volumeContext, settings.driverName),
    ].find((why) => why !== undefined);
    if (lacking !== undefined) return { message: lacking };
    try {
      readParameters(parameters);
      readMutable(mutableParameters, info);
    } catch (error) {
      if (error instanceof CsiError) return { message: error.message };
      throw error;
    }
    return {
      confirmed: { volumeContext, volumeCapabilities, parameters, mutableParameters },
      message: "",
    };
  };
}

function list({ backend, settings }: PluginContext): UnaryHandler<"ListVolumes"> {
  return async ({ maxEntries, startingToken }, signal) => {
    if (maxEntries < 0) throw invalid("max_entries must not be negative");
    const after = idOfToken(LIST, startingToken);
    const { calls, name } = await backend.service(signal);
    const params = {
      service: name,
      attachments: ALL_ATTACHMENTS,
      ...(after !== undefined && { after }),
      // One more, to know whether there is another page.
      ...(maxEntries > 0 && { limit: maxEntries + 1 }),
    };
    const all = Object.values(await calls.volumesByService(params, undefined, { signal }));
    const page = maxEntries > 0 ? all.slice(0, maxEntries) : all;
    const last = page.at(-1);
    return {
      entries: page.map((volume) => ({
        volume: volumeOf(volume, settings.topology),
        status: statusOfVolume(volume),
      })),
      nextToken: last !== undefined && all.length > page.length ? tokenAfter(LIST, last.id) : "",
    };
  };
}

function get({ backend, settings }: PluginContext): UnaryHandler<"ControllerGetVolume"> {
  return async ({ volumeId }, signal) => {
    checkID("volume_id", volumeId);
    const volume = await backend.volume(volumeId, signal);
    return { volume: volumeOf(volume, settings.topology), status: statusOfVolume(volume) };
  };
}

function expand({ backend, pending }: PluginContext): UnaryHandler<"ControllerExpandVolume"> {
  return async ({ volumeId, capacityRange, volumeCapability }, signal) => {
    checkID("volume_id", volumeId);
    if (capacityRange === null) throw invalid("capacity_range is missing");
    checkRange(capacityRange);
    if (capacityRange.requiredBytes === 0 && capacityRange.limitBytes === 0)
      throw invalid("capacity_range names no size");
    const capability = volumeCapability === null ? undefined : checkCapability(volumeCapability);
    const info = await backend.info(signal);
    if (!can(info, "expand"))
      throw new CsiError("UNIMPLEMENTED", `service ${info.name} cannot expand volumes`);
    if (capability !== undefined) requireSupport(info, [capability], "INVALID_ARGUMENT");
    return pending.alone("ControllerExpandVolume", [`volume ${volumeId}`], async () => {
      const volume = usableVolume(await backend.volume(volumeId, signal));
      const nodeExpansionRequired = isBlock(info) && capability?.access !== "block";
      const now = bytesOf(volume.size);
      const { requiredBytes, limitBytes } = capacityRange;
      // Large enough already, as a volume without limit always is.
      if (now === 0 || now >= requiredBytes) {
        if (limitBytes > 0 && now > limitBytes)
          throw new CsiError(
            "OUT_OF_RANGE",
            `volume ${volumeId} has ${now} bytes already, which is more than limit_bytes ${limitBytes}, and volumes do not shrink`,
          );
        return { capacityBytes: now, nodeExpansionRequired };
      }
      const nodes = publishedNodes(volume);
      if (expansionOf(info) === "OFFLINE" && nodes.length > 0)
        throw new CsiError(
          "FAILED_PRECONDITION",
          `volume ${volumeId} is in use on ${nodes.join(", ")}, and service ${info.name} expands volumes only while nobody has them: unpublish it there (end the workloads that use it), then expand it`,
        );
      const size = sizeFor(capacityRange) ?? 1;
      const { calls, name } = await backend.service(signal);
      const params = { service: name, volumeID: volumeId };
      const grown = await calls.volumeExpand(params, { size }, changing(signal));
      return { capacityBytes: bytesOf(grown.size), nodeExpansionRequired };
    });
  };
}

/** What is so already is not changed once more. */
function modify({ backend, pending }: PluginContext): UnaryHandler<"ControllerModifyVolume"> {
  return async ({ volumeId, mutableParameters }, signal) => {
    checkID("volume_id", volumeId);
    const info = await backend.info(signal);
    if (mutableIn(info).length === 0)
      throw new CsiError(
        "UNIMPLEMENTED",
        `service ${info.name} (driver ${info.driver.name}) cannot change volumes`,
      );
    const request = readMutable(mutableParameters, info);
    return pending.alone("ControllerModifyVolume", [`volume ${volumeId}`], async () => {
      usableVolume(await backend.volume(volumeId, signal));
      if (Object.keys(request).length === 0) return {};
      const { calls, name } = await backend.service(signal);
      await calls.volumeUpdate({ service: name, volumeID: volumeId }, request, changing(signal));
      return {};
    });
  };
}

function capacity({ backend, settings }: PluginContext): UnaryHandler<"GetCapacity"> {
  return async ({ volumeCapabilities, parameters, accessibleTopology }, signal) => {
    const capabilities = volumeCapabilities.map(checkCapability);
    readParameters(parameters);
    const info = await backend.info(signal);
    if (!can(info, "capacity"))
      throw new CsiError("UNIMPLEMENTED", `service ${info.name} cannot tell its capacity`);
    const none = { availableCapacity: 0 };
    if (capabilities.some((one) => unsupported(info, one) !== undefined)) return none;
    const isElsewhere =
      accessibleTopology !== null &&
      Object.keys(settings.topology).length > 0 &&
      !isWithin(settings.topology, accessibleTopology.segments);
    if (isElsewhere) return none;
    const { calls, name } = await backend.service(signal);
    const params = { service: name, capacity: true };
    const now = await calls.serviceInspect(params, undefined, { signal });
    const freeBytes = Math.max(0, now.capacity?.freeBytes ?? 0);
    return {
      availableCapacity: freeBytes,
      maximumVolumeSize: { value: Math.min(now.capacity?.totalBytes ?? 0, MAX_SIZE_GIB * GIB) },
      minimumVolumeSize: { value: GIB },
    };
  };
}
