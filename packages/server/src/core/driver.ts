/**
 * What a driver is: where bytes live. It knows no protocol, no lock and no host but its own; it can be
 * short because order, locks, undo, recovery, inventory and access are the core's.
 *
 * Two rules make the core's recovery generic:
 * - Ids come from the core. A driver names its objects after them, so that whatever is found later can be
 *   matched to the operation that made it.
 * - Every method may be called again, and tolerates half states. Removing what is half there, or not
 *   there, succeeds. Attaching what is attached changes nothing.
 */
import type * as v from "valibot";
import type { Readable, Writable } from "node:stream";
import type {
  ContentAbout,
  ContentFormat,
  DriverType,
  Instance,
  InstanceID,
  MutableName,
  NextDeviceInfo,
  VolumeExtent,
} from "@libstorage/model";
import type { Exec } from "./exec.js";
import type { Files } from "./files.js";
import type { LiveImage } from "./live-image.js";
import type { Logger } from "./log.js";

/** Where a volume's bytes are, for an exporter or for a client on the same host. */
export type Source =
  | { readonly kind: "directory"; readonly path: string }
  | { readonly kind: "block"; readonly path: string }
  | { readonly kind: "file"; readonly path: string; readonly format: string }
  | { readonly kind: "none" };

/** One holder of a volume. */
export interface AttachmentRecord {
  readonly instanceID: InstanceID;
  /** The name under which the holder sees the volume; empty when it has none. */
  readonly deviceName: string;
  readonly mountPoint?: string;
  readonly status: string;
  readonly fields?: Readonly<Record<string, string>>;
  /** The volume's epoch when this holder was let in. */
  readonly epoch: number;
  /** Milliseconds since 1970; 0 when not known (a record of the reference). */
  readonly since: number;
}

/** A volume as its backend holds it. Records are never changed in place: a change makes a new one. */
export interface VolumeRecord {
  readonly id: string;
  readonly name: string;
  /** 0: without limit. */
  readonly sizeBytes: number;
  readonly type: string;
  readonly availabilityZone: string;
  readonly iops: number;
  readonly encrypted: boolean;
  readonly networkName?: string;
  readonly status?: string;
  readonly fields: Readonly<Record<string, string>>;
  readonly attachments: readonly AttachmentRecord[];
  /** Grows with every holder that is let in; never falls. */
  readonly epoch: number;
  readonly source: Source;
  /** Set when the backend's record or data cannot be used: why. Such a volume is shown and left alone. */
  readonly broken?: string;
}

export interface SnapshotRecord {
  readonly id: string;
  readonly name: string;
  readonly volumeID: string;
  readonly sizeBytes: number;
  readonly description?: string;
  readonly encrypted: boolean;
  /** Milliseconds since 1970. */
  readonly startTime: number;
  /** What the volume was at that moment, for volumes made from the snapshot; unknown for the reference's. */
  readonly origin?: Pick<VolumeRecord, "type" | "availabilityZone" | "iops">;
  readonly status: string;
  readonly fields: Readonly<Record<string, string>>;
  readonly source: Source;
  readonly broken?: string;
}

export interface Listing {
  readonly volumes: readonly VolumeRecord[];
  readonly snapshots: readonly SnapshotRecord[];
}

/** What may change of a volume's record while it is in use. */
export type VolumeChange = Partial<Pick<VolumeRecord, "name" | "type" | "iops" | "fields">>;

/** What changed behind the core's back; without ids: anything may have. */
export interface Change {
  readonly volumeIDs?: readonly string[];
  readonly snapshotIDs?: readonly string[];
}

/** What one operation works with: its doors note what passes them under the operation's transaction. */
export interface OpContext {
  readonly signal: AbortSignal;
  readonly exec: Exec;
  readonly files: Files;
  readonly log: Logger;
  /** Tells how far the work is, for the task. */
  readonly progress: (done: number, total: number, unit: "bytes" | "files" | "steps") => void;
}

/** What a look at the structure of an image found. */
export interface ImageCheck {
  /** `leaks` waste space and nothing else; `corrupt` is for a person to judge. */
  readonly status: "clean" | "leaks" | "corrupt" | "unsupported";
  readonly corruptions: number;
  readonly leaks: number;
  readonly fixed: number;
}

/** What a file would take for the content of an image. */
export interface ImageSize {
  readonly requiredBytes: number;
  /** Once every part of it has been written. */
  readonly fullBytes: number;
}

/** Work on volumes that are images. */
export interface ImageAbilities {
  /** @param repair mends leaks; nothing that is corrupt is touched */
  check(volume: VolumeRecord, repair: boolean, context: OpContext): Promise<ImageCheck>;
  measure(volume: VolumeRecord, format: string, context: OpContext): Promise<ImageSize>;
  /** Writes the image anew. What there was stays until the new one is whole. */
  convert(volume: VolumeRecord, format: string, context: OpContext): Promise<VolumeRecord>;
  /** @throws {StorageError} `failed-precondition` for data behind the new end that may not be discarded */
  shrink(
    volume: VolumeRecord,
    sizeBytes: number,
    discardData: boolean,
    context: OpContext,
  ): Promise<VolumeRecord>;
}

/** Content as a reader wants it. */
export interface ContentWish {
  /** One of these; any when there are none. */
  readonly formats: readonly ContentFormat[];
  /** Contents that the reader has, by their ids: an increment of one of them will do. */
  readonly have: readonly string[];
}

/** Content for a new volume. */
export interface ContentIn {
  readonly format: ContentFormat;
  /** To be read to its end, where it fails when it is not whole or not what it should be. */
  readonly bytes: Readable;
  /** Whether the volume's size was asked for; otherwise it is as large as the content makes it. */
  readonly isSizeGiven: boolean;
  /** What this content is called, so that increments can build on it; without it none will. */
  readonly contentID?: string;
  /** What it builds on. */
  readonly parentID?: string;
}

/** Called once, before the first byte: until then a failure is one of the whole request. */
export type ContentDoor = (about: ContentAbout) => Writable;

/** Content as a stream. */
export interface ContentAbilities {
  /** Those that it gives and takes. */
  readonly formats: readonly ContentFormat[];
  /** Whether the content of a volume that somebody writes is that of one moment all the same. */
  readonly canReadHeld: boolean;
  volumeContent(
    volume: VolumeRecord,
    wish: ContentWish,
    open: ContentDoor,
    context: OpContext,
  ): Promise<void>;
  snapshotContent(
    snapshot: SnapshotRecord,
    wish: ContentWish,
    open: ContentDoor,
    context: OpContext,
  ): Promise<void>;
  /** Contents that increments can build on, by their ids. */
  kept?(): readonly string[];
  /** Nothing of the volume may stay when the content turns out not to be whole. */
  volumeCreateFrom(
    volume: VolumeRecord,
    content: ContentIn,
    context: OpContext,
  ): Promise<VolumeRecord>;
}

/** Where volumes and snapshots have data, and where they differ from earlier snapshots. */
export interface ChangeAbilities {
  /** @param since of the same volume; without it all that has data */
  volumeChanges(
    volume: VolumeRecord,
    since: SnapshotRecord | undefined,
    context: OpContext,
  ): AsyncIterable<VolumeExtent>;
  snapshotChanges(
    snapshot: SnapshotRecord,
    since: SnapshotRecord | undefined,
    context: OpContext,
  ): AsyncIterable<VolumeExtent>;
}

/** How ids are made. The core counts; numbers are never given twice within one journal. */
export interface IdScheme {
  volumeID(number: number): string;
  snapshotID(number: number, volumeID: string): string;
  /** The number in an id of this driver, or undefined for one that is named otherwise. */
  numberOfVolume(id: string): number | undefined;
  numberOfSnapshot(id: string): number | undefined;
  /** The first number for an empty service. */
  readonly first: number;
  /** Brings an id from a request into the form in which it is kept; left out when ids are exact. */
  normalize?(id: string): string;
}

/**
 * The image of a volume that an exporter has open; undefined when none does that would stand in the way.
 * @param isLocked whether the caller has the volume's lock, so that nobody takes its exports away meanwhile: then they
 * are served again first, should they just be lost. Otherwise an image that is not open now is not opened
 */
export type LiveImages = (
  volume: VolumeRecord,
  isLocked: boolean,
  context: OpContext,
) => Promise<LiveImage | undefined>;

/** What a driver can do on this host, for `--check`. */
export interface Ability {
  readonly name: string;
  readonly available: boolean;
  readonly detail: string;
}

/**
 * A mutating method gets the record as the core means it to be and answers the record as it then stands
 * in the backend. It is durable when it answers. @throws {StorageError}
 */
export interface StorageDriver {
  readonly type: DriverType;
  readonly nextDevice: NextDeviceInfo;
  /** The core rounds every size up to a multiple of this. */
  readonly allocationUnitBytes: number;
  /** For a request that names no size. */
  readonly defaultSizeBytes: number;
  readonly ids: IdScheme;
  /** Whether its sources exist on this host only: another gets them through an exporter, or not at all. */
  readonly isHostBound?: boolean;
  /** Folders that no other server may work in; the core locks them before the first listing. */
  readonly ownFolders?: readonly string[];

  /** Told once, before any other call; left out when exporters never stand in its way. */
  useLive?(live: LiveImages): void;

  /** Everything there is, in as few calls as the backend allows. Never fails for one bad record. */
  list(context: OpContext): Promise<Listing>;
  /** One volume as it stands now, or undefined when there is none. */
  volumeInspect(id: string, context: OpContext): Promise<VolumeRecord | undefined>;
  snapshotInspect(id: string, context: OpContext): Promise<SnapshotRecord | undefined>;
  /** Calls back when something changed that this server did not change. Answers how to stop. */
  watch?(onChange: (change: Change) => void): () => void;

  volumeCreate(volume: VolumeRecord, context: OpContext): Promise<VolumeRecord>;
  /** @throws {StorageError} `failed-precondition`, naming what on this host uses a volume that nobody holds */
  volumeCheckUnused?(id: string): void;
  /**
   * Removes data and record, whatever is left of them.
   * @param isUnused `volumeCheckUnused` has just passed; otherwise it is checked here
   */
  volumeRemove(id: string, context: OpContext, isUnused?: boolean): Promise<void>;
  /** What of a volume `volumeUpdate` can change while the volume is in use, and truly does. */
  readonly mutable: readonly MutableName[];
  /** Fields that were options of its making: what they say is done, and another word changes nothing. */
  readonly fixedFields?: readonly string[];
  /** Writes name, fields, status and the like; never touches data. */
  volumeUpdate(volume: VolumeRecord, context: OpContext): Promise<VolumeRecord>;
  /**
   * Lets a holder in. `attachment.deviceName` is what the client asked for and may be empty; the
   * answered record holds the attachment with the name that counts. For a holder that comes through an
   * exporter (`exporterOf`) the name and fields are chosen already and kept as they are.
   * A wrong name here overwrites someone's disk.
   */
  volumeAttach(
    volume: VolumeRecord,
    attachment: AttachmentRecord,
    context: OpContext,
  ): Promise<VolumeRecord>;
  /**
   * Cuts a holder off and takes it out of the record. With `force` the holder does not cooperate.
   * @throws {StorageError} `failed-precondition` when the cut cannot be proven: say what holds it
   */
  volumeDetach(
    volume: VolumeRecord,
    holder: InstanceID,
    force: boolean,
    context: OpContext,
  ): Promise<VolumeRecord>;

  /** Left out when the backend cannot; the core then answers `unimplemented`. */
  volumeCopy?(
    source: VolumeRecord,
    volume: VolumeRecord,
    context: OpContext,
  ): Promise<VolumeRecord>;
  /**
   * Makes a copy of a volume of another service that has the same driver.
   * @param source as that service's driver answered it a moment ago; it is locked meanwhile
   */
  volumeCopyFrom?(
    source: VolumeRecord,
    volume: VolumeRecord,
    context: OpContext,
  ): Promise<VolumeRecord>;
  volumeExpand?(volume: VolumeRecord, sizeBytes: number, context: OpContext): Promise<VolumeRecord>;
  /**
   * Left out when volumes cannot go back to a snapshot. A revert keeps every snapshot, and whenever it is cut
   * short, the volume's data are to be had whole: as they were, or as the snapshot has them.
   */
  readonly reverts?: {
    /**
     * Nobody holds the volume.
     * @param volume as it shall be then; at least as large as the snapshot
     */
    volumeRevert(
      volume: VolumeRecord,
      snapshot: SnapshotRecord,
      context: OpContext,
    ): Promise<VolumeRecord>;
    /** Ends what a revert that was cut short has left, one way or the other. Fine when there is nothing. */
    volumeRevertSettle(id: string, context: OpContext): Promise<void>;
  };
  /** Left out when volumes are no images. */
  readonly images?: ImageAbilities;
  /** Left out when content cannot be carried as a stream. */
  readonly content?: ContentAbilities;
  /** Left out when it cannot tell what has changed. */
  readonly changes?: ChangeAbilities;
  readonly snapshots?: {
    snapshotCreate(
      source: VolumeRecord,
      snapshot: SnapshotRecord,
      context: OpContext,
    ): Promise<SnapshotRecord>;
    snapshotRemove(id: string, context: OpContext): Promise<void>;
    snapshotCopy?(
      source: SnapshotRecord,
      snapshot: SnapshotRecord,
      context: OpContext,
    ): Promise<SnapshotRecord>;
    volumeCreateFromSnapshot(
      source: SnapshotRecord,
      volume: VolumeRecord,
      context: OpContext,
    ): Promise<VolumeRecord>;
  };

  /** Works out the real instance ID from what the client's executor sent. */
  instanceInspect(id: InstanceID): Instance;
  /** The token a client waits for after attach: a key of its local devices, in lower case; may be empty. */
  attachToken(attachment: AttachmentRecord): string;
  abilities(context: OpContext): Promise<readonly Ability[]>;
  /** Free and total bytes of the backend, when it can tell. */
  capacity?(
    context: OpContext,
  ): Promise<{ readonly freeBytes: number; readonly totalBytes: number }>;
  close(): Promise<void>;
}

/** What a driver is opened with. */
export interface DriverContext extends OpContext {
  /** The service's name. */
  readonly service: string;
  /** A folder of this server for what is not in the backend; made on demand. */
  readonly libFolder: string;
}

export interface DriverModule {
  readonly name: string;
  /** The driver's own keys, for checking and for the documentation. */
  readonly config: v.GenericSchema;
  /** Opens the driver with its checked block of configuration. */
  open(config: unknown, context: DriverContext): Promise<StorageDriver>;
}

/** Hides the type of a driver's configuration, so that all drivers fit one table. */
export function defineDriver<S extends v.GenericSchema>(spec: {
  readonly name: string;
  readonly config: S;
  open(config: v.InferOutput<S>, context: DriverContext): Promise<StorageDriver>;
}): DriverModule {
  return { ...spec, open: (config, context) => spec.open(config as v.InferOutput<S>, context) };
}
