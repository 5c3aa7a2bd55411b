/** What is asked of a mount and an unmount, and what comes of it. */
import type { Mounted } from "../executor/executor.js";
import type { Holder } from "../executor/holders.js";

export interface MountOptions {
  /** Take the volume from another host. Default: the setting `mount.preempt`. */
  readonly preempt?: boolean;
  /** Default: `mount.path`/NAME. */
  readonly mountPoint?: string;
  /** For mount(8). Default: the volume's own, from its field `mountoptions`. */
  readonly mountOptions?: string;
  /** The file system that a blank volume gets. Default: the volume's field `fstype`, then the setting. */
  readonly fsType?: string;
  /** Make a volume that does not exist. Default: the setting `create.implicit`. */
  readonly create?: boolean;
  /** Who uses it. The same one asking again is one use; without a name each mount is one. */
  readonly user?: string;
  /** The id that the name had when it was looked for last: saves looking for it again. */
  readonly likelyID?: string;
}

export interface MountedVolume extends Mounted {
  readonly volumeID: string;
  readonly name: string;
  /** The folder to use: the mount point and `mount.rootPath`. */
  readonly path: string;
  /** How many uses there are, this one included. */
  readonly users: number;
}

export interface UnmountOptions {
  /** Unmount however many uses there are. */
  readonly force?: boolean;
  /** Whose use ends; one that has none is fine. */
  readonly user?: string;
}

export interface Unmounted {
  readonly volumeID: string;
  /** How many uses are left; above 0 nothing was unmounted. */
  readonly users: number;
  /** Processes that see the volume in a mount namespace of their own, because of which it stays. */
  readonly seenBy?: readonly Holder[];
}

/** The field of a volume that says how it is mounted. */
export const MOUNT_OPTIONS = "mountoptions";
