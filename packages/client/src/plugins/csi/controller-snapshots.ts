/** Snapshots of the Controller service. */
import type { Snapshot } from "@libstorage/model";
import type { Service } from "./backend.js";
import { absent, changing } from "./backend.js";
import { can } from "./capabilities.js";
import type { Handlers, UnaryHandler } from "./messages.js";
import { checkID, checkName, isPossibleID, objectName } from "./names.js";
import { ownParameters } from "./parameters.js";
import type { PluginContext } from "./plugin-context.js";
import { CsiError, hasCode, invalid } from "./status.js";
import { idOfToken, tokenAfter } from "./tokens.js";
import { NO_GROUP, snapshotFactsOf, snapshotFields } from "./volume-facts.js";
import type { GroupFacts } from "./volume-facts.js";
import { snapshotOf } from "./volume-view.js";

const LIST = "snapshots";

export function controllerSnapshots(context: PluginContext): Handlers {
  return {
    CreateSnapshot: create(context),
    DeleteSnapshot: remove(context),
    ListSnapshots: list(context),
    GetSnapshot: get(context),
  };
}

/** @throws {CsiError} UNIMPLEMENTED when the driver makes no snapshots */
export async function snapshotService(
  { backend }: PluginContext,
  signal: AbortSignal,
): Promise<Service> {
  const info = await backend.info(signal);
  if (!can(info, "snapshot"))
    throw new CsiError(
      "UNIMPLEMENTED",
      `service ${info.name} (driver ${info.driver.name}) has no snapshots`,
    );
  return backend.service(signal);
}

export async function findSnapshot(
  { calls, name }: Service,
  snapshotID: string,
  signal: AbortSignal,
): Promise<Snapshot | undefined> {
  if (!isPossibleID(snapshotID)) return undefined;
  const params = { service: name, snapshotID };
  const found = await calls.snapshotInspect(params, undefined, { signal }).catch(absent);
  return found?.id === snapshotID ? found : undefined;
}

/**
 * Makes a snapshot, or finds the one of that name. One of a group is only made: what is there already was cut at
 * another moment than the others.
 * @throws {CsiError} ALREADY_EXISTS when that one is of another volume, ABORTED when it is of a group
 */
export async function makeSnapshot(
  { calls, name: service }: Service,
  {
    name,
    volumeID,
    group,
  }: { readonly name: string; readonly volumeID: string; readonly group: GroupFacts },
  signal: AbortSignal,
): Promise<Snapshot> {
  try {
    return await calls.volumeSnapshot(
      { service, volumeID },
      { snapshotName: objectName(name), opts: snapshotFields(name, group) },
      changing(signal, { onlyIfNew: true }),
    );
  } catch (error) {
    if (hasCode(error, "not-found"))
      throw new CsiError("NOT_FOUND", `there is no volume ${volumeID}`, { cause: error });
    if (!hasCode(error, "already-exists")) throw error;
    const id = error.data["snapshotID"];
    const found =
      typeof id === "string" ? await findSnapshot({ calls, name: service }, id, signal) : undefined;
    if (found === undefined)
      throw new CsiError("ABORTED", `a snapshot named ${name} is being made; try again`, {
        cause: error,
      });
    const facts = snapshotFactsOf(found);
    const isSame =
      facts?.name === name && facts.group === group.group && found.volumeID === volumeID;
    if (isSame && group.group === "") return found;
    if (isSame)
      throw new CsiError(
        "ABORTED",
        `snapshot ${found.id} of the ${group.group} was made by another call meanwhile; try again`,
        { cause: error },
      );
    throw new CsiError(
      "ALREADY_EXISTS",
      `snapshot ${found.id} has the name ${name} already, and is ${facts === undefined ? "not this plugin's" : `of volume ${found.volumeID}`}`,
      { cause: error },
    );
  }
}

function create(context: PluginContext): UnaryHandler<"CreateSnapshot"> {
  return async ({ name, sourceVolumeId, parameters }, signal) => {
    checkName(name);
    checkID("source_volume_id", sourceVolumeId);
    const [unknown] = Object.keys(ownParameters(parameters));
    if (unknown !== undefined)
      throw invalid(`parameter ${JSON.stringify(unknown)} is not known; snapshots have none`);
    const service = await snapshotService(context, signal);
    const act = async (): Promise<{ snapshot: ReturnType<typeof snapshotOf> }> => {
      if (!isPossibleID(sourceVolumeId))
        throw new CsiError("NOT_FOUND", `there is no volume ${sourceVolumeId}`);
      const wanted = { name, volumeID: sourceVolumeId, group: NO_GROUP };
      return { snapshot: snapshotOf(await makeSnapshot(service, wanted, signal)) };
    };
    // Several snapshots of one volume may be made at once, but the volume stays meanwhile.
    const keys = [`snapshot named ${name}`];
    return context.pending.alone("CreateSnapshot", keys, act, [`volume ${sourceVolumeId}`]);
  };
}

/** One that is not there is fine. */
export async function removeSnapshot(
  { calls, name }: Service,
  snapshotID: string,
  signal: AbortSignal,
): Promise<void> {
  const params = { service: name, snapshotID };
  await calls.snapshotRemove(params, undefined, changing(signal)).catch(absent);
}

function remove(context: PluginContext): UnaryHandler<"DeleteSnapshot"> {
  return async ({ snapshotId }, signal) => {
    checkID("snapshot_id", snapshotId);
    const service = await snapshotService(context, signal);
    return context.pending.alone("DeleteSnapshot", [`snapshot ${snapshotId}`], async () => {
      const found = await findSnapshot(service, snapshotId, signal);
      if (found === undefined) return {};
      const group = snapshotFactsOf(found)?.group ?? "";
      if (group !== "")
        throw invalid(`snapshot ${snapshotId} is one of the group ${group}: delete the group`);
      await removeSnapshot(service, snapshotId, signal);
      return {};
    });
  };
}

function get(context: PluginContext): UnaryHandler<"GetSnapshot"> {
  return async ({ snapshotId }, signal) => {
    checkID("snapshot_id", snapshotId);
    const service = await snapshotService(context, signal);
    const found = await findSnapshot(service, snapshotId, signal);
    if (found === undefined) throw new CsiError("NOT_FOUND", `there is no snapshot ${snapshotId}`);
    return { snapshot: snapshotOf(found) };
  };
}

function list(context: PluginContext): UnaryHandler<"ListSnapshots"> {
  return async ({ maxEntries, startingToken, sourceVolumeId, snapshotId }, signal) => {
    if (maxEntries < 0) throw invalid("max_entries must not be negative");
    const after = idOfToken(LIST, startingToken);
    const service = await snapshotService(context, signal);
    const all =
      snapshotId === ""
        ? await readAll(service, after, signal)
        : [await findSnapshot(service, snapshotId, signal)].filter((one) => one !== undefined);
    const wanted = all.filter(
      ({ id, volumeID }) =>
        (sourceVolumeId === "" || volumeID === sourceVolumeId) &&
        (after === undefined || id > after),
    );
    const page = maxEntries > 0 ? wanted.slice(0, maxEntries) : wanted;
    const last = page.at(-1);
    return {
      entries: page.map((snapshot) => ({ snapshot: snapshotOf(snapshot) })),
      nextToken: last !== undefined && wanted.length > page.length ? tokenAfter(LIST, last.id) : "",
    };
  };
}

/** In the order of their ids, which tokens stand for. */
async function readAll(
  { calls, name }: Service,
  after: string | undefined,
  signal: AbortSignal,
): Promise<readonly Snapshot[]> {
  const params = { service: name, ...(after !== undefined && { after }) };
  return Object.values(await calls.snapshotsByService(params, undefined, { signal })).toSorted(
    (a, b) => (a.id < b.id ? -1 : 1),
  );
}
