/**
 * libvirt's proposal of 2007 for a storage API, with its names and units, over a libStorage server: in-process or
 * over HTTP. What its C functions answer by -1 is an exception here; what they free by a call of their own is the
 * collector's. Beyond the proposal: progress and cancelling of `virStorageCreateFile`.
 */
import type {
  CallContext,
  Progress,
  StorageGroup,
  StorageStat,
  StorageStatVFS,
  Task,
  VolumeService,
} from "@libstorage/model";

export {
  VIR_STORAGE_GROUP_FLAGS_READONLY,
  VIR_STORAGE_GROUP_MAGIC_VER1,
  VIR_STORAGE_SPARSE_FILE,
  VIR_STORAGE_STAT_BUFFER_TYPE_BLOCK,
  VIR_STORAGE_STAT_BUFFER_TYPE_DIR,
  VIR_STORAGE_STAT_BUFFER_TYPE_FILE,
} from "@libstorage/model";
export type {
  StorageGroup as virStorageGroup,
  StorageStat as virStorageStatBuffer,
  StorageStatVFS as virStorageStatVFSBuffer,
} from "@libstorage/model";

type Calls = Pick<
  VolumeService,
  | "storageFileLocations"
  | "storageFileStat"
  | "storageFileStatVFS"
  | "storageCreateFile"
  | "storageListGroups"
  | "storageCreateVolume"
>;

export interface CreateFileOptions {
  /** Told of bytes done and in all; not in the proposal. */
  readonly onProgress?: (progress: Progress) => void;
  /** Ends the waiting; the work goes on as a task. */
  readonly signal?: AbortSignal;
}

/** Each rejects with a `StorageError` where the proposal answers -1 or NULL. */
export interface Hypervisor {
  /** The wildcards of permitted files, as of `fnmatch` with `FNM_PATHNAME`. */
  virStorageFileLocations(): Promise<readonly string[]>;
  /** @returns null when the file does not exist, where the proposal answers 1 */
  virStorageFileStat(path: string): Promise<StorageStat | null>;
  /** @param path a file that exists, or the folder of a file that is to be made */
  virStorageFileStatVFS(path: string): Promise<StorageStatVFS>;
  /**
   * @param size kilobytes (1024 bytes)
   * @param flags 0 or `VIR_STORAGE_SPARSE_FILE`
   */
  virStorageCreateFile(
    path: string,
    size: number,
    flags: 0 | 1,
    options?: CreateFileOptions,
  ): Promise<void>;
  /** Sizes in kilobytes. */
  virStorageListGroups(): Promise<readonly StorageGroup[]>;
  /**
   * @param size kilobytes
   * @param flags 0: none is defined
   * @returns the path of the new device or file on the server's host
   */
  virStorageCreateVolume(name: string, group: string, size: number, flags?: 0): Promise<string>;
}

/** @param context goes with every call: who asks, and until when */
export function openHypervisor(service: Calls, context: CallContext = {}): Hypervisor {
  return {
    virStorageFileLocations: () => service.storageFileLocations({}, undefined, context),
    virStorageFileStat: (path) => service.storageFileStat({ path }, undefined, context),
    virStorageFileStatVFS: (path) => service.storageFileStatVFS({ path }, undefined, context),
    virStorageCreateFile: async (path, size, flags, { onProgress, signal } = {}) => {
      const onTask = ({ progress }: Task): void => {
        if (progress !== undefined) onProgress?.(progress);
      };
      await service.storageCreateFile(
        {},
        { path, size, flags },
        {
          ...context,
          ...(signal !== undefined && { signal }),
          // As a task it can be looked at while it goes on.
          ...(onProgress !== undefined && { async: true, onTask }),
        },
      );
    },
    virStorageListGroups: () => service.storageListGroups({}, undefined, context),
    virStorageCreateVolume: async (name, group, size, flags = 0) => {
      const made = await service.storageCreateVolume(
        { service: group },
        { name, size, flags },
        context,
      );
      return made.name;
    },
  };
}
