/**
 * The GroupController service: snapshots of several volumes, all of one moment. A volume that nobody can write
 * to stands still by itself; the file system of one that is in use on this node is frozen when that is asked
 * for. Where neither is so, the call is refused rather than half kept.
 */
import { createHash } from "node:crypto";
import type { Snapshot, Volume } from "@libstorage/model";
import type { Service } from "./backend.js";
import { usableVolume } from "./backend.js";
import { groupCapabilities } from "./capabilities.js";
import { makeSnapshot, removeSnapshot, snapshotService } from "./controller-snapshots.js";
import { frozenDuring, stillness } from "./freeze.js";
import type { Stillness } from "./freeze.js";
import type { GroupSnapshot, Handlers, UnaryHandler } from "./messages.js";
import { checkID, checkName } from "./names.js";
import type { NodeContext } from "./node-context.js";
import type { OpenGroups } from "./open-groups.js";
import { ownParameters } from "./parameters.js";
import { CsiError, hasCode, invalid } from "./status.js";
import { digestOfMembers, snapshotFactsOf } from "./volume-facts.js";
import type { GroupFacts } from "./volume-facts.js";
import { snapshotOf, timestampOf } from "./volume-view.js";

interface GroupContext extends NodeContext {
  readonly openGroups: OpenGroups;
  /** How long file systems are kept frozen at most. */
  readonly mostFrozenMs: number;
}

const DROP_MS = 60_000;

export function groupController(context: GroupContext): Handlers {
  return {
    GroupControllerGetCapabilities: async (_request, signal) => ({
      capabilities: groupCapabilities(await context.backend.info(signal), context.settings),
    }),
    CreateVolumeGroupSnapshot: create(context),
    DeleteVolumeGroupSnapshot: remove(context),
    GetVolumeGroupSnapshot: get(context),
  };
}

function groupIDOf(name: string): string {
  return `group-${createHash("sha256").update(name).digest("hex").slice(0, 32)}`;
}

function keysOf(groupID: string, volumeIDs: Iterable<string>): string[] {
  return [`group ${groupID}`, ...[...volumeIDs].map((id) => `volume ${id}`)];
}

/** Which snapshots a group has, by what is noted with each. */
async function membersOf(
  { calls, name }: Service,
  groupID: string,
  signal: AbortSignal,
): Promise<readonly Snapshot[]> {
  const all = await calls.snapshotsByService({ service: name }, undefined, { signal });
  return Object.values(all).filter((one) => snapshotFactsOf(one)?.group === groupID);
}

function groupOf(groupID: string, members: readonly Snapshot[], isOpen = false): GroupSnapshot {
  const snapshots = members.map(snapshotOf);
  return {
    groupSnapshotId: groupID,
    snapshots,
    creationTime: timestampOf(Math.max(...members.map(({ startTime = 0 }) => startTime))),
    readyToUse: !isOpen && isWhole(members) && snapshots.every(({ readyToUse }) => readyToUse),
  };
}

interface GroupParameters {
  /** `group`: all of one moment. `each`: every one of its own, shortly after each other. */
  readonly consistency: "group" | "each";
  readonly freeze: boolean;
}

function readGroupParameters(parameters: Readonly<Record<string, string>>): GroupParameters {
  const { consistency = "group", freeze = "false", ...rest } = ownParameters(parameters);
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined)
    throw invalid(
      `parameter ${JSON.stringify(unknown)} is not known; there are consistency and freeze`,
    );
  if (consistency !== "group" && consistency !== "each")
    throw invalid("parameter consistency must be group or each");
  if (freeze !== "true" && freeze !== "false")
    throw invalid("parameter freeze must be true or false");
  return { consistency, freeze: freeze === "true" };
}

function create(context: GroupContext): UnaryHandler<"CreateVolumeGroupSnapshot"> {
  return async ({ name, sourceVolumeIds, parameters }, signal) => {
    checkName(name);
    if (sourceVolumeIds.length === 0) throw invalid("source_volume_ids are missing");
    for (const id of sourceVolumeIds) checkID("a source_volume_id", id);
    if (new Set(sourceVolumeIds).size < sourceVolumeIds.length)
      throw invalid("source_volume_ids name a volume twice");
    const options = readGroupParameters(parameters);
    const service = await snapshotService(context, signal);
    const groupID = groupIDOf(name);
    // Nobody stages, publishes or removes one of the volumes meanwhile.
    const keys = keysOf(groupID, sourceVolumeIds);
    return context.pending.alone("CreateVolumeGroupSnapshot", keys, async () => {
      const there = await membersOf(service, groupID, signal);
      const wanted = new Set(sourceVolumeIds);
      const members = digestOfMembers(wanted);
      const isOther = (one: Snapshot): boolean =>
        !wanted.has(one.volumeID ?? "") || snapshotFactsOf(one)?.members !== members;
      if (there.some(isOther))
        throw new CsiError(
          "ALREADY_EXISTS",
          `the group named ${name} is there already, with the volumes ${there.map(({ volumeID }) => volumeID).join(", ")}`,
        );
      const isOpen = context.openGroups.isOpen(groupID);
      if (there.length === wanted.size && !isOpen)
        return { groupSnapshot: groupOf(groupID, there) };
      // Of a call that was cut short: what it made is of another moment.
      for (const { id } of there) await removeSnapshot(service, id, signal);
      const volumes = await Promise.all(
        sourceVolumeIds.map(async (id) => usableVolume(await context.backend.volume(id, signal))),
      );
      const group = { group: groupID, members };
      const made = await makeAll(context, service, { name, group, volumes, options }, signal);
      return { groupSnapshot: groupOf(groupID, made) };
    });
  };
}

interface WantedGroup {
  readonly name: string;
  readonly group: GroupFacts;
  readonly volumes: readonly Volume[];
  readonly options: GroupParameters;
}

async function makeAll(
  context: GroupContext,
  service: Service,
  { name, group, volumes, options }: WantedGroup,
  signal: AbortSignal,
): Promise<readonly Snapshot[]> {
  const cut = (): Promise<readonly Snapshot[]> => cutAll(service, name, group, volumes, signal);
  if (options.consistency === "each") return cut();
  const stands = await Promise.all(
    volumes.map((volume) => stillness(context, volume, options.freeze, signal)),
  );
  // It stays open when this fails: the server may still make what it has begun.
  const isFreezing = stands.some(({ by }) => by === "freeze");
  await context.openGroups.begin(group.group, isFreezing);
  const drop = (made: readonly Snapshot[]): Promise<void> => dropAll(service, made);
  const freeze = { stands, limitMs: context.mostFrozenMs, signal };
  const made = await frozenDuring(context, freeze, cut, drop);
  await checkStill(context, stands, made, service, signal);
  await context.openGroups.end(group.group);
  return made;
}

/** All or none. */
async function cutAll(
  service: Service,
  name: string,
  group: GroupFacts,
  volumes: readonly Volume[],
  signal: AbortSignal,
): Promise<readonly Snapshot[]> {
  const results = await Promise.allSettled(
    volumes.map(({ id }) =>
      makeSnapshot(service, { name: `${group.group} ${id}`, volumeID: id, group }, signal),
    ),
  );
  const made = results.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  const failed = results.find((one) => one.status === "rejected");
  if (failed === undefined) return made;
  await dropAll(service, made);
  const error: unknown = failed.reason;
  if (hasCode(error, "already-exists"))
    throw new CsiError("ABORTED", `the group named ${name} is being made elsewhere; try again`, {
      cause: error,
    });
  throw error;
}

/** Also when the call has been ended, which may be why. */
async function dropAll(service: Service, made: readonly Snapshot[]): Promise<void> {
  const signal = AbortSignal.timeout(DROP_MS);
  for (const { id } of made) await removeSnapshot(service, id, signal).catch(() => {});
}

/** Somebody may have begun to write while the snapshots were taken. */
async function checkStill(
  context: NodeContext,
  stands: readonly Stillness[],
  made: readonly Snapshot[],
  service: Service,
  signal: AbortSignal,
): Promise<void> {
  for (const { volume } of stands.filter(({ by }) => by === "nobody")) {
    const now = await context.backend.findVolume(volume.id, signal);
    if ((now?.attachments ?? []).length === 0) continue;
    await dropAll(service, made);
    throw new CsiError(
      "ABORTED",
      `volume ${volume.id} got a user meanwhile, so the snapshots may be of different moments and were removed; try again`,
    );
  }
}

/** Whether a group has a snapshot of each of its volumes. */
function isWhole(members: readonly Snapshot[]): boolean {
  const digest = digestOfMembers(members.map(({ volumeID = "" }) => volumeID));
  return members.length > 0 && members.every((one) => snapshotFactsOf(one)?.members === digest);
}

/** @throws {CsiError} INVALID_ARGUMENT when the caller's list and the group differ */
function checkMembers(
  groupID: string,
  members: readonly Snapshot[],
  listed: readonly string[],
): void {
  if (listed.length === 0) return;
  const own = new Set(members.map(({ id }) => id));
  const missing = [...own].filter((id) => !listed.includes(id));
  if (missing.length > 0)
    throw invalid(`snapshot_ids lack ${missing.join(", ")} of the group ${groupID}`);
  const foreign = listed.filter((id) => !own.has(id));
  // Of a group that is being deleted some may have gone already.
  if (foreign.length > 0 && isWhole(members))
    throw invalid(`snapshot_ids name ${foreign.join(", ")}, which the group ${groupID} has not`);
}

function remove(context: GroupContext): UnaryHandler<"DeleteVolumeGroupSnapshot"> {
  return async ({ groupSnapshotId, snapshotIds }, signal) => {
    checkID("group_snapshot_id", groupSnapshotId);
    const service = await snapshotService(context, signal);
    const before = await membersOf(service, groupSnapshotId, signal);
    const volumeIDs = new Set(before.flatMap(({ volumeID }) => volumeID ?? []));
    const keys = keysOf(groupSnapshotId, volumeIDs);
    return context.pending.alone("DeleteVolumeGroupSnapshot", keys, async () => {
      const members = await membersOf(service, groupSnapshotId, signal);
      checkMembers(groupSnapshotId, members, snapshotIds);
      for (const { id } of members) await removeSnapshot(service, id, signal);
      await context.openGroups.end(groupSnapshotId);
      return {};
    });
  };
}

function get(context: GroupContext): UnaryHandler<"GetVolumeGroupSnapshot"> {
  return async ({ groupSnapshotId, snapshotIds }, signal) => {
    checkID("group_snapshot_id", groupSnapshotId);
    const service = await snapshotService(context, signal);
    const members = await membersOf(service, groupSnapshotId, signal);
    if (members.length === 0)
      throw new CsiError("NOT_FOUND", `there is no group snapshot ${groupSnapshotId}`);
    checkMembers(groupSnapshotId, members, snapshotIds);
    const isOpen = context.openGroups.isOpen(groupSnapshotId);
    return { groupSnapshot: groupOf(groupSnapshotId, members, isOpen) };
  };
}
