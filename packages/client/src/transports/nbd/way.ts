/**
 * The seam between the two ways in which a disk that a storage daemon of this host holds becomes a block device:
 * by the kernel's own NBD client over a Unix socket, or as a file by FUSE with a loop device over it.
 */
import { StorageError } from "@libstorage/model";
import type { Deadline } from "../transport.js";
import type { NbdDoor } from "./door.js";
import type { Place } from "./place.js";

/** The words of `nbd.client`. */
export type WayName = "kernel" | "daemon";

export interface Way {
  readonly name: WayName;
  /** @returns why this host cannot go this way, and what would help; undefined: it can */
  missing(deadline: Deadline): Promise<string | undefined>;
  /** What the storage daemon is told to do with the disk. */
  argumentsFor(place: Place, door: NbdDoor): readonly string[];
  /** Whether the daemon of a place shows the disk for this way. Asks nothing that could hang. */
  isOpen(place: Place): Promise<boolean>;
  /** The devices of a place, dead ones too, such as `nbd0`: by what the kernel says of them. */
  devices(place: Place): Promise<readonly string[]>;
  /**
   * Makes the device over what the daemon shows; to be called when there is none.
   * @throws {WayClosed} when this host cannot go this way after all
   */
  up(place: Place, door: NbdDoor, deadline: Deadline): Promise<void>;
  /** Takes a device of a place away, which nobody uses, and proves it. */
  down(device: string, deadline: Deadline): Promise<void>;
  /**
   * Gives a device the size that the export has now.
   * @returns false: it has another one, and it takes a new connection to change that
   */
  grow(place: Place, door: NbdDoor, device: string, deadline: Deadline): Promise<boolean>;
}

/** This host cannot go one way, and may try the other. */
export class WayClosed extends StorageError {}
