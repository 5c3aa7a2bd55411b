/** What is exported, from the records, with the connections that exist now; and how exports come and go. */
import * as v from "valibot";
import { ExportRemoveMode, StorageError } from "@libstorage/model";
import type { VolumeService } from "@libstorage/model";
import type { StorageService } from "../../core/service.js";
import { callerOf } from "./calls.js";
import { ExportLists } from "./export-lists.js";
import { exportOf } from "./export-wire.js";
import { sameAsBefore } from "./lists.js";
import type { Reads } from "./reads.js";

export function exportOperations(
  reads: Reads,
): Pick<
  VolumeService,
  "exports" | "exportsByService" | "exportInspect" | "exportAdd" | "exportUpdate" | "exportRemove"
> {
  const of = (service: string): StorageService => reads.storage.service(service);
  const lists = new ExportLists();
  return {
    exports: async () => sameAsBefore(await reads.forAll((service) => lists.of(service))),
    exportsByService: async ({ service }) => lists.of(of(service)),
    exportInspect: async ({ service, exportID }) => {
      const found = of(service);
      return exportOf(found.name, found.exports.door(exportID), await found.exports.sessions());
    },
    exportAdd: async ({ service }, request, context) => {
      const found = of(service);
      return exportOf(found.name, await found.exports.add(request, callerOf(context)), []);
    },
    exportUpdate: async ({ service, exportID }, request, context) => {
      const found = of(service);
      const changed = await found.exports.update(exportID, request, callerOf(context));
      return exportOf(found.name, changed, await found.exports.sessions());
    },
    exportRemove: async ({ service, exportID, mode = "safe" }, _body, context) => {
      const found = of(service);
      const left = await found.exports.remove(exportID, modeOf(mode), callerOf(context));
      return left && exportOf(found.name, left, await found.exports.sessions());
    },
  };
}

function modeOf(text: string): ExportRemoveMode {
  const parsed = v.safeParse(ExportRemoveMode, text);
  if (parsed.success) return parsed.output;
  throw new StorageError(
    "invalid-argument",
    `the mode ${JSON.stringify(text)} is not known: it is ${ExportRemoveMode.options.join(", ")}`,
    { mode: text },
  );
}
