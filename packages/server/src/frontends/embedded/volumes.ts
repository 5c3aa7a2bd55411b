/** The operations on volumes. */
import { bytesOfGiB, notFound } from "@libstorage/model";
import type { CallContext, Volume, VolumeService } from "@libstorage/model";
import { heldBy } from "../../core/access.js";
import type { Caller } from "../../core/operations.js";
import type { StorageService } from "../../core/service.js";
import {
  callerOf,
  checkMask,
  compileFilter,
  fieldsOf,
  holderFieldsOf,
  holderOf,
  instanceFor,
  newVolume,
  partOf,
  updateOf,
} from "./calls.js";
import { pageOf } from "./lists.js";
import type { Reads } from "./reads.js";
import { ANSWERS } from "./tasks.js";
import { plainVolume, snapshotOf, volumeUnder, volumeWith } from "./wire.js";

/** Lists and inspections. */
export function volumeReads(
  reads: Reads,
): Pick<VolumeService, "volumes" | "volumesByService" | "volumeInspect"> {
  return {
    volumes: async ({ limit, after, ...query }, _body, context) => {
      compileFilter(query.filter);
      return reads.read("volumes", "", context, async () => {
        const all = await reads.forAll((service) => reads.volumeList(service, query, context));
        return pageOf(all, limit, after);
      });
    },
    volumesByService: async ({ service, ...query }, _body, context) => {
      const found = reads.storage.service(service);
      compileFilter(query.filter);
      return reads.read("volumesByService", found.name, context, () =>
        reads.volumeList(found, query, context),
      );
    },
    volumeInspect: async ({ service, volumeID, attachments: mask = 0, byName }, _body, context) => {
      const found = reads.storage.service(service);
      checkMask(found, mask, context);
      return reads.read("volumeInspect", found.name, context, () => {
        const record = byName === true ? found.volumeNamed(volumeID) : found.volume(volumeID);
        if (mask === 0) return plainVolume(record);
        const volume = volumeUnder(record, mask, instanceFor(found, context));
        if (volume === undefined) throw notFound("volume", volumeID, { service: found.name });
        return volume;
      });
    },
  };
}

/** Changes of one volume, and new ones. */
export function volumeChanges(
  reads: Reads,
): Pick<
  VolumeService,
  | "volumeCreate"
  | "volumeCopy"
  | "volumeSnapshot"
  | "volumeAttach"
  | "volumeDetach"
  | "volumeExpand"
  | "volumeRevert"
  | "volumeUpdate"
  | "volumeRemove"
> {
  return {
    volumeCreate: async ({ service }, body, context) =>
      ANSWERS.volumeCreate(
        await reads.storage.service(service).volumeCreate(newVolume(body), callerOf(context)),
      ),
    volumeCopy: async ({ service, volumeID }, { volumeName, service: to, opts }, context) => {
      const request = { name: volumeName, fields: fieldsOf(opts) };
      const from = reads.storage.service(service);
      const target = reads.storage.service(to ?? service);
      const copying =
        target === from
          ? from.volumeCopy(volumeID, request, callerOf(context))
          : target.volumeCopyFrom(from, volumeID, request, callerOf(context));
      return ANSWERS.volumeCopy(await copying);
    },
    volumeSnapshot: async ({ service, volumeID }, { snapshotName, opts }, context) => {
      const request = { name: snapshotName, fields: fieldsOf(opts) };
      return snapshotOf(
        await reads.storage.service(service).volumeSnapshot(volumeID, request, callerOf(context)),
      );
    },
    volumeAttach: async (
      { service, volumeID },
      { nextDeviceName = "", force = false, opts },
      context,
    ) => {
      const found = reads.storage.service(service);
      const instance = holderOf(found, context);
      const attached = await found.volumeAttach(
        volumeID,
        { to: instance, deviceName: nextDeviceName, force, ...holderFieldsOf(opts) },
        callerOf(context),
      );
      return ANSWERS.volumeAttach(attached);
    },
    volumeDetach: async ({ service, volumeID }, { force = false }, context) => {
      const found = reads.storage.service(service);
      const instance = holderOf(found, context);
      return ANSWERS.volumeDetach(
        await found.volumeDetach(volumeID, instance, force, callerOf(context)),
      );
    },
    volumeExpand: async ({ service, volumeID }, { size }, context) =>
      ANSWERS.volumeExpand(
        await reads.storage
          .service(service)
          .volumeExpand(volumeID, bytesOfGiB(size), callerOf(context)),
      ),
    volumeRevert: async ({ service, volumeID }, { snapshotID }, context) =>
      ANSWERS.volumeRevert(
        await reads.storage.service(service).volumeRevert(volumeID, snapshotID, callerOf(context)),
      ),
    volumeUpdate: async ({ service, volumeID }, body, context) =>
      ANSWERS.volumeUpdate(
        await reads.storage
          .service(service)
          .volumeUpdate(volumeID, updateOf(body), callerOf(context)),
      ),
    volumeRemove: async ({ service, volumeID, force = false }, _body, context) =>
      reads.storage.service(service).volumeRemove(volumeID, force, callerOf(context)),
  };
}

/** Detaches what the instance holds, and answers every volume of the service. */
async function detachAll(
  service: StorageService,
  force: boolean,
  context: CallContext,
  caller: Caller,
): Promise<Record<string, Volume>> {
  const instance = holderOf(service, context);
  const held = service.inventory.volumes
    .all()
    .filter((volume) => volume.broken === undefined && heldBy(volume, instance) !== undefined);
  for (const { id } of held) await service.volumeDetach(id, instance, force, partOf(caller));
  return Object.fromEntries(
    service.inventory.volumes.all().map((record) => [record.id, volumeWith(record, [], 3)]),
  );
}

/** Several operations under one task and one idempotency key. */
function together<T>(
  reads: Reads,
  operation: string,
  service: string,
  request: unknown,
  context: CallContext,
  act: (caller: Caller) => Promise<T>,
): Promise<T> {
  const caller = callerOf(context);
  return reads.storage.operations.run(
    { operation, service, request, prepare: async () => ({ settled: await act(caller) }) },
    caller,
  );
}

/** Everything that an instance holds, given back at once. */
export function volumeDetachments(
  reads: Reads,
): Pick<VolumeService, "volumeDetachAllForService" | "volumeDetachAll"> {
  return {
    volumeDetachAllForService: async ({ service }, { force = false }, context) => {
      const found = reads.storage.service(service);
      holderOf(found, context);
      return together(
        reads,
        "volumeDetachAllForService",
        found.name,
        { force, instanceIDs: context.instanceIDs },
        context,
        (caller) => detachAll(found, force, context, caller),
      );
    },
    volumeDetachAll: async (_params, { force = false }, context) =>
      together(
        reads,
        "volumeDetachAll",
        "",
        { force, instanceIDs: context.instanceIDs },
        context,
        (caller) =>
          reads.forAll(
            (service) => detachAll(service, force, context, caller),
            (volumes) => Object.keys(volumes).length > 0,
          ),
      ),
  };
}
