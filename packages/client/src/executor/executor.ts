/** What only this host knows of a driver's volumes. An ability that a driver lacks is left out. */
import type { InstanceID, LocalDevices, ScopedConfig } from "@libstorage/model";
import type { Exec } from "./exec.js";

export type Scan = "quick" | "deep";

export interface MountRequest {
  /** The volume that must be there: nothing is mounted on a guess. Only `lsx` does not know it. */
  readonly volumeID?: string;
  /** The name under which this host sees the volume. */
  readonly device: string;
  readonly mountPoint: string;
  /** As for mount(8) `-o`. */
  readonly options?: string;
  readonly signal: AbortSignal;
}

export interface UnmountRequest {
  readonly mountPoint: string;
  /** What must be mounted there; something else is left alone. Only `lsx` does not know it. */
  readonly device?: string;
  /** Whether the folder goes as well, if it is empty. One that was there before the mount stays. */
  readonly removeFolder: boolean;
  readonly signal: AbortSignal;
}

export interface Mounted {
  /** With every link in its parents resolved. */
  readonly mountPoint: string;
  /** `mount`: a real mount. `link`: a symbolic link, which is all that a user who is not root can make. `folder`: nothing but a folder. */
  readonly kind: "mount" | "link" | "folder";
  /** Whether it stood there before. */
  readonly wasThere: boolean;
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
  /** @throws {StorageError} `failed-precondition` when something else is in the way, by name */
  mount?(request: MountRequest): Promise<Mounted>;
  /** What is not mounted is fine. @throws {StorageError} `failed-precondition`, `deadline-exceeded` */
  unmount?(request: UnmountRequest): Promise<void>;
  mounts?(): Promise<readonly MountRecord[]>;
  /** Whether `device` is what stands at `mountPoint` now. */
  isMounted?(device: string, mountPoint: string): Promise<boolean>;
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
