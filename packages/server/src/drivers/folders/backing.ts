/**
 * What differs between the drivers whose volumes are folders: how data come and go, and what limits their
 * size. Everything else, from the records to the proof of a cut, is FolderDriver's.
 */
import type { Stats } from "node:fs";
import type { ContentFormat } from "@libstorage/model";
import type {
  Ability,
  ContentDoor,
  ContentIn,
  ContentWish,
  OpContext,
  VolumeRecord,
} from "../../core/driver.js";

/** What a new data folder will hold. */
export interface Purpose {
  readonly what: "volume" | "snapshot";
  /** What its size is limited to; 0 is no limit, as for snapshots. */
  readonly sizeBytes: number;
  /** As `projectIDOf` answered. */
  readonly projectID: number | undefined;
}

/** Data folders as streams of bytes. @throws {StorageError} */
export interface FolderStreams {
  readonly formats: readonly ContentFormat[];
  readonly canReadHeld: boolean;
  send(
    path: string,
    what: Purpose["what"],
    wish: ContentWish,
    open: ContentDoor,
    context: OpContext,
  ): Promise<void>;
  /** Makes `to`, where nothing is, of what comes. What is left of it after a failure is discarded by the caller. */
  receive(to: string, purpose: Purpose, content: ContentIn, context: OpContext): Promise<void>;
  /** Contents that increments can build on, by their ids. */
  kept?(): readonly string[];
  /** Called when a volume that was made of such a content is gone, and no other needs it. */
  release?(contentID: string, context: OpContext): Promise<void>;
}

/** Volumes as they stand at a moment. */
export interface IdleVolumes {
  /** Without those that are being changed, whose records may not say yet what they are. */
  readonly volumes: readonly VolumeRecord[];
  readonly areAll: boolean;
}

/** Each method may be called again after it was cut short. @throws {StorageError} */
export interface Backing {
  /**
   * Whether `copy` and `discard` are single steps, without half states: then data get their own name at once,
   * and each is on the disk when it answers, with its name and every change made before it. Only a limit that
   * `copy` sets takes a sync of the folder.
   */
  readonly isAtomic: boolean;
  /** Makes an empty data folder. What may be there is empty, and of an earlier try. */
  make(path: string, purpose: Purpose, context: OpContext): Promise<void>;
  /**
   * Makes `to`, where nothing is, with the content of `from`. It is on its disk when this answers; its name
   * need not be.
   */
  copy(from: string, to: string, purpose: Purpose, context: OpContext): Promise<void>;
  /** Removes a data folder, or what someone has put in its place; what is not there is fine. */
  discard(path: string, context: OpContext): Promise<void>;
  /** Limits the folder of a volume that is there to its new size. @returns the project that limits it */
  limit(
    path: string,
    volume: VolumeRecord,
    projectID: number | undefined,
    context: OpContext,
  ): Promise<number | undefined>;
  /** The project that limits a new volume, noted in its record; left out where limits need no number. */
  projectIDOf?(volume: Pick<VolumeRecord, "id" | "sizeBytes">): number | undefined;
  /** Paths below the root, beside those of volumes and snapshots, that a copy was cut short at. */
  leftovers?(volumes: readonly VolumeRecord[]): readonly string[];
  /** Called when a volume is gone. @param projectID as its record had it */
  forget?(id: string, projectID: number | undefined, context: OpContext): Promise<void>;
  /** Why a folder is no data of this driver. @param stats of the folder itself */
  flawOf?(path: string, stats: Stats, what: Purpose["what"]): string | undefined;
  readonly streams?: FolderStreams;
  /** Told once, before anything else, how to get the volumes that nobody works at. */
  useVolumes?(idle: () => Promise<IdleVolumes>): void;
  /** Called with what a list found: from the first one on nobody else works below the root. Must not fail. */
  listed?(volumes: readonly VolumeRecord[]): Promise<void>;
  abilities(context: OpContext): Promise<readonly Ability[]>;
  close?(): Promise<void>;
}
