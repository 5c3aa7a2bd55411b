/**
 * libvirt's proposal of 2007 for a storage API: its six calls as routes, with its names, numbers and units.
 * Its kilobytes are 1024 bytes, as those of `vgs --units k` that it builds on.
 */
import * as v from "valibot";
import { Name } from "./requests.js";

export const KIB = 1024;
export const MAX_SIZE_KIB = Math.floor(Number.MAX_SAFE_INTEGER / KIB);

export const VIR_STORAGE_STAT_BUFFER_TYPE_BLOCK = 1;
export const VIR_STORAGE_STAT_BUFFER_TYPE_FILE = 2;
export const VIR_STORAGE_STAT_BUFFER_TYPE_DIR = 3;
export const VIR_STORAGE_GROUP_MAGIC_VER1 = 0x57083001;
export const VIR_STORAGE_GROUP_FLAGS_READONLY = 1;
export const VIR_STORAGE_SPARSE_FILE = 1;

const Count = v.pipe(v.number(), v.integer(), v.minValue(0));

/** `virStorageStatBuffer`. */
export const StorageStat = v.object({
  type: v.picklist([
    VIR_STORAGE_STAT_BUFFER_TYPE_BLOCK,
    VIR_STORAGE_STAT_BUFFER_TYPE_FILE,
    VIR_STORAGE_STAT_BUFFER_TYPE_DIR,
  ]),
  /** Bytes. */
  size: Count,
});
export type StorageStat = v.InferOutput<typeof StorageStat>;

/** `virStorageStatVFSBuffer`. */
export const StorageStatVFS = v.object({
  /** Bytes of a block. */
  bsize: Count,
  /** Blocks that are free for files. */
  bavail: Count,
});
export type StorageStatVFS = v.InferOutput<typeof StorageStatVFS>;

/** `virStorageGroup`. */
export const StorageGroup = v.object({
  magic: v.literal(VIR_STORAGE_GROUP_MAGIC_VER1),
  /** The service's name. */
  name: v.string(),
  flags: Count,
  /** Kilobytes; 0 when the service cannot tell. */
  size: Count,
  /** Kilobytes that are free. */
  avail: Count,
});
export type StorageGroup = v.InferOutput<typeof StorageGroup>;

/** What `virStorageCreateVolume` answers, and the volume's id, by which all other calls know it. */
export const StorageVolumeName = v.object({
  /** The path of the device or file on the server's host; the id where a volume has none. */
  name: v.string(),
  volumeID: v.string(),
});
export type StorageVolumeName = v.InferOutput<typeof StorageVolumeName>;

const SizeKiB = v.pipe(
  v.number(),
  v.integer("must be a whole number of kilobytes"),
  v.minValue(1, "must be at least 1 kilobyte"),
  v.maxValue(MAX_SIZE_KIB, `must be at most ${MAX_SIZE_KIB} kilobytes`),
);

export const StorageCreateFileRequest = v.strictObject({
  path: v.pipe(v.string(), v.minLength(1, "must not be empty"), v.maxLength(4096)),
  /** Kilobytes. */
  size: SizeKiB,
  /** 0, or `VIR_STORAGE_SPARSE_FILE`. */
  flags: v.optional(v.picklist([0, VIR_STORAGE_SPARSE_FILE], "must be 0 or 1 (sparse)")),
});
export type StorageCreateFileRequest = v.InferOutput<typeof StorageCreateFileRequest>;

export const StorageCreateVolumeRequest = v.strictObject({
  name: Name,
  /** Kilobytes. */
  size: SizeKiB,
  flags: v.optional(v.literal(0, "must be 0: no flag is defined")),
});
export type StorageCreateVolumeRequest = v.InferOutput<typeof StorageCreateVolumeRequest>;

const read = { method: "GET", status: 200, of: "service", task: false } as const;
const write = { method: "POST", status: 201, of: "service", task: true, query: {} } as const;

export const HYPERVISOR_ROUTES = {
  storageFileLocations: {
    ...read,
    path: "/hypervisor/locations",
    query: {},
    reply: v.array(v.string()),
    about: "The wildcards of the files that hypervisors may use (`virStorageFileLocations`)",
  },
  storageFileStat: {
    ...read,
    path: "/hypervisor/stat",
    query: { path: "text" },
    reply: v.nullable(StorageStat),
    about: "Type and size in bytes of a file, or null without one (`virStorageFileStat`)",
  },
  storageFileStatVFS: {
    ...read,
    path: "/hypervisor/statvfs",
    query: { path: "text" },
    reply: StorageStatVFS,
    about: "Free space of the file system of a file or its folder (`virStorageFileStatVFS`)",
  },
  storageCreateFile: {
    ...write,
    path: "/hypervisor/files",
    body: StorageCreateFileRequest,
    reply: StorageStat,
    about: "Create a file of a size in kilobytes (`virStorageCreateFile`)",
  },
  storageListGroups: {
    ...read,
    path: "/hypervisor/groups",
    query: {},
    reply: v.array(StorageGroup),
    about: "The services as storage groups, sizes in kilobytes (`virStorageListGroups`)",
  },
  storageCreateVolume: {
    ...write,
    path: "/hypervisor/groups/:service",
    body: StorageCreateVolumeRequest,
    reply: StorageVolumeName,
    about: "Create a volume of a size in kilobytes (`virStorageCreateVolume`)",
  },
} as const;
