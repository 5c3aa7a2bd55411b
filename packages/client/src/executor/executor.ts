/** What only this host knows of a driver's volumes. An ability that a driver lacks is left out. */
import type { Fields, InstanceID, LocalDevices, ScopedConfig } from "@libstorage/model";
import type { Exec } from "./exec.js";

export type Scan = "quick" | "deep";

/** How this host reaches a volume: the server's attachment, as far as a host needs it. */
export interface Attached {
  readonly volumeID: string;
  /** The name under which this host sees the volume. */
  readonly device: string;
  /** Those of the attachment: empty when the holder is the server's own host, else the exporter and its door. */
  readonly fields: Fields;
}

export interface Limits {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** The file system that a blank volume gets. */
export interface WantedFileSystem {
  readonly type: string;
  /** Whether somebody asked for it, so that another one on the volume is refused. */
  readonly isAsked: boolean;
  /**
   * Called before it is made on a device that has proven blank, and when it is made. What is on the device between
   * is nothing, and after a failure remains so: see `clearRemains`.
   */
  readonly formatting?: (isBegun: boolean) => Promise<unknown>;
}

export interface MountRequest {
  /** The volume that must be there: nothing is mounted on a guess. Only `lsx` does not know it. */
  readonly volumeID?: string;
  /** The name under which this host sees the volume. */
  readonly device: string;
  /** Those of the attachment. */
  readonly fields?: Fields;
  readonly mountPoint: string;
  /** As for mount(8) `-o`. */
  readonly options?: string;
  /** Left out: nothing is formatted. */
  readonly fileSystem?: WantedFileSystem;
  readonly signal: AbortSignal;
}

export interface UnmountRequest {
  readonly mountPoint: string;
  /** What must be mounted there; something else is left alone. Only `lsx` does not know it. */
  readonly device?: string;
  readonly fields?: Fields;
  /** What was mounted there, as the kernel's table had it; known even when the device is gone. */
  readonly source?: MountSource;
  /** Whether the folder goes as well, if it is empty. One that was there before the mount stays. */
  readonly removeFolder: boolean;
  readonly signal: AbortSignal;
}

/** A mount as the kernel's table names it. Numbers and paths are of one start of the host. */
export interface MountSource {
  readonly source: string;
  readonly major: number;
  readonly minor: number;
}

export interface Mounted {
  /** With every link in its parents resolved. */
  readonly mountPoint: string;
  /** `mount`: a real mount. `link`: a symbolic link, which is all that a user who is not root can make. `folder`: nothing but a folder. */
  readonly kind: "mount" | "link" | "folder";
  /** Whether it stood there before. */
  readonly wasThere: boolean;
  /** For volumes whose device may go away under the mount. */
  readonly source?: MountSource;
}

/** One line of `lsx DRIVER mounts`, section 17.1 of the contract. */
export interface MountRecord {
  readonly id: number;
  readonly parent: number;
  readonly major: number;
  readonly minor: number;
  readonly root: string;
  readonly mountPoint: string;
  readonly opts: string;
  readonly optional: string;
  readonly fsType: string;
  readonly source: string;
  readonly vfsOpts: string;
}

export interface Executor {
  readonly driver: string;
  /** With metadata when the server has to work out the id. */
  instanceID(): Promise<InstanceID>;
  /** The id that the server will work out, when this host can tell. */
  likelyID?(): InstanceID;
  /** The next free device name. @throws {StorageError} `resource-exhausted` when there is none */
  nextDevice?(): Promise<string>;
  localDevices(scan: Scan): Promise<LocalDevices>;
  /** Whether `waitForDevice` works with it. */
  readonly waits: boolean;
  /** Whether this host must do something of its own for the volume to appear, and to go. */
  connects?(attached: Attached): boolean;
  /**
   * Makes the volume appear on this host and proves that it is the one. Doing it again changes nothing.
   * @throws {StorageError} with what failed and what to do; `deadline-exceeded`
   */
  connect?(attached: Attached, limits: Limits): Promise<void>;
  /**
   * Takes the volume from this host, and the way to it with the last one. What is not there is fine.
   * @throws {StorageError} `failed-precondition` while it is in use
   */
  disconnect?(attached: Attached, limits: Limits): Promise<void>;
  /**
   * Makes a new size known to this host and, where the volume is mounted, to its file system.
   * @returns what was done, in words; empty when there was nothing to do
   */
  expand?(attached: Attached, mountPoint: string | undefined, limits: Limits): Promise<string>;
  /** @throws {StorageError} `failed-precondition` when something else is in the way, by name */
  mount?(request: MountRequest): Promise<Mounted>;
  /** What is not mounted is fine. @throws {StorageError} `failed-precondition`, `deadline-exceeded` */
  unmount?(request: UnmountRequest): Promise<void>;
  mounts?(): Promise<readonly MountRecord[]>;
  /** Whether `device` is what stands at `mountPoint` now. */
  isMounted?(device: string, mountPoint: string, source?: MountSource): Promise<boolean>;
  /** Every mount point at which the device stands. */
  mountPointsOf?(device: string): Promise<readonly string[]>;
}

export interface ExecutorContext {
  /** Where an executor looks up its own keys. */
  readonly config: ScopedConfig;
  /** The folder of this host's state, `<lib>`. */
  readonly libFolder: string;
  readonly hostName: string;
  readonly isRoot: boolean;
  readonly exec: Exec;
  /** Takes what somebody should know though it is no error. Default: nobody hears it. */
  readonly warn?: (text: string) => void;
  /** For tests: where the kernel shows its devices, and open-iscsi keeps its records. */
  readonly places?: Partial<Places>;
}

/** Folders of the host. */
export interface Places {
  readonly sys: string;
  readonly dev: string;
  /** Of open-iscsi: Debian's, others' and older ones'. */
  readonly iscsi: readonly string[];
}

export const PLACES: Places = {
  sys: "/sys",
  dev: "/dev",
  iscsi: ["/etc/iscsi", "/var/lib/iscsi"],
};

export function placesOf({ places }: ExecutorContext): Places {
  return { ...PLACES, ...places };
}

/** The bits of `lsx DRIVER supported`. */
export const SUPPORTED = {
  instanceID: 1,
  nextDevice: 2,
  localDevices: 4,
  wait: 8,
  mount: 16,
  unmount: 32,
  mounts: 64,
} as const;

export function supportedMask(executor: Executor): number {
  return (
    SUPPORTED.instanceID +
    SUPPORTED.localDevices +
    (executor.nextDevice === undefined ? 0 : SUPPORTED.nextDevice) +
    (executor.waits ? SUPPORTED.wait : 0) +
    (executor.mount === undefined ? 0 : SUPPORTED.mount) +
    (executor.unmount === undefined ? 0 : SUPPORTED.unmount) +
    (executor.mounts === undefined ? 0 : SUPPORTED.mounts)
  );
}
