/** The operations on volumes that are images. */
import { bytesOfGiB } from "@libstorage/model";
import type { VolumeService } from "@libstorage/model";
import { callerOf } from "./calls.js";
import type { Reads } from "./reads.js";
import { ANSWERS } from "./tasks.js";

export function imageOperations({
  storage,
}: Reads): Pick<VolumeService, "volumeShrink" | "volumeConvert" | "volumeCheck" | "volumeMeasure"> {
  return {
    volumeShrink: async ({ service, volumeID }, { size, discardData = false }, context) => {
      const request = { sizeBytes: bytesOfGiB(size), discardData };
      const found = storage.service(service);
      return ANSWERS.volumeShrink(await found.volumeShrink(volumeID, request, callerOf(context)));
    },
    volumeConvert: async ({ service, volumeID }, { format }, context) => {
      const found = storage.service(service);
      return ANSWERS.volumeConvert(await found.volumeConvert(volumeID, format, callerOf(context)));
    },
    volumeCheck: async ({ service, volumeID }, { repair = false }, context) =>
      storage.service(service).volumeCheck(volumeID, repair, callerOf(context)),
    volumeMeasure: async ({ service, volumeID }, { format }, context) =>
      storage.service(service).volumeMeasure(volumeID, format, callerOf(context)),
  };
}
