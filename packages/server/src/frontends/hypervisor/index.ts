/** The hypervisor front-end: libvirt's proposal for a storage API over the services and files of this host. */
import {
  KIB,
  StorageError,
  VIR_STORAGE_GROUP_MAGIC_VER1,
  VIR_STORAGE_SPARSE_FILE,
} from "@libstorage/model";
import type { StorageGroup, StorageVolumeName, VolumeService } from "@libstorage/model";
import type { VolumeRecord } from "../../core/driver.js";
import { lockKeyOf } from "../../core/locks.js";
import type { HostRecoveries } from "../../core/recovery.js";
import type { StorageService } from "../../core/service.js";
import { callerOf, partOf } from "../embedded/calls.js";
import type { Reads } from "../embedded/reads.js";
import type { Locations } from "./locations.js";
import { statOf, statVFSOf } from "./look.js";
import { checkNewFile, newFileWork, recoverNewFile } from "./new-file.js";

export { Locations } from "./locations.js";

type Operations =
  | "storageFileLocations"
  | "storageFileStat"
  | "storageFileStatVFS"
  | "storageCreateFile"
  | "storageListGroups"
  | "storageCreateVolume";

const CREATE_FILE = "storageCreateFile";

/** Operations about files belong to no service. */
const NO_SERVICE = "";

function pathOf(path: string | undefined): string {
  if (path !== undefined && path !== "") return path;
  throw new StorageError("invalid-argument", 'the query parameter "path" is missing');
}

async function groupOf(service: StorageService): Promise<StorageGroup> {
  const { totalBytes = 0, freeBytes = 0 } = (await service.capacity()) ?? {};
  return {
    magic: VIR_STORAGE_GROUP_MAGIC_VER1,
    name: service.name,
    flags: 0,
    size: Math.floor(totalBytes / KIB),
    avail: Math.floor(freeBytes / KIB),
  };
}

/** What a hypervisor on this host opens. */
function nameOf({ id, source }: VolumeRecord): StorageVolumeName {
  return { name: source.kind === "none" ? id : source.path, volumeID: id };
}

export function hypervisorOperations(
  reads: Reads,
  locations: Locations,
): Pick<VolumeService, Operations> {
  const { storage } = reads;
  return {
    storageFileLocations: async () => [...locations.patterns],
    storageFileStat: async ({ path }) => statOf(pathOf(path), locations),
    storageFileStatVFS: async ({ path }) => statVFSOf(pathOf(path), locations),
    storageCreateFile: async (_params, { path, size, flags = 0 }, context) => {
      const isSparse = (flags & VIR_STORAGE_SPARSE_FILE) !== 0;
      const file = { path, sizeBytes: size * KIB, isSparse };
      const caller = callerOf(context);
      return storage.operations.run(
        {
          operation: CREATE_FILE,
          service: NO_SERVICE,
          lock: lockKeyOf(NO_SERVICE, path),
          request: file,
          prepare: async () => {
            await checkNewFile(file, locations);
            return { work: newFileWork(file, caller.tx, locations) };
          },
        },
        caller,
      );
    },
    storageListGroups: async () => Object.values(await reads.forAll(groupOf)),
    storageCreateVolume: async ({ service }, { name, size }, context) => {
      const group = storage.service(service);
      const caller = callerOf(context);
      const request = { name, sizeBytes: size * KIB, fields: {} };
      // In the proposal a name stands for one volume of its group.
      const create = (): Promise<VolumeRecord> =>
        group.volumeCreate(request, { ...partOf(caller), onlyIfNew: true });
      return storage.operations.run(
        {
          operation: "storageCreateVolume",
          service: group.name,
          request,
          prepare: async () => ({ settled: nameOf(await create()) }),
        },
        caller,
      );
    },
  };
}

/** What is done at the start about files that were being made. */
export function hypervisorRecoveries(locations: Locations): HostRecoveries {
  return { [CREATE_FILE]: recoverNewFile(locations) };
}
