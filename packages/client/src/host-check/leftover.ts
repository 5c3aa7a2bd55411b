/** What a crash, a lost network or a hand has left on this host, and what became of it. */
import type { ExecutorContext } from "../executor/executor.js";

export type LeftoverKind =
  | "unfinished-mount"
  | "record-without-mount"
  | "mount-without-record"
  | "empty-folder"
  | "connection-without-attachment"
  | "attachment-without-connection"
  | "stale-scsi-device"
  | "session-without-volume"
  | "multipath-leftover"
  | "nfs-stale"
  | "nfs-silent"
  | "loop-device"
  | "nbd-leftover"
  | "temporary-file"
  | "lock-file"
  | "broken-record";

/** One thing that should not be there. */
export interface Leftover {
  readonly kind: LeftoverKind;
  /** A path, a device, a session. */
  readonly what: string;
  /** Why it is a leftover, in words. */
  readonly about: string;
  /** Cleans it, and says what was done. Left out when that is not safe: `instead` says why and what to do. */
  readonly fix?: () => Promise<string>;
  readonly instead?: string;
}

export interface Finding {
  readonly kind: LeftoverKind;
  readonly what: string;
  readonly about: string;
  /** `found`: `--fix` would clean it. `fixed`: it has. `left`: it is not touched. */
  readonly state: "found" | "fixed" | "left";
  /** What would be done, was done, or is to be done by hand. */
  readonly next: string;
}

/** What a server says of the volumes that are attached to this host, or why it does not. */
export type Attachments =
  | { readonly known: true; readonly volumeIDs: ReadonlySet<string> }
  | { readonly known: false; readonly why: string };

/** The services of one server as this host has used them. */
export interface KnownService {
  readonly server: string;
  readonly service: string;
}

export interface CheckOptions {
  readonly executors: ExecutorContext;
  /** `mount.path` of the settings. */
  readonly mountPath: string;
  readonly signal: AbortSignal;
  /** Asked at most once for each service. */
  attachments(service: KnownService): Promise<Attachments>;
  /** Gives a volume back as `volume unmount --force` does; undefined for a server that is not the configured one. */
  giveBack(service: KnownService): ((volumeID: string) => Promise<void>) | undefined;
}

/** One kind of look. What an earlier one has cleaned, a later one does not find. */
export type Check = (options: CheckOptions) => Promise<readonly Leftover[]>;
