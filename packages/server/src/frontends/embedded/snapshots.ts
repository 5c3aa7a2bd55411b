/** The operations on snapshots. */
import type { VolumeService } from "@libstorage/model";
import { callerOf, compileFilter, fieldsOf, newVolume } from "./calls.js";
import { pageOf } from "./lists.js";
import type { Reads } from "./reads.js";
import { ANSWERS } from "./tasks.js";
import { snapshotOf } from "./wire.js";

/** Lists, inspections and changes. */
export function snapshotOperations(
  reads: Reads,
): Pick<
  VolumeService,
  | "snapshots"
  | "snapshotsByService"
  | "snapshotInspect"
  | "volumeCreateFromSnapshot"
  | "snapshotCopy"
  | "snapshotRemove"
> {
  return {
    snapshots: async ({ limit, after, ...query }, _body, context) => {
      compileFilter(query.filter);
      return reads.read("snapshots", "", context, async () => {
        const all = await reads.forAll((service) => reads.snapshotList(service, query, context));
        return pageOf(all, limit, after);
      });
    },
    snapshotsByService: async ({ service, ...query }, _body, context) => {
      const found = reads.storage.service(service);
      compileFilter(query.filter);
      return reads.read("snapshotsByService", found.name, context, () =>
        reads.snapshotList(found, query, context),
      );
    },
    snapshotInspect: async ({ service, snapshotID, byName }, _body, context) => {
      const found = reads.storage.service(service);
      return reads.read("snapshotInspect", found.name, context, () =>
        snapshotOf(byName === true ? found.snapshotNamed(snapshotID) : found.snapshot(snapshotID)),
      );
    },
    volumeCreateFromSnapshot: async ({ service, snapshotID }, body, context) =>
      ANSWERS.volumeCreateFromSnapshot(
        await reads.storage
          .service(service)
          .volumeCreateFromSnapshot(snapshotID, newVolume(body), callerOf(context)),
      ),
    snapshotCopy: async ({ service, snapshotID }, { snapshotName, opts }, context) => {
      const request = { name: snapshotName, fields: fieldsOf(opts) };
      return snapshotOf(
        await reads.storage.service(service).snapshotCopy(snapshotID, request, callerOf(context)),
      );
    },
    snapshotRemove: async ({ service, snapshotID }, _body, context) =>
      reads.storage.service(service).snapshotRemove(snapshotID, callerOf(context)),
  };
}
